//! What is synced, and what is not when the mount was told so. That it holds over a power cut is shown by the fault
//! tests. Kernel overlayfs: has no daemon whose calls could be seen.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::kit::*;

/// The calls by which a daemon syncs, as strace sees them while `act` runs.
fn syncs(u: &Union, act: impl FnOnce()) -> Vec<String> {
    let log: PathBuf = u.s.join("trace");
    let _ = fs::remove_file(&log);
    let mut child = Strace(
        Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync,utimensat", "-o"])
            .arg(&log)
            .args(["-p", &u.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace"),
    );
    // It is attached when a call of ours shows.
    let marker = u.at("marker");
    let seen = (0..200).any(|_| {
        let _ = File::create(&marker).and_then(|f| f.set_modified(std::time::UNIX_EPOCH));
        thread::sleep(Duration::from_millis(20));
        fs::read_to_string(&log).is_ok_and(|text| text.contains("utimensat"))
    });
    assert!(seen, "strace does not see the daemon");
    act();
    thread::sleep(Duration::from_millis(50));
    child.end();
    let text = fs::read_to_string(&log).unwrap();
    text.lines().filter(|l| l.contains("sync")).map(str::to_owned).collect()
}

struct Strace(Child);

impl Strace {
    fn end(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

const FILL: &str = "head -c 100000 /dev/zero | tr '\\0' x > f; cp f g; mkdir d";

fn program_syncs(u: &Union) {
    let mut file = File::create(u.at("new")).unwrap();
    file.write_all(b"x").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    fs::create_dir(u.at("d/sub")).unwrap();
    File::open(u.at("d")).unwrap().sync_all().unwrap();
}

#[test]
fn a_programs_fsync_reaches_the_upper() {
    let u = Union::new(FILL);
    let seen = syncs(&u, || program_syncs(&u));
    assert!(seen.iter().filter(|l| l.contains("fsync(")).count() >= 2, "{seen:?}");
    assert!(seen.iter().any(|l| l.contains("fdatasync(")), "{seen:?}");
}

#[test]
fn a_copy_of_data_is_synced_before_it_is_published() {
    let u = Union::new(FILL);
    let seen = syncs(&u, || open_rw(u.at("f")).write_all(b"y").unwrap());
    assert_eq!(seen.len(), 1, "{seen:?}");
    // Attributes alone, and new files, wait for the filesystem's own time or a program's fsync.
    let seen = syncs(&u, || {
        u.run("chmod 600 g; mv d e; echo x > e/new; rm f");
    });
    assert_eq!(seen, [""; 0]);
}

#[test]
fn volatile_and_fsync_0_sync_nothing() {
    for opt in ["volatile", "fsync=0"] {
        let mut u = Union::with(&[FILL], &[opt]);
        let seen = syncs(&u, || {
            program_syncs(&u);
            open_rw(u.at("f")).write_all(b"y").unwrap();
        });
        assert_eq!(seen, [""; 0], "{opt}");
        u.m.remount();
        assert_eq!(u.read("new"), "x");
    }
}
