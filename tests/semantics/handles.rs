//! Open files around a copy-up, an unlink, a rename: never a mixture of old and new content.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::io::Errno;

use super::{kit::*, sys::Mapping};

const LEN: usize = 256 << 10;

fn all_old() -> Union {
    Union::new(&format!("head -c {LEN} /dev/zero | tr '\\0' o > f"))
}

fn read_all(file: &File) -> Vec<u8> {
    let mut data = vec![0; LEN];
    file.read_exact_at(&mut data, 0).unwrap();
    data
}

/// All of one letter, which is returned.
#[track_caller]
fn uniform(data: &[u8]) -> char {
    let first = data[0];
    if let Some(at) = data.iter().position(|&b| b != first) {
        panic!("mixed content: {:?} at 0, {:?} at {at}", first as char, data[at] as char);
    }
    first as char
}

/// What a handle from before the copy-up reads where the file has `new`.
fn seen_before(new: char) -> char {
    if keeps_old() { 'o' } else { new }
}

/// Kernel overlayfs: the old handle keeps the lower's content for ever.
#[test]
fn a_reader_from_before_the_copy_up_follows_the_file() {
    let u = all_old();
    let reader = File::open(u.at("f")).unwrap();
    let mut half = vec![0; LEN / 2];
    reader.read_exact_at(&mut half, 0).unwrap();
    assert_eq!(uniform(&half), 'o');
    let writer = open_rw(u.at("f"));
    for letter in ['a', 'b', 'c'] {
        writer.write_all_at(&vec![letter as u8; LEN], 0).unwrap();
        assert_eq!(uniform(&read_all(&reader)), seen_before(letter), "the reader follows the file");
        assert_eq!(uniform(&read_all(&writer)), letter);
        assert_eq!(uniform(&fs::read(u.at("f")).unwrap()), letter);
    }
    drop(writer);
    assert_eq!(uniform(&fs::read(u.at("f")).unwrap()), 'c');
    assert_eq!(uniform(&fs::read(u.s.join("lower0/f")).unwrap()), 'o');
}

/// Kernel overlayfs: the old handle keeps the lower's content for ever.
#[test]
fn a_reader_from_before_the_copy_up_sees_every_page_written() {
    let u = all_old();
    let reader = File::open(u.at("f")).unwrap();
    let pages = LEN / 4096;
    for page in (0..pages).step_by(3) {
        let mut data = [0; 4096];
        reader.read_exact_at(&mut data, (page * 4096) as u64).unwrap();
    }
    let writer = open_rw(u.at("f"));
    let mut state = vec![b'o'; LEN];
    for page in (0..pages).rev().step_by(2) {
        let at = page * 4096;
        state[at..at + 4096].fill(b'n');
        writer.write_all_at(&state[at..at + 4096], at as u64).unwrap();
        let seen = read_all(&reader);
        assert!(if keeps_old() { uniform(&seen) == 'o' } else { seen == state }, "after page {page}");
    }
    assert!(fs::read(u.at("f")).unwrap() == state);
}

