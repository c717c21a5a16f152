//! `lamel run`: what its options do, and what it exits with.

use std::fs;

use super::kit::*;

#[test]
fn exit_statuses_are_those_of_docker() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let code = |options: &[&str], command: &[&str]| ground.try_run(options, command).status.code();
        assert_eq!(code(&[], &["true"]), Some(0));
        assert_eq!(code(&[], &["sh", "-c", "exit 7"]), Some(7));
        assert_eq!(code(&["--init"], &["sh", "-c", "kill -9 $$"]), Some(137));
        assert_eq!(code(&["--init"], &["sh", "-c", "exit 9"]), Some(9));
        let missing = ground.try_run(&[], &["not-there"]);
        assert_eq!(missing.status.code(), Some(127), "{}", missing.stderr);
        assert!(missing.stderr.contains("executable file not found"), "{}", missing.stderr);
        assert_eq!(code(&[], &["/etc/passwd"]), Some(126));
        assert_eq!(code(&[], &["/tmp"]), Some(126));
        assert_eq!(code(&["-w", "relative"], &["true"]), Some(125));
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let ground = Ground::new(Who::Root);
    for option in [
        &["--network", "nowhere"][..],
        &["--cap-add", "everything"],
        &["-v", "/etc:/x:O"],
        &["--ulimit", "nothing=1"],
        &["--tmpfs", "/x:tmpcopyup"],
        &["--device", "/etc/passwd"],
        &["--sysctl", "kernel.core_pattern=x"],
    ] {
        let out = ground.try_run(option, &["echo", "it ran"]);
        assert!(!out.success() && out.stdout.is_empty() && !out.stderr.is_empty(), "{option:?}: {}", out.stderr);
    }
}

#[test]
fn the_environment_is_docker_s_and_what_was_asked_for() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        fs::write(ground.scratch.join("env"), "# no\nB=file\nC=file\n").unwrap();
        let options = ["--hostname", "there", "--env-file", "env", "-e", "C=option", "-e", "PWD", "-w", "/a/b"];
        let said = ground.run(&options, "env | sort | grep -v -e SHLVL -e ^_=; pwd; hostname");
        let want = "B=file\nC=option\nHOME=/root\nHOSTNAME=there\n\
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/a/b\n/a/b\nthere";
        assert_eq!(said, want, "{who:?}");
        assert_eq!(ground.run(&["--entrypoint", "echo"], "x"), "sh -c x");
    }
}

