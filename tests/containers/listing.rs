//! `ps`, `inspect`, `events`, `logs`: what is told about containers.

use super::house::*;

#[test]
fn lists_are_filtered_and_formatted() {
    let house = House::new(Who::Root);
    let first = house.ok(&["create", "--name", "first", "--label", "a=1", "bb", "true"]);
    house.lamel(&[
        "run",
        "--name",
        "second",
        "--label",
        "a=1",
        "--label",
        "b",
        "bb",
        "sh",
        "-c",
        "head -c 5000 /dev/zero > /x; exit 9",
    ]);
    house.lamel(&["run", "--name", "third", "bb", "sh", "-c", "exit 9"]);
    house.ok(&["run", "-d", "--name", "fourth", "bb", "sleep", "1000"]);
    let names = |options: &[&str]| house.ok(&[&["ps", "--format", "{{.Names}}"], options].concat()).replace('\n', " ");
    assert_eq!(names(&[]), "fourth");
    assert_eq!(names(&["-a"]), "fourth third second first");
    assert_eq!(names(&["-l"]), "fourth");
    assert_eq!(names(&["-n", "2"]), "fourth third");
    for (filter, wanted) in [
        ("status=created", "first"),
        ("status=running", "fourth"),
        ("exited=9", "third second"),
        ("label=a", "second first"),
        ("label=a=2", ""),
        ("name=ir", "third first"),
        ("name=^first$", "first"),
        ("ancestor=bb", "fourth third second first"),
        ("ancestor=other", ""),
        ("before=second", "first"),
        ("since=second", "fourth third"),
        ("network=none", "fourth third second first"),
        ("health=none", "fourth third second first"),
    ] {
        assert_eq!(names(&["-a", "--filter", filter]), wanted, "{filter}");
    }
    assert_eq!(names(&["-a", "--filter", "label=a", "--filter", "label=b"]), "second");
    assert_eq!(names(&["-a", "--filter", "name=first", "--filter", "name=third"]), "third first");
    assert!(house.fails(2, &["ps", "--filter", "colour=red"]).contains("colour"));
    assert_eq!(house.ok(&["ps", "-aq", "--filter", "name=first"]), first[..12]);
    assert_eq!(house.ok(&["ps", "-aq", "--no-trunc", "--filter", "name=first"]), first);
    let table = house.ok(&["ps", "-a", "--size", "--filter", "name=second"]);
    let (header, line) = table.split_once('\n').unwrap();
    assert_eq!(
        header.split("   ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>(),
        ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "SIZE"]
    );
    assert!(
        line.contains("Exited (9) ") && line.contains("5kB (virtual ") && line.contains("\"sh -c head -c 5000 …\""),
        "{line}"
    );
    let json: serde_json::Value = serde_json::from_str(&house.ok(&["ps", "--format", "json"])).unwrap();
    assert_eq!((json["Names"].as_str(), json["State"].as_str()), (Some("fourth"), Some("running")));
    house.ok(&["rm", "-f", "fourth"]);
}

#[test]
fn inspect_has_docker_s_shape() {
    let house = House::new(Who::Root);
    let options = ["-v", "/tmp:/vol:ro", "-m", "64m", "--restart", "on-failure:3", "--health-cmd", "true", "--init"];
    let id = house.ok(&[&["create", "--name", "c"], &options[..], &["bb", "sh", "-c", "true"]].concat());
    let all: serde_json::Value = serde_json::from_str(&house.ok(&["inspect", "c"])).unwrap();
    let c = &all[0];
    assert_eq!((c["Id"].as_str().unwrap(), c["Name"].as_str().unwrap()), (id.as_str(), "/c"));
    assert_eq!((c["Path"].as_str().unwrap(), c["Args"].to_string().as_str()), ("sh", r#"["-c","true"]"#));
    assert_eq!(c["State"]["Status"], "created");
    assert_eq!(c["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(c["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 3);
    assert_eq!(c["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(c["Mounts"][0]["Source"], "/tmp");
    assert_eq!(c["Mounts"][0]["RW"], false);
    assert_eq!(c["Mounts"].as_array().unwrap().len(), 1);
    assert!(c["HostsPath"].as_str().unwrap().ends_with(&format!("/{id}/hosts")));
    assert_eq!(c["Config"]["Healthcheck"]["Test"][1], "true");
    assert_eq!(c["Image"].as_str().unwrap(), house.ok(&["inspect", "--type", "image", "-f", "{{.Id}}", "bb"]));
    assert!(house.fails(1, &["inspect", "nothing"]).contains("nothing"));
    assert!(house.fails(1, &["inspect", "--type", "container", "bb"]).contains("No such container"));
    // It is a bundle as any runtime takes it.
    let spec = std::fs::read_to_string(c["OCIConfigPath"].as_str().unwrap()).unwrap();
    let spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
    assert_eq!((spec["root"]["path"].as_str(), spec["process"]["cwd"].as_str()), (Some("rootfs"), Some("/")));
}

#[test]
fn logs_have_times_and_an_end() {
    for who in EVERYBODY {
        let house = House::new(who);
        let script =
            "for i in 1 2 3; do echo line $i; done; echo err >&2; sleep 0.3; printf part; sleep 0.2; echo ' rest'";
        house.ok(&["run", "-d", "--name", "c", "bb", "sh", "-c", script]);
        let followed = house.lamel(&["logs", "-f", "c"]);
        assert_eq!(
            (followed.stdout.as_str(), followed.stderr.as_str()),
            ("line 1\nline 2\nline 3\npart rest\n", "err\n")
        );
        assert_eq!(house.ok(&["logs", "--tail", "2", "c"]), "line 3\npart rest".split_once('\n').unwrap().1);
        assert_eq!(house.ok(&["logs", "-n", "0", "c"]), "");
        let stamped = house.ok(&["logs", "-t", "c"]);
        let lines: Vec<(&str, &str)> = stamped.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert_eq!(
            lines.iter().map(|(_, text)| *text).collect::<Vec<_>>(),
            ["line 1", "line 2", "line 3", "part rest"]
        );
        assert_eq!(house.ok(&["logs", "--since", lines[3].0, "c"]), "part rest");
        assert_eq!(house.ok(&["logs", "--until", lines[3].0, "c"]), "line 1\nline 2\nline 3");
        assert_eq!(house.ok(&["logs", "--since", "1h", "--until", "30m", "c"]), "");
        house.ok(&["run", "--name", "silent", "--log-driver", "none", "bb", "echo", "x"]);
        assert!(house.fails(1, &["logs", "silent"]).contains("keeps no log"));
        house.ok(&["create", "--name", "new", "bb", "true"]);
        assert_eq!(house.ok(&["logs", "new"]), "");
    }
}

#[test]
fn what_happens_is_told() {
    let house = House::new(Who::User);
    house.ok(&["run", "--name", "c", "bb", "sh", "-c", "exit 0"]);
    house.ok(&["rm", "c"]);
    let events = |options: &[&str]| {
        house
            .ok(&[&["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"], options].concat())
            .replace('\n', " ")
    };
    assert_eq!(events(&["--filter", "container=c"]), "create start die destroy");
    assert_eq!(events(&["--filter", "event=die", "--filter", "image=bb"]), "die");
    assert_eq!(events(&["--filter", "container=other"]), "");
    let die = house.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--format", "json"]);
    let die: serde_json::Value = serde_json::from_str(&die).unwrap();
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "0");
    assert!(house.fails(1, &["events", "--filter", "colour=red"]).contains("colour"));
}
