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

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    /// A plain user with a range in /etc/subuid (tests/run.sh makes him).
    User,
    /// A plain user who has his own id alone.
    Alone,
}

pub(crate) const EVERYBODY: [Who; 3] = [Who::Root, Who::User, Who::Alone];

impl Who {
    /// The beginning of a command line that runs as this user, without anything of the test's environment.
    fn prefix(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::User => "setpriv --reuid lamel-test --regid lamel-test --init-groups env -i",
            Self::Alone => "setpriv --reuid 47110 --regid 47110 --clear-groups env -i",
        }
    }

    fn owner(self) -> &'static str {
        match self {
            Self::Root => "root:root",
            Self::User => "lamel-test:lamel-test",
            Self::Alone => "47110:47110",
        }
    }
}

/// A scratch directory with a store in it, whose commands find the binary under test as `lamel`.
pub(crate) struct Place {
    pub(crate) scratch: Scratch,
    who: Who,
}

impl Place {
    /// With the image `base:1`, as root.
    pub(crate) fn new() -> Self {
        Self::of(Who::Root)
    }

    /// The same of a user's own.
    pub(crate) fn of(who: Who) -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("bin")).unwrap();
        if fs::hard_link(Subject::lamel_bin(), scratch.join("bin/lamel")).is_err() {
            fs::copy(Subject::lamel_bin(), scratch.join("bin/lamel")).unwrap();
        }
        let mut place = Self { scratch, who: Who::Root };
        for dir in ["mnt", "mnt2", "tree"] {
            place.scratch.dir(dir);
        }
        place.run(&format!("chmod 755 . && cd tree{TREE}"));
        place.run(&format!(
            "tar -C tree --format=pax --xattrs --xattrs-include='*' -S --numeric-owner --sort=name -cf base.tar .
             chown {} . base.tar",
            who.owner()
        ));
        place.who = who;
        place.run("lamel import -c 'CMD [\"sh\"]' -c 'ENV A=1' base.tar base:1 > /dev/null");
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
        if self.who == Who::Root {
            return sh_timeout(self.scratch.path(), &format!("{}\n{cmd}", self.environment()), LIMIT);
        }
        let script = self.join("script");
        fs::write(&script, format!("set -eu\n{}\n{cmd}\n", self.environment())).unwrap();
        let line = format!("exec {} PATH=\"$PATH\" bash -o pipefail {}", self.who.prefix(), script.display());
        sh_timeout(self.scratch.path(), &line, LIMIT)
    }

    /// What every command line begins with.
    fn environment(&self) -> String {
        let here = self.scratch.path().display();
        format!(
            "export PATH={here}/bin:$PATH LAMEL_ROOT=${{LAMEL_ROOT-{here}/store}} HOME={here} LC_ALL=C.UTF-8; cd {here}"
        )
    }
}

/// Ends containers and unmounts also when the test fails.
impl Drop for Place {
    fn drop(&mut self) {
        if !self.outcome("for id in $(lamel ps -aq); do lamel rm -f $id > /dev/null; done").success() {
            eprintln!("containers of {} are left", self.scratch.path().display());
        }
        for mnt in ["mnt", "mnt2"] {
            if self.outcome(&format!("! mountpoint -q {mnt} || lamel umount --lazy {mnt}")).success() {
                continue;
            }
            eprintln!("{mnt} of {} stays mounted", self.scratch.path().display());
        }
    }
}
