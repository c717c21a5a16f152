//! What a container is made of: the image's configuration, the options, its name.

use std::fs;

use super::house::*;

#[test]
fn the_image_says_what_is_not_asked_for() {
    for who in [Who::Root, Who::User] {
        let house = House::new(who);
        let changes = [
            r#"ENTRYPOINT ["sh", "-c"]"#,
            r#"CMD ["echo $A $HOME; pwd; id -u"]"#,
            "ENV A=image",
            "WORKDIR /work/dir",
            "USER me",
            "LABEL from=image both=image",
            "STOPSIGNAL SIGUSR1",
            "EXPOSE 80",
        ];
        house.image("full", &changes);
        assert_eq!(house.ok(&["run", "--rm", "full"]), "image /home/me\n/work/dir\n1000");
        assert_eq!(
            house.ok(&["run", "--rm", "-e", "A=option", "-u", "0", "-w", "/", "full", "echo $A $HOME; pwd; id -u"]),
            "option /root\n/\n0"
        );
        // A program of the command line's takes the image's arguments away.
        assert_eq!(house.ok(&["run", "--rm", "--entrypoint", "echo", "full", "x"]), "x");
        assert_eq!(house.ok(&["run", "--rm", "--entrypoint", "echo", "full"]), "");
        house.ok(&[
            "create",
            "--name",
            "c",
            "--label",
            "both=option",
            "--label",
            "alone",
            "--annotation",
            "a=b",
            "full",
        ]);
        assert_eq!(house.inspect("c", "json .Config.Labels"), r#"{"alone":"","both":"option","from":"image"}"#);
        assert_eq!(house.inspect("c", "json .Config.Annotations"), r#"{"a":"b"}"#);
        assert_eq!(house.inspect("c", ".Config.StopSignal"), "10");
        assert_eq!(house.inspect("c", ".Config.User"), "me");
        assert_eq!(house.inspect("c", "json .Config.ExposedPorts"), r#"{"80/tcp":{}}"#);
        assert_eq!(house.inspect("c", "json .Config.Entrypoint"), r#"["sh","-c"]"#);
        // An image of the same name is another's by now; the container is of the one that it was made of.
        house.image("full", &["CMD true"]);
        assert_eq!(house.ok(&["start", "-a", "c"]), "image /home/me\n/work/dir\n1000");
    }
}

#[test]
fn without_a_command_or_an_image_there_is_no_container() {
    let house = House::new(Who::Root);
    assert!(house.fails(125, &["run", "bb"]).contains("no command given"));
    assert!(house.fails(125, &["run"]).contains("no image given"));
    assert!(house.fails(125, &["run", "--pull", "never", "nothing", "true"]).contains("No such image: nothing"));
    assert!(house.fails(1, &["create", "--rm", "--restart", "always", "bb", "true"]).contains("Conflicting options"));
    assert!(house.fails(1, &["create", "--stop-signal", "NOTHING", "bb", "true"]).contains("Invalid signal"));
    assert!(house.fails(125, &["run", "-u", "nobody-there", "bb", "true"]).contains("no user"));
    // What could not be started is there as it was made, as in docker.
    assert_eq!(house.ok(&["ps", "-a", "--format", "{{.State}} {{.ExitCode}}"]), "created 125");
    house.fails(125, &["run", "--rm", "-u", "nobody-there", "bb", "true"]);
    assert_eq!(house.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn exit_statuses_are_those_of_docker() {
    for who in EVERYBODY {
        let house = House::new(who);
        let code = |words: &[&str]| house.lamel(&[&["run", "--rm", "bb"], words].concat()).status.code();
        assert_eq!(code(&["true"]), Some(0));
        assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
        assert_eq!(code(&["not-there"]), Some(127));
        assert_eq!(code(&["/etc/passwd"]), Some(126));
        assert_eq!(house.lamel(&["run", "--rm", "--init", "bb", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
        house.assert_empty();
    }
}

#[test]
fn a_name_is_one_container_s() {
    let house = House::new(Who::Root);
    let id = house.ok(&["create", "--name", "x", "--cidfile", "cid", "bb", "true"]);
    assert_eq!(fs::read_to_string(house.ground.scratch.join("cid")).unwrap(), id);
    assert!(house.fails(125, &["run", "--name", "x", "bb", "true"]).contains("already in use by container"));
    assert!(house.fails(1, &["create", "--cidfile", "cid", "bb", "true"]).contains("cid"));
    assert!(house.fails(1, &["create", "--name", "a/b", "bb", "true"]).contains("Invalid container name"));
    house.ok(&["rename", "x", "y"]);
    assert!(house.fails(1, &["rename", "x", "z"]).contains("No such container"));
    assert_eq!(house.ok(&["inspect", "-f", "{{.Id}}", &id[..6]]), id);
    assert_eq!(house.inspect("y", ".Name"), "/y");
    let made_up = house.ok(&["ps", "-a", "--format", "{{.Names}}", "--filter", "id="]);
    assert_eq!(made_up, "y");
    let out = house.ok(&["create", "bb", "true"]);
    assert!(house.inspect(&out, ".Name").contains('_'));
    // Ten at once want the same name, and one gets it.
    let mut children: Vec<_> = (0..10).map(|_| house.spawn(&["create", "--name", "wanted", "bb", "true"])).collect();
    let made = children.iter_mut().filter_map(|child| child.wait().unwrap().code()).filter(|code| *code == 0).count();
    assert_eq!(made, 1);
    assert_eq!(house.ok(&["ps", "-aq"]).lines().count(), 3);
}

#[test]
fn what_it_writes_is_its_own_and_stays() {
    for who in EVERYBODY {
        let house = House::new(who);
        let script = "echo more >> /tmp/file; echo x > /etc/passwd; rm /bin/probe; cat /tmp/file";
        house.ok(&["create", "--name", "one", "bb", "sh", "-c", script]);
        assert_eq!(house.ok(&["start", "-a", "one"]), "more", "{who:?}");
        assert_eq!(house.ok(&["start", "-a", "one"]), "more\nmore", "{who:?}");
        // Another one of the same image sees nothing of it.
        let said = house.ok(&[
            "run",
            "--rm",
            "bb",
            "sh",
            "-c",
            "head -c4 /etc/passwd; test -e /bin/probe && test ! -e /tmp/file",
        ]);
        assert_eq!(said, "root");
        let mode = sh(&format!("stat -c %a {}", house.ground.root().display()));
        assert_eq!(house.ok(&["run", "--rm", "bb", "stat", "-c", "%a", "/", "/tmp"]), format!("{mode}\n1777"));
        house.ok(&["rm", "one"]);
        house.assert_empty();
    }
}

#[test]
fn who_may_map_ids_gets_them() {
    let root = House::new(Who::Root);
    let said = root.ok(&[
        "run",
        "--rm",
        "--uidmap",
        "0:100000:65536",
        "bb",
        "sh",
        "-c",
        "stat -c %u:%g /etc; touch /tmp/x; stat -c %u /tmp/x; awk '{print $2}' /proc/self/uid_map",
    ]);
    assert_eq!(said, "0:0\n0\n100000");
    let user = House::new(Who::User);
    let script = "chown 5:6 /tmp/x 2> /dev/null || touch /tmp/x && chown 5:6 /tmp/x; stat -c %u:%g /tmp/x /etc";
    assert_eq!(user.ok(&["run", "--rm", "bb", "sh", "-c", script]), "5:6\n0:0");
    let id = Who::User.id();
    let said = user.ok(&[
        "run",
        "--rm",
        "--userns",
        "keep-id",
        "bb",
        "sh",
        "-c",
        "id -u; touch /tmp/x; stat -c %u /tmp/x /etc",
    ]);
    assert_eq!(said, format!("{id}\n{id}\n0"));
    // What others of its ids made goes with it all the same.
    user.ok(&[
        "run",
        "--name",
        "others",
        "bb",
        "sh",
        "-c",
        "mkdir -p /d/e && touch /d/e/f && chown -R 5:5 /d && chmod 700 /d",
    ]);
    user.ok(&["rm", "others"]);
    user.assert_empty();
    let alone = House::new(Who::Alone);
    assert_eq!(alone.ok(&["run", "--rm", "bb", "sh", "-c", "id -u; touch /tmp/x; stat -c %u /tmp/x"]), "0\n0");
    let written = "id -u; echo x > /etc/new; stat -c %u /etc /etc/new";
    let id = Who::Alone.id();
    let said = alone.ok(&["run", "--rm", "--userns", "keep-id", "bb", "sh", "-c", written]);
    assert_eq!(said, format!("{id}\n{id}\n{id}"));
}

#[test]
fn an_image_stays_as_long_as_there_is_a_container_of_it() {
    let house = House::new(Who::Root);
    house.ok(&["create", "--name", "c", "bb", "echo", "x"]);
    assert!(house.fails(1, &["rmi", "bb"]).contains("a container is made of it"));
    house.ok(&["prune", "-a", "-f"]);
    assert_eq!(house.ok(&["start", "-a", "c"]), "x");
    // By force it loses its name, and the container still has it.
    house.ok(&["rmi", "-f", "bb"]);
    house.ok(&["prune", "-a", "-f"]);
    assert_eq!(house.ok(&["start", "-a", "c"]), "x");
    house.ok(&["rm", "c"]);
    house.ok(&["prune", "-a", "-f"]);
    assert_eq!(sh(&format!("find {0}/blobs {0}/layers {0}/stacks -type f | wc -l", house.store().display())), "0");
}