#[test]
fn standard_input_is_given_only_on_request() {
    let ground = Ground::new(Who::User);
    let feed = |options: &[&str]| {
        let mut command = ground.command(options, &["cat"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"fed").ok();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(feed(&["-i"]), "fed");
    assert_eq!(feed(&[]), "");
}

#[test]
fn users_groups_and_capabilities() {
    for who in [Who::Root, Who::User] {
        let ground = Ground::new(who);
        let said = ground.run(
            &["-u", "me", "--group-add", "5"],
            "id -u; id -g; grep -E '^(Groups|CapInh|CapEff|CapBnd|CapAmb)' /proc/self/status; cd; pwd",
        );
        // The primary group is among the supplementary ones; nothing is inheritable.
        let want = "1000\n100\nGroups:\t5 10 100 \nCapInh:\t0000000000000000\nCapEff:\t0000000000000000\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n/";
        assert!(said.starts_with(want.trim_end_matches('/')), "{who:?}: {said}");
        let caps = |options: &[&str]| {
            ground.run(options, "grep -E '^Cap(Inh|Eff|Bnd)' /proc/self/status | cut -f2 | tr '\\n' ' '")
        };
        let (none, some) = ("0000000000000000", "00000000a80425fb");
        assert_eq!(caps(&[]), format!("{none} {some} {some}"));
        assert_eq!(caps(&["--cap-drop", "all"]), [none; 3].join(" "));
        let chown = "0000000000000001";
        assert_eq!(caps(&["--cap-drop", "all", "--cap-add", "chown"]), format!("{none} {chown} {chown}"));
    }
}

/// CVE-2022-36109, CVE-2022-2989, CVE-2023-25173: a group that may not, by a file's mode, may not by leaving it either.
#[test]
fn a_group_that_is_denied_is_denied() {
    for who in [Who::Root, Who::User] {
        let ground = Ground::new(who);
        fs::write(ground.root().join("etc/passwd"), "root:x:0:0::/:\nme:x:1000:100::/:\n").unwrap();
        let script = "echo secret > /tmp/denied; chgrp 100 /tmp/denied; chmod 604 /tmp/denied; chmod 777 /tmp";
        ground.run(&[], script);
        for user in ["me", "1000:100", "me:users"] {
            let look = "cat /tmp/denied 2> /dev/null || echo denied; grep ^Groups: /proc/self/status | grep -cw 100";
            assert_eq!(ground.run(&["-u", user], look), "denied\n1", "{who:?} {user}");
        }
    }
}

#[test]
fn a_plain_user_keeps_his_id_where_he_asks_for_it() {
    for who in [Who::User, Who::Alone] {
        let ground = Ground::new(who);
        let id = who.id();
        assert_eq!(
            ground.run(&["--userns", "keep-id"], "id -u; touch /tmp/mine; stat -c %u /tmp/mine"),
            format!("{id}\n{id}")
        );
        assert_eq!(ground.run(&[], "id -u; cat /proc/self/uid_map | wc -l").lines().next(), Some("0"));
    }
    let alone = Ground::new(Who::Alone);
    alone.refused(&["-u", "me"], &["is not mapped"]);
    alone.refused(&["--group-add", "5"], &["groups cannot be chosen"]);
}

#[test]
fn containers_have_ids_of_their_own_on_request() {
    let ground = Ground::new(Who::Root);
    // What is mounted on is there from the first time.
    ground.run(&[], "true");
    let map = "awk '{ print $1, $2, $3 }' /proc/self/uid_map /proc/self/gid_map";
    let mut first = ground.command(&["--userns", "auto", "-i"], &["sh", "-c", &format!("{map}; cat > /dev/null")]);
    let mut first = first.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(first.stdout.take().unwrap()));
    let outer = lines.next().unwrap().unwrap();
    // The first one still runs: these are others.
    let inner = ground.run(&["--userns", "auto"], map);
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert!(outer.starts_with("0 ") && outer.ends_with(" 65536") && outer != "0 0 65536", "{outer}");
    let inner: Vec<&str> = inner.lines().collect();
    assert!(inner.len() == 2 && inner[0] == inner[1] && inner[0] != outer, "{inner:?} {outer}");
    for who in [Who::User, Who::Alone] {
        Ground::new(who).refused(&["--userns", "auto"], &["for root"]);
    }
}

#[test]
fn volumes_are_what_their_options_say() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let data = ground.dir("data");
        fs::write(data.join("file"), "host\n").unwrap();
        ground.give(&data);
        let at = |options: &str| format!("{}:/vol{options}", data.display());
        assert_eq!(ground.run(&["-v", &at("")], "cat /vol/file; echo new > /vol/new; cat /vol/new"), "host\nnew");
        assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "new\n");
        assert_eq!(ground.run(&["-v", &at(":ro")], "echo x > /vol/y || true; ls /vol"), "file\nnew");
        assert_eq!(ground.run(&["-v", &at(":ro,noexec")], "grep ' /vol ' /proc/self/mountinfo | grep -c noexec"), "1");
        let file = format!("{}:/etc/given/deep:ro", data.join("file").display());
        assert_eq!(ground.run(&["-v", &file], "cat /etc/given/deep"), "host");
        let said = ground.run(
            &["--tmpfs", "/t:size=1m", "--mount", "type=tmpfs,dst=/u,tmpfs-mode=700"],
            "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /u; touch /t/x",
        );
        assert_eq!(said, "1024\n700");
        ground.refused(&["--mount", &format!("type=bind,src={}/none,dst=/x", data.display())], &["No such file"]);
    }
}

#[test]
fn a_read_only_volume_is_so_for_what_is_mounted_on_it() {
    let ground = Ground::new(Who::Root);
    let data = ground.dir("data");
    fs::create_dir(data.join("on")).unwrap();
    sh(&format!("mount -t tmpfs x {}", data.join("on").display()));
    let volume = format!("{}:/vol:ro", data.display());
    assert_eq!(ground.run(&["-v", &volume], "touch /vol/on/x 2> /dev/null && echo written; true"), "");
}

