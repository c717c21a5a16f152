//! From the options to an OCI configuration with Docker's defaults.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use lamel_isolate::landlock;
use lamel_isolate::oci::{
    BoxBuilder, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    Mount, Process, Root, Spec, User,
};
use lamel_isolate::user::Identity;

use super::Args;
use super::identity::Maps;
use super::security::Privileges;
use super::volume::build;
use crate::network::{Namespace, Prepared};

/// The version of the runtime specification that this is written for.
const VERSION: &str = "1.2.0";

/// What docker sets in a network of the container's own: every port may be listened on, and everybody may ping.
const NETWORK_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// What an image says about its containers.
#[derive(Debug, Default)]
pub(crate) struct OfImage {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
}

/// What is run: the entry point and its arguments. One of the command line's leaves the image's arguments out.
pub(crate) fn command(args: &Args, words: &[String], image: &OfImage) -> Result<(Vec<String>, Vec<String>)> {
    let own = args.entrypoint.as_ref();
    let entrypoint = match own {
        Some(program) => Some(program).filter(|program| !program.is_empty()).into_iter().cloned().collect(),
        None => image.entrypoint.clone(),
    };
    let cmd = if words.is_empty() && own.is_none() { image.cmd.clone() } else { words.to_vec() };
    if entrypoint.is_empty() && cmd.is_empty() {
        bail!("no command given; say what to run after the options");
    }
    Ok((entrypoint, cmd))
}

/// The configuration that the options make for a container with this root, whose user is still to be found.
pub(crate) fn spec(args: &Args, words: &[String], image: &OfImage, root: &Path, network: &Prepared) -> Result<Spec> {
    let maps = args.identity.maps()?;
    let privileges = args.security.resolve()?;
    let mut resources = args.limits.resources()?;
    if maps.is_some() && args.security.has_device_rules() {
        bail!("--device-cgroup-rule: no device can be made in a user namespace; give it by --device");
    }
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
    let own = args.volumes.resolve(maps.as_ref())?;
    mounts.retain(|mount| !own.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend(own);

    let mut spec = Spec::default();
    let mut root_member = Root::default();
    root_member.set_path(root.to_owned()).set_readonly(Some(args.read_only));
    let process = process(args, words, image, &privileges, &network.hostname)?;
    if let Some(profile) = &privileges.landlock {
        spec.set_annotations(Some(HashMap::from([(landlock::ANNOTATION.to_owned(), profile.clone())])));
    }
    let linux = linux(args, privileges, maps, resources, &network.namespace)?;
    spec.set_version(VERSION.to_owned())
        .set_root(Some(root_member))
        .set_hostname(Some(network.hostname.clone()))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_linux(Some(linux));
    Ok(spec)
}

fn process(args: &Args, words: &[String], image: &OfImage, privileges: &Privileges, hostname: &str) -> Result<Process> {
    let (entrypoint, cmd) = command(args, words, image)?;
    let of_image = Some(PathBuf::from(&image.working_dir)).filter(|dir| !dir.as_os_str().is_empty());
    // A relative one of an image is one of its root, as docker builds it.
    let of_image = of_image.map(|dir| Path::new("/").join(dir));
    let cwd = args.workdir.clone().or(of_image).unwrap_or_else(|| "/".into());
    if !cwd.is_absolute() {
        bail!("-w {}: must be absolute", cwd.display());
    }
    let mut capabilities = LinuxCapabilities::default();
    // Never inheritable: a program would get them back by its file capabilities.
    capabilities.set_bounding(Some(privileges.capabilities.clone())).set_inheritable(None).set_ambient(None);
    capabilities.set_effective(None).set_permitted(None);
    let mut process = Process::default();
    process
        .set_args(Some(entrypoint.into_iter().chain(cmd).collect()))
        .set_env(Some(args.environment.resolve(hostname, &image.env, args.tty)?))
        .set_cwd(cwd)
        .set_terminal(Some(args.tty))
        .set_capabilities(Some(capabilities))
        .set_rlimits(Some(args.limits.rlimits()?))
        .set_no_new_privileges(Some(privileges.no_new_privileges))
        .set_apparmor_profile(privileges.apparmor.clone())
        .set_selinux_label(privileges.labels.process.clone())
        .set_oom_score_adj(args.limits.oom_score_adj()?);
    Ok(process)
}

/// Whether the environment says where home is.
pub(crate) fn has_home(spec: &Spec) -> bool {
    let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
    env.is_some_and(|env| env.iter().any(|variable| variable.starts_with("HOME=")))
}

/// Makes the program run as a user; `home_of_user`: HOME is his.
pub(crate) fn set_user(spec: &mut Spec, identity: &Identity, home_of_user: bool) {
    // Where one id is all there is, the groups outside stay, and none can be chosen.
    let single = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.gid_mappings().as_ref())
        .is_some_and(|maps| matches!(maps.as_slice(), [only] if only.size() == 1));
    let Some(process) = spec.process_mut() else { return };
    let mut user = User::default();
    user.set_uid(identity.uid).set_gid(identity.gid);
    if !(single && identity.groups == [identity.gid]) {
        user.set_additional_gids(Some(identity.groups.clone()));
    }
    process.set_user(user);
    let mut capabilities = process.capabilities().clone().unwrap_or_default();
    let held = capabilities.bounding().clone().filter(|_| identity.uid == 0);
    capabilities.set_effective(held.clone()).set_permitted(held);
    process.set_capabilities(Some(capabilities));
    if home_of_user {
        let home = identity.home.as_deref().unwrap_or(if identity.uid == 0 { "/root" } else { "/" });
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|variable| !variable.starts_with("HOME="));
        env.push(format!("HOME={home}"));
        process.set_env(Some(env));
    }
}

/// Gives the container the network of another.
pub(crate) fn set_network(spec: &mut Spec, network: &Prepared) -> Result<()> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|mount| !network.mounts.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend(network.mounts.iter().cloned());
    spec.set_mounts(Some(mounts)).set_hostname(Some(network.hostname.clone()));
    if let Some(linux) = spec.linux_mut() {
        let user = linux.uid_mappings().is_some();
        linux.set_namespaces(Some(namespaces(&network.namespace, user)?));
        if let Namespace::Joined { user: Some(_), .. } = network.namespace {
            linux.set_uid_mappings(None).set_gid_mappings(None);
        }
    }
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|variable| !variable.starts_with("HOSTNAME="));
        env.push(format!("HOSTNAME={}", network.hostname));
        process.set_env(Some(env));
    }
    Ok(())
}

/// Makes the container's terminal as large as the user's.
pub(crate) fn set_size(spec: &mut Spec, size: Option<(u16, u16)>) -> Result<()> {
    if let (Some((columns, rows)), Some(process)) = (size, spec.process_mut())
        && process.terminal() == Some(true)
    {
        process.set_console_size(Some(BoxBuilder::default().width(columns).height(rows).build()?));
    }
    Ok(())
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
        .set_mount_label(privileges.labels.mounts)
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
    let mut kinds =
        vec![(Kind::Mount, None), (Kind::Pid, None), (Kind::Ipc, None), (Kind::Uts, None), (Kind::Cgroup, None)];
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
