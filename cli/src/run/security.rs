//! Privileges: capabilities, the system call filter, masks, devices.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use super::identity::is_host_root;
use super::label::{self, Labels};
use anyhow::{Context as _, Result, bail};
use lamel_isolate::oci::{
    Capabilities, Capability, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxSeccomp,
};
use lamel_isolate::seccomp::{DEFAULT_PROFILE, Profile};
use lamel_isolate::{caps, landlock};

/// Bytes of a profile that are read.
const MAX_PROFILE: u64 = 4 * 1024 * 1024;

/// What docker and podman hide.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Options of privileges.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct SecurityArgs {
    /// Give a capability more, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, no filter, no masks: no protection from the container at all
    #[arg(long)]
    pub(crate) privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, landlock=FILE, systempaths=unconfined,
    /// apparmor=PROFILE|unconfined, label=disable|type:|level:|user:|role:|filetype:
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give a device of the host; access: r, w, m
    #[arg(long, value_name = "HOST[:CONTAINER][:ACCESS]")]
    device: Vec<String>,
    /// Let devices be used that the container makes itself; * for any number
    #[arg(long, value_name = "TYPE MAJOR:MINOR ACCESS")]
    device_cgroup_rule: Vec<String>,
}

/// Privileges, as the configuration has them.
#[derive(Debug)]
pub(crate) struct Privileges {
    pub(crate) capabilities: Capabilities,
    pub(crate) seccomp: Option<LinuxSeccomp>,
    pub(crate) no_new_privileges: bool,
    /// A profile of Landlock.
    pub(crate) landlock: Option<String>,
    /// A profile of AppArmor.
    pub(crate) apparmor: Option<String>,
    /// Those of SELinux.
    pub(crate) labels: Labels,
    pub(crate) masked: Vec<String>,
    pub(crate) read_only: Vec<String>,
    pub(crate) devices: Vec<LinuxDevice>,
    /// Which devices may be used, for a container of root's; in a user namespace the kernel lets none be made.
    pub(crate) device_rules: Vec<LinuxDeviceCgroup>,
}

/// What --security-opt says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choices {
    seccomp: Option<String>,
    no_new_privileges: bool,
    landlock: Option<String>,
    labels: label::Wish,
    system_paths: bool,
}

impl SecurityArgs {
    /// Whether devices are to be used that are made inside.
    pub(crate) fn has_device_rules(&self) -> bool {
        !self.device_cgroup_rule.is_empty()
    }

    pub(crate) fn resolve(&self) -> Result<Privileges> {
        let choices = choices(&self.security_opt)?;
        let names = self.capabilities(&caps::available())?;
        let capabilities = names
            .iter()
            .map(|name| Capability::from_str(name.trim_start_matches("CAP_")).with_context(|| name.clone()))
            .collect::<Result<Capabilities>>()?;
        let seccomp = match choices.seccomp.as_deref() {
            Some("unconfined") => None,
            None if self.privileged => None,
            file => Some(filter(file.filter(|file| *file != "builtin"), &names)?),
        };
        let open = self.privileged || choices.system_paths;
        let paths = |paths: &[&str]| paths.iter().filter(|_| !open).map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let mut masked = paths(&MASKED);
        if !open {
            masked.extend(thermal_paths());
        }
        let (devices, device_rules) = self.devices()?;
        Ok(Privileges {
            capabilities,
            seccomp,
            no_new_privileges: choices.no_new_privileges,
            landlock: choices.landlock.as_deref().map(landlock_profile).transpose()?,
            labels: choices.labels.resolve()?,
            apparmor: choices.labels.apparmor,
            masked,
            read_only: paths(&READ_ONLY),
            devices,
            device_rules,
        })
    }

    /// The names of the capabilities, of which `available` can be had.
    fn capabilities(&self, available: &[String]) -> Result<BTreeSet<String>> {
        let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("all"));
        let named = |option: &str, list: &[String]| {
            list.iter()
                .filter(|name| !name.eq_ignore_ascii_case("all"))
                .map(|name| caps::parse(name).with_context(|| format!("{option} {name}: no such capability")))
                .collect::<Result<BTreeSet<String>>>()
        };
        let (added, dropped) = (named("--cap-add", &self.cap_add)?, named("--cap-drop", &self.cap_drop)?);
        if let Some(missing) = added.iter().find(|name| !available.contains(name)) {
            bail!("--cap-add {missing}: lamel does not have it itself here");
        }
        let mut set: BTreeSet<String> = if self.privileged || all(&self.cap_add) {
            available.iter().cloned().collect()
        } else if all(&self.cap_drop) {
            BTreeSet::new()
        } else {
            caps::DEFAULT.iter().map(|name| (*name).to_owned()).filter(|name| available.contains(name)).collect()
        };
        set.extend(added);
        Ok(set.difference(&dropped).cloned().collect())
    }

    fn devices(&self) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
        if self.privileged {
            let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::A).access("rwm").build()?;
            return Ok((host_devices(Path::new("/dev"))?, vec![rule]));
        }
        let mut rules = default_rules()?;
        let mut devices = Vec::new();
        for text in &self.device {
            let (named, access) = named_devices(text).with_context(|| format!("--device {text}"))?;
            for device in &named {
                let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(device.typ()).major(device.major());
                rules.push(rule.minor(device.minor()).access(access.clone()).build()?);
            }
            devices.extend(named);
        }
        for text in &self.device_cgroup_rule {
            rules.push(device_rule(text).with_context(|| format!("--device-cgroup-rule {text:?}"))?);
        }
        Ok((devices, rules))
    }
}

