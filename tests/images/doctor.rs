//! What a host allows, as root and as a plain user, and where something is taken away.

use serde_json::Value;

use crate::common::Place;

/// The state and the reason of a check.
fn check<'a>(found: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = found["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {found}"));
    (check["state"].as_str().unwrap(), check["reason"].as_str().unwrap())
}

fn job(found: &Value, name: &str) -> bool {
    found["jobs"].as_array().unwrap().iter().find(|job| job["name"] == name).unwrap()["works"].as_bool().unwrap()
}

#[test]
fn a_host_is_described_as_it_is() {
    let place = Place::new();
    let look = |prefix: &str, suffix: &str| -> (Value, Option<i32>) {
        let said = place.outcome(&format!("{prefix} lamel doctor --json {suffix}"));
        (serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}")), said.status.code())
    };
    let (root, code) = look("", "");
    assert_eq!(code, Some(0), "{root}");
    for name in ["keep images", "mount images", "run containers"] {
        assert!(job(&root, name), "{name}: {root}");
    }
    assert!(check(&root, "mounts").1.contains("version 7."), "{root}");
    for name in ["namespaces", "seccomp", "writable", "locks", "user namespaces"] {
        assert_eq!(check(&root, name).0, "ok", "{name}: {root}");
    }
    // Looking leaves nothing behind: no store, no mount, no directory.
    assert_eq!(place.run("test ! -e store; ls -A | sort | paste -sd' '"), "bin mnt");
    assert_eq!(place.run("grep -c lamel-doctor /proc/self/mountinfo || true"), "0");

    // A plain user, with ids of his own and without.
    place.run("chmod 755 . && mkdir -m 777 home");
    let here = place.scratch.path().display();
    let setpriv = "setpriv --reuid lamel-test --regid lamel-test --clear-groups env -u LAMEL_ROOT";
    let (user, code) = look(&format!("HOME={here}/home {setpriv}"), "");
    assert_eq!(code, Some(0), "{user}");
    assert_eq!(
        check(&user, "fusermount3").0,
        if user.to_string().contains("with user_allow_other") { "ok" } else { "limited" }
    );
    assert_eq!(check(&user, "passthrough").0, "limited");
    assert!(check(&user, "subordinate ids").1.contains("65536 uids from "), "{user}");
    assert!(check(&user, "writable").1.contains("/home/.local/share/lamel, to be made"), "{user}");
    let (nobody, _) = look(
        &format!(
            "HOME={here}/home {}",
            setpriv.replace("lamel-test", "nobody").replace("regid nobody", "regid nogroup")
        ),
        "",
    );
    assert_eq!(check(&nobody, "subordinate ids").0, "limited", "{nobody}");

    // What is taken away is missed, with a line of what to do about it.
    let (without, code) = look("unshare -m sh -c 'mount --bind /dev/null /dev/fuse; exec \"$@\"' -", "");
    assert_eq!(
        (code, check(&without, "mounts").0, job(&without, "mount images")),
        (Some(1), "missing", false),
        "{without}"
    );
    assert!(job(&without, "run containers"));
    let fix = |name: &str, found: &Value| {
        let checks = found["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap()["fix"].as_str().unwrap_or_default().to_owned()
    };
    assert!(fix("mounts", &without).contains("/dev/fuse"));
    let (without, code) = look(&format!("HOME=/proc {setpriv}"), "");
    assert_eq!((code, check(&without, "writable").0), (Some(1), "missing"), "{without}");
    assert!(fix("writable", &without).contains("--root"));
    let (without, code) = look("prlimit --nofile=64 setpriv --bounding-set -all --inh-caps -all", "");
    assert_eq!(
        (code, check(&without, "namespaces").0, job(&without, "run containers")),
        (Some(1), "missing", false),
        "{without}"
    );
    let text = place.outcome("lamel doctor").stdout;
    assert!(text.contains("\nstore\n  ok       writable") && text.ends_with("run containers: yes\n"), "{text}");
    assert!(place.fails(&format!("HOME=/proc {setpriv} lamel doctor")).contains("cannot keep images here"));
}
