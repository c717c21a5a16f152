//! A small image that has every kind of object.

use crate::common::{Place, Who};

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

/// A user's store with the image `base:1`, whose tar lies beside it.
pub(crate) fn base(who: Who) -> Place {
    let place = Place::new();
    place.scratch.dir("mnt2");
    place.scratch.dir("tree");
    place.run(&format!("cd tree{TREE}"));
    place.run("tar -C tree --format=pax --xattrs --xattrs-include='*' -S --numeric-owner --sort=name -cf base.tar .");
    let place = place.give(who);
    place.run("lamel import -c 'CMD [\"sh\"]' -c 'ENV A=1' base.tar base:1 > /dev/null");
    place
}
