//! What GNU tar, libarchive and Go's `archive/tar` make of an archive is what lamel makes of it. What they differ in is
//! refused, which `image_index.rs` shows.

use crate::common::Place;
use crate::common::{Compare, assert_same, dump};
use crate::forge::{Forge, Head};

/// Directories that no archive lists are made in one way or another.
const HOW: Compare = Compare { root: false, ..Compare::CONTENT };

/// Members whose headers say things in unusual ways, each under a name of its own.
fn members() -> Vec<u8> {
    let long = "long/".to_owned() + &"n".repeat(150);
    let zeros = |text: &str| [text.as_bytes(), b"\0"].concat();
    let mut prefixed = Head::new(b'0', b"name");
    prefixed.put(345, b"prefix/of/ustar");
    let mut wide = Head::new(b'0', b"base-256");
    // Sizes and owners in base 256, as GNU writes what octal digits do not hold.
    wide.gnu().put(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x04").put(108, b"\x80\0\0\0\xee\x6b\x28\0");
    let mut old = Head::new(0, b"v7 file");
    old.put(257, &[0; 8]).size(2);
    let mut old_dir = Head::new(0, b"v7 directory/");
    old_dir.put(257, &[0; 8]).mode(0o711);
    Forge::new()
        .dir("listed/")
        .file("listed/f", "hello")
        .file("unlisted/deep/f", "x")
        .file("./dots//and/./slashes", "x")
        .file("/absolute", "x")
        // The header says that there is nothing, the record that there is.
        .pax(&[("size", b"5")])
        .raw(Head::new(b'0', b"size in a record").size(0), b"12345")
        .pax(&[("path", "päx/with\na newline".as_bytes()), ("mtime", b"-7"), ("uid", b"4294967290"), ("gid", b"70000")])
        .file("short", "x")
        .pax(&[
            ("mtime", b"12.000000345"),
            ("SCHILY.xattr.user.one", b"a\n7 b=c\n"),
            ("SCHILY.xattr.user.two", b"\0\xff"),
        ])
        .file("xattrs", "x")
        .side(b'L', &zeros(&long))
        .file("cut", "long")
        .side(b'K', &zeros(&long))
        .symlink("long target", "cut")
        .pax(&[("linkpath", long.as_bytes())])
        .symlink("long target in a record", "cut")
        .raw(&prefixed, b"")
        .raw(&wide, b"1234")
        .raw(&old, b"v7")
        .raw(&old_dir, b"")
        .raw(Head::new(b'0', b"modes").mode(0o107_755), b"")
        .raw(Head::new(b'3', b"char").octal(329, 8, 5).octal(337, 8, 300), b"")
        .raw(Head::new(b'4', b"block").octal(329, 8, 259).octal(337, 8, 70_000), b"")
        .raw(&Head::new(b'6', b"fifo"), b"")
        .file("linked", "1")
        .hard("linked twice", "linked")
        .symlink("soft", "nowhere")
        .hard("soft too", "soft")
        // The last one counts.
        .file("again", "old")
        .file("again", "new")
        .file("was a file", "x")
        .symlink("was a file", "again")
        .symlink("was a link", "again")
        .file("was a link", "x")
        .dir("listed/")
        .raw(Head::new(b'5', b"listed/").mode(0o701).owner(3, 4), b"")
        .file("first name", "shared")
        .hard("second name", "first name")
        .file("first name", "its own")
        .end()
}

/// Compares what three tools extract of `x.tar` with a mount of it. umoci, which stands for Go's library, passes over the
/// type that GNU has for sparse files.
fn compare(place: &Place, what: &str) {
    let umoci = !what.ends_with("gnu");
    place.run(
        "rm -rf out && mkdir -p out/gnu out/libarchive && lamel import x.tar x > /dev/null && lamel mount x mnt
         tar -xpf x.tar --numeric-owner --xattrs --xattrs-include='*' -C out/gnu
         bsdtar -xpf x.tar --numeric-owner -C out/libarchive",
    );
    if umoci {
        place.run("umoci init --layout out/oci && umoci new --image out/oci:x && umoci raw add-layer --image out/oci:x x.tar && umoci unpack --image out/oci:x out/bundle");
    }
    let mounted = dump(&place.join("mnt"));
    let tools = [("GNU tar", "gnu"), ("libarchive", "libarchive"), ("Go, by umoci", "bundle/rootfs")];
    for (tool, tree) in tools.into_iter().take(if umoci { 3 } else { 2 }) {
        let extracted = dump(&place.join("out").join(tree));
        assert!(extracted.len() > 1, "{what}: {tool} extracted nothing");
        assert_same(&format!("{what}: {tool}"), &extracted, &mounted, HOW);
    }
    place.run("lamel umount mnt && rm -rf out");
}

#[test]
fn three_tools_agree_with_the_index() {
    let place = Place::new();
    std::fs::write(place.join("x.tar"), members()).unwrap();
    compare(&place, "headers by hand");
    // What follows the end of an archive is not of it.
    let mut tar = Forge::new().file("f", "x").end();
    tar.extend_from_slice(&Forge::new().file("beyond", "x").end());
    tar.extend_from_slice(b"and more that is no header");
    std::fs::write(place.join("x.tar"), tar).unwrap();
    compare(&place, "an archive with something behind it");
    place.run(
        "mkdir tree && truncate -s 3M tree/hole && printf begin > tree/end && truncate -s 1M tree/end && truncate -s 5M tree/many
         for n in $(seq 40); do printf $n | dd of=tree/many bs=1 seek=$((n * 100000)) conv=notrunc status=none; done",
    );
    for form in ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"] {
        place.run(&format!("tar --format={form} -S -C tree -cf x.tar ."));
        compare(&place, &format!("sparse files, {form}"));
    }
}
