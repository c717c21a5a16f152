//! Namespaces, and the ids that a user has.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use lamel_isolate::idmap::subordinate;

use super::probe::{Probe, find};
use super::{Check, State};

const AREA: &str = "users";

/// Tries namespaces, and looks for ids.
pub(super) fn checks() -> Vec<Check> {
    vec![user_namespaces(), namespaces(), subordinate_ids()]
}

/// What keeps plain users from making user namespaces: the first setting that says so, and how to change it.
fn forbidden() -> Option<(String, String)> {
    let settings = [
        ("user/max_user_namespaces", "0", "31474"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    settings.into_iter().find_map(|(name, bad, good)| {
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        let key = name.replace('/', ".");
        (value.trim() == bad).then(|| (format!("{key} is {bad}"), format!("as root: sysctl {key}={good}")))
    })
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    let root = rustix::process::geteuid().is_root();
    match (Probe::User.attempt(), forbidden()) {
        (Ok(()), None) => Check::new(AREA, name, State::Ok, "tried"),
        (Ok(()), Some((setting, fix))) if root => {
            Check::new(AREA, name, State::Limited, format!("for root alone: {setting}")).fix(fix)
        }
        (Ok(()), Some((setting, _))) => Check::new(AREA, name, State::Ok, format!("tried, although {setting}")),
        (Err(why), forbidden) => {
            let (setting, fix) = forbidden.unwrap_or_else(|| {
                let fix =
                    "a kernel with CONFIG_USER_NS; inside of a container: one whose seccomp profile allows unshare";
                (why, fix.to_owned())
            });
            // Root runs containers without one.
            let state = if root { State::Limited } else { State::Missing };
            Check::new(AREA, name, state, setting).fix(fix)
        }
    }
}

fn namespaces() -> Check {
    match Probe::Namespaces.attempt() {
        Ok(()) => Check::new(AREA, "namespaces", State::Ok, "tried: those of a container, with a /proc of its own"),
        Err(why) => {
            let fix = match forbidden() {
                Some((_, fix)) if !rustix::process::geteuid().is_root() => fix,
                _ if why.contains("/proc") => {
                    "parts of /proc are covered, as in a container: start that with --security-opt unmask=ALL, or \
                     systempaths=unconfined"
                        .to_owned()
                }
                _ => "inside of a container: start that with --cap-add SYS_ADMIN and a seccomp profile that allows unshare"
                    .to_owned(),
            };
            Check::new(AREA, "namespaces", State::Missing, why).fix(fix)
        }
    }
}

fn subordinate_ids() -> Check {
    let name = "subordinate ids";
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Check::new(AREA, name, State::Ok, "not needed by root");
    }
    let user = user_name(uid.as_raw());
    let who = user.clone().unwrap_or_else(|| uid.to_string());
    let range = |file| subordinate(file, user.as_deref(), uid.as_raw());
    let (Some(uids), Some(gids)) = (range("/etc/subuid"), range("/etc/subgid")) else {
        return Check::new(
            AREA,
            name,
            State::Limited,
            "none: a container has one user, and owners are kept in attributes",
        )
        .fix(format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"));
    };
    for program in ["newuidmap", "newgidmap"] {
        let privileged = |path: &Path| {
            let suid = path.metadata().is_ok_and(|file| file.permissions().mode() & 0o4000 != 0 && file.uid() == 0);
            suid || rustix::fs::getxattr(path, "security.capability", &mut [0; 64]).is_ok()
        };
        if !find(program).is_some_and(|path| privileged(&path)) {
            return Check::new(AREA, name, State::Limited, format!("{program} is missing, or may not set ids"))
                .fix("as root: apt-get install uidmap");
        }
    }
    Check::new(
        AREA,
        name,
        State::Ok,
        format!("{} uids from {}, {} gids from {}", uids.len, uids.start, gids.len, gids.start),
    )
}

/// The first name that `/etc/passwd` has for an id.
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}
