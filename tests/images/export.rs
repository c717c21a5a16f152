//! The merged tree as one tar: what others extract of it, and what it is when it comes back.

use crate::common::Place;
use crate::common::{Compare, assert_same, dump};
use crate::made::images;

/// Everything but what a mountpoint's own directory is on another filesystem.
const EXACT: Compare = Compare { dir_nlink: true, dir_mtime: true, holes: true, ..Compare::CONTENT };

#[test]
fn an_exported_image_comes_back_as_it_was() {
    let place = Place::new();
    place.run(&format!("mkdir mnt2 && lamel load -q -i {}/oci", images().display()));
    for name in ["eight", "small"] {
        // What comes back is the same bytes, and a mount has the same files as the image by itself.
        place.run(&format!(
            "lamel export {name} -o x.tar && lamel export {name} | cmp x.tar - && lamel import x.tar back:{name} > /dev/null
             lamel export back:{name} -o - | cmp x.tar - && test -z \"$(lamel diff {name} back:{name})\"
             lamel mount {name} mnt && lamel export mnt | cmp x.tar - && lamel umount mnt"
        ));
    }
    // Every kind of object is in the small one.
    place.run("lamel mount small mnt && lamel mount back:small mnt2");
    let (was, is) = (dump(&place.join("mnt")), dump(&place.join("mnt2")));
    assert_same("an image and its export", &was, &is, EXACT);
    place.run("lamel umount mnt2 && lamel umount mnt");
    // libarchive leaves the times of the directory that it stands in alone.
    for (tool, root, extract) in [
        ("GNU tar", true, "tar -xpf x.tar --numeric-owner --xattrs --xattrs-include='*' -C out"),
        ("bsdtar", false, "bsdtar -xpf x.tar --numeric-owner -C out"),
    ] {
        place.run(&format!("mkdir out && {extract}"));
        let out = dump(&place.join("out"));
        let how = Compare { dir_mtime: true, root, ..Compare::CONTENT };
        assert_same(&format!("{tool}'s extraction"), &was, &out, how);
        place.run("rm -rf out");
    }
    // A sparse file takes no more than its data.
    place.run("test $(stat -c %s x.tar) -lt 8000000");
    assert!(place.fails("lamel export missing").contains("no image"));
    assert!(place.fails("lamel export /usr").contains("nor a mount of lamel"));
    assert!(place.fails("lamel export small -o /dev/full").contains("No space left"));
    assert!(place.fails("lamel export small -o missing/x.tar").contains("missing"));
    assert_eq!(place.run("ls *.part 2>/dev/null || true"), "");
}

#[test]
fn an_exported_mount_has_its_changes() {
    let place = Place::new();
    place.run(&format!(
        "lamel load -q -i {}/oci && mkdir up volume mnt2 && lamel mount small mnt --upper up -o suid,dev",
        images().display()
    ));
    place.run(
        "cd mnt && echo new > etc/new && rm special/one && mv special/dir special/moved-dir && mv special/sticky moved
         chmod 600 special/suid && chown 7:4000000000 special/attr && setfattr -n user.more -v x special/later
         truncate -s 1G hole && printf x | dd of=hole bs=1 seek=99999 conv=notrunc status=none
         ln etc/new etc/newer && ln special/later later-too && mknod dev c 4 5 && mkfifo pipe && rm special/absolute && ln -s x special/absolute
         printf y > \"$(printf 'caf\\xe9')\" && touch -d '1931-05-06 07:08:09.123456789' etc/passwd && touch -h -d @9999999999 special/absolute
         mkdir -p deep && touch -d @5 deep && mount --bind ../volume deep && echo hidden > deep/f && touch -d @5 deep",
    );
    let said = place.outcome(
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"mnt/sock\")' && lamel export ./mnt -o x.tar && rm mnt/sock && umount mnt/deep",
    );
    assert!(said.success() && said.stderr.contains("sock: left out"), "{said:?}");
    let was = dump(&place.join("mnt"));
    place.run("lamel import x.tar back > /dev/null && lamel mount back mnt2");
    // The socket has left its directory another time; of directories with changes the mount counts no links.
    let is = dump(&place.join("mnt2"));
    assert_same("a mount, and its export", &was, &is, Compare { root: false, dir_nlink: false, ..EXACT });
    assert!(is.contains_key(std::path::Path::new("deep")) && is.contains_key(std::path::Path::new("moved/three")));
    place.run("test $(stat -c %s x.tar) -lt 12000000 && ! tar tf x.tar | grep -q 'deep/f'");
}
