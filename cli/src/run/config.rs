//! From the options to an OCI configuration with Docker's defaults.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use lamel_isolate::attach::terminal_size;
use lamel_isolate::oci::{
    BoxBuilder, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    Mount, Process, Root, Spec, User,
};
use lamel_isolate::user::Identity;

use super::identity::Maps;
use super::security::Privileges;
use super::Args;
use super::volume::build;
use crate::network::{Namespace, Prepared};

/// The version of the runtime specification that this is written for.
const VERSION: &str = "1.2.0";

/// What docker sets in a network of the container's own: every port may be listened on, and everybody may ping.
const NETWORK_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The configuration of `lamel run`.
pub(crate) fn spec(args: &Args, root: &Path, network: &Prepared) -> Result<Spec> {
    let maps = args.identity.maps()?;
    let identity = args.identity.resolve(root)?;
    let privileges = args.security.resolve()?;
    let mut resources = args.limits.resources()?;
    if maps.is_none() {
        resources.set_devices(Some(privileges.device_rules.clone()));
    }
    let mut mounts = default_mounts(&Defaults {
        shm_bytes: args.limits.shm_bytes()?,
        maps: maps.as_ref(),
        shares_network: network.namespace == Namespace::Host,
        privileged: args.security.privileged,
    })?;
    mounts.retain(|mount| !network.mounts.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend(network.mounts.iter().cloned());
    let own = args.volumes.resolve()?;
    mounts.retain(|mount| !own.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend(own);

    let mut spec = Spec::default();
    let mut root_member = Root::default();
    root_member.set_path(root.to_owned()).set_readonly(Some(args.read_only));
    let process = process(args, &identity, &privileges, &network.hostname, maps.as_ref())?;
    let linux = linux(args, privileges, maps, resources, &network.namespace)?;
    spec.set_version(VERSION.to_owned())
        .set_root(Some(root_member))
        .set_hostname(Some(network.hostname.clone()))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_linux(Some(linux));
    Ok(spec)
}

fn process(
    args: &Args,
    identity: &Identity,
    privileges: &Privileges,
    hostname: &str,
    maps: Option<&Maps>,
) -> Result<Process> {
    let mut words: Vec<String> = args.entrypoint.iter().filter(|program| !program.is_empty()).cloned().collect();
    words.extend(args.command.iter().cloned());
    if words.is_empty() {
        bail!("no command given; say what to run after the options");
    }
    let cwd = args.workdir.clone().unwrap_or_else(|| "/".into());
    if !cwd.is_absolute() {
        bail!("-w {}: must be absolute", cwd.display());
    }
    let home = identity.home.as_deref().unwrap_or(if identity.uid == 0 { "/root" } else { "/" });
    let mut user = User::default();
    user.set_uid(identity.uid).set_gid(identity.gid);
    // Where one id is all there is, the groups outside stay, and none can be chosen.
    let single = maps.is_some_and(|maps| matches!(maps.gids.as_slice(), [only] if only.size() == 1));
    if !(single && identity.groups == [identity.gid]) {
        user.set_additional_gids(Some(identity.groups.clone()));
    }
    let mut capabilities = LinuxCapabilities::default();
    let set = Some(privileges.capabilities.clone());
    // Never inheritable: a program would get them back by its file capabilities.
    capabilities.set_bounding(set.clone()).set_inheritable(None).set_ambient(None);
    let held = set.filter(|_| identity.uid == 0);
    capabilities.set_effective(held.clone()).set_permitted(held);
    let mut process = Process::default();
    process
        .set_args(Some(words))
        .set_env(Some(args.environment.resolve(hostname, home, args.tty)?))
        .set_cwd(cwd)
        .set_user(user)
        .set_terminal(Some(args.tty))
        .set_capabilities(Some(capabilities))
        .set_rlimits(Some(args.limits.rlimits()?))
        .set_no_new_privileges(Some(privileges.no_new_privileges))
        .set_oom_score_adj(args.limits.oom_score_adj()?);
    if let Some((columns, rows)) = terminal_size().filter(|_| args.tty) {
        process.set_console_size(Some(BoxBuilder::default().width(columns).height(rows).build()?));
    }
    Ok(process)
}

fn linux(
    args: &Args,
    privileges: Privileges,
    maps: Option<Maps>,
    resources: LinuxResources,
    network: &Namespace,
) -> Result<Linux> {
    let mut sysctls: HashMap<String, String> = HashMap::new();
    if maps.is_none() && *network == Namespace::Own {
        sysctls.extend(NETWORK_SYSCTLS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    sysctls.extend(args.limits.sysctls()?);
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(network, maps.is_some())?))
        .set_resources(Some(resources))
        .set_seccomp(privileges.seccomp)
        .set_masked_paths(Some(privileges.masked))
        .set_readonly_paths(Some(privileges.read_only))
        .set_devices(Some(privileges.devices))
        .set_sysctl(Some(sysctls))
        .set_cgroups_path(None);
    // A user namespace that is joined has its maps.
    let joins = matches!(network, Namespace::Joined { user: Some(_), .. });
    if let Some(maps) = maps.filter(|_| !joins) {
        linux.set_uid_mappings(Some(maps.uids)).set_gid_mappings(Some(maps.gids));
    }
    Ok(linux)
}

/// The namespaces of every container.
fn namespaces(network: &Namespace, user: bool) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Kind;
    let mut kinds = vec![(Kind::Mount, None), (Kind::Pid, None), (Kind::Ipc, None), (Kind::Uts, None), (Kind::Cgroup, None)];
    let mut of_user = None;
    match network {
        Namespace::Host => {}
        Namespace::Own => kinds.push((Kind::Network, None)),
        Namespace::Joined { network, user } => {
            kinds.push((Kind::Network, Some(network)));
            of_user = user.as_ref();
        }
    }
    kinds.extend(user.then_some((Kind::User, of_user)));
    kinds
        .into_iter()
        .map(|(kind, path)| {
            let builder = LinuxNamespaceBuilder::default().typ(kind);
            Ok(if let Some(path) = path { builder.path(path) } else { builder }.build()?)
        })
        .collect()
}

/// What the default mounts depend on.
struct Defaults<'a> {
    shm_bytes: u64,
    maps: Option<&'a Maps>,
    shares_network: bool,
    privileged: bool,
}

