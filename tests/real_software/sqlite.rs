//! SQLite with a write-ahead log, on a database of a lower: writers killed, the daemon killed, several at once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::beside;
use crate::common::{Scratch, Subject, sh};

const PYTHON: &str = "/usr/bin/python3";

#[test]
fn a_killed_writer_loses_nothing_committed() {
    for options in [&[][..], &["writeback=1"], &["io=passthrough"]] {
        let scratch = Scratch::new();
        database(&scratch.lower(0));
        let acknowledged = scratch.join("acknowledged");
        let mut mounted = Subject::lamel().mount(&scratch, 1, true, options);
        for round in 0..8_u64 {
            let mut writer = Writer::start(&mounted.join("db/data"), &acknowledged);
            writer.wait_for_progress();
            sleep(Duration::from_millis(37 * round));
            writer.kill();
            check(&mounted.join("db/data"), &acknowledged);
        }
        mounted.remount();
        check(&mounted.join("db/data"), &acknowledged);
        mounted.unmount();
    }
}

#[test]
fn a_killed_daemon_loses_nothing_committed() {
    for options in [&[][..], &["writeback=1"], &["io=passthrough"]] {
        let scratch = Scratch::new();
        database(&scratch.lower(0));
        let acknowledged = scratch.join("acknowledged");
        let mut mounted = Subject::lamel().mount(&scratch, 1, true, options);
        for round in 0..5_u64 {
            let mut writer = Writer::start(&mounted.join("db/data"), &acknowledged);
            writer.wait_for_progress();
            sleep(Duration::from_millis(53 * round));
            mounted.kill9();
            writer.kill();
            mounted.mount_again();
            check(&mounted.join("db/data"), &acknowledged);
        }
        mounted.unmount();
    }
}

#[test]
fn several_writers_take_turns() {
    let scratch = Scratch::new();
    database(&scratch.lower(0));
    let mut mounted = Subject::lamel().mount(&scratch, 1, true, &[]);
    let db = mounted.join("db/data");
    let mut writers: Vec<_> = (0..4)
        .map(|n| {
            let acknowledged = scratch.join(format!("acknowledged{n}"));
            Writer::start_for(&db, &acknowledged, 100)
        })
        .collect();
    for writer in &mut writers {
        let status = writer.0.wait().unwrap();
        assert!(status.success(), "a writer failed: {status}");
    }
    let rows = sh(&format!("sqlite3 {} 'pragma integrity_check; select count(*) from t'", db.display()));
    assert_eq!(rows, format!("ok\n{}", 1000 + 4 * 100));
    mounted.unmount();
}

/// A database of a thousand rows, with a log, in `db/` of a lower.
fn database(lower: &Path) {
    let dir = lower.join("db");
    fs::create_dir(&dir).unwrap();
    sh(&format!(
        "cd {} && sqlite3 data \"pragma journal_mode=wal; create table t(id integer primary key, writer int, text);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
         insert into t(writer, text) select 0, hex(randomblob(200)) from n; create index t_text on t(text);\"",
        dir.display()
    ));
}

/// The database is whole and has every row whose commit was acknowledged.
fn check(db: &Path, acknowledged: &Path) {
    let out = sh(&format!(
        "timeout 30 {PYTHON} {} check {} {}",
        beside("writer.py").display(),
        db.display(),
        acknowledged.display()
    ));
    assert!(out.starts_with("ok "), "{out}");
}

/// A process that inserts rows and notes each commit in a file of the disk. Drop kills it.
struct Writer(Child, std::path::PathBuf, u64);

impl Writer {
    fn start(db: &Path, acknowledged: &Path) -> Self {
        Self::start_for(db, acknowledged, 1_000_000)
    }

    fn start_for(db: &Path, acknowledged: &Path, rows: u32) -> Self {
        let seen = size(acknowledged);
        let child = Command::new(PYTHON)
            .arg(beside("writer.py"))
            .args([Path::new("write"), db, acknowledged])
            .arg(rows.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child, acknowledged.to_owned(), seen)
    }

    /// Waits for the first acknowledged commits of this writer.
    fn wait_for_progress(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while size(&self.1) < self.2 + 100 {
            assert!(self.0.try_wait().unwrap().is_none(), "the writer ended by itself");
            assert!(Instant::now() < end, "the writer makes no progress");
            sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |meta| meta.len())
}