/// Docker's list: any device may be made, few may be used.
fn default_rules() -> Result<Vec<LinuxDeviceCgroup>> {
    use LinuxDeviceType::{A, B, C};
    let usable: [(i64, i64); 9] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1)];
    let mut list = vec![(false, A, -1, -1, "rwm"), (true, C, -1, -1, "m"), (true, B, -1, -1, "m")];
    list.extend(usable.map(|(major, minor)| (true, C, major, minor, "rwm")));
    list.into_iter()
        .map(|(allow, kind, major, minor, access)| {
            let rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).major(major).minor(minor);
            Ok(rule.access(access).build()?)
        })
        .collect()
}

fn choices(options: &[String]) -> Result<Choices> {
    let mut choices = Choices::default();
    for option in options {
        let (key, value) = option.split_once(['=', ':']).map_or((option.as_str(), None), |(k, v)| (k, Some(v)));
        match (key, value) {
            ("seccomp", Some(value)) => choices.seccomp = Some(value.to_owned()),
            ("no-new-privileges", None | Some("true")) => choices.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => choices.no_new_privileges = false,
            ("landlock", Some(file)) => choices.landlock = Some(file.to_owned()),
            ("systempaths", Some("unconfined")) => choices.system_paths = true,
            ("apparmor", Some(profile)) => choices.labels.apparmor = Some(profile.to_owned()),
            ("label", Some(label)) => choices.labels.label(label)?,
            _ => bail!("--security-opt {option} is not supported"),
        }
    }
    Ok(choices)
}

fn filter(file: Option<&str>, capabilities: &BTreeSet<String>) -> Result<LinuxSeccomp> {
    let text = match file {
        None => DEFAULT_PROFILE.to_owned(),
        Some(file) => read_profile("seccomp", file)?,
    };
    let capabilities: Vec<String> = capabilities.iter().cloned().collect();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(Profile::parse(&text)?.resolve(&capabilities, &release)?)
}

fn landlock_profile(file: &str) -> Result<String> {
    let profile = read_profile("landlock", file)?;
    landlock::check(&profile).with_context(|| format!("landlock profile {file}"))?;
    Ok(profile)
}

fn read_profile(kind: &str, file: &str) -> Result<String> {
    let shown = || format!("{kind} profile {file}");
    let size = fs::metadata(file).with_context(shown)?.len();
    if size > MAX_PROFILE {
        bail!("{}: more than {MAX_PROFILE} bytes", shown());
    }
    fs::read_to_string(file).with_context(shown)
}

/// `/sys/devices/system/cpu/cpuN/thermal_throttle`, by which a container could time its neighbours.
fn thermal_paths() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = cpus.map(|cpu| cpu.path().join("thermal_throttle")).filter(|path| path.exists());
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}

fn device(host: &Path, inside: &Path) -> Result<Option<LinuxDevice>> {
    let meta = fs::symlink_metadata(host)?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Ok(None),
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let device = LinuxDeviceBuilder::default().path(inside).typ(kind).major(i64::from(major)).minor(i64::from(minor));
    Ok(Some(device.file_mode(meta.mode() & 0o7777).uid(meta.uid()).gid(meta.gid()).build()?))
}

/// `c 10:200 rwm`, as docker writes it.
fn device_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = *words.as_slice() else { bail!("needs TYPE MAJOR:MINOR ACCESS") };
    let (major, minor) = numbers.split_once(':').context("needs MAJOR:MINOR")?;
    let number = |text: &str| match text {
        "*" => Ok(-1),
        number => number.parse::<u32>().map(i64::from).with_context(|| format!("{number}: no number")),
    };
    let kind = match kind {
        "a" if (major, minor, access) == ("*", "*", "rwm") => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => bail!("the type is b or c, or it is a *:* rwm"),
    };
    if access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        bail!("access is made of r, w and m");
    }
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(number(major)?).minor(number(minor)?);
    Ok(rule.access(access).build()?)
}

