//! The isolator as a library: configurations that no option of `lamel run` makes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lamel_isolate::idmap::mapping;
use lamel_isolate::oci::{
    Linux, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType as Kind, LinuxTimeOffset, Mount, MountBuilder,
    Process, Root, Spec,
};
use lamel_isolate::{Container, Error, Exit, Options};

use super::kit::*;

fn mount(destination: &str, kind: &str) -> Mount {
    MountBuilder::default().destination(destination).typ(kind).source(kind).options(Vec::new()).build().unwrap()
}

fn namespace(kind: Kind, of: Option<i32>) -> LinuxNamespace {
    let builder = LinuxNamespaceBuilder::default().typ(kind);
    let name = if kind == Kind::Network { "net".to_owned() } else { kind.to_string() };
    match of {
        Some(pid) => builder.path(format!("/proc/{pid}/ns/{name}")).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

/// A script in the scratch directory's root; those namespaces that are another container's are joined.
fn spec(root: &Path, script: &str, own: &[Kind], joined: &[Kind], of: i32) -> Spec {
    let mut spec = Spec::default();
    let mut process = Process::default();
    process
        .set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec()))
        .set_cwd("/".into())
        .set_terminal(Some(false))
        .set_rlimits(None);
    let mut namespaces: Vec<LinuxNamespace> = own.iter().map(|kind| namespace(*kind, None)).collect();
    namespaces.extend(joined.iter().map(|kind| namespace(*kind, Some(of))));
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces)).set_resources(None).set_masked_paths(None).set_readonly_paths(None);
    linux.set_uid_mappings(None).set_gid_mappings(None).set_devices(None).set_seccomp(None);
    let mut root_member = Root::default();
    root_member.set_path(root.to_owned()).set_readonly(Some(false));
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root_member))
        .set_hostname(None)
        .set_process(Some(process))
        .set_mounts(Some(vec![mount("/proc", "proc"), mount("/dev", "tmpfs")]))
        .set_linux(Some(linux));
    spec
}

fn options(ground: &Ground) -> Options {
    Options::new(ground.scratch.path().to_owned(), format!("test-{:?}", std::thread::current().id()))
}

const ALL: [Kind; 5] = [Kind::Mount, Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Network];

