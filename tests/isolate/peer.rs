//! The same probe under lamel and under crun with an equal configuration: what differs is listed here, and explained in
//! SEMANTICS.md.

use std::collections::BTreeSet;
use std::fs;

use lamel_isolate::caps;
use lamel_isolate::seccomp::{DEFAULT_PROFILE, Profile};
use serde_json::{Value, json};

use super::kit::*;

/// What a container sees of itself.
const LOOK: &str = r#"
echo "= ids"; id -u; id -g; grep -E '^(Groups|Cap|NoNewPrivs|Seccomp):' /proc/self/status
echo "= processes"; set -- /proc/[0-9]*; echo $#; cat /proc/1/comm
echo "= mounts"; awk '{ print $5, $6; for (i = 7; i <= NF; i++) if ($i == "-") { print "  type", $5, $(i+1); n = split($(i+3), o, ",");
    for (j = 1; j <= n; j++) if (o[j] !~ /^(nr_inodes|inode64|seclabel)/) print "  super", $5, o[j] } }' /proc/self/mountinfo
echo "= dev"; ls -l /dev | awk '{ if ($1 ~ /^[cb]/) print $1, $3, $5, $6, $NF; else print $1, $NF }'
echo "= pts"; ls /dev/pts
echo "= fds"; for fd in $(ls /proc/self/fd); do test $fd -gt 2 && test -e /proc/$$/fd/$fd && echo leaked $fd; done; true
echo "= names"; hostname; cat /proc/sys/kernel/domainname
echo "= net"; ip -o addr | awk '{ print $2, $3, $4 }'; ip -o link | awk '{ print $2, $3 }'
echo "= masks"; for p in acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats bus fs irq sys sysrq-trigger; do
    test -e /proc/$p && echo "$p $(stat -c '%F %t:%T' /proc/$p) $(head -c 1 /proc/$p 2> /dev/null | wc -c) $(ls /proc/$p 2> /dev/null | wc -l)"; done
for p in firmware dev/block fs/cgroup; do echo "$p $(ls -A /sys/$p | wc -l)"; done
for p in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /proc/irq/default_smp_affinity; do
    (: > $p) 2> /dev/null && echo "writable $p"; done
echo "= environment"; env | sort | grep -v SHLVL; pwd; umask
echo "= limits"; tail -n +2 /proc/self/limits; cat /proc/self/oom_score_adj
echo "= cgroup"; cat /proc/self/cgroup
echo "= ns"; for n in cgroup ipc mnt net pid uts user time; do test "$(readlink /proc/self/ns/$n)" = "$(cat /etc/ns-$n)" && echo "host's $n"; done
echo "= time"; cat /proc/self/timens_offsets | awk '{ print $1, $2 }'
echo "= probe"; probe
"#;

/// Notes the host's namespaces in the container's root.
fn note_namespaces(root: &std::path::Path) {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user", "time"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        fs::write(root.join(format!("etc/ns-{name}")), link.to_str().unwrap()).unwrap();
    }
}