/// A device, or all those in a directory.
fn named_devices(text: &str) -> Result<(Vec<LinuxDevice>, String)> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, inside, access) = match *parts.as_slice() {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, access] if is_access(access) => (host, inside, access),
        _ => bail!("needs HOST[:CONTAINER][:ACCESS]"),
    };
    if !Path::new(inside).is_absolute() {
        bail!("{inside} must be absolute");
    }
    let (host, inside) = (fs::canonicalize(host)?, Path::new(inside));
    if !is_host_root() && host != inside {
        bail!("a plain user's container can have a device under its own path alone");
    }
    if !host.is_dir() {
        let device = device(&host, inside)?.with_context(|| format!("{} is no device", host.display()))?;
        return Ok((vec![device], access.to_owned()));
    }
    let mut found = host_devices(&host)?;
    for device in &mut found {
        if let Ok(below) = device.path().strip_prefix(&host) {
            let path = inside.join(below);
            device.set_path(path);
        }
    }
    if found.is_empty() {
        bail!("{} has no device in it", host.display());
    }
    Ok((found, access.to_owned()))
}

/// All devices of the host, but for those that a container has of its own.
fn host_devices(dev: &Path) -> Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = vec![dev.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !["pts", "shm", "mqueue"].iter().any(|own| path == dev.join(own)) {
                    todo.push(path);
                }
            } else if !["console", "ptmx"].iter().any(|own| path == dev.join(own)) {
                found.extend(device(&path, &path)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(add: &[&str], drop: &[&str]) -> Result<BTreeSet<String>> {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut available = own(&caps::DEFAULT);
        available.push("CAP_NET_ADMIN".to_owned());
        SecurityArgs { cap_add: own(add), cap_drop: own(drop), ..Default::default() }.capabilities(&available)
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(capabilities(&[], &[]).unwrap().len(), 14);
        assert_eq!(capabilities(&["net_admin"], &["all"]).unwrap(), ["CAP_NET_ADMIN".to_owned()].into());
        assert_eq!(capabilities(&["ALL"], &["CAP_CHOWN"]).unwrap().len(), 14);
        assert_eq!(capabilities(&[], &["mknod", "CAP_NET_RAW"]).unwrap().len(), 12);
        assert!(capabilities(&["nothing"], &[]).is_err() && capabilities(&[], &["nothing"]).is_err());
        assert!(capabilities(&["sys_admin"], &[]).is_err());
    }

    #[test]
    fn security_options_are_known_or_refused() {
        let own = |list: &[&str]| list.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        let read =
            choices(&own(&["seccomp=unconfined", "no-new-privileges:true", "label=disable", "apparmor=unconfined"]));
        let labels = label::Wish { apparmor: Some("unconfined".to_owned()), ..label::Wish::default() };
        let wanted =
            Choices { seccomp: Some("unconfined".to_owned()), no_new_privileges: true, labels, ..Choices::default() };
        assert_eq!(read.unwrap(), wanted);
        for option in ["apparmor", "label=nested", "seccomp", "proc-opts=hidepid=2", "no-new-privileges=maybe"] {
            assert!(choices(&own(&[option])).is_err(), "{option}");
        }
    }

    #[test]
    fn rules_of_devices_as_docker_writes_them() {
        let rule = device_rule("c 10:* rw").unwrap();
        assert_eq!((rule.typ(), rule.major(), rule.minor()), (Some(LinuxDeviceType::C), Some(10), Some(-1)));
        assert!(device_rule("a *:* rwm").is_ok());
        for text in ["", "c 10:200", "c 10 rwm", "x 1:2 r", "c 1:2 x", "a 1:2 rwm", "c 1:-2 r", "b x:1 r"] {
            assert!(device_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_are_named_with_place_and_access() {
        let (null, access) = named_devices("/dev/null:rw").unwrap();
        assert_eq!((null[0].major(), null[0].minor(), access.as_str()), (1, 3, "rw"));
        for text in ["/etc/passwd", "/dev/null:x:y", "/dev/null:relative", "/nowhere", "/etc"] {
            assert!(named_devices(text).is_err(), "{text}");
        }
        let (all, _) = named_devices("/dev:/dev/host").unwrap();
        assert!(all.iter().any(|device| device.path() == Path::new("/dev/host/null")), "{all:?}");
        assert!(host_devices(Path::new("/dev")).unwrap().iter().any(|d| d.path() == Path::new("/dev/null")));
    }
}
