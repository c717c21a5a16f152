//! Without root: inside a user namespace, and as a plain user through the setuid fusermount3. Kernel overlayfs: not for
//! a plain user, and in a user namespace without redirects.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::kit::*;

/// A scratch directory of the user `tests`, who is made if absent, and a copy of the binary that the user may run.
fn scratch_of_user() -> (Scratch, PathBuf, String) {
    static USER: Mutex<()> = Mutex::new(());
    let guard = USER.lock().unwrap_or_else(PoisonError::into_inner);
    sh("id tests > /dev/null 2>&1 || useradd -m tests; chmod 666 /dev/fuse");
    drop(guard);
    let s = Scratch::new();
    let home = s.dir("home");
    let bin = s.join("lamel");
    fs::copy(Subject::lamel_bin(), &bin).unwrap();
    fs::set_permissions(s.path(), fs::Permissions::from_mode(0o755)).unwrap();
    sh(&format!("chown tests: {}", home.display()));
    let as_tests = format!(
        "cd {}; env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME={0} LAMEL={} \
         setpriv --reuid tests --regid tests --init-groups",
        home.display(),
        bin.display()
    );
    (s, home, as_tests)
}

const FILL: &str =
    "mkdir -p low/d/sub low/gone up work mnt; echo f > low/f; echo a > low/d/a; ln low/f low/h; echo g > low/gone/g";
const MOUNT: &str = "$LAMEL mount -o lowerdir=low,upperdir=up,workdir=work mnt";
const WORK: &str = "cd mnt; echo more >> f; chmod 600 d/a; mv d e; rm -r gone; mkdir gone; echo n > gone/n; ln f l; rm h; ln -s x s; \
                    setfattr -n user.k -v v e/a; cd ..";
const CHECK: &str = "cd mnt; test \"$(cat f)\" = $'f\\nmore'; test $(cat e/a) = a; test $(stat -c %a e/a) = 600; test ! -e d; test ! -e h; \
                     test \"$(ls gone)\" = n; test $(stat -c %h f) = 2; test -L s; test \"$(getfattr --only-values -n user.k e/a)\" = v; cd ..";

fn script(steps: &[&str]) -> String {
    format!("bash -eu -o pipefail -c '{}'", steps.join("; ").replace('\'', "'\\''"))
}

#[test]
fn a_plain_user_mounts_through_fusermount3() {
    let (s, home, as_tests) = scratch_of_user();
    let steps = [
        FILL,
        MOUNT,
        WORK,
        CHECK,
        "$LAMEL umount mnt",
        MOUNT,
        CHECK,
        "stat -f -c %T mnt",
        "$LAMEL umount mnt",
        "ls -A mnt | wc -l",
    ];
    let out = sh(&format!("{as_tests} {}", script(&steps)));
    assert_eq!(out, "fuseblk\n0");
    // Marks in the user namespace of xattrs; deletions without devices.
    let marks = list(home.join("up/e"));
    assert!(marks.contains(&"user.overlay.redirect".to_owned()), "{marks:?}");
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&stat(home.join("up/s"))),
        std::os::unix::fs::MetadataExt::uid(&stat(&home))
    );
    drop(s);
}

#[test]
fn inside_a_user_namespace_of_a_plain_user() {
    let (s, home, as_tests) = scratch_of_user();
    let steps = [
        FILL,
        MOUNT,
        WORK,
        CHECK,
        "test $(stat -c %u mnt/f) = 0",
        "$LAMEL umount mnt",
        MOUNT,
        CHECK,
        // One id is all there is: giving an object to another is refused, and nothing comes of it.
        "! chown 7 mnt/f 2> err",
        "test $(stat -c %u mnt/f) = 0",
        "$LAMEL umount mnt",
    ];
    sh(&format!("{as_tests} unshare -Urm {}", script(&steps)));
    assert!(list(home.join("up/e")).contains(&"user.overlay.redirect".to_owned()));
    drop(s);
}

