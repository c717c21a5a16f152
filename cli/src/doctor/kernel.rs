//! What the kernel has beside FUSE: its own overlay, filters of system calls, security modules.

use std::fs::read_to_string;

use super::probe::Probe;
use super::{Check, State};

const AREA: &str = "kernel";

/// Looks at all of it.
pub(super) fn checks() -> Vec<Check> {
    vec![release(), overlay(), seccomp(), landlock(), modules(), uring()]
}

fn release() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 12) {
        Check::new(AREA, "version", State::Ok, release)
    } else {
        Check::new(AREA, "version", State::Limited, format!("{release} is older than what lamel is made for"))
            .fix("Linux 5.12 or later")
    }
}

fn overlay() -> Check {
    match Probe::Overlay.attempt() {
        Ok(()) => Check::new(AREA, "overlayfs", State::Ok, "works here; lamel does not need it"),
        Err(why) => Check::new(AREA, "overlayfs", State::Unused, format!("{why}; lamel does without it")),
    }
}

fn seccomp() -> Check {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let actions = read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Seccomp:")) {
        return Check::new(AREA, "seccomp", State::Missing, "not in this kernel: containers cannot be confined")
            .fix("a kernel with CONFIG_SECCOMP_FILTER");
    }
    Check::new(AREA, "seccomp", State::Ok, actions.trim())
}

fn landlock() -> Check {
    match lamel_isolate::landlock::version() {
        0 => Check::new(AREA, "Landlock", State::Unused, "not in this kernel, or switched off; lamel does without it"),
        version => Check::new(AREA, "Landlock", State::Ok, format!("version {version}")),
    }
}

fn modules() -> Check {
    let read = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
    let apparmor = lamel_isolate::label::Modules::detect().apparmor;
    let selinux = match read("/sys/fs/selinux/enforce").as_str() {
        "1" => Some("SELinux, enforcing"),
        "0" => Some("SELinux, permissive"),
        _ => None,
    };
    let found: Vec<&str> = apparmor.then_some("AppArmor").into_iter().chain(selinux).collect();
    let reason = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    let check = Check::new(AREA, "security modules", State::Ok, reason);
    if selinux == Some("SELinux, enforcing") {
        check.fix(
            "mount with -o context=\"system_u:object_r:container_file_t:s0\" where a container is denied its files",
        )
    } else {
        check
    }
}

fn uring() -> Check {
    let state = match read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default().trim() {
        "0" => "there for everybody",
        "1" => "there for some",
        "2" => "switched off",
        _ => "not told by this kernel",
    };
    Check::new(AREA, "io_uring", State::Unused, format!("{state}; not needed, and closed to containers"))
}
