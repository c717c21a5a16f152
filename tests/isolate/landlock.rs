//! Containers that Landlock confines.

use std::fs;

use super::kit::*;

const WRITING: &str = r#""write_file","remove_dir","remove_file","make_char","make_dir","make_reg","make_sock","make_fifo","make_block","make_sym","refer","truncate""#;

fn profile(ground: &Ground, handled: &str, rules: &str, strict: bool) -> String {
    let path = ground.scratch.join("profile.json");
    let text = format!(
        r#"{{"ruleset":{{"handledAccessFS":[{handled}]}},"rules":{{"pathBeneath":[{rules}]}},"disableBestEffort":{strict}}}"#
    );
    fs::write(&path, text).unwrap();
    ground.give(&path);
    format!("landlock={}", path.display())
}

/// What may be written below `/tmp/ours` and `/dev` alone.
fn writing(ground: &Ground) -> String {
    for dir in ["ours", "theirs"] {
        fs::create_dir(ground.root().join("tmp").join(dir)).unwrap();
    }
    ground.give(&ground.root().join("tmp"));
    let rule = format!(r#"{{"allowedAccess":[{WRITING}],"paths":["/tmp/ours","/dev","/nowhere"]}}"#);
    profile(ground, WRITING, &rule, false)
}

const TRIES: &str =
    "echo x > /tmp/ours/file && mkdir /tmp/ours/dir && mv /tmp/ours/file /tmp/ours/dir/file && echo ours
    for try in 'echo x > /tmp/theirs/file' 'mkdir /tmp/theirs/dir' 'rm /etc/passwd' 'echo x >> /etc/passwd' \
        'mv /tmp/ours/dir/file /tmp/theirs/file' 'ln -s x /tmp/link' 'mkfifo /tmp/fifo'; do
        sh -c \"$try\" 2> /dev/null && echo \"it did: $try\"
    done
    cat /etc/passwd > /dev/null && echo read";

#[test]
fn a_container_writes_only_below_what_its_profile_says() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let option = writing(&ground);
        let options = ["--security-opt", &option];
        assert_eq!(ground.run(&options, TRIES), "ours\nread", "{who:?}");
        // Capabilities are no way around it.
        sh(&format!("rm -rf {}/tmp/ours/*", ground.root().display()));
        assert_eq!(ground.run(&[&options[..], &["--privileged"]].concat(), TRIES), "ours\nread", "{who:?}");
        sh(&format!("rm -rf {0}/tmp/ours/*", ground.root().display()));
        // With and without no_new_privs, and with a first process of lamel's own.
        let more = ["--security-opt", "no-new-privileges", "--init"];
        assert_eq!(ground.run(&[&options[..], &more].concat(), TRIES), "ours\nread", "{who:?}");
    }
}

#[test]
fn a_program_needs_leave_to_be_run() {
    let ground = Ground::new(Who::Root);
    let rule = r#"{"allowedAccess":["execute"],"paths":["/bin/busybox"]}"#;
    let option = profile(&ground, r#""execute""#, rule, true);
    assert_eq!(ground.run(&["--security-opt", &option], "/bin/probe; echo $?"), "126");
    let nothing = profile(&ground, r#""execute""#, "", true);
    let out = ground.try_run(&["--security-opt", &nothing], &["sh", "-c", "true"]);
    assert_eq!(out.status.code(), Some(126), "{}", out.stderr);
}

#[test]
fn what_cannot_be_held_is_refused_where_it_must_be() {
    let ground = Ground::new(Who::Root);
    let nowhere = r#"{"allowedAccess":["execute"],"paths":["/nowhere"]}"#;
    let strict = profile(&ground, r#""execute""#, nowhere, true);
    ground.refused(&["--security-opt", &strict], &["Landlock", "No such file"]);
    let unknown = profile(&ground, r#""fly""#, "", false);
    ground.refused(&["--security-opt", &unknown], &["landlock profile", "\"fly\" is no right of a file"]);
    ground.refused(&["--security-opt", "landlock=/nowhere"], &["landlock profile /nowhere"]);
}

#[test]
fn a_link_in_the_root_leads_to_nothing_of_the_host_s() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        std::os::unix::fs::symlink("/../../../tmp", ground.root().join("link")).unwrap();
        let rule = format!(r#"{{"allowedAccess":[{WRITING}],"paths":["/link","/dev"]}}"#);
        let option = profile(&ground, WRITING, &rule, false);
        let script = "echo x > /tmp/file && echo x > /etc/file 2> /dev/null; ls /tmp /etc/file 2> /dev/null";
        let out = ground.try_run(&["--security-opt", &option], &["sh", "-c", script]);
        assert_eq!(out.stdout, "/tmp:\nfile\n", "{who:?}: {}", out.stderr);
    }
}
