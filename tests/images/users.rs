//! A user with one uid, no subordinate ids, and nothing but fusermount3.

use crate::common::Place;
use crate::common::sh;
use crate::made::images;

/// An account without subordinate ids.
const USER: &str = "nobody";
const GROUP: &str = "nogroup";

#[test]
fn a_user_without_privileges_has_it_all() {
    let place = Place::new();
    sh("test -c /dev/fuse && chmod 666 /dev/fuse && test -u $(command -v fusermount3)");
    let here = place.scratch.path().display();
    place.run(&format!(
        "chmod 755 . && mkdir home && cp -r {} home/oci && chown -R {USER}:{GROUP} home mnt && ! grep -q '^{USER}:' /etc/subuid",
        images().join("oci").display()
    ));
    let user = |cmd: &str| {
        let script = format!("{here}/home/script");
        std::fs::write(&script, format!("set -eu\ncd\n{cmd}\n")).unwrap();
        place.run(&format!(
            "unset LAMEL_ROOT; exec setpriv --reuid {USER} --regid {GROUP} --clear-groups env -i HOME={here}/home \
             PATH={here}/bin:/usr/bin:/bin bash -o pipefail {script}"
        ))
    };
    user("lamel load -q -i ~/oci > /dev/null && test -e ~/.local/share/lamel/index.json");
    let listing = user(&format!(
        "lamel mount small {here}/mnt
         stat -c '%n %u:%g %f %t:%T' {here}/mnt/special/suid {here}/mnt/special/disk {here}/mnt/special/sticky
         getfattr --only-values -n user.note {here}/mnt/special/attr; echo
         {here}/mnt/bin/busybox echo ran; lamel umount {here}/mnt"
    ));
    // And without a mount.
    let looked = user("lamel ls -l small:/special | tr -s ' '");
    for wanted in ["-rwsr-sr-x 1 1000 1000 10 ", "brw-r----- 1 0 0 253, 7 ", "drwx------ 2 5 6 0 "] {
        assert!(looked.contains(wanted), "{wanted}: {looked}");
    }
    for wanted in ["special/suid 1000:1000 8ded", "special/disk 0:0 61a0 fd:7", "two words", "ran"] {
        assert!(listing.contains(wanted), "{wanted}: {listing}");
    }
    // Changes of an image that belongs to others, by its mode bits.
    user(&format!(
        "lamel mount small {here}/mnt --rw && ! touch {here}/mnt/etc/x 2> /dev/null && lamel umount {here}/mnt"
    ));
    // What is not kept goes also where its owner has locked himself out.
    user(&format!(
        "mkdir tree tree/d && chmod 777 tree/d && tar -C tree --owner=0 --group=0 -cf tree.tar . && lamel import tree.tar open:1 > /dev/null
         lamel mount open:1 {here}/mnt --rw && mkdir {here}/mnt/d/x && touch {here}/mnt/d/x/f && chmod 0 {here}/mnt/d/x
         lamel umount {here}/mnt && lamel rmi open:1 > /dev/null && test -z \"$(ls ~/.local/share/lamel/tmp)\""
    ));
    // Its layers are those that came in, byte for byte.
    user("lamel save --format oci-dir -o ~/out small && lamel verify");
    place.run("for blob in home/out/blobs/sha256/*; do cmp $blob home/oci/blobs/sha256/${blob##*/}; done");
    place.run(
        "for layer in $(lamel inspect --root home/.local/share/lamel small -f '{{join .RootFS.Layers \" \"}}'); do \
               sha256sum home/.local/share/lamel/layers/sha256/${layer#sha256:}/tar | grep -q ^${layer#sha256:}; done",
    );
    // Another user's store can be looked at, but not written.
    place.run(&format!("lamel load --root root-store -q -i {}/oci && chmod 755 root-store", images().display()));
    let said = user(&format!(
        "lamel --version > /dev/null; lamel images --root {here}/root-store | grep small
         lamel mount --root {here}/root-store small {here}/mnt && cat {here}/mnt/special/later && lamel umount {here}/mnt
         ! lamel tag --root {here}/root-store small x:1 2>&1"
    ));
    assert!(said.contains("cannot be written by this user"), "{said}");
}