#[test]
fn inside_a_user_namespace_of_root() {
    let (s, _, _) = scratch_of_user();
    let dir = s.dir("root");
    let steps = [FILL, MOUNT, WORK, CHECK, "$LAMEL umount mnt", MOUNT, CHECK, "$LAMEL umount mnt"];
    run_in(&dir, &format!("LAMEL={} unshare -Urm {}", s.join("lamel").display(), script(&steps)));
    assert!(list(dir.join("up/e")).contains(&"user.overlay.redirect".to_owned()));
}

#[test]
fn override_stat_for_one_with_a_single_id() {
    // A layer whose owners are in xattrs, and set-id bits that the disk does not get.
    let (s, home, as_tests) = scratch_of_user();
    let steps = [
        FILL,
        "setfattr -n user.containers.override_stat -v 0:0:04711:file low/f; setfattr -n user.containers.override_stat -v 0:0:0755:dir low",
        "$LAMEL mount -o lowerdir=low,upperdir=up,workdir=work,xattr_permissions=2 mnt",
        "test $(stat -c %u:%g:%a mnt/f) = 0:0:4711; cd mnt; chmod 2755 d/a; mkfifo p; cd ..",
        "test \"$(stat -c %a:%F mnt/d/a)\" = \"2755:regular file\"; test \"$(stat -c %F mnt/p)\" = fifo",
        // As unpacking does.
        "ln -s x mnt/s; chown -h 0:0 mnt/s; test $(stat -c %u mnt/s) = 0",
        "$LAMEL umount mnt",
    ];
    sh(&format!("{as_tests} unshare -Urm {}", script(&steps)));
    let value = |name: &str| {
        String::from_utf8(get(home.join("up").join(name), "user.containers.override_stat").unwrap()).unwrap()
    };
    assert!(value("d/a").starts_with("0:0:2755"), "{}", value("d/a"));
    assert_eq!(mode(home.join("up/d/a")) & 0o7000, 0);
    assert!(value("p").ends_with(":pipe") && stat(home.join("up/p")).is_file());
    drop(s);
}

/// The kernel lets nobody change what belongs to ids that the namespace does not have (`EOVERFLOW`, `EACCES`). Shown as its
/// root's it can be changed, and stays whose it is, until it is given away.
#[test]
fn what_belongs_to_ids_that_are_not_had_is_shown_as_the_root_s_and_stays_whose_it_is() {
    let (s, home, as_tests) = scratch_of_user();
    let kept = ["mode", "grown", "cut", "dated", "moved", "linked", "noted", "dir", "dir/in", "grouped"];
    let given = ["owner", "group", "both"];
    let fill = format!(
        "mkdir -p low/dir low/grouped up work mnt; cd low; touch dir/in {files}; echo text | tee cut grown setid > setid-too; \
         for f in {all}; do setfattr -n user.containers.override_stat -v 33:34:0640 $f; done; \
         for f in dir grouped; do setfattr -n user.containers.override_stat -v 33:34:02750:dir $f; done; \
         for f in setid setid-too; do setfattr -n user.containers.override_stat -v 33:34:06755 $f; done; \
         mv moved before; setfattr -n user.containers.override_stat -v 0:0:0755:dir .; cd ..",
        files = "mode dated moved linked noted owner group both",
        all = kept.iter().chain(&given).copied().collect::<Vec<_>>().join(" "),
    );
    let mount = "$LAMEL mount -o lowerdir=low,upperdir=up,workdir=work,xattr_permissions=2 \
                 -o uidmapping=0:0:1,gidmapping=0:0:1,overflow_uid=0,overflow_gid=0 mnt";
    let steps = [
        fill.as_str(),
        mount,
        "test \"$(find mnt -printf \"%U:%G\\n\" | sort -u)\" = 0:0; cd mnt; test $(stat -c %a setid) = 6755",
        "chmod 600 mode dir/in; chmod 2770 dir; echo more >> grown; truncate -s 1 cut; touch -d @5 dated; mv before moved",
        "ln linked link; setfattr -n user.note -v x noted; echo more >> setid; chmod 4711 setid-too",
        "chown 0 owner; chgrp 0 group; chown 0:0 both; ! chown 33 mode 2> err; ! chgrp 34 mode 2> err",
        "echo n > new; mkdir newdir; echo n > dir/new; mkdir grouped/new",
        "test \"$(find . -printf \"%U:%G\\n\" | sort -u)\" = 0:0; cd ..; $LAMEL umount mnt",
        mount,
        "test \"$(find mnt -printf \"%U:%G\\n\" | sort -u)\" = 0:0; cd mnt; test \"$(stat -c %a:%s mode cut | xargs)\" = \"600:0 640:1\"",
        "test \"$(stat -c %a dir setid setid-too | xargs)\" = \"2770 755 4711\"; cd ..; $LAMEL umount mnt",
    ];
    sh(&format!("{as_tests} unshare -Urm {}", script(&steps)));
    let owner = |name: &str| {
        let value = get(home.join("up").join(name), "user.containers.override_stat").unwrap();
        let value = String::from_utf8(value).unwrap();
        let (uid, rest) = value.split_once(':').unwrap();
        format!("{uid}:{}", rest.split_once(':').unwrap().0)
    };
    for name in kept.iter().chain(&["link", "setid", "setid-too"]) {
        assert_eq!(owner(name), "33:34", "{name}");
    }
    let others = given.iter().chain(&["new", "newdir", "dir/new", "grouped/new"]);
    let want = ["0:34", "33:0", "0:0", "0:0", "0:0", "0:34", "0:34"];
    for (name, want) in others.zip(want) {
        assert_eq!(owner(name), want, "{name}");
    }
    // On disk it is all the user's, and gives nobody anything.
    for name in ["setid", "setid-too", "dir", "new"] {
        assert_eq!(mode(home.join("up").join(name)) & 0o7000, 0, "{name}");
    }
    drop(s);
}

