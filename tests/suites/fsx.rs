//! fsx: random reads, writes, truncations and mappings of one file, checked against its own memory of it, starting on
//! a file of a lower.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::Duration,
};

use crate::{
    beside,
    common::{Compare, Scratch, Subject, assert_same, dump_all, sh, sh_timeout},
    require_version,
};

const SEEDS: [u32; 5] = [1, 7, 42, 1999, 65_537];
const OPERATIONS: u32 = 5_000;

#[test]
fn fsx_as_mounted_by_default() {
    on_a_root_mount(&[]);
}

#[test]
fn fsx_with_writeback() {
    on_a_root_mount(&["writeback=1"]);
}

#[test]
fn fsx_with_handles() {
    on_a_root_mount(&["io=handles"]);
}

#[test]
fn fsx_with_passthrough() {
    on_a_root_mount(&["io=passthrough"]);
}

fn on_a_root_mount(options: &[&str]) {
    require_version("fsx", "0.3.2");
    for seed in SEEDS {
        let scratch = Scratch::new();
        let content = lower_file(&scratch);
        let before = dump_all(&scratch.lower(0));
        let mut mounted = Subject::lamel().mount(&scratch, 1, true, options);
        let mut reader = File::open(mounted.join("d/file")).unwrap();
        // The checker's own copy of what it expects lies beside the file only if it fails.
        let artifacts = scratch.dir("artifacts");
        let out = sh_timeout(Path::new("/"), &fsx(&artifacts, &mounted.join("d/file"), seed), Duration::from_secs(120));
        assert!(out.success(), "{options:?}, seed {seed}: {}\n{}", out.stdout, out.stderr);
        // As on a disk, what was opened before the copy-up is the same file; what the kernel reads by itself stays as it was.
        let mut early = Vec::new();
        reader.read_to_end(&mut early).unwrap();
        drop(reader);
        let through = fs::read(mounted.join("d/file")).unwrap();
        assert!(
            early == if options.contains(&"io=passthrough") { content.clone() } else { through.clone() },
            "{options:?}, seed {seed}: a handle of before the copy-up reads {}",
            if early == content { "the lower" } else { "something mixed" }
        );
        mounted.remount();
        let again = fs::read(mounted.join("d/file")).unwrap();
        mounted.unmount();
        let on_disk = fs::read(scratch.upper().join("d/file")).unwrap();
        assert!(through == again && again == on_disk, "{options:?}, seed {seed}: content changed by the remount");
        assert_same("the lower", &before, &dump_all(&scratch.lower(0)), Compare::UNTOUCHED);
    }
}

#[test]
fn fsx_in_a_user_namespace() {
    require_version("fsx", "0.3.2");
    for seed in SEEDS {
        let scratch = Scratch::new();
        lower_file(&scratch);
        let artifacts = scratch.dir("artifacts");
        let mnt = scratch.mnt();
        let inside = format!(
            "'{lamel}' mount -o lowerdir={lower},upperdir={upper},workdir={work} {mnt}
             {fsx}
             sha256sum < {mnt}/d/file > {sum}
             '{lamel}' umount {mnt}
             sha256sum < {upper}/d/file | cmp - {sum}",
            lamel = Subject::lamel_bin().display(),
            lower = scratch.lower(0).display(),
            upper = scratch.upper().display(),
            work = scratch.work().display(),
            mnt = mnt.display(),
            sum = scratch.join("sum").display(),
            fsx = fsx(&artifacts, &mnt.join("d/file"), seed),
        );
        let script = scratch.join("inside.sh");
        fs::write(&script, inside).unwrap();
        // The namespaces end with their last process, and the mount with them.
        let out = sh_timeout(
            Path::new("/"),
            &format!("unshare -Urm bash -eu {}", script.display()),
            Duration::from_secs(120),
        );
        assert!(out.success(), "seed {seed}: {}\n{}", out.stdout, out.stderr);
    }
}

/// Makes the file to start on; returns its content.
fn lower_file(scratch: &Scratch) -> Vec<u8> {
    let file = scratch.lower(0).join("d/file");
    fs::create_dir(scratch.lower(0).join("d")).unwrap();
    sh(&format!("head -c 200000 /dev/urandom > {}", file.display()));
    fs::read(file).unwrap()
}

fn fsx(artifacts: &Path, file: &Path, seed: u32) -> String {
    format!(
        "timeout -s KILL 100 fsx -f '{}' -N {OPERATIONS} -S {seed} -P {} {}",
        beside("fsx.toml").display(),
        artifacts.display(),
        file.display()
    )
}
