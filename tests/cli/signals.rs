//! What signals do to a daemon.

use super::*;
use rustix::process::{Pid, Signal, kill_process};

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_daemon_that_is_asked_to_end_unmounts() {
    let s = scratch();
    for number in [Signal::TERM, Signal::INT, Signal::HUP] {
        succeeds(&s, &format!("mount -o {STACK} mnt"));
        fs::write(s.join("mnt/file"), format!("{number:?}")).unwrap();
        let pid = daemon(&s.mnt());
        signal(pid, number);
        eventually("the daemon is gone", || !is_alive(pid));
        assert_eq!(mounts(&s), Vec::<String>::new());
        assert_eq!(fs::read_to_string(s.join("upper/file")).unwrap(), format!("{number:?}"));
    }
}

#[test]
fn a_daemon_with_users_ends_after_them_or_when_asked_twice() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let pid = daemon(&s.mnt());
    let user = fs::File::open(s.join("mnt/file")).unwrap();
    signal(pid, Signal::TERM);
    eventually("unmounted", || mounts(&s).is_empty());
    assert!(is_alive(pid));
    assert_eq!(std::io::read_to_string(&user).unwrap(), "lower\n");
    signal(pid, Signal::TERM);
    eventually("the daemon gives up", || !is_alive(pid));
    drop(user);
}

#[test]
fn usr1_logs_the_counters() {
    let s = scratch();
    succeeds(&s, &format!("mount --log-file log -o {STACK} mnt"));
    let pid = daemon(&s.mnt());
    assert_eq!(fs::read_to_string(s.join("log")).unwrap(), "");
    signal(pid, Signal::USR1);
    eventually("counters are logged", || fs::read_to_string(s.join("log")).unwrap().contains("requests="));
    assert!(is_alive(pid) && s.join("mnt/file").exists());
    succeeds(&s, "umount mnt");
}
