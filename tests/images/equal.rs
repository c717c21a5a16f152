//! A mounted image is what others extract.

use crate::common::Place;
use crate::common::{Compare, assert_same, dump};
use crate::made::{beside, images};

/// Kernel overlayfs counts names that a layer above has deleted, and shows its own root of directories made here.
const OVERLAY: Compare = Compare { nlink: false, dir_mtime: true, root: false, ..Compare::CONTENT };

/// Mounts `name` and compares it with umoci's extraction and with kernel overlayfs over the extracted layers.
fn compare(place: &Place, name: &str, tars: &str, count: u32) {
    let images = images();
    place.run(&format!("lamel mount {name} mnt"));
    let mounted = dump(&place.join("mnt"));
    let extract = beside("extract.py");
    place.run(&format!(
        "for n in $(seq {count}); do python3 {} {}/{tars}/$n.tar layers/$n; done",
        extract.display(),
        images.display()
    ));
    let lowers: Vec<String> = (1..=count).rev().map(|n| format!("layers/{n}")).collect();
    place.run(&format!("mkdir -p none mnt2 && mount -t overlay overlay -o ro,lowerdir={}:none mnt2", lowers.join(":")));
    let overlay = dump(&place.join("mnt2"));
    place.run("umount mnt2");
    assert_same(&format!("{name}: kernel overlayfs over the layers, and the image"), &overlay, &mounted, OVERLAY);
    place.run(&format!("umoci unpack --image {}/oci:{name} bundle", images.display()));
    let extracted = dump(&place.join("bundle/rootfs"));
    assert_same(&format!("{name}: umoci's extraction, and the image"), &extracted, &mounted, Compare::CONTENT);
    place.run("lamel umount mnt && rm -rf layers bundle");
}

#[test]
fn a_small_image_of_every_kind_of_object() {
    let place = Place::new();
    place.run(&format!("lamel load -i {}/oci", images().display()));
    compare(&place, "small", "small", 8);
}

#[test]
fn debian_in_one_layer_and_in_eight() {
    let place = Place::new();
    place.run(&format!("lamel load -i {}/oci", images().display()));
    compare(&place, "one", "debian", 1);
    compare(&place, "eight", "debian", 8);
    // From zstd, and from Docker's plain layers, it is the same image: no layer's tar is another.
    let layers = |root: &str| place.run(&format!("ls {root}/layers/sha256"));
    let wanted = layers("store");
    place.run(&format!(
        "skopeo copy -q --dest-compress --dest-compress-format zstd oci:{images}/oci:eight oci:zstd:eight
         skopeo copy -q oci:{images}/oci:eight docker-archive:docker.tar:eight:1
         lamel load --root store-zstd -i zstd
         lamel load --root store-docker -i docker.tar",
        images = images().display()
    ));
    for root in ["store-zstd", "store-docker"] {
        let found = layers(root);
        assert!(found.lines().all(|layer| wanted.contains(layer)), "{root}");
        assert_eq!(found.lines().count(), 8, "{root}");
        assert_eq!(place.run(&format!("lamel verify --root {root}")), "10 blobs and 8 layers are as they were written");
    }
}
