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

/// A million files, none of which needs a block of disk.
fn many() -> Union {
    let s = Scratch::new();
    let base = tmpfs(&s, "many", "4g,nr_inodes=0");
    for d in 0..DIRS {
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

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Kernel overlayfs: has no daemon.
#[test]
fn no_descriptor_per_inode_and_few_bytes_and_all_given_back() {
    let u = many();
    let pid = u.pid();
    let (idle_rss, idle_fds) = (status(pid, "VmRSS"), descriptors(pid));
    assert_eq!(walk(&u, DIRS), DIRS * FILES);
    let (rss, fds) = (status(pid, "VmRSS"), descriptors(pid));
    let per_node = (rss.saturating_sub(idle_rss) * 1024) / (DIRS * FILES) as u64;
    println!(
        "idle {idle_rss} kB and {idle_fds} descriptors; with {} nodes {rss} kB and {fds}: {per_node} bytes a node",
        DIRS * FILES
    );
    assert!(fds < 2000, "{fds} descriptors for {} inodes", DIRS * FILES);
    assert!(per_node <= 230, "{per_node} bytes an idle node");
    // Forgotten nodes are given back, and walking again costs no more than the first time.
    let allowed = |nodes: usize| idle_rss + (300 * nodes / 1024) as u64;
    drop_caches();
    let given_back = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(100));
        status(pid, "VmRSS") < allowed(DIRS * FILES / 5)
    });
    assert!(given_back, "{} kB are held for nodes that the kernel forgot", status(pid, "VmRSS"));
    let again = walk(&u, DIRS / 5);
    assert!(status(pid, "VmRSS") <= allowed(2 * again), "{} kB for the second walk", status(pid, "VmRSS"));
    assert!(descriptors(pid) < 2000);
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