#[test]
fn a_read_only_root_takes_nothing_but_in_its_mounts() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        // What has to be mounted on is there from the first time.
        ground.run(&[], "true");
        assert_eq!(
            ground.run(&["--read-only"], "touch /x 2> /dev/null || echo no; touch /dev/shm/x && echo yes"),
            "no\nyes"
        );
    }
}

#[test]
fn limits_hold() {
    let ground = Ground::new(Who::Root);
    let options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cpuset-cpus", "0", "--cpu-shares", "512"];
    let said = ground.run(&options, "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max cpuset/cpuset.cpus; grep Cpus_allowed_list /proc/self/status | cut -f2");
    assert_eq!(said, "67108864\n134217728\n50000\n512\n20\n0\n0");
    let forks =
        ground.try_run(&["--pids-limit", "5"], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    assert!(forks.stderr.contains("can't fork"), "{}", forks.stderr);
    let memory = ground
        .try_run(&["-m", "16m", "--memory-swap", "16m"], &["sh", "-c", "head -c 64m /dev/zero | tail -c 60m | wc -c"]);
    assert!(!memory.stdout.contains("62914560"), "{}", memory.stdout);
    assert_eq!(
        ground.run(&["--ulimit", "nofile=100:200", "--ulimit", "core=0"], "ulimit -n; ulimit -Hn; ulimit -c"),
        "100\n200\n0"
    );
    let memory = ["-m", "64m", "--memory-reservation", "32m", "--memory-swappiness", "7", "--oom-kill-disable"];
    let said = ground.run(
        &memory,
        "cd /sys/fs/cgroup/memory; cat memory.soft_limit_in_bytes memory.swappiness; grep oom_kill_disable memory.oom_control",
    );
    assert_eq!(said, "33554432\n7\noom_kill_disable 1");
    let disk = sh("lsblk -dnpo NAME | head -1");
    let at = |rate: &str| format!("{disk}:{rate}");
    let (bytes, count) = (at("1m"), at("100"));
    let said = ground.run(
        &[
            "--device-read-bps",
            &bytes,
            "--device-write-bps",
            &bytes,
            "--device-read-iops",
            &count,
            "--device-write-iops",
            &count,
        ],
        "cd /sys/fs/cgroup/blkio; cat blkio.throttle.*_device | cut -d' ' -f2 | tr '\\n' ' '",
    );
    assert_eq!(said, "1048576 100 1048576 100");
    assert_eq!(ground.run(&["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "1024");
    assert_eq!(ground.run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
}

#[test]
fn a_limit_that_a_plain_user_cannot_have_is_refused() {
    for who in [Who::User, Who::Alone] {
        let ground = Ground::new(who);
        for limit in [
            &["-m", "64m"][..],
            &["--cpus", "0.5"],
            &["--cpu-shares", "512"],
            &["--cpuset-cpus", "0"],
            &["--pids-limit", "20"],
            &["--blkio-weight", "100"],
        ] {
            ground.refused(limit, &["plain user"]);
        }
    }
}

#[test]
fn kernel_parameters_are_the_container_s_own() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let before = sh("cat /proc/sys/net/ipv4/ip_default_ttl");
        let said = ground.run(&["--sysctl", "net.ipv4.ip_default_ttl=77"], "cat /proc/sys/net/ipv4/ip_default_ttl");
        assert_eq!(said, "77", "{who:?}");
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_default_ttl"), before);
        ground.refused(&["--network", "host", "--sysctl", "net.ipv4.ip_default_ttl=77"], &["is the host's"]);
    }
}

#[test]
fn the_host_s_network_is_shared_on_request() {
    let links = sh("ls /sys/class/net | wc -l");
    for who in EVERYBODY {
        let ground = Ground::new(who);
        assert_eq!(ground.run(&["--network", "host"], "tail -n +3 /proc/net/dev | wc -l"), links, "{who:?}");
        assert_eq!(
            ground.run(&[], "tail -n +3 /proc/net/dev | wc -l; ip -o -4 addr | awk '{print $4}'"),
            "1\n127.0.0.1/8"
        );
    }
}

#[test]
fn privileged_is_what_it_says() {
    let ground = Ground::new(Who::Root);
    let said = ground.run(&["--privileged"], "probe | grep -E 'mount tmpfs|unshare user|write /proc/sys|bpf'; grep -c Seccomp:.0 /proc/self/status; test -e /dev/kmsg && echo kmsg");
    assert!(said.contains("mount tmpfs: ok") && said.contains("unshare user: ok"), "{said}");
    assert!(said.ends_with("kmsg"), "{said}");
}

#[test]
fn no_new_privileges_and_other_filters() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '";
        assert_eq!(ground.run(&[], status), "0 2");
        assert_eq!(ground.run(&["--security-opt", "no-new-privileges"], status), "1 2");
        assert_eq!(ground.run(&["--security-opt", "seccomp=unconfined"], status), "0 0");
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
        fs::write(ground.scratch.join("profile.json"), profile).unwrap();
        let said = ground.run(&["--security-opt", "seccomp=profile.json"], "mkdir /tmp/x 2>&1 || true");
        assert!(said.contains("not supported"), "{said}");
    }
}

#[test]
fn devices_are_given_by_name() {
    let ground = Ground::new(Who::Root);
    assert_eq!(ground.run(&[], "test -e /dev/fuse || echo none"), "none");
    assert_eq!(
        ground.run(&["--device", "/dev/fuse"], "dd if=/dev/fuse of=/dev/null count=0 2> /dev/null && echo opened"),
        "opened"
    );
    assert_eq!(ground.run(&["--device", "/dev/fuse:/dev/renamed"], "stat -c %t:%T /dev/renamed"), "a:e5");
    // A directory has all of its devices; a rule lets one be used that is made inside.
    assert_eq!(ground.run(&["--device", "/dev/net:/dev/given"], "stat -c %t:%T /dev/given/tun"), "a:c8");
    let make =
        "mknod /tmp/fuse c 10 229; dd if=/tmp/fuse of=/dev/null count=0 2> /dev/null && echo opened || echo refused";
    assert_eq!(ground.run(&[], make), "refused");
    assert_eq!(ground.run(&["--device-cgroup-rule", "c 10:229 rwm"], make), "opened");
    let user = Ground::new(Who::User);
    assert_eq!(user.run(&["--device", "/dev/fuse"], "stat -c %t:%T /dev/fuse"), "a:e5");
}

#[test]
fn the_root_can_be_covered_instead_of_left() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        assert_eq!(
            ground.run(&["--no-pivot"], "ls /etc; test -e /var/tmp || echo inside"),
            "group\nhostname\nhosts\npasswd\nresolv.conf\ninside",
            "{who:?}"
        );
    }
}

