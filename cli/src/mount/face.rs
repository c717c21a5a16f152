//! fuse-overlayfs's command line: `fuse-overlayfs [SOURCE] MOUNTPOINT -o OPTIONS`.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::Options;
use lamel_unionfs::options::{Dialect, Io};

use crate::launch::{complain, launch};
use crate::log::LogArgs;

/// The version of fuse-overlayfs whose options and habits these are; its callers compare it.
const VERSION: &str = concat!("fuse-overlayfs: version 1.14-lamel-", env!("CARGO_PKG_VERSION"));

const HELP: &str = "\
usage: fuse-overlayfs [-f] [-d] [-o OPTIONS]... [SOURCE] MOUNTPOINT

  -o OPTIONS   lowerdir=TOP:…:BOTTOM,upperdir=DIR,workdir=DIR and more; unknown ones are ignored with a warning
               redirect_dir and metacopy are off unless turned on
  -f           stay in the foreground
  -d, --debug  the same, and log everything
  -V, --version
  -h, --help
";

/// Set by callers that want deletions as `.wh.` files.
const NO_DEVICES_VARIABLE: &str = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT";
/// Set by callers that want no passthrough.
const NO_PASSTHROUGH_VARIABLE: &str = "FUSE_OVERLAYFS_NO_PASSTHROUGH";
/// Names a file for the log.
const DEBUG_LOG_VARIABLE: &str = "FUSE_OVERLAYFS_DEBUG_LOG";

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Version,
    Help,
    Mount(Invocation),
}

/// A mount as it stands on the command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Invocation {
    options: Vec<OsString>,
    mountpoint: PathBuf,
    foreground: bool,
    debug: bool,
    single_threaded: bool,
    ignored: Vec<OsString>,
}

/// Runs the face; `args` are without the program's name.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    match parse(args).and_then(perform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("fuse-overlayfs", &error);
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Request> {
    let mut found = Invocation::default();
    let mut positionals = Vec::new();
    let mut args = args.into_iter();
    let mut only_positionals = false;
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if only_positionals || !bytes.starts_with(b"-") || bytes == b"-" {
            positionals.push(arg);
            continue;
        }
        match bytes {
            b"--" => only_positionals = true,
            b"-o" => found.options.push(args.next().context("-o needs options after it")?),
            b"-f" => found.foreground = true,
            b"-s" => found.single_threaded = true,
            b"-d" | b"--debug" => {
                found.foreground = true;
                found.debug = true;
            }
            b"-V" | b"--version" => return Ok(Request::Version),
            b"-h" | b"--help" => return Ok(Request::Help),
            _ => match bytes.strip_prefix(b"-o") {
                Some(options) => found.options.push(OsString::from_vec(options.to_vec())),
                None => found.ignored.push(arg),
            },
        }
    }
    // mount(8) and containerd put a source before it, which says nothing.
    found.mountpoint = positionals.pop().context("no mountpoint given; see --help")?.into();
    Ok(Request::Mount(found))
}

fn perform(request: Request) -> Result<()> {
    let mut out = std::io::stdout();
    match request {
        Request::Version => Ok(writeln!(out, "{VERSION}\nlamel {}", env!("CARGO_PKG_VERSION"))?),
        Request::Help => Ok(out.write_all(HELP.as_bytes())?),
        Request::Mount(invocation) => mount(invocation),
    }
}

fn mount(found: Invocation) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let mut options = Options::fuse_overlayfs(found.mountpoint, root);
    options.device_whiteouts = std::env::var_os(NO_DEVICES_VARIABLE).is_none();
    if found.single_threaded {
        options.threads = Some(1);
    }
    for arg in &found.ignored {
        warn(&format!("unknown argument ignored: {}", arg.display()));
    }
    for text in &found.options {
        for warning in options.parse(Dialect::FuseOverlayfs, text)? {
            warn(&warning.to_string());
        }
    }
    if options.io == Io::Passthrough && std::env::var_os(NO_PASSTHROUGH_VARIABLE).is_some() {
        options.io = Io::Handles;
    }
    if options.lowers.is_empty() {
        bail!("no lower layers given: -o lowerdir=…");
    }
    if options.upper.is_some() && options.work.is_none() {
        bail!("upperdir needs a workdir on the same filesystem: -o workdir=…");
    }
    let mut log = if found.debug { LogArgs::debugging() } else { LogArgs::default() };
    if let Some(file) = std::env::var_os(DEBUG_LOG_VARIABLE) {
        log = LogArgs::debugging().with_file(file.into());
    }
    launch(options, found.foreground, &log)
}

fn warn(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Invocation {
        match parse(text.split_whitespace().map(OsString::from).collect()).unwrap() {
            Request::Mount(found) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ways_it_is_called() {
        let podman = parsed("-o lowerdir=/a,,volatile /m");
        assert_eq!(
            (podman.options.as_slice(), podman.mountpoint.as_path()),
            (&["lowerdir=/a,,volatile".into()][..], "/m".as_ref())
        );
        assert!(!podman.foreground);
        let containerd = parsed("overlay /m -o lowerdir=/a,dev,suid");
        assert_eq!(containerd.mountpoint, PathBuf::from("/m"));
        let enroot = parsed("-f -o lowerdir=/a -oupperdir=/b /m");
        assert!(enroot.foreground);
        assert_eq!(enroot.options, ["lowerdir=/a", "upperdir=/b"].map(OsString::from));
        let odd = parsed("-x --foo /m");
        assert_eq!(odd.ignored, ["-x", "--foo"].map(OsString::from));
        assert!(parse(vec!["-o".into()]).is_err());
        assert!(parse(Vec::new()).is_err());
        assert_eq!(parse(vec!["--version".into()]).unwrap(), Request::Version);
    }

    #[test]
    fn the_version_is_one_that_callers_accept() {
        let number = VERSION.strip_prefix("fuse-overlayfs: version ").unwrap();
        let parts: Vec<u32> = number.split('-').next().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
        assert!(parts >= vec![1, 10], "{VERSION}");
    }
}
