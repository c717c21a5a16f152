//! dpkg and apt in a chroot, and a C project: the same steps on the mount and on a plain copy end in the same tree.

use std::fs;
use std::path::Path;

use crate::common::{Compare, Scratch, Subject, assert_same, diff, dump};
use crate::debian::{LAYERS, lay_out};
use crate::{beside, long};

#[test]
fn debian() {
    same_as_on_a_copy(&[]);
}

#[test]
fn debian_with_passthrough() {
    same_as_on_a_copy(&["io=passthrough"]);
}

fn same_as_on_a_copy(options: &[&str]) {
    let scratch = Scratch::new();
    let native = lay_out(&scratch);
    let mut mounted = Subject::lamel().mount(&scratch, LAYERS, true, options);

    let how = Compare { dir_mtime: true, root: false, ..Compare::CONTENT };
    assert_same("the union of the layers", &dump(&native), &dump(mounted.root()), how);
    let before: Vec<_> = scratch.lowers(LAYERS).iter().map(|lower| fingerprint(lower)).collect();

    steps(&native);
    steps(mounted.root());

    compare(&native, mounted.root());
    let here = dump(mounted.root());
    mounted.remount();
    let differences = diff(&here, &dump(mounted.root()), Compare { dir_mtime: true, ino: true, holes: true, ..how });
    assert!(differences.is_empty(), "{options:?}: the remount changed the tree:\n{differences}");
    compare(&native, mounted.root());
    mounted.unmount();
    for (lower, before) in scratch.lowers(LAYERS).iter().zip(before) {
        assert_eq!(before, fingerprint(lower), "{} was written to", lower.display());
    }
}

/// Installs, reinstalls, removes and upgrades packages, compiles a project, works on the tree, and removes what no two
/// runs have in common.
fn steps(root: &Path) {
    for script in ["project.sh", "steps.sh"] {
        fs::copy(beside(script), root.join(script)).unwrap();
    }
    // Not in a mount namespace of its own: that would hold the other tests' mounts until it ends.
    let in_chroot = "mount -t proc proc proc; trap 'umount proc' EXIT; chroot . /bin/bash -eu /steps.sh 2>&1";
    long(root, 300, in_chroot);
    long(root, 200, "mkdir srv/project; cd srv/project; bash ../../project.sh 2>&1");
    long(
        root,
        30,
        "rm -r project.sh steps.sh srv/project/times var/log/* var/cache/ldconfig/aux-cache var/cache/apt/*.bin",
    );
}

/// `rsync` finds nothing to do between the two but setting the times of what the steps wrote; times that come from
/// elsewhere, which are older than this day, are equal too.
fn compare(native: &Path, mounted: &Path) {
    let list = |times: &str, filter: &str| {
        long(
            Path::new("/"),
            200,
            &format!(
                "rsync -aHAX --checksum --delete --dry-run --itemize-changes {times} {}/ {}/ | {{ grep -v '{filter}' || true; }}",
                native.display(),
                mounted.display()
            ),
        )
    };
    let differences = list("--no-times", "^$");
    assert!(differences.is_empty(), "rsync from the copy to the mount would do:\n{differences}");
    let day_ago = long(Path::new("/"), 10, "date -d 'yesterday' +%s");
    let day_ago: i128 = day_ago.trim().parse::<i128>().unwrap() * 1_000_000_000;
    let (want, got) = (dump(native), dump(mounted));
    let wrong: Vec<String> = want
        .iter()
        .filter(|(path, node)| node.mtime_ns < day_ago && got[*path].mtime_ns != node.mtime_ns)
        .map(|(path, node)| format!("{}: {} became {}", path.display(), node.mtime_ns, got[path].mtime_ns))
        .collect();
    assert!(wrong.is_empty(), "times that were not kept:\n{}", wrong.join("\n"));
}

/// All that a write into a tree would change, contents by size and time alone.
fn fingerprint(dir: &Path) -> String {
    long(dir, 30, "find . -printf '%p %y %m %U:%G %s %n %i %T@ %C@ %l\\n' | sort | sha256sum")
}
