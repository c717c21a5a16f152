//! A store of a test's own with a small image that has every kind of object.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{Outcome, Scratch, Subject, sh_timeout};

/// How long one command line may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The tree of the image `base:1`, made in the current directory.
const TREE: &str = r#"
mkdir -p bin etc d/sub merged/deep opaque/old renamed/inner/x two/a to-file/in exchange sticky emptied
cp /bin/busybox bin/busybox; for name in sh ls cat id true sleep touch mkdir mv rm ln chmod; do ln -s busybox bin/$name; done
printf 'root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' > etc/passwd; printf 'root:x:0:\nuser:x:1000:\n' > etc/group
for name in d/one d/sub/two merged/kept merged/gone merged/deep/leaf opaque/old/x opaque/kept renamed/a renamed/b \
    renamed/inner/x/y two/a/f to-file/in/x gone meta owner dressed exchange/x replaced emptied/x; do printf "$name" > $name; done
printf 'linked' > l1; ln l1 l2; ln l1 d/l3; printf 'pair' > p1; ln p1 merged/p2
mkdir -p links/in; printf 'far' > l4; ln l4 links/one; ln l4 links/in/two; ln l4 l5
printf 'setid' > setid; chown 1000:1000 setid; chmod 6755 setid
printf 'x' > cap; setcap cap_net_raw+ep cap
printf 'x' > attr; setfattr -n user.note -v 'two words' attr; setfattr -n trusted.note -v t attr
truncate -s 40M sparse; printf 'middle' | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
mkfifo fifo; mknod null c 1 3; mknod disk b 253 7; chmod 640 disk
chmod 1777 sticky; chown 65534:65534 sticky d/one; chmod 750 d
ln -s /etc/passwd absolute; ln -s ../../../../etc/passwd upwards
find . -depth -print0 | xargs -0 touch -h -d @1700000000
"#;

/// A scratch directory with a store in it, whose commands find the binary under test as `lamel`.
pub(crate) struct Place {
    pub(crate) scratch: Scratch,
}

impl Place {
    /// With the image `base:1`.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("bin")).unwrap();
        fs::copy(Subject::lamel_bin(), scratch.join("bin/lamel")).unwrap();
        let place = Self { scratch };
        for dir in ["mnt", "mnt2", "tree"] {
            place.scratch.dir(dir);
        }
        place.run(&format!("chmod 755 . && cd tree{TREE}"));
        place.run(
            "tar -C tree --format=pax --xattrs --xattrs-include='*' -S --numeric-owner --sort=name -cf base.tar .
             lamel import -c 'CMD [\"sh\"]' -c 'ENV A=1' base.tar base:1 > /dev/null",
        );
        place
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Runs a command line in the scratch directory; panics unless it succeeds. Returns its stdout.
    #[track_caller]
    pub(crate) fn run(&self, cmd: &str) -> String {
        let out = self.outcome(cmd);
        assert!(out.success(), "`{cmd}`: {}\n--- stdout\n{}\n--- stderr\n{}", out.status, out.stdout, out.stderr);
        out.stdout.trim_end().to_owned()
    }

    /// Runs a command line that must fail; returns its stderr.
    #[track_caller]
    pub(crate) fn fails(&self, cmd: &str) -> String {
        let out = self.outcome(cmd);
        assert!(!out.success(), "`{cmd}` was expected to fail, and printed: {}", out.stdout);
        out.stderr
    }

    pub(crate) fn outcome(&self, cmd: &str) -> Outcome {
        sh_timeout(self.scratch.path(), &format!("{}\n{cmd}", self.environment()), LIMIT)
    }

    /// What every command line begins with.
    fn environment(&self) -> String {
        let here = self.scratch.path().display();
        format!("export PATH={here}/bin:$PATH LAMEL_ROOT=${{LAMEL_ROOT-{here}/store}} LC_ALL=C.UTF-8")
    }
}

/// Unmounts also when the test fails.
impl Drop for Place {
    fn drop(&mut self) {
        for mnt in ["mnt", "mnt2"] {
            if self.outcome(&format!("! mountpoint -q {mnt} || lamel umount --lazy {mnt}")).success() {
                continue;
            }
            eprintln!("{mnt} of {} stays mounted", self.scratch.path().display());
        }
    }
}