/// Docker's mounts.
fn default_mounts(defaults: &Defaults<'_>) -> Result<Vec<Mount>> {
    let shm = format!("size={}", defaults.shm_bytes);
    // The group tty, if there is one inside.
    let has_tty = |maps: &Maps| {
        maps.gids.iter().any(|map| 5_u32.checked_sub(map.container_id()).is_some_and(|at| at < map.size()))
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    pts.extend(defaults.maps.is_none_or(has_tty).then_some("gid=5"));
    let access = if defaults.privileged { "rw" } else { "ro" };
    let guarded = ["nosuid", "noexec", "nodev"];
    let system = [guarded[0], guarded[1], guarded[2], access];
    let mut mounts = vec![
        build(Path::new("/proc"), "proc", Path::new("proc"), &guarded)?,
        build(Path::new("/dev"), "tmpfs", Path::new("tmpfs"), &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        build(Path::new("/dev/pts"), "devpts", Path::new("devpts"), &pts)?,
        build(
            Path::new("/dev/shm"),
            "tmpfs",
            Path::new("shm"),
            &[guarded[0], guarded[1], guarded[2], "mode=1777", &shm],
        )?,
        build(Path::new("/dev/mqueue"), "mqueue", Path::new("mqueue"), &guarded)?,
    ];
    // The kernel gives a sysfs only to who owns the network that it shows.
    if defaults.maps.is_some() && defaults.shares_network {
        let options = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"];
        mounts.push(build(Path::new("/sys"), "bind", Path::new("/sys"), &options)?);
    } else {
        mounts.push(build(Path::new("/sys"), "sysfs", Path::new("sysfs"), &system)?);
    }
    mounts.push(build(Path::new("/sys/fs/cgroup"), "cgroup", Path::new("cgroup"), &system)?);
    if defaults.shares_network {
        for file in ["/etc/resolv.conf", "/etc/hosts"].map(Path::new).into_iter().filter(|file| file.exists()) {
            mounts.push(build(file, "bind", file, &["bind", "rprivate", "ro"])?);
        }
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamel_isolate::idmap::mapping;

    fn places(mounts: &[Mount]) -> Vec<(&str, &str)> {
        mounts.iter().map(|m| (m.destination().to_str().unwrap(), m.typ().as_deref().unwrap())).collect()
    }

    #[test]
    fn a_plain_user_s_host_network_has_the_host_s_sys() {
        let maps = Maps { uids: vec![mapping(0, 1000, 1)], gids: vec![mapping(0, 1000, 1)] };
        let defaults = |maps, shares_network| Defaults { shm_bytes: 1, maps, shares_network, privileged: false };
        let mounts = default_mounts(&defaults(Some(&maps), true)).unwrap();
        assert!(places(&mounts).contains(&("/sys", "bind")));
        let pts = mounts.iter().find(|m| m.destination() == Path::new("/dev/pts")).unwrap();
        assert!(!pts.options().iter().flatten().any(|option| option == "gid=5"));
        let mounts = default_mounts(&defaults(None, false)).unwrap();
        assert_eq!(mounts.len(), 7);
        assert!(places(&mounts).contains(&("/sys/fs/cgroup", "cgroup")));
    }
}