/// Docker's configuration, written down independently of lamel's.
fn configuration(root: &str) -> Value {
    let capabilities: Vec<String> = caps::DEFAULT.map(str::to_owned).to_vec();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let seccomp = Profile::parse(DEFAULT_PROFILE).unwrap().resolve(&capabilities, release.trim()).unwrap();
    let mount = |destination: &str, kind: &str, source: &str, options: &str| json!({"destination": destination, "type": kind, "source": source, "options": options.split(',').collect::<Vec<_>>()});
    let device = |allow: bool, kind: &str, major: i64, minor: i64, access: &str| match (major, minor) {
        (-1, _) => json!({"allow": allow, "type": kind, "access": access}),
        (major, -1) => json!({"allow": allow, "type": kind, "major": major, "access": access}),
        (major, minor) => json!({"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}),
    };
    json!({
        "ociVersion": "1.0.2",
        "hostname": "probe",
        "root": {"path": root},
        "process": {
            "args": ["sh", "-c", LOOK],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=probe", "HOME=/root"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"}],
            "resources": {"devices": [
                device(false, "a", -1, -1, "rwm"), device(true, "c", -1, -1, "m"), device(true, "b", -1, -1, "m"),
                device(true, "c", 1, 3, "rwm"), device(true, "c", 1, 5, "rwm"), device(true, "c", 1, 7, "rwm"),
                device(true, "c", 1, 8, "rwm"), device(true, "c", 1, 9, "rwm"), device(true, "c", 5, 0, "rwm"),
                device(true, "c", 5, 1, "rwm"), device(true, "c", 5, 2, "rwm"), device(true, "c", 136, -1, "rwm"),
            ]},
            "seccomp": seccomp,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block",
                "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The same for a plain user: in a user namespace, without a control group.
fn configuration_of_user(root: &str, id: u32) -> Value {
    let mut configuration = configuration(root);
    let range = |file: &str| lamel_isolate::idmap::subordinate(file, Some("lamel-test"), id).unwrap();
    let maps = |range: lamel_isolate::idmap::Range| json!([{"containerID": 0, "hostID": id, "size": 1}, {"containerID": 1, "hostID": range.start, "size": range.len}]);
    let linux = &mut configuration["linux"];
    linux["uidMappings"] = maps(range("/etc/subuid"));
    linux["gidMappings"] = maps(range("/etc/subgid"));
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    linux["resources"] = json!({});
    configuration["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    configuration
}

fn crun_of_user(ground: &Ground, root: &std::path::Path) -> String {
    let bundle = ground.dir("bundle");
    let configuration = configuration_of_user(root.to_str().unwrap(), ground.who.id());
    fs::write(bundle.join("config.json"), serde_json::to_vec(&configuration).unwrap()).unwrap();
    let mut line = ground.who.command(std::path::Path::new("timeout"));
    line.args(["30", "crun", "--root"]).arg(ground.dir("crun-state"));
    line.args(["--cgroup-manager", "disabled", "run", "--bundle"]).arg(&bundle);
    line.arg(format!("lamel-test-user-{}", std::process::id()));
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c"]);
    command.args(["umount /sys/fs/cgroup/unified 2> /dev/null; exec \"$@\"", "sh"]);
    command.arg(line.get_program()).args(line.get_args());
    let out = spawn_captured(command, std::time::Duration::from_secs(60));
    assert!(out.success(), "crun: {}{}", out.stdout, out.stderr);
    out.stdout
}

/// crun wants no hierarchy of version 2 beside those of version 1: it gets a mount namespace without it.
fn crun(ground: &Ground, root: &std::path::Path) -> String {
    crun_with(ground, &configuration(root.to_str().unwrap()))
}

fn crun_with(ground: &Ground, configuration: &Value) -> String {
    let bundle = ground.scratch.dir("bundle");
    fs::write(bundle.join("config.json"), serde_json::to_vec(configuration).unwrap()).unwrap();
    let name = format!("lamel-test-{}", std::process::id());
    sh(&format!(
        "unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified 2> /dev/null; cd {}; \
         timeout 30 crun --root {} --cgroup-manager cgroupfs run {name} < /dev/null'",
        bundle.display(),
        ground.scratch.dir("crun-state").display(),
    ))
}

fn lines(text: &str) -> BTreeSet<String> {
    let mut section = "";
    text.lines()
        .filter_map(|line| {
            if let Some(name) = line.strip_prefix("= ") {
                section = name;
                return None;
            }
            Some(format!("{section}: {}", line.trim_end()))
        })
        .collect()
}

#[test]
fn a_container_of_root_is_what_crun_makes_of_the_same_configuration() {
    let ground = Ground::new(Who::Root);
    let (ours, theirs) = (ground.root(), ground.make_root("crun-root"));
    note_namespaces(&ours);
    note_namespaces(&theirs);
    let got = lines(&ground.run(&["--hostname", "probe"], LOOK));
    let want = lines(&crun(&ground, &theirs));
    assert!(got.len() > 100, "{got:#?}");
    compare(&got, &want, &[CRUN]);
}

#[test]
fn a_container_of_a_plain_user_is_what_crun_makes_of_the_same_configuration() {
    let ground = Ground::new(Who::User);
    let (ours, theirs) = (ground.root(), ground.make_root("crun-root"));
    note_namespaces(&ours);
    note_namespaces(&theirs);
    let got = lines(&ground.run(&["--hostname", "probe"], LOOK));
    let want = lines(&crun_of_user(&ground, &theirs));
    assert!(got.len() > 100, "{got:#?}");
    compare(&got, &want, &[CRUN]);
}

/// Lines that may differ, by what they begin with or have in them, and why.
type Explained = &'static [(&'static str, &'static str)];

/// In the same order and in the same namespaces. The state's words are those of the specification here, and older ones there.
#[test]
fn hooks_run_when_and_where_crun_runs_them() {
    const STAGES: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let ground = Ground::new(Who::Root);
    let theirs = ground.make_root("crun-root");
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let mut hooks = json!({});
    let dir = ground.scratch.dir("hooks");
    for stage in STAGES {
        let log = if stage == "startContainer" { "/tmp/log".to_owned() } else { dir.join("log").display().to_string() };
        let here =
            format!("test \"$(readlink /proc/self/ns/net)\" = '{}' && echo outside || echo inside", host.display());
        let script = format!("{{ echo {stage}; {here}; }} >> {log}");
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
        let file = json!({"version": "1.0.0", "hook": hook, "when": {"always": true}, "stages": [stage]});
        fs::write(dir.join(format!("{stage}.json")), file.to_string()).unwrap();
        hooks[stage] = json!([hook]);
    }
    let log = || {
        let log = fs::read_to_string(dir.join("log")).unwrap();
        fs::remove_file(dir.join("log")).unwrap();
        log
    };
    let options = ["--hooks-dir", dir.to_str().unwrap(), "--hostname", "probe"];
    let got = ground.run(&options, "cat /tmp/log") + "\n" + &log();
    let mut configuration = configuration(theirs.to_str().unwrap());
    configuration["hooks"] = hooks;
    configuration["process"]["args"] = json!(["sh", "-c", "cat /tmp/log"]);
    let want = crun_with(&ground, &configuration) + "\n" + &log();
    assert_eq!(got, want);
}

/// SEMANTICS.md, "Against crun".
const CRUN: Explained = &[
    ("/sys/fs/cgroup", "those hierarchies alone in which the container has a group of its own"),
    ("masks: fs/cgroup", "the same"),
    ("/dev/core", "crun's link to what is masked"),
    ("dev: lrwxrwxrwx core", "the same"),
    ("dev: lrwxrwxrwx /proc/kcore", "the same"),
    ("/etc/hosts", "every container has its own, as of docker and podman; where it lies is another filesystem"),
    ("/etc/hostname", "the same"),
    ("/etc/resolv.conf", "the same"),
    ("mounts: /proc/bus ro,", "lamel keeps nosuid, nodev and noexec on what becomes read-only"),
    ("mounts: /proc/fs ro,", "the same"),
    ("mounts: /proc/irq ro,", "the same"),
    ("mounts: /proc/sys ro,", "the same"),
    ("probe: call 457:", "statmount: crun's libseccomp does not know its name, which Docker's profile allows"),
    ("probe: call 458:", "listmount"),
    ("probe: call 462:", "mseal"),
    ("probe: call 463:", "setxattrat"),
    ("probe: call 464:", "getxattrat"),
    ("probe: call 465:", "listxattrat"),
    ("probe: call 466:", "removexattrat"),
];

/// The same of podman, which has a configuration of its own for crun, besides those above.
const PODMAN: Explained = &[
    ("cgroup: ", "podman gives no cgroup namespace where version 1 is in use"),
    ("ns: host's cgroup", "the same"),
    ("environment: TERM=", "podman sets it without a terminal too"),
    ("ids: Groups:", "lamel has the primary group among the supplementary ones, as the fix of CVE-2022-2989 asks for"),
    ("limits: Max processes", "of podman's settings"),
    ("limits: Max open files", "the same"),
    ("environment: 20000", "the same, by ulimit"),
    ("masks: interrupts", "Docker masks it"),
    ("/proc/interrupts", "the same"),
    ("mounts:   super /dev/shm size=", "as much, in other words: 64000k and 65536k"),
    ("mounts: /dev rw,nosuid", "podman's is noexec, Docker's is not"),
    ("/run/.containerenv", "podman's own"),
];

/// Panics with the lines that differ and are not explained.
#[track_caller]
fn compare(got: &BTreeSet<String>, want: &BTreeSet<String>, explained: &[Explained]) {
    let is_explained = |line: &str| explained.iter().any(|list| list.iter().any(|(words, _)| line.contains(words)));
    let differ: Vec<String> = want
        .difference(got)
        .map(|line| format!("peer   {line}"))
        .chain(got.difference(want).map(|line| format!("lamel  {line}")))
        .filter(|line| !is_explained(line))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// podman over crun, with settings that do not fail here: a graph of its own, and no hierarchy of version 2 beside
/// those of version 1.
fn podman(ground: &Ground, root: &std::path::Path, options: &[&str]) -> String {
    let at = |name: &str| ground.scratch.join(name);
    fs::write(
        at("containers.conf"),
        "[containers]\ndefault_ulimits = [\"nofile=20000:20000\",\"nproc=32768:32768\"]\n",
    )
    .unwrap();
    fs::write(at("profile.json"), DEFAULT_PROFILE).unwrap();
    let parent = format!("lamel-peer-{}", std::process::id());
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c"]);
    command.args(["umount /sys/fs/cgroup/unified 2> /dev/null; exec \"$@\"", "sh", "timeout", "30", "podman"]);
    command.args(["--runtime", "crun", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    command.args(["--storage-driver", "vfs", "--root"]).arg(at("graph")).arg("--runroot").arg(at("runroot"));
    command.args(["run", "--rm", "--network", "none", "--hostname", "probe", "--cgroup-parent", &format!("/{parent}")]);
    // Docker's capabilities: podman has fewer.
    command.args(["--cap-add", "AUDIT_WRITE,MKNOD,NET_RAW"]).args(options);
    command.arg("--rootfs").arg(root).args(["sh", "-c", LOOK]).env("CONTAINERS_CONF", at("containers.conf"));
    let out = spawn_captured(command, std::time::Duration::from_secs(60));
    // podman's monitor leaves its groups a moment after podman has ended.
    sh(&format!(
        "groups() {{ find /sys/fs/cgroup -depth -type d -path '*/{parent}*'; }}; \
         for n in $(seq 100); do groups | xargs -r rmdir 2> /dev/null && break; sleep 0.05; done; test -z \"$(groups)\""
    ));
    assert!(out.success(), "podman: {}{}", out.stdout, out.stderr);
    out.stdout
}

#[test]
fn a_container_of_podman_s_differs_in_what_is_listed() {
    let ground = Ground::new(Who::Root);
    let (ours, theirs) = (ground.root(), ground.make_root("podman-root"));
    note_namespaces(&ours);
    note_namespaces(&theirs);
    let profile = format!("seccomp={}", ground.scratch.join("profile.json").display());
    // Without a filter too: the keyring is not to be asked for with one.
    for (filter, keyring) in [(profile.as_str(), "EPERM"), ("seccomp=unconfined", "own")] {
        let options = ["--security-opt", filter];
        let want = lines(&podman(&ground, &theirs, &options));
        let got = lines(&ground.run(&["--hostname", "probe", options[0], options[1]], LOOK));
        assert!(got.len() > 400 && got.contains(&format!("probe: keyring: {keyring}")), "{got:#?}");
        compare(&got, &want, &[CRUN, PODMAN]);
    }
}

/// What the probe must say whoever runs it: the things that would matter most.
const FORBIDDEN: [&str; 20] = [
    "socket alg: EPERM",
    "socket vsock: EPERM",
    "unshare user: EPERM",
    "clone user: EPERM",
    "clone3: ENOSYS",
    "mount tmpfs: EPERM",
    "mount proc: EPERM",
    "remount /: EPERM",
    "umount /proc: EPERM",
    "fsopen: EPERM",
    "open_tree: EPERM",
    "keyctl: EPERM",
    "add_key: EPERM",
    "bpf: EPERM",
    "io_uring_setup: EPERM",
    "userfaultfd: EPERM",
    "init_module: EPERM",
    "kexec_load: EPERM",
    "reboot: EPERM",
    "settimeofday: EPERM",
];

#[test]
fn everybody_s_containers_forbid_the_same() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let said = ground.run(&[], "probe");
        for line in FORBIDDEN {
            assert!(said.lines().any(|l| l == line), "{who:?}: no {line:?} in\n{said}");
        }
        // A disk or the kernel's log cannot be read, whether by the device list or for lack of a right to make it.
        assert!(!said.contains("write /proc/sys: ok"), "{who:?}: {said}");
        assert!(!said.contains("write sysrq: ok") && !said.contains("open kcore: ok"), "{who:?}: {said}");
        assert!(!said.contains("open disk: ok") && !said.contains("open kmsg: ok"), "{who:?}: {said}");
    }
}
