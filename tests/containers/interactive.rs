//! A container in a terminal, under tmux as a user would have it.

use std::time::{Duration, Instant};

use super::house::*;

/// A tmux server of its own, which ends with the test.
struct Tmux(String);

impl Tmux {
    fn start(house: &House, name: &str, words: &[&str]) -> Self {
        let socket = format!("lamel-containers-{}-{:?}-{name}", std::process::id(), house.ground.who);
        let line = house.command(words);
        let words: Vec<String> = std::iter::once(line.get_program())
            .chain(line.get_args())
            .map(|word| quote(word.to_str().unwrap()))
            .collect();
        let command = format!("{}; echo status $?; sleep 60", words.join(" "));
        sh(&format!("tmux -f /dev/null -L {socket} new-session -d -x 90 -y 30 {}", quote(&command)));
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
fn a_shell_that_is_left_and_found_again() {
    for who in EVERYBODY {
        let house = House::new(who);
        let tmux = Tmux::start(&house, "run", &["run", "-it", "--name", "c", "-e", "PS1=% ", "bb", "sh"]);
        tmux.shows("%");
        tmux.keys("'tty; stty size | tr \" \" x' Enter");
        tmux.shows("/dev/pts/0");
        tmux.shows("30x90");
        tmux.tell("resize-window -x 100 -y 40");
        tmux.keys("'sleep 0.3; stty size | tr \" \" x' Enter");
        tmux.shows("40x100");
        tmux.keys("'sleep 1000' Enter");
        std::thread::sleep(Duration::from_millis(300));
        tmux.keys("C-c");
        // A shell that takes its terminal back throws away what was typed before.
        std::thread::sleep(Duration::from_millis(300));
        tmux.keys("'X=$((6 * 7))' Enter");
        // A first key by itself is the container's.
        tmux.keys("C-p");
        tmux.keys("C-p C-q");
        tmux.shows("status 0");
        assert_eq!(house.state("c"), "running 0");
        let again = Tmux::start(&house, "attach", &["attach", "c"]);
        std::thread::sleep(Duration::from_millis(500));
        again.keys("C-u 'echo still $X; exit 5' Enter");
        again.shows("still 42");
        again.shows("status 5");
        assert_eq!(house.state("c"), "exited 5");
        let start = Tmux::start(&house, "start", &["start", "-ai", "--detach-keys", "a,b", "c"]);
        start.shows("%");
        start.keys("ab");
        start.shows("status 0");
        assert_eq!(house.state("c"), "running 0");
        house.ok(&["rm", "-f", "c"]);
        house.assert_empty();
    }
}

#[test]
fn a_terminal_s_output_is_logged() {
    let house = House::new(Who::User);
    house.ok(&["run", "-d", "-t", "--name", "c", "bb", "sh", "-c", "test -t 1 && echo a terminal; sleep 1000"]);
    house.eventually("it said so", || house.ok(&["logs", "c"]).trim_end() == "a terminal");
    assert!(house.fails(125, &["run", "-it", "bb", "true"]).contains("needs a terminal"));
    house.ok(&["rm", "-f", "c"]);
    house.assert_empty();
}