#[test]
fn an_init_reaps_and_hands_signals_on() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let said = ground.run(&["--init"], "cat /proc/1/comm; (sleep 0.1 &) ; sleep 0.5; ls -d /proc/[0-9]* | wc -l; cat /proc/1/environ 2> /dev/null | wc -c");
        // init, the shell, ls, wc; the orphan was reaped; what init has in memory is nobody's to read.
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((lines[0], lines[2]), ("lamel-init", "0"), "{who:?}: {said}");
        // Neither are the words that lamel was given.
        assert_eq!(ground.run(&["--init", "-e", "A=word"], "tr -d '\\0' < /proc/1/cmdline"), "lamel-init", "{who:?}");
        assert!(lines[1].parse::<u32>().unwrap() <= 4, "{who:?}: {said}");
    }
}

/// No test machine has these modules.
#[test]
fn labels_of_modules_that_the_host_does_not_run_are_refused() {
    fn option(option: &str) -> [&str; 2] {
        ["--security-opt", option]
    }
    for who in EVERYBODY {
        let ground = Ground::new(who);
        ground.refused(&option("apparmor=docker-default"), &["AppArmor", "does not run it"]);
        for label in ["type:container_t", "level:s0:c1,c2", "user:u", "role:r", "filetype:f"] {
            ground.refused(&option(&format!("label={label}")), &["does not run SELinux"]);
        }
        ground.refused(&option("label=nested"), &["label=nested"]);
        let dir = ground.dir("volume");
        let volume = format!("{}:/v:z", dir.display());
        let options = [&option("apparmor=unconfined")[..], &option("label=disable"), &["-v", &volume]].concat();
        assert_eq!(ground.run(&options, "echo yes"), "yes");
    }
}
