//! `exec -it`, under tmux as a user would have it.

use std::time::Duration;

use super::common::{Tmux, line};
use super::kit::*;
use super::running::*;

#[test]
fn a_shell_in_a_terminal_of_the_container_s() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let tmux = Tmux::run(&running.command(&["-it", "-e", "PS1=% "], &["sh"]));
        tmux.shows("%");
        tmux.keys("'tty; echo $TERM; id -u' Enter");
        tmux.shows("/dev/pts/0");
        tmux.shows("xterm");
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
fn keys_leave_the_command_alone() {
    for (who, keys, typed) in [(Who::Root, "ctrl-p,ctrl-q", "C-p C-q"), (Who::User, "ctrl-x,x", "C-x x")] {
        let running = Running::start(who, &[]);
        let script = "trap 'echo hung up > /tmp/end; exit 1' HUP; echo ready; until test -e /tmp/go; do sleep 0.05; done; \
                      seq 20000; echo went on > /tmp/end; exec sleep 100000";
        let command = line(&running.command(&["-it", "--detach-keys", keys], &["sh", "-c", script]));
        // The terminal echoes what the container gets.
        let told = format!("{command}; code=$?; echo; echo status $code; sleep 60");
        let tmux = Tmux::start(&told);
        tmux.shows("ready");
        // Half of the keys are not the keys.
        tmux.keys("C-p");
        tmux.keys(typed);
        tmux.shows("status 0");
        // More than a terminal holds that nobody reads.
        std::fs::write(running.0.root().join("tmp/go"), "").unwrap();
        let end = running.0.root().join("tmp/end");
        eventually("it goes on", || std::fs::read_to_string(&end).is_ok_and(|text| !text.is_empty()));
        assert_eq!(std::fs::read_to_string(&end).unwrap(), "went on\n", "{who:?}");
    }
}

/// A descriptor of the user's own terminal would let the container read what is typed.
#[test]
fn without_t_the_user_s_terminal_stays_his_own() {
    let running = Running::start(Who::User, &[]);
    let script =
        "for fd in 0 1 2; do test -t $fd && echo terminal $fd; done; echo out; echo err >&2; read word; echo got $word";
    let tmux = Tmux::run(&running.command(&["-i"], &["sh", "-c", script]));
    tmux.shows("out");
    tmux.shows("err");
    tmux.keys("'word' Enter");
    tmux.shows("got word");
    tmux.shows("status 0");
    assert!(!tmux.tell("capture-pane -p").contains("terminal"));
    // What ends the input on a terminal ends it for the command.
    let tmux = Tmux::run(&running.command(&["-i"], &["wc", "-l"]));
    std::thread::sleep(Duration::from_millis(300));
    tmux.keys("'one' Enter C-d");
    tmux.shows("1");
    tmux.shows("status 0");
}

#[test]
fn a_terminal_is_out_of_the_container_s_devpts_or_there_is_none() {
    let running = Running::start(Who::Root, &["--privileged"]);
    assert_eq!(running.exec(&["-t"], "tty; test -t 0 && test -t 1 && echo all").replace('\r', ""), "/dev/pts/0\nall");
    running.exec(&[], "umount -l /dev/pts; touch /dev/pts/ptmx");
    running.refused(&["-t"], 126, "not of a devpts");
    running.exec(&[], "rm /dev/pts/ptmx; mknod /dev/pts/ptmx c 5 2");
    running.refused(&["-t"], 126, "/dev/pts/ptmx");
    running.exec(&[], "rm /dev/pts/ptmx; ln -s /dev/ptmx /dev/pts/ptmx");
    running.refused(&["-t"], 126, "symbolic links");
}
