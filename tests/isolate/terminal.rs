//! `-t`: a terminal of the container's own, under tmux as a user would have it.

use std::time::Duration;

use super::common::Tmux;
use super::kit::*;

#[test]
fn a_shell_in_a_terminal() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let tmux = Tmux::run(&ground.command(&["-it", "-e", "PS1=% "], &["sh"]));
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
