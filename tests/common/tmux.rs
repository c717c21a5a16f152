//! A terminal as a user would have it.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::run::sh;

/// A tmux server of its own, with one window of 90 columns and 30 rows; it ends with the test.
pub struct Tmux(String);

impl Tmux {
    /// Runs a command line of the shell's.
    pub fn start(command: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let socket = format!("lamel-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        sh(&format!("tmux -f /dev/null -L {socket} new-session -d -x 90 -y 30 {}", quote(command)));
        Self(socket)
    }

    /// Runs a command, then shows its `status N`.
    pub fn run(command: &Command) -> Self {
        Self::start(&format!("{}; echo status $?; sleep 60", line(command)))
    }

    pub fn tell(&self, words: &str) -> String {
        sh(&format!("tmux -L {} {words}", self.0))
    }

    pub fn keys(&self, keys: &str) {
        self.tell(&format!("send-keys {keys}"));
    }

    /// Waits until a line of the screen is `text`.
    #[track_caller]
    pub fn shows(&self, text: &str) {
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

/// A command as a shell reads it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
