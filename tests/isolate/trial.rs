//! `lamel try`.

use std::fs;
use std::path::PathBuf;

use super::kit::*;

/// A directory of the user's in which to try things, and where he keeps what he tried.
struct Home {
    ground: Ground,
    dir: PathBuf,
}

impl Home {
    fn new(who: Who) -> Self {
        let ground = Ground::new(who);
        let dir = ground.scratch.dir("home");
        fs::write(dir.join("a"), "first\n").unwrap();
        fs::write(dir.join("gone"), "").unwrap();
        fs::create_dir(dir.join("tree")).unwrap();
        fs::write(dir.join("tree/leaf"), "leaf\n").unwrap();
        ground.give(&dir);
        Self { ground, dir }
    }

    fn run(&self, options: &[&str], script: &str) -> Outcome {
        self.attempt(&[options, &["sh", "-c", script]].concat())
    }

    /// `lamel try` with these arguments.
    fn attempt(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.ground.who.command(std::path::Path::new("env"));
        command.arg(format!("HOME={}", self.dir.display())).arg(format!("XDG_DATA_HOME={}/.data", self.dir.display()));
        command.arg(self.ground.bin()).arg("try").args(arguments);
        command.current_dir(&self.dir);
        spawn_captured(command, std::time::Duration::from_secs(60))
    }

    /// Lines of the listing about this directory.
    fn listed(&self, out: &Outcome) -> Vec<String> {
        let dir = format!(" {}/", self.dir.display());
        out.stderr.lines().filter(|line| line.contains(&dir)).map(|line| line.replace(&dir, " ")).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_else(|error| error.to_string())
    }
}

const CHANGES: &str = "mv a b; echo second > a; rm gone; mkdir new; echo deep > new/file; mv tree wood; chmod 600 wood/leaf; ln -s b link";

#[test]
fn changes_are_listed_and_dropped() {
    for who in EVERYBODY {
        let home = Home::new(who);
        let out = home.run(&["-n"], &format!("{CHANGES}; cat a b; exit 4"));
        assert_eq!((out.status.code(), out.stdout.as_str()), (Some(4), "second\nfirst\n"), "{who:?}: {}", out.stderr);
        for line in ["C a", "A b", "D gone", "A new", "A new/file", "D tree", "A wood", "A link"] {
            assert!(home.listed(&out).iter().any(|listed| listed == line), "{who:?}: no {line} in {}", out.stderr);
        }
        assert_eq!((home.read("a").as_str(), home.dir.join("tree/leaf").exists()), ("first\n", true));
        assert!(!home.dir.join("b").exists() && home.dir.join("gone").exists());
    }
}

#[test]
fn changes_are_applied() {
    use std::os::unix::fs::MetadataExt;
    for who in EVERYBODY {
        let home = Home::new(who);
        let out = home.run(&["-y"], CHANGES);
        assert!(out.success(), "{who:?}: {}", out.stderr);
        assert_eq!((home.read("a").as_str(), home.read("b").as_str()), ("second\n", "first\n"), "{who:?}");
        assert_eq!((home.read("new/file").as_str(), home.read("wood/leaf").as_str()), ("deep\n", "leaf\n"), "{who:?}");
        assert!(!home.dir.join("gone").exists() && !home.dir.join("tree").exists());
        assert_eq!(fs::read_link(home.dir.join("link")).unwrap(), PathBuf::from("b"));
        let leaf = fs::metadata(home.dir.join("wood/leaf")).unwrap();
        assert_eq!((leaf.mode() & 0o7777, leaf.uid()), (0o600, who.id()));
        assert!(sh(&format!("find {} -name '.*lamel*'", home.dir.display())).is_empty());
    }
}

#[test]
fn changes_are_kept_and_gone_on_from() {
    for who in [Who::User, Who::Alone] {
        let home = Home::new(who);
        let kept = home.run(&["--keep", "work"], "echo kept > kept");
        assert!(kept.success() && kept.stderr.contains("kept in"), "{who:?}: {}", kept.stderr);
        assert!(!home.dir.join("kept").exists());
        let again = home.run(&["--keep", "work"], "cat kept; echo more >> kept; cat kept");
        assert_eq!(again.stdout, "kept\nkept\nmore\n", "{who:?}: {}", again.stderr);
        assert_eq!(home.run(&["-n"], "cat kept 2> /dev/null; ls .data/lamel/try").stdout, "");
    }
}

