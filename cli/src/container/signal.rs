//! Signals by name or number.

use anyhow::{Result, bail};

/// The highest number, SIGRTMAX.
const MOST: i32 = 64;

/// The names, by number from 1 on, as kill(1) prints them on the machines that lamel is built for.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// Where real-time signals begin for programs, and where they end.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let from = |start: i32, rest: &str| match rest {
        "" => Some(start),
        rest => rest.parse::<i32>().ok().and_then(|more| start.checked_add(more)),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => from(RTMIN, rest).filter(|number| (RTMIN..=RTMAX).contains(number)),
        (_, Some(rest)) => from(RTMAX, rest).filter(|number| (RTMIN..=RTMAX).contains(number)),
        _ => match name {
            "IOT" => Some(6),
            "CLD" => Some(17),
            "POLL" => Some(29),
            name => (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number),
        },
    };
    match number.or_else(|| text.parse().ok()).filter(|number| (1..=MOST).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("Invalid signal: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sigusr1", 10),
            ("15", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("64", 64),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "-9", "NOTHING", "SIG", "RTMIN+31", "RTMIN-1", "TERM "] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (number, name) in (1..).zip(NAMES).filter(|(_, name)| *name != "STKFLT") {
            let known = rustix::process::Signal::from_named_raw(number);
            assert!(known.is_some(), "{name}");
        }
    }
}