#[test]
fn namespaces_are_joined() {
    for user in [false, true] {
        let ground = Ground::new(Who::Root);
        let root = ground.root();
        let mut first = spec(&root, "exec sleep 47117", &ALL, &[], 0);
        first.set_hostname(Some("first".to_owned()));
        let mut shared = vec![Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Network];
        if user {
            sh(&format!("chown -R 100000:100000 {}", root.display()));
            let linux = first.linux_mut().as_mut().unwrap();
            linux.namespaces_mut().as_mut().unwrap().push(namespace(Kind::User, None));
            linux
                .set_uid_mappings(Some(vec![mapping(0, 100_000, 65536)]))
                .set_gid_mappings(Some(vec![mapping(0, 100_000, 65536)]));
            shared.insert(2, Kind::User);
        }
        let first = Container::start(&first, &options(&ground)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let script = "{ hostname; cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/self/uid_map | awk '{print $2}'; } > /tmp/seen";
        let second = spec(&root, script, &[Kind::Mount], &shared, first.pid());
        let mut second = Container::start(&second, &options(&ground)).unwrap();
        assert_eq!(second.wait().unwrap(), Exit::Status(0));
        let host = if user { "100000" } else { "0" };
        let seen = fs::read_to_string(root.join("tmp/seen")).unwrap();
        assert_eq!(seen, format!("first\nsleep 47117 \n{host}\n"));
        drop(first);
        assert_eq!(sh("pgrep -cx -f 'sleep 4711[7]' || true"), "0");
    }
}

#[test]
fn a_time_namespace_has_its_own_clocks() {
    let ground = Ground::new(Who::Root);
    let mut spec =
        spec(&ground.root(), "cut -d. -f1 /proc/uptime > /tmp/seen", &[&ALL[..], &[Kind::Time]].concat(), &[], 0);
    let mut offset = LinuxTimeOffset::default();
    offset.set_secs(Some(1_000_000)).set_nanosecs(Some(0));
    spec.linux_mut().as_mut().unwrap().set_time_offsets(Some([("boottime".to_owned(), offset)].into()));
    let mut container = Container::start(&spec, &options(&ground)).unwrap();
    assert_eq!(container.wait().unwrap(), Exit::Status(0));
    let seen: u64 = fs::read_to_string(ground.root().join("tmp/seen")).unwrap().trim().parse().unwrap();
    assert!(seen >= 1_000_000, "{seen}");
}

#[test]
fn a_container_can_be_paused() {
    use lamel_isolate::oci::{LinuxPidsBuilder, LinuxResourcesBuilder};
    let ground = Ground::new(Who::Root);
    let count = ground.root().join("tmp/count");
    let mut spec = spec(&ground.root(), "while :; do echo >> /tmp/count; done", &ALL, &[], 0);
    let pids = LinuxPidsBuilder::default().limit(50).build().unwrap();
    let resources = LinuxResourcesBuilder::default().devices(Vec::new()).pids(pids).build().unwrap();
    spec.linux_mut().as_mut().unwrap().set_resources(Some(resources));
    let mut container = Container::start(&spec, &options(&ground)).unwrap();
    let lines = || fs::metadata(&count).map_or(0, |meta| meta.len());
    let moves = || {
        let before = lines();
        std::thread::sleep(Duration::from_millis(200));
        before != lines()
    };
    assert!(moves());
    for _ in 0..2 {
        container.freeze(true).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(!moves());
        container.freeze(false).unwrap();
        assert!(moves());
    }
    container.freeze(true).unwrap();
    // A frozen container ends all the same.
    drop(container);
}

/// The child of a process with threads has copies of their locks: one allocation in it, and some of these would hang.
#[test]
fn from_many_threads_at_once() {
    let ground = Ground::new(Who::Root);
    let spec = spec(&ground.root(), "exit 3", &ALL, &[], 0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut kept = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    kept.push(vec![0_u8; 100 + kept.len() % 5000]);
                    if kept.len() > 500 {
                        kept.clear();
                    }
                }
            });
        }
        let starters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let mut container = Container::start(&spec, &options(&ground)).unwrap();
                        assert_eq!(container.wait().unwrap(), Exit::Status(3));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = starters.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
}

#[test]
fn what_is_not_done_is_refused() {
    let ground = Ground::new(Who::Root);
    let plain = spec(&ground.root(), "true", &ALL, &[], 0);
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = plain.clone();
        change(&mut spec);
        let error = Container::start(&spec, &options(&ground)).unwrap_err();
        assert!(
            matches!(error, Error::Unsupported { .. } | Error::Invalid { .. } | Error::Unavailable { .. }),
            "{error}"
        );
    };
    refused(&|spec| {
        spec.linux_mut().as_mut().unwrap().set_mount_label(Some("label".to_owned()));
    });
    refused(&|spec| {
        spec.linux_mut().as_mut().unwrap().set_rootfs_propagation(Some("shared".to_owned()));
    });
    refused(&|spec| {
        spec.linux_mut().as_mut().unwrap().set_namespaces(Some(vec![namespace(Kind::Pid, None)]));
    });
    refused(&|spec| {
        spec.process_mut().as_mut().unwrap().set_selinux_label(Some("label".to_owned()));
    });
    refused(&|spec| {
        spec.process_mut().as_mut().unwrap().set_apparmor_profile(Some("profile".to_owned()));
    });
    refused(&|spec| {
        spec.set_hostname(Some("x".repeat(65)));
    });
    refused(&|spec| {
        spec.set_version("2.0.0".to_owned());
    });
    refused(&|spec| {
        spec.set_mounts(Some(vec![mount("/proc", "tmpfs")]));
    });
}
