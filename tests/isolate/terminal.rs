//! `-t`: a terminal of the container's own, under tmux as a user would have it.

use std::time::{Duration, Instant};

use super::kit::*;

/// A tmux server of its own, which ends with the test.
struct Tmux(String);

impl Tmux {
    fn start(ground: &Ground, command: &str) -> Self {
        let socket = format!("lamel-test-{}-{:?}", std::process::id(), ground.who);
        sh(&format!("tmux -f /dev/null -L {socket} new-session -d -x 90 -y 30 {}", quote(command)));
        Self(socket)
    }

    fn tell(&self, words: &str) -> String {
        sh(&format!("tmux -L {} {words}", self.0))
    }

    fn keys(&self, keys: &str) {
        self.tell(&format!("send-keys {keys}"));
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let start = Instant::now();
        loop {
            let screen = self.tell("capture-pane -p");
            if screen.lines().any(|line| line.trim_end() == text) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no line {text:?} in\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        sh(&format!("tmux -L {} kill-server 2> /dev/null || true", self.0));
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn a_shell_in_a_terminal() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let line = ground.command(&["-it", "-e", "PS1=% "], &["sh"]);
        let words: Vec<String> = std::iter::once(line.get_program())
            .chain(line.get_args())
            .map(|word| quote(word.to_str().unwrap()))
            .collect();
        let tmux = Tmux::start(&ground, &format!("{}; echo status $?; sleep 60", words.join(" ")));
        tmux.shows("%");
        tmux.keys("'tty; ls /dev/pts; stat -c %t /dev/console' Enter");
        tmux.shows("/dev/pts/0");
        tmux.shows("88");
        tmux.keys("'stty size | tr \" \" x' Enter");
        tmux.shows("30x90");
        tmux.tell("resize-window -x 100 -y 40");
        tmux.keys("'sleep 0.3; stty size | tr \" \" x' Enter");
        tmux.shows("40x100");
        // Ctrl-C ends the program in the foreground, not the shell.
        tmux.keys("'sleep 1000' Enter");
        std::thread::sleep(Duration::from_millis(300));
        tmux.keys("C-c");
        tmux.keys("'echo still $((6 * 7)); exit 5' Enter");
        tmux.shows("still 42");
        tmux.shows("status 5");
    }
}

#[test]
fn a_terminal_without_one_outside() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        assert_eq!(ground.run(&["-t"], "tty; test -t 0 && test -t 1 && echo all").replace('\r', ""), "/dev/pts/0\nall");
        if who != Who::Alone {
            let said = ground.run(&["-t", "-u", "me"], "tty; echo again > /dev/pts/0").replace('\r', "");
            assert_eq!(said, "/dev/pts/0\nagain");
        }
        let out = ground.try_run(&["-it"], &["true"]);
        assert!(out.status.code() == Some(125) && out.stderr.contains("terminal"), "{}", out.stderr);
    }
}