#[test]
fn what_is_kept_is_listed_applied_and_dropped() {
    for who in EVERYBODY {
        let home = Home::new(who);
        // Root keeps things where all tests of root's do.
        let names = ["one", "two"].map(|name| format!("{name}-{}", std::process::id()));
        let [one, two] = names.each_ref().map(String::as_str);
        for name in [one, two] {
            let out = home.run(&["--keep", name], &format!("{CHANGES}; echo {name} > mine"));
            assert!(out.success() && out.stderr.contains("--apply"), "{who:?}: {}", out.stderr);
        }
        let listed = home.attempt(&["--list"]).stdout;
        let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAME", "CHANGES"]);
        for name in [one, two] {
            let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{who:?}: {listed}"));
            assert!(row[1].parse::<u32>().unwrap() >= 10, "{who:?}: {listed}");
        }
        let changes = home.attempt(&["--list", one]).stdout;
        assert!(changes.contains(&format!("D {}/gone\n", home.dir.display())), "{who:?}: {changes}");
        assert!(home.dir.join("gone").exists() && !home.dir.join("mine").exists());
        let dropped = home.attempt(&["--drop", two]);
        assert!(dropped.success(), "{who:?}: {}", dropped.stderr);
        let applied = home.attempt(&["--apply", one]);
        assert!(applied.success(), "{who:?}: {}", applied.stderr);
        assert_eq!((home.read("a"), home.read("b")), ("second\n".to_owned(), "first\n".to_owned()), "{who:?}");
        assert_eq!((home.read("mine"), home.read("new/file")), (format!("{one}\n"), "deep\n".to_owned()), "{who:?}");
        assert!(
            !home.dir.join("gone").exists() && !home.dir.join("tree").exists() && home.dir.join("wood/leaf").exists()
        );
        let left = home.attempt(&["--list"]).stdout;
        assert!(!left.contains(one) && !left.contains(two), "{who:?}: {left}");
        for arguments in [&["--apply", one][..], &["--drop", two], &["--list", "nothing"], &["--drop", "../x"]] {
            assert_eq!(home.attempt(arguments).status.code(), Some(125), "{who:?}: {arguments:?}");
        }
        assert_eq!(home.attempt(&["--apply", one, "true"]).status.code(), Some(2), "{who:?}");
    }
}

#[test]
fn the_command_is_the_user_himself_and_sees_no_more_than_he() {
    for who in EVERYBODY {
        let home = Home::new(who);
        let out = home.run(
            &["-n"],
            "id -u; pwd; probe=/proc/1/root; ls -d /proc/[0-9]* | wc -l; touch /etc/lamel-test-trial && echo wrote",
        );
        let lines: Vec<&str> = out.stdout.lines().collect();
        assert_eq!((lines[0], lines[1]), (who.id().to_string().as_str(), home.dir.to_str().unwrap()));
        assert!(lines[2].parse::<u32>().unwrap() < 6, "{}", out.stdout);
        assert_eq!(lines.contains(&"wrote"), who == Who::Root, "{who:?}: {}", out.stdout);
        assert!(!PathBuf::from("/etc/lamel-test-trial").exists());
    }
}

#[test]
fn nobody_to_ask_is_told_before_anything_runs() {
    let home = Home::new(Who::User);
    let out = home.run(&[], "touch ran; echo ran");
    assert_eq!((out.status.code(), out.stdout.as_str()), (Some(125), ""));
    assert!(out.stderr.contains("-y, -n or --keep"), "{}", out.stderr);
}

#[test]
fn kill_9_leaves_neither_processes_nor_mounts() {
    for (who, word) in [(Who::Root, "31711"), (Who::User, "31712")] {
        let home = Home::new(who);
        let mut command = who.command(std::path::Path::new("env"));
        command.arg(format!("XDG_DATA_HOME={}/.data", home.dir.display())).arg(home.ground.bin());
        command.args(["try", "-n", "sleep", word]).current_dir(&home.dir);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let running = || {
            sh(&format!("grep -zlx '{}[{}]' /proc/[0-9]*/cmdline 2> /dev/null | wc -l || true", &word[..4], &word[4..]))
        };
        let wait = |what: &str, done: &dyn Fn() -> bool| {
            for _ in 0..400 {
                if done() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            panic!("{who:?}: still not so: {what}");
        };
        // lamel, its filesystem and the command; the init has a name of its own, and ends with the command.
        wait("it runs", &|| running() == "3");
        child.kill().unwrap();
        child.wait().unwrap();
        wait("nothing runs", &|| running() == "0");
    }
}
