//! Names of containers.

use anyhow::{Context as _, Result, bail};

use crate::run::identity::random_id;

/// The longest name; more is no file's name.
const MAX_LEN: usize = 200;

const ADJECTIVES: [&str; 64] = [
    "able", "amber", "ample", "azure", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "cosy",
    "crisp", "daring", "deft", "eager", "early", "easy", "fair", "fine", "firm", "fond", "frank", "free", "fresh",
    "gentle", "glad", "golden", "good", "grand", "green", "happy", "hardy", "honest", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat", "noble", "patient", "plain", "proud",
    "quick", "quiet", "rapid", "ready", "silent", "silver", "sound", "steady", "sunny", "swift", "tidy", "warm",
    "wise", "witty",
];

/// Mushrooms and birds have lamellae, or feathers.
const NOUNS: [&str; 64] = [
    "agaric",
    "avocet",
    "bittern",
    "blewit",
    "bolete",
    "bunting",
    "buzzard",
    "chough",
    "condor",
    "coot",
    "crane",
    "curlew",
    "deceiver",
    "dipper",
    "dotterel",
    "dunlin",
    "egret",
    "eider",
    "falcon",
    "finch",
    "fulmar",
    "gannet",
    "godwit",
    "goshawk",
    "grebe",
    "harrier",
    "heron",
    "hobby",
    "hoopoe",
    "ibis",
    "inkcap",
    "jackdaw",
    "kestrel",
    "kittiwake",
    "knot",
    "lapwing",
    "lark",
    "linnet",
    "magpie",
    "martin",
    "merlin",
    "milkcap",
    "osprey",
    "ouzel",
    "parasol",
    "petrel",
    "pipit",
    "plover",
    "puffin",
    "quail",
    "raven",
    "redstart",
    "rook",
    "russula",
    "siskin",
    "snipe",
    "starling",
    "stork",
    "swallow",
    "swift",
    "tern",
    "thrush",
    "wren",
    "yaffle",
];

/// Whether a text can be a name: as docker has it, or a single character.
pub(crate) fn is_valid(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner) && name.len() <= MAX_LEN
}

/// Refuses what cannot be a name.
pub(crate) fn check(name: &str) -> Result<()> {
    if !is_valid(name) {
        bail!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed, and {MAX_LEN} of them");
    }
    Ok(())
}

/// A name that `is_free`.
pub(crate) fn make_up(is_free: impl Fn(&str) -> Result<bool>) -> Result<String> {
    for round in 0..1000 {
        let random = random_id()?;
        let number = |at: usize| random.get(at..at + 4).and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let (adjective, noun) = number(0).zip(number(4)).context("no random number")?;
        let mut name = format!("{}_{}", ADJECTIVES[adjective % ADJECTIVES.len()], NOUNS[noun % NOUNS.len()]);
        if round > 3 {
            name.push_str(random.get(8..12).unwrap_or_default());
        }
        if is_free(&name)? {
            return Ok(name);
        }
    }
    bail!("no name is free: give one by --name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for name in ["a", "web-1", "A.b_c", &"x".repeat(MAX_LEN)] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "a\n", &"x".repeat(MAX_LEN + 1)] {
            assert!(!is_valid(name), "{name}");
        }
        assert!(ADJECTIVES.iter().chain(&NOUNS).all(|word| is_valid(word)));
        let name = make_up(|name| Ok(name.chars().filter(|c| *c == '_').count() == 1)).unwrap();
        assert!(is_valid(&name));
        let longer = make_up(|name| Ok(name.ends_with(|c: char| c.is_ascii_hexdigit()) && name.len() > 9)).unwrap();
        assert!(is_valid(&longer));
        assert!(make_up(|_| Ok(false)).is_err());
    }
}
