//! The part of a plan that every process of a container has, its first one and those that come later: limits, working
//! directory, ids, capabilities, filter, program.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use oci_spec::runtime::{Process, User};
use rustix::fs::Gid;

use super::c_string;
use super::step::{Identity, Step};
use crate::caps;
use crate::error::Error;
use crate::idmap::IdMaps;
use crate::label::Labels;
use crate::landlock::Landlock;
use crate::rlimit;
use crate::sys::exec::Vector;

/// Where a program is looked for if its environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most directories of a PATH.
const MAX_PATH_DIRECTORIES: usize = 256;
/// The umask of a program unless the configuration has one.
const DEFAULT_UMASK: u32 = 0o022;

/// The program, and every place where it may be.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) places: Vec<CString>,
    pub(crate) arguments: Vector,
    pub(crate) environment: Vector,
}

/// Everything but the exec itself. With `hidden`, for a process that others of the container see from its beginning.
pub(crate) fn steps(
    process: &Process,
    id_maps: Option<&IdMaps>,
    (labels, landlock): (Option<Labels>, Option<Landlock>),
    filtered: bool,
    hidden: bool,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let limits = rlimit::plan(process.rlimits().as_deref().unwrap_or_default())?;
    steps.extend(limits.into_iter().map(Step::Limit));
    let sets = process.capabilities().as_ref().map(caps::plan).transpose()?.unwrap_or_default();
    let no_new_privileges = process.no_new_privileges() == Some(true);
    steps.push(Step::Enter(c_string("process.cwd", process.cwd().as_os_str().as_bytes())?));
    steps.push(Step::Bound(sets));
    steps.extend(labels.map(Step::Label));
    steps.extend(landlock.map(Step::Landlock));
    if filtered && !no_new_privileges {
        steps.push(Step::Filter);
    }
    steps.push(Step::Identity(identity(process.user(), id_maps)?));
    if hidden {
        // Changing ids has undone it.
        steps.push(Step::Hide);
    }
    steps.push(Step::Capabilities(sets));
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges);
        if filtered {
            steps.push(Step::Filter);
        }
    }
    if process.terminal() == Some(true) {
        steps.push(Step::TakeTerminal);
    }
    steps.push(Step::Umask(process.user().umask().unwrap_or(DEFAULT_UMASK) & 0o777));
    Ok(())
}

fn identity(user: &User, id_maps: Option<&IdMaps>) -> Result<Identity, Error> {
    let (uid, gid) = (user.uid(), user.gid());
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    // The last number means "unchanged" to the kernel: the program would stay root.
    if [uid, gid].iter().chain(groups).any(|id| *id == u32::MAX) {
        return Err(Error::invalid("process.user", "4294967295 is no id"));
    }
    if let Some(maps) = id_maps {
        if !maps.maps_uid(uid) || !maps.maps_gid(gid) {
            return Err(Error::invalid(
                "process.user",
                format!("{uid}:{gid} is not mapped; the user namespace has too few ids (see subuid(5))"),
            ));
        }
        if !maps.allows_groups() {
            return match groups.iter().find(|group| **group != gid) {
                Some(group) => Err(Error::invalid(
                    "process.user.additionalGids",
                    format!("{group}: with a single id mapped, groups cannot be chosen"),
                )),
                None => Ok(Identity { uid, gid, groups: None }),
            };
        }
        if let Some(group) = groups.iter().find(|group| !maps.maps_gid(**group)) {
            return Err(Error::invalid("process.user.additionalGids", format!("{group} is not mapped")));
        }
    }
    let groups = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    Ok(Identity { uid, gid, groups: Some(groups) })
}

/// The program of a process, whose arguments were checked.
pub(crate) fn program(process: &Process) -> Result<Program, Error> {
    let strings = |field: &str, words: &[String]| -> Result<Vector, Error> {
        let words: Result<Vec<CString>, Error> = words.iter().map(|word| c_string(field, word.as_bytes())).collect();
        Ok(Vector::new(words?))
    };
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = process.env().as_deref().unwrap_or_default();
    if environment.iter().any(|pair| pair.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::invalid("process.env", "an entry that is not NAME=VALUE"));
    }
    let name = arguments.first().cloned().unwrap_or_default();
    let places = if name.contains('/') {
        vec![c_string("process.args", name.as_bytes())?]
    } else {
        let path = environment.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        // A relative entry, or an empty one, would be the working directory, which is anybody's.
        let directories = path.split(':').filter(|directory| directory.starts_with('/')).take(MAX_PATH_DIRECTORIES);
        let places: Result<Vec<CString>, Error> = directories
            .map(|directory| c_string("process.env", Path::new(directory).join(&name).as_os_str().as_bytes()))
            .collect();
        places?
    };
    let arguments = strings("process.args", arguments)?;
    Ok(Program { name, places, arguments, environment: strings("process.env", environment)? })
}
