//! A container in a terminal, under tmux as a user would have it.

use std::time::Duration;

use super::common::Tmux;
use super::house::*;

#[test]
fn a_shell_that_is_left_and_found_again() {
    for who in EVERYBODY {
        let house = House::new(who);
        let tmux = Tmux::run(&house.command(&["run", "-it", "--name", "c", "-e", "PS1=% ", "bb", "sh"]));
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
        let again = Tmux::run(&house.command(&["attach", "c"]));
        std::thread::sleep(Duration::from_millis(500));
        again.keys("C-u 'echo still $X; exit 5' Enter");
        again.shows("still 42");
        again.shows("status 5");
        assert_eq!(house.state("c"), "exited 5");
        let start = Tmux::run(&house.command(&["start", "-ai", "--detach-keys", "a,b", "c"]));
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
