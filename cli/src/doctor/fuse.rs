//! FUSE: by what lamel mounts.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use lamel_unionfs::mount::{MountError, Offered, Passthrough, probe as try_mount};

use super::probe::find;
use super::{Check, State};

const AREA: &str = "FUSE";

/// Tries to mount, and tells the rest.
pub(super) fn checks() -> Vec<Check> {
    let tried = mount();
    let mut checks = vec![device(&tried)];
    checks.push(helper());
    checks.push(passthrough(&tried));
    checks
}

fn mount() -> Result<Offered, String> {
    let dir = Scratch::new().map_err(|error| format!("no directory to try it on: {error}"))?;
    try_mount(&dir.0).map_err(|error: MountError| error.to_string())
}

/// A directory to mount on.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("lamel-doctor-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

fn device(tried: &Result<Offered, String>) -> Check {
    match tried {
        Ok(Offered { version: (major, minor), .. }) => {
            Check::new(AREA, "mounts", State::Ok, format!("tried; the kernel speaks version {major}.{minor}"))
        }
        Err(why) => {
            let fix = if !std::path::Path::new("/dev/fuse").exists() {
                "as root: modprobe fuse; for a container: --device /dev/fuse"
            } else if rustix::process::geteuid().is_root() {
                "give the container --device /dev/fuse and --cap-add SYS_ADMIN"
            } else if find("fusermount3").is_none() {
                "as root: apt-get install fuse3 (or what has fusermount3 elsewhere)"
            } else {
                "as root: chmod 666 /dev/fuse"
            };
            Check::new(AREA, "mounts", State::Missing, why.clone()).fix(fix)
        }
    }
}

fn helper() -> Check {
    let name = "fusermount3";
    let root = rustix::process::geteuid().is_root();
    let without = if root { State::Unused } else { State::Missing };
    let Some(path) = find(name) else {
        let fix = "as root: apt-get install fuse3";
        return Check::new(AREA, name, without, "not installed: plain users cannot mount outside of a user namespace")
            .fix(fix);
    };
    let shown = path.display();
    let is_suid = path.metadata().is_ok_and(|file| file.permissions().mode() & 0o4000 != 0 && file.uid() == 0);
    if !is_suid {
        return Check::new(AREA, name, without, format!("{shown} is not set-user-id root"))
            .fix(format!("as root: chown root {shown} && chmod 4755 {shown}"));
    }
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        Check::new(AREA, name, State::Ok, format!("{shown}, with user_allow_other"))
    } else {
        let check = Check::new(
            AREA,
            name,
            State::Limited,
            format!("{shown}; a plain user's mounts are for him alone, not even for root"),
        )
        .fix("as root: echo user_allow_other >> /etc/fuse.conf");
        if root { Check::new(AREA, name, State::Ok, check.reason) } else { check }
    }
}

fn passthrough(tried: &Result<Offered, String>) -> Check {
    let name = "passthrough";
    match tried.as_ref().map(|offered| offered.passthrough) {
        Ok(Passthrough::Available) => {
            Check::new(AREA, name, State::Ok, "-o io=passthrough reads and writes without requests")
        }
        Ok(Passthrough::NotInKernel) => {
            Check::new(AREA, name, State::Limited, "not in this kernel: writes are requests")
                .fix("Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH has it")
        }
        Ok(Passthrough::NotPrivileged) => {
            Check::new(AREA, name, State::Limited, "the kernel keeps it for root outside of user namespaces")
        }
        Err(_) => Check::new(AREA, name, State::Missing, "nothing is mounted"),
    }
}
