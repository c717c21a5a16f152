//! What the daemon holds for what the kernel caches.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    thread,
    time::Duration,
};

use super::kit::*;

const DIRS: usize = 1000;
const FILES: usize = 1000;

fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key} in status"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Files, a thousand to a directory, none of which needs a block of disk.
fn many(dirs: usize) -> Union {
    let s = Scratch::new();
    let base = tmpfs(&s, "many", "4g,nr_inodes=0");
    for d in 0..dirs {
        let dir = base.join(format!("lower0/directory-{d}"));
        fs::create_dir_all(&dir).unwrap();
        for f in 0..FILES {
            File::create(dir.join(format!("a-file-{f}"))).unwrap();
        }
    }
    union_in(s, &base, &[])
}

/// Looks up every file of the first directories, so that the kernel caches an inode for each.
fn walk(u: &Union, dirs: usize) -> usize {
    let mut found = 0;
    for d in 0..dirs {
        let dir = u.at(format!("directory-{d}"));
        for entry in fs::read_dir(&dir).unwrap() {
            let meta = entry.unwrap().metadata().unwrap();
            assert!(meta.ino() != 0);
            found += 1;
        }
    }
    found
}

/// Memory of a daemon, less that of its program's own file, in bytes.
fn held(pid: u32) -> u64 {
    status(pid, "RssAnon") * 1024
}

/// Has the kernel forget what it can, again and again, until the daemon holds no more than `allowed`: what each of its
/// threads keeps for its next allocations, a megabyte or so, comes on top of what it held when idle.
fn assert_given_back(pid: u32, allowed: u64) {
    let given_back = (0..60).any(|_| {
        drop_caches();
        thread::sleep(Duration::from_secs(1));
        held(pid) <= allowed
    });
    assert!(given_back, "{} bytes are held, more than {allowed}, when the kernel forgot all nodes", held(pid));
}

/// Kernel overlayfs: has no daemon.
#[test]
fn no_descriptor_per_inode_and_few_bytes_and_all_given_back() {
    let u = many(DIRS);
    let (pid, nodes) = (u.pid(), (DIRS * FILES) as u64);
    let (idle, idle_fds) = (held(pid), descriptors(pid));
    let caches = keep_caches();
    assert_eq!(walk(&u, DIRS) as u64, nodes);
    let (walked, fds) = (held(pid), descriptors(pid));
    let per_node = walked.saturating_sub(idle) / nodes;
    println!("idle {idle} bytes, {idle_fds} descriptors; {nodes} nodes {walked}, {fds}: {per_node} bytes a node");
    assert!(fds < 2000, "{fds} descriptors for {nodes} inodes");
    assert!(per_node <= 160, "{per_node} bytes an idle node");
    drop(caches);
    // Forgotten nodes are given back, and walking again costs no more than the first time.
    assert_given_back(pid, idle + (walked - idle) / 3);
    assert!(descriptors(pid) < idle_fds + 100, "{} descriptors of directories that nobody uses", descriptors(pid));
    let _caches = keep_caches();
    let again = walk(&u, DIRS / 5) as u64;
    assert!(held(pid) <= idle + (walked - idle) / 2, "{} bytes for {again} nodes of a second walk", held(pid));
    u.assert_alive();
}

/// Also what a tree of ordinary size takes. Kernel overlayfs: has no daemon.
#[test]
fn forty_thousand_nodes_are_given_back() {
    let u = many(40);
    let (pid, idle) = (u.pid(), held(u.pid()));
    let caches = keep_caches();
    assert_eq!(walk(&u, 40), 40 * FILES);
    let walked = held(pid);
    drop(caches);
    assert!(walked > idle + (1 << 20), "{idle} bytes became {walked}");
    assert_given_back(pid, idle + (walked - idle) / 2);
    u.assert_alive();
}

/// Kernel overlayfs: has no daemon.
#[test]
fn open_files_are_closed_with_their_last_handle() {
    let u = Union::with(&["for i in $(seq 300); do echo x > f$i; done"], &["io=handles"]);
    let pid = u.pid();
    let before = descriptors(pid);
    let open: Vec<File> = (1..=300).map(|i| open_rw(u.at(format!("f{i}")))).collect();
    assert!(descriptors(pid) >= before + 250, "they are open");
    drop(open);
    for i in 1..=300 {
        fs::remove_file(u.at(format!("f{i}"))).unwrap();
    }
    u.run("ls > /dev/null");
    let after = descriptors(pid);
    assert!(after < before + 50, "{before} descriptors became {after}");
}
