//! The helper of mount(8): `mount -t fuse.lamel SOURCE MOUNTPOINT -o …`.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::Options;
use lamel_unionfs::options::Dialect;

use crate::launch::{complain, launch};
use crate::log::LogArgs;

/// mount(8): incorrect invocation.
const EXIT_USAGE: u8 = 1;
/// mount(8): mount failure.
const EXIT_MOUNT: u8 = 32;

/// A mount as mount(8) asks for it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Invocation {
    source: OsString,
    mountpoint: PathBuf,
    options: Vec<OsString>,
    /// `-s`: pass over unknown options.
    sloppy: bool,
    /// `-f`: do everything but mount.
    fake: bool,
    /// `-v`
    verbose: bool,
}

/// Runs the helper; `args` are without the program's name.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let (code, error) = match parse(args).and_then(|found| Ok((options(&found)?, found))) {
        Ok((options, found)) => match mount(options, &found) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (EXIT_MOUNT, error),
        },
        Err(error) => (EXIT_USAGE, error),
    };
    complain("mount.fuse.lamel", &error);
    ExitCode::from(code)
}

fn parse(args: Vec<OsString>) -> Result<Invocation> {
    let mut found = Invocation::default();
    let mut positionals = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(letters) = arg.as_bytes().strip_prefix(b"-") else {
            positionals.push(arg);
            continue;
        };
        for (at, letter) in letters.iter().enumerate() {
            let mut value = || match &letters[at + 1..] {
                b"" => args.next().with_context(|| format!("{} needs a value", arg.display())),
                rest => Ok(OsStr::from_bytes(rest).to_owned()),
            };
            match letter {
                b's' => found.sloppy = true,
                b'f' => found.fake = true,
                b'v' => found.verbose = true,
                // No table of mounts is written.
                b'n' => {}
                b'o' => {
                    found.options.push(value()?);
                    break;
                }
                // The type is known, and the mount namespace is the caller's.
                b't' | b'N' => {
                    value()?;
                    break;
                }
                _ => bail!(
                    "unknown flag {}; usage: mount.fuse.lamel SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]",
                    arg.display()
                ),
            }
        }
    }
    match <[OsString; 2]>::try_from(positionals) {
        Ok([source, mountpoint]) => Ok(Invocation { source, mountpoint: mountpoint.into(), ..found }),
        Err(_) => bail!("usage: mount.fuse.lamel SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]"),
    }
}

fn options(found: &Invocation) -> Result<Options> {
    let mut options = Options::new(&found.mountpoint);
    options.flags.allow_other = rustix::process::geteuid().is_root();
    // The source is what the table of mounts will show.
    let source = found.source.to_str().filter(|source| !source.is_empty() && !source.contains([',', '\\', '"']));
    if let Some(source) = source {
        options.flags.fsname = source.to_owned();
    }
    let dialect = if found.sloppy { Dialect::Sloppy } else { Dialect::Overlay };
    for text in &found.options {
        for warning in options.parse(dialect, text)? {
            if found.verbose {
                writeln!(std::io::stderr(), "mount.fuse.lamel: {warning}").ok();
            }
        }
    }
    Ok(options)
}

fn mount(options: Options, found: &Invocation) -> Result<()> {
    if found.fake {
        return Ok(());
    }
    launch(options, false, &LogArgs::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Invocation> {
        parse(text.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_flags_of_mount() {
        let found = parsed("src /m -sv -o rw,lowerdir=/a -t fuse.lamel -n -orw").unwrap();
        assert!(found.sloppy && found.verbose && !found.fake);
        assert_eq!((found.source.as_os_str(), found.mountpoint.as_path()), ("src".as_ref(), "/m".as_ref()));
        assert_eq!(found.options, ["rw,lowerdir=/a", "rw"].map(OsString::from));
        assert!(parsed("src /m -f").unwrap().fake);
        for bad in ["src", "src /m extra", "src /m -x", "src /m -o"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_source_is_shown() {
        let found = parsed("src /m -s -o foo,lowerdir=/a").unwrap();
        assert_eq!(options(&found).unwrap().flags.fsname, "src");
        let strict = Invocation { sloppy: false, ..found };
        assert!(options(&strict).is_err());
    }
}