/// Ubuntu's overlayfs once gave a file in the upper capabilities that counted outside of the namespace (CVE-2021-3493).
#[test]
fn a_capability_given_in_a_user_namespace_counts_there_alone() {
    let (s, home, as_tests) = scratch_of_user();
    let steps = [
        "mkdir low up work mnt; cp /bin/true low/program",
        MOUNT,
        "setcap cap_net_raw+ep mnt/program",
        "getcap mnt/program | grep -q cap_net_raw",
        "$LAMEL umount mnt",
    ];
    sh(&format!("{as_tests} unshare -Urm {}", script(&steps)));
    // Revision 3 of the attribute ends in the id that is root where it was given; revision 2 would count everywhere.
    let value = get(home.join("up/program"), "security.capability").unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&stat(&home));
    assert_eq!((value[3], value.len()), (3, 24), "{value:?}");
    assert_eq!(value[20..24], owner.to_le_bytes());
    drop(s);
}

/// A set-user-id file of an owner that the namespace does not know is no way to one of root's (CVE-2023-0386).
#[test]
fn a_set_user_id_file_of_an_unmapped_owner_is_not_copied_up() {
    let (s, home, as_tests) = scratch_of_user();
    let low = s.dir("low");
    sh(&format!(
        "cd {}; cp /bin/true suid; chmod 6755 suid; cp /bin/true other; chown 4000:4000 other; chmod 6757 other",
        low.display()
    ));
    let steps = [
        "mkdir up work mnt",
        "$LAMEL mount -o lowerdir=../low,upperdir=up,workdir=work mnt",
        "for f in suid other; do ! mv mnt/$f mnt/moved 2> err; ! chmod 4755 mnt/$f 2> err; ! ln mnt/$f mnt/link 2> err; done",
        "! sh -c \"echo x >> mnt/other\" 2> err",
        "test \"$(ls mnt)\" = $'other\nsuid'",
        "$LAMEL umount mnt",
    ];
    sh(&format!("{as_tests} unshare -Urm {}", script(&steps)));
    assert_eq!(names(home.join("up")), [""; 0]);
    assert_eq!(names(home.join("work/work")), [""; 0]);
    drop(s);
}

#[test]
fn others_do_not_enter_a_plain_users_mount() {
    let (s, home, as_tests) = scratch_of_user();
    sh(&format!("{as_tests} {}", script(&[FILL, MOUNT])));
    let denied = as_user(STRANGER, STRANGER, &[], || verdict(fs::read_dir(home.join("mnt"))));
    assert_eq!(denied, Err(rustix::io::Errno::ACCESS));
    sh(&format!("{as_tests} {}", script(&["$LAMEL umount mnt"])));
    drop(s);
}