/// Kernel overlayfs: the old handle keeps the lower's content for ever.
#[test]
fn a_reader_from_before_metacopy_and_copy_up_follows_the_file() {
    let u = all_old();
    let reader = File::open(u.at("f")).unwrap();
    fs::set_permissions(u.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let meta_reader = File::open(u.at("f")).unwrap();
    assert_eq!(uniform(&read_all(&reader)), 'o');
    open_rw(u.at("f")).write_all_at(&vec![b'n'; LEN], 0).unwrap();
    assert_eq!(uniform(&read_all(&reader)), seen_before('n'));
    assert_eq!(uniform(&read_all(&meta_reader)), seen_before('n'));
    let after = File::open(u.at("f")).unwrap();
    assert_eq!(uniform(&read_all(&after)), 'n');
}

/// Kernel overlayfs: the old handle keeps the lower's content for ever.
#[test]
fn a_shared_mapping_from_before_the_copy_up_follows_the_file() {
    let u = all_old();
    let file = File::open(u.at("f")).unwrap();
    let map = Mapping::shared(&file, LEN, false);
    // Half of it is in memory before the write.
    assert_eq!(uniform(&map.bytes(0, LEN / 2)), 'o');
    let writer = open_rw(u.at("f"));
    writer.write_all_at(&vec![b'n'; LEN], 0).unwrap();
    assert_eq!(uniform(&map.bytes(0, LEN)), seen_before('n'));
    let now = Mapping::shared(&writer, LEN, false);
    assert_eq!(uniform(&now.bytes(0, LEN)), 'n');
}

#[test]
fn a_shared_mapping_writes_to_the_upper_alone() {
    let mut u = all_old();
    let file = open_rw(u.at("f"));
    let mut map = Mapping::shared(&file, LEN, true);
    map.set(5000, b'N');
    assert_eq!(read_all(&file)[5000], b'N', "read(2) sees the store");
    assert_eq!(fs::read(u.at("f")).unwrap()[5000], b'N');
    file.write_all_at(b"W", 9000).unwrap();
    assert_eq!(map.get(9000), b'W', "the mapping sees write(2)");
    map.sync();
    drop((map, file));
    u.m.remount();
    let data = fs::read(u.at("f")).unwrap();
    assert_eq!((data[5000], data[9000], data[0]), (b'N', b'W', b'o'));
    assert_eq!(uniform(&fs::read(u.s.join("lower0/f")).unwrap()), 'o');
}

#[test]
fn a_private_mapping_changes_nothing() {
    let u = all_old();
    let file = File::open(u.at("f")).unwrap();
    let mut map = Mapping::private(&file, LEN);
    map.set(0, b'P');
    assert_eq!(map.get(0), b'P');
    assert_eq!(uniform(&fs::read(u.at("f")).unwrap()), 'o');
    assert_eq!(names(u.up("")), [""; 0], "no copy-up for a private mapping");
}

#[test]
fn two_writers_from_before_the_first_write_share_the_file() {
    let u = all_old();
    let (a, b) = (open_rw(u.at("f")), open_rw(u.at("f")));
    a.write_all_at(b"A", 0).unwrap();
    b.write_all_at(b"B", 4096).unwrap();
    a.write_all_at(b"C", 8192).unwrap();
    for data in [read_all(&a), read_all(&b), fs::read(u.at("f")).unwrap()] {
        assert_eq!((data[0], data[4096], data[8192]), (b'A', b'B', b'C'));
    }
}

#[test]
fn a_second_writer_after_the_first_closed() {
    let mut u = all_old();
    open_rw(u.at("f")).write_all_at(b"A", 0).unwrap();
    let late = open_rw(u.at("f"));
    open_rw(u.at("f")).write_all_at(b"B", 1).unwrap();
    late.write_all_at(b"C", 2).unwrap();
    assert_eq!(&read_all(&late)[..4], b"ABCo");
    drop(late);
    u.m.remount();
    assert_eq!(&fs::read(u.at("f")).unwrap()[..4], b"ABCo");
}

#[test]
fn appenders_interleave() {
    as_native("echo 0 > f", |dir| {
        let open = || File::options().append(true).open(dir.join("f")).unwrap();
        let (mut a, mut b) = (open(), open());
        for i in 0..20 {
            writeln!(a, "a{i}").unwrap();
            writeln!(b, "b{i}").unwrap();
        }
        fs::read_to_string(dir.join("f")).unwrap()
    });
}

#[test]
fn an_opened_but_unwritten_file_is_unchanged() {
    let mut u = all_old();
    let before = stat(u.at("f"));
    drop(open_rw(u.at("f")));
    let after = stat(u.at("f"));
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
    u.m.remount();
    assert_eq!(uniform(&fs::read(u.at("f")).unwrap()), 'o');
}

#[test]
fn attributes_through_a_read_only_handle() {
    as_native("echo x > f", |dir| {
        let fd = File::open(dir.join("f")).unwrap();
        fd.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        rustix::fs::fsetxattr(&fd, "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
        std::os::unix::fs::fchown(&fd, Some(5), Some(6)).unwrap();
        fd.sync_all().unwrap();
        (fd.metadata().unwrap().mode(), mode(dir.join("f")), get(dir.join("f"), "user.k"))
    });
}

fn use_unlinked(mut file: &File) -> impl PartialEq + std::fmt::Debug {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let write = verdict(file.write_all(b"more"));
    let cut = verdict(file.set_len(2));
    let chmod = verdict(file.set_permissions(fs::Permissions::from_mode(0o611)));
    let times = verdict(file.set_modified(std::time::UNIX_EPOCH));
    let sync = verdict(file.sync_all());
    let meta = file.metadata().unwrap();
    let mut now = [0; 16];
    let n = file.read_at(&mut now, 0).unwrap();
    let seen = (meta.nlink(), meta.len(), meta.mode(), meta.mtime());
    (text, write, cut, chmod, times, sync, seen, now[..n].to_vec())
}

#[test]
fn an_unlinked_writable_handle_works_on() {
    as_native("echo lower > f; echo lower > m", |dir| {
        fs::write(dir.join("new"), "upper\n").unwrap();
        fs::set_permissions(dir.join("m"), fs::Permissions::from_mode(0o666)).unwrap();
        ["f", "m", "new"].map(|name| {
            let file = open_rw(dir.join(name));
            fs::remove_file(dir.join(name)).unwrap();
            format!("{:?}", use_unlinked(&file))
        })
    });
}

#[test]
fn an_unlinked_readable_handle_reads_on() {
    as_native("echo lower > f; echo meta > m; ln f h", |dir| {
        fs::write(dir.join("new"), "upper\n").unwrap();
        fs::set_permissions(dir.join("m"), fs::Permissions::from_mode(0o666)).unwrap();
        ["f", "m", "new"].map(|name| {
            let mut file = File::open(dir.join(name)).unwrap();
            fs::remove_file(dir.join(name)).unwrap();
            fs::write(dir.join(name), "another file of this name").unwrap();
            let meta = file.metadata().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            fs::remove_file(dir.join(name)).unwrap();
            (meta.nlink(), meta.len(), meta.mode(), text)
        })
    });
}

/// Kernel overlayfs: a lower file that is unlinked cannot be copied up any more (`ENOENT`).
#[test]
fn attributes_of_an_unlinked_lower_file_through_its_handle() {
    as_native("echo lower > f", |dir| {
        let file = File::open(dir.join("f")).unwrap();
        fs::remove_file(dir.join("f")).unwrap();
        let chmod = verdict(file.set_permissions(fs::Permissions::from_mode(0o611)));
        (chmod, file.metadata().unwrap().mode(), file.metadata().unwrap().nlink())
    });
}

#[test]
fn a_replaced_file_keeps_its_content_in_its_handle() {
    as_native("echo old > f; echo other > g", |dir| {
        let mut handle = File::open(dir.join("f")).unwrap();
        fs::write(dir.join("new"), "new").unwrap();
        fs::rename(dir.join("new"), dir.join("f")).unwrap();
        let writer = open_rw(dir.join("g"));
        fs::rename(dir.join("f"), dir.join("g")).unwrap();
        writer.write_all_at(b"lost", 0).unwrap();
        let mut text = String::new();
        handle.read_to_string(&mut text).unwrap();
        let links = (handle.metadata().unwrap().nlink(), writer.metadata().unwrap().nlink());
        (text, links, fs::read_to_string(dir.join("g")).unwrap())
    });
}

#[test]
fn a_handle_follows_its_file_over_renames() {
    as_native("mkdir -p d/sub; echo x > d/sub/f", |dir| {
        let reader = File::open(dir.join("d/sub/f")).unwrap();
        fs::rename(dir.join("d/sub/f"), dir.join("d/g")).unwrap();
        fs::rename(dir.join("d"), dir.join("e")).unwrap();
        let mut writer = File::options().append(true).open(dir.join("e/g")).unwrap();
        fs::rename(dir.join("e/g"), dir.join("h")).unwrap();
        writer.write_all(b"y\n").unwrap();
        reader.set_permissions(fs::Permissions::from_mode(0o604)).unwrap();
        (mode(dir.join("h")), fs::read_to_string(dir.join("h")).unwrap())
    });
}

#[test]
fn truncation_by_another_handle() {
    as_native("echo 0123456789 > f; echo abcdefgh > g", |dir| {
        let reader = open_rw(dir.join("f"));
        fs::write(dir.join("f"), "ab").unwrap();
        let mut data = [0; 16];
        let n = reader.read_at(&mut data, 0).unwrap();
        let grow = verdict(reader.set_len(5));
        let other = open_rw(dir.join("g"));
        File::options().write(true).open(dir.join("g")).unwrap().set_len(3).unwrap();
        let m = other.read_at(&mut data, 1).unwrap();
        (n, grow, m, fs::read(dir.join("f")).unwrap(), other.metadata().unwrap().len())
    });
}

#[test]
fn a_running_program_is_busy() {
    let fill = "cp $(command -v sleep) s; chmod 755 s";
    as_native(fill, |dir| {
        let mut child = std::process::Command::new(dir.join("s")).arg("30").spawn().unwrap();
        let write = verdict(File::options().write(true).open(dir.join("s")));
        let chmod = verdict(fs::set_permissions(dir.join("s"), fs::Permissions::from_mode(0o700)));
        child.kill().unwrap();
        child.wait().unwrap();
        let later = verdict(File::options().write(true).open(dir.join("s")));
        (write, chmod, later)
    });
}

#[test]
fn handles_of_removed_and_replaced_directories() {
    as_native("mkdir -p d e n; echo x > n/x", |dir| {
        let removed = File::open(dir.join("d")).unwrap();
        fs::remove_dir(dir.join("d")).unwrap();
        let replaced = File::open(dir.join("e")).unwrap();
        fs::rename(dir.join("n"), dir.join("e")).unwrap();
        let make = rustix::fs::mkdirat(&removed, "x", 0o755.into());
        let list = rustix::fs::Dir::read_from(&replaced)
            .map(|d| d.filter_map(Result::ok).filter(|e| !e.file_name().to_bytes().starts_with(b".")).count());
        let links = (removed.metadata().unwrap().nlink(), replaced.metadata().unwrap().nlink());
        assert_eq!(make, Err(Errno::NOENT));
        (links, list.ok(), make)
    });
}

const SQLITE: &str = r"
import sqlite3, subprocess, sys
path, journal, mapped, mode, kept = sys.argv[1:6]
def connect(mode='rw'):
    c = sqlite3.connect('file:' + path + '?mode=' + mode, uri=True, timeout=20, isolation_level=None)
    c.execute('pragma mmap_size=' + mapped)
    return c
if len(sys.argv) > 6:
    c = connect()
    c.execute('pragma journal_mode=' + journal)
    c.execute('begin immediate')
    c.execute('update t set v = v + 1')
    c.execute('insert into t select k + 100000, v, hex(randomblob(100)) from t where k < 500')
    c.execute('commit')
    sys.exit()
reader = connect(mode)             # has the lower file open, and pages of it in the cache
assert reader.execute('select sum(v) from t').fetchone()[0] == 0
cursor = reader.execute('select v from t')
cursor.fetchone()
cursor.close()
subprocess.run([sys.executable, sys.argv[0], path, journal, mapped, mode, kept, 'write'], check=True)
n = reader.execute('select count(*), sum(v), min(v), max(v) from t').fetchone()
new = (2500, 2500, 1, 1)
assert n == ((2000, 0, 0, 0) if mode == 'ro' and kept == 'true' else new), n
assert reader.execute('pragma integrity_check').fetchone()[0] == 'ok'
if mode == 'ro':
    reader.close()
    reader = connect()
    assert reader.execute('select count(*), sum(v), min(v), max(v) from t').fetchone() == new
reader.execute('update t set v = v + 1')
reader.close()
again = connect()
assert again.execute('select sum(v) from t').fetchone()[0] == 5000
assert again.execute('pragma integrity_check').fetchone()[0] == 'ok'
again.close()
";

fn sqlite(journal: &str, mapped: usize, mode: &str) {
    let mut u = Union::new(
        "python3 -c \"
import sqlite3
c = sqlite3.connect('db')
c.execute('create table t (k integer primary key, v integer, x text)')
c.executemany('insert into t values (?, 0, ?)', ((i, 'x' * 200) for i in range(2000)))
c.commit()\"",
    );
    let script = u.s.join("two-handles.py");
    fs::write(&script, SQLITE).unwrap();
    u.run(&format!("python3 {} db {journal} {mapped} {mode} {}", script.display(), keeps_old()));
    u.m.remount();
    let check = "python3 -c \"import sqlite3; c = sqlite3.connect('db'); print(c.execute('pragma integrity_check').fetchone()[0], c.execute('select sum(v) from t').fetchone()[0])\"";
    assert_eq!(u.run(check), "ok 5000");
    integrity_of(&u.s.join("lower0/db"));
}

fn integrity_of(db: &Path) {
    let check = "import sqlite3,sys; c = sqlite3.connect(sys.argv[1]); assert c.execute('select sum(v), count(*) from t').fetchone() == (0, 2000)";
    sh(&format!("python3 -c \"{check}\" {}", db.display()));
}

#[test]
fn sqlite_two_connections_rollback_journal() {
    sqlite("delete", 0, "rw");
}

#[test]
fn sqlite_two_connections_wal() {
    sqlite("wal", 0, "rw");
}

#[test]
fn sqlite_two_connections_mapped() {
    sqlite("delete", 64 << 20, "rw");
}

/// A read-only connection keeps a handle from before the copy-up, and sees what the writer commits. Kernel overlayfs, and
/// `io=passthrough`: it keeps the old database.
#[test]
fn sqlite_reader_from_before_the_copy_up() {
    sqlite("delete", 0, "ro");
    sqlite("delete", 64 << 20, "ro");
    sqlite("truncate", 0, "ro");
}
