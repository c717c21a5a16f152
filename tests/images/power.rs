//! A power cut: an image that has a name is whole, and what is made of blobs is made again.

use std::time::Duration;

use crate::common::Place;
use crate::common::sh_outcome;
use crate::made::images;

/// A filesystem in a file, with the store in it.
struct Disk<'a>(&'a Place);

impl<'a> Disk<'a> {
    fn new(place: &'a Place, mkfs: &str) -> Self {
        place.run(&format!(
            "mkdir disk && truncate -s 400M disk.img && {mkfs} disk.img > /dev/null 2>&1 && mount -o loop disk.img disk"
        ));
        Self(place)
    }

    /// Names and sizes get to the disk where `flush` says so; data that nobody has synced does not.
    fn power_cut(&self, flush: bool) {
        let flag = if flush { "-f" } else { "" };
        self.0.run(&format!("xfs_io -x -c 'shutdown {flag}' disk && umount disk && mount -o loop disk.img disk"));
    }

    /// The same, while the process whose number is in `pid` works on it.
    fn end_in_the_middle(&self) {
        self.0.run(
            "xfs_io -x -c 'shutdown -f' disk; kill -9 $(cat pid) 2> /dev/null || true
             for i in $(seq 200); do umount disk 2> /dev/null && break; sleep .05; done; mount -o loop disk.img disk",
        );
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        sh_outcome(self.0.scratch.path(), "umount -l disk");
    }
}

/// What is loaded, each under the name of its image.
const SOURCES: [(&str, &str); 2] =
    [("small", "lamel load -q -i ../small"), ("noise", "lamel import ../noise.tar noise")];

#[test]
fn a_named_image_outlives_a_power_cut() {
    let place = Place::new();
    place.run(&format!(
        "skopeo copy -q oci:{}/oci:small oci:small:small && head -c 8M /dev/urandom > noise && tar -cf noise.tar noise",
        images().display()
    ));
    for mkfs in ["mkfs.xfs -q", "mkfs.ext4 -q"] {
        let disk = Disk::new(&place, mkfs);
        let begin = "cd disk && export LAMEL_ROOT=$PWD/store";
        let shown =
            |name: &str| format!("lamel mount {name} ../mnt && ls -R ../mnt > /dev/null && lamel umount ../mnt");
        for flush in [true, false] {
            for (name, source) in SOURCES {
                let what = format!("{mkfs}, journal flushed: {flush}, {source}");
                place.run(&format!("{begin} && {source} > /dev/null"));
                disk.power_cut(flush);
                // Every blob is what its name says, before anything could make it again.
                let said = place.outcome("cd disk/store/blobs/sha256 && for blob in *; do echo \"$blob  $blob\"; done | sha256sum --quiet -c");
                assert!(said.success(), "{what}: {said:?}");
                let said = place.outcome(&format!("{begin} && {}", shown(name)));
                assert!(said.success(), "{what}: {said:?}");
                // What it finds wrong is made again; then nothing is wrong.
                place.outcome(&format!("{begin} && lamel verify"));
                place.run(&format!("{begin} && lamel verify && rm -r store && sync -f ."));
            }
        }
        // In the middle: what has a name is whole, and the next attempt brings the rest.
        for step in 0..4_u64 {
            let (name, source) = SOURCES[usize::from(step % 3 != 0)];
            let start =
                format!("{begin} && lamel images > /dev/null && ({source} > /dev/null 2>&1 & echo $! > ../pid)");
            place.run(&start);
            std::thread::sleep(Duration::from_millis(step * 25));
            disk.end_in_the_middle();
            let said = place.outcome(&format!(
                "{begin} && if lamel images {name} -q | grep -q .; then {}; fi && {source} > /dev/null && {} && lamel verify",
                shown(name),
                shown(name)
            ));
            assert!(said.success(), "{mkfs}, step {step}: {said:?}");
            place.run("rm -r disk/store && sync -f disk");
        }
        drop(disk);
        place.run("rmdir disk");
    }
}
