//! Every shape in which tools write images into files, and in which lamel does.

use crate::common::Place;
use crate::made::{beside, images};

/// What an image is, whatever it came in.
fn identity(place: &Place, root: &str, name: &str) -> (String, String) {
    let asked = |format: &str| place.run(&format!("lamel inspect --root {root} --format '{format}' {name}"));
    (asked("{{.Id}}"), asked("{{json .RootFS.Layers}}"))
}

/// The command that makes what others do not.
fn shapes() -> String {
    format!("python3 {}", beside("shapes.py").display())
}

#[test]
fn archives_of_every_shape_are_loaded() {
    let place = Place::new();
    let images = images();
    // As the engines lay them out; those that no installed tool writes are put together from the same parts.
    place.run(&format!(
        "oci={images}/oci
         skopeo copy -q oci:$oci:small docker-archive:podman.tar:repo/small:1
         skopeo copy -q oci:$oci:small oci-archive:oci.tar:repo/small:1
         skopeo copy -q --dest-compress --dest-compress-format zstd oci:$oci:small oci:zstd:repo/small:1
         tar -C zstd -cf zstd.tar .
         mkdir docker24 && tar -C docker24 -xf podman.tar && {shapes} docker24 docker24 && tar -C docker24 -cf docker24.tar .
         rm docker24/*.json && tar -C docker24 -cf docker1.9.tar .
         skopeo copy -q oci:$oci:small oci:docker25:small && {shapes} docker25 docker25 repo/small:1
         tar -C docker25 -cf docker25.tar . && rm docker25/index.json docker25/oci-layout && tar -C docker25 -cf compressed-layers.tar .
         gzip -1k podman.tar && xz -0k oci.tar && bzip2 -k docker24.tar && zstd -q podman.tar",
        images = images.display(),
        shapes = shapes(),
    ));
    place.run(&format!("lamel load --root reference -i {}/oci", images.display()));
    let wanted = identity(&place, "reference", "small");
    let files = [
        "podman.tar",
        "oci.tar",
        "zstd.tar",
        "zstd",
        "docker24.tar",
        "docker25.tar",
        "compressed-layers.tar",
        "podman.tar.gz",
        "oci.tar.xz",
        "docker24.tar.bz2",
        "podman.tar.zst",
    ];
    for file in files {
        let root = format!("of-{file}");
        let said = place.run(&format!("lamel load --root {root} -i {file}"));
        assert_eq!(said, "Loaded image: docker.io/repo/small:1", "{file}");
        assert_eq!(identity(&place, &root, "repo/small:1"), wanted, "{file}");
        // A pipe holds the same.
        if std::path::Path::new(&place.join(file)).is_file() {
            place.run(&format!("rm -r {root}; cat {file} | lamel load --root {root} --tag x"));
            assert_eq!(identity(&place, &root, "x"), wanted, "{file} through a pipe");
        }
        place.run(&format!("lamel verify --root {root}"));
        assert_eq!(place.run(&format!("ls -A {root}/tmp {root}/partial")), format!("{root}/partial:\n\n{root}/tmp:"));
    }
    // The oldest one knows no configuration.
    place.run("lamel load --root old -i docker1.9.tar");
    let (_, layers) = identity(&place, "old", "repo/small:1");
    assert_eq!(layers, wanted.1);
    assert_eq!(place.run("lamel history --root old repo/small:1 --format '{{.CreatedBy}}' | head -1"), "step 7");
    assert_eq!(place.run("lamel inspect --root old repo/small:1 --format '{{.Config.Cmd}}'"), "[sh]");
}

/// What is made of an image's layers: their digests, and all indexes.
fn made(place: &Place, root: &str) -> String {
    place.run(&format!("cd {root} && (ls layers/sha256; cat layers/sha256/*/index stacks/sha256/*) | sha256sum"))
}

#[test]
fn debian_in_every_shape_is_the_same() {
    let place = Place::new();
    let images = images();
    let podman = "timeout -k 5 100 podman --root $PWD/graph --runroot $PWD/run --storage-driver vfs";
    place.run(&format!(
        "oci={images}/oci
         # Skopeo 1.9 leaves out the end of each tar without a word in the configuration, and spoils sparse files.
         skopeo copy -q --dest-compress --dest-compress-format zstd:chunked --dest-compress-level 1 oci:$oci:one oci:chunked:x
         {shapes} settle chunked
         for name in one eight; do
             skopeo copy -q oci:$oci:$name docker-archive:docker-$name:repo/deb:1
             skopeo copy -q oci:$oci:$name oci:gzip-$name:x
             tar -C gzip-$name -cf oci-archive-$name .
             mkdir docker24-$name && tar -C docker24-$name -xf docker-$name && {shapes} docker24 docker24-$name
             cp -r docker24-$name docker1.9-$name && rm docker1.9-$name/*.json
             for how in plain zstd; do
                 cp -r gzip-$name $how-$name && {shapes} recompress $how-$name $how
             done
             cp -r gzip-$name docker25-$name && {shapes} docker25 docker25-$name repo/deb:1 && tar -C docker25-$name -cf hybrid-$name .
             lamel load --root wanted-$name -q -i gzip-$name
         done
         {podman} load -q -i docker-one > /dev/null
         {podman} save -q --format docker-archive -o podman-docker-one repo/deb:1
         {podman} save -q --format oci-archive -o podman-oci-one repo/deb:1
         {podman} rmi -a -f > /dev/null",
        images = images.display(),
        shapes = shapes(),
    ));
    for name in ["one", "eight"] {
        let wanted = made(&place, &format!("wanted-{name}"));
        let mut cells = vec!["docker", "docker24", "docker1.9", "oci-archive", "plain", "zstd", "hybrid"];
        // Of sparse files podman does not find its own layers again.
        cells.extend(if name == "one" { &["podman-docker", "podman-oci"][..] } else { &[] });
        for cell in cells {
            place.run(&format!("lamel load --root got -q -i {cell}-{name}"));
            assert_eq!(made(&place, "got"), wanted, "{cell}, {name}");
            place.run(&format!("rm -r got {cell}-{name}"));
        }
    }
    place.run("lamel load --root wanted-one -q -i chunked --tag chunked");
    assert_eq!(place.run("lamel diff --root wanted-one x chunked"), "");
}

#[test]
fn what_is_saved_others_read_and_layers_are_byte_equal() {
    let place = Place::new();
    let images = images();
    place.run(&format!("lamel load -i {}/oci && lamel tag small repo/small:1 other:2", images.display()));
    let wanted = identity(&place, "store", "small");
    // The store itself is a layout that others read in place.
    let id = |source: &str| place.run(&format!("skopeo inspect --raw --config {source} | sha256sum | cut -d' ' -f1"));
    assert_eq!(format!("sha256:{}", id("oci:store:docker.io/repo/small:1")), wanted.0);
    assert!(place.run("umoci list --layout store").contains("docker.io/repo/small:1"));
    place.run("umoci unpack --image store:docker.io/repo/small:1 bundle && test -u bundle/rootfs/special/suid");
    // And what others write into a layout is mounted.
    place.run(&format!(
        "skopeo copy -q oci:{}/oci:small oci:theirs:x && lamel mount --root theirs x mnt && cat mnt/special/later && lamel umount mnt",
        images.display()
    ));
    place.run(
        "lamel save -o oci.tar repo/small:1 other:2 && lamel save -o docker.tar --format docker-archive repo/small:1
         lamel save -o dir --format oci-dir small && lamel save small > piped.tar",
    );
    for source in [
        "oci-archive:oci.tar:docker.io/repo/small:1",
        "oci-archive:oci.tar:docker.io/library/other:2",
        "docker-archive:docker.tar",
        "oci:dir:localhost/small:latest",
    ] {
        assert_eq!(format!("sha256:{}", id(source)), wanted.0, "{source}");
    }
    // Docker's own way to read an OCI archive of ours.
    place.run("mkdir un && tar -C un -xf oci.tar && rm un/oci-layout && tar -C un -cf hybrid.tar .");
    for file in ["oci.tar", "docker.tar", "dir", "piped.tar", "hybrid.tar"] {
        place.run(&format!("lamel load --root again-{file} -i {file}"));
        let name = place.run(&format!("lamel images --root again-{file} -q | head -1"));
        assert_eq!(identity(&place, &format!("again-{file}"), &name), wanted, "{file}");
    }
    // Blobs are the very same, and Docker's layers those tars that the image was made of.
    place.run(
        "for blob in dir/blobs/sha256/*; do cmp $blob store/blobs/sha256/${blob##*/}; done
         lamel save -o oci2.tar repo/small:1 other:2 && cmp oci.tar oci2.tar",
    );
    for n in 1..=8 {
        let name = place.run(&format!("sha256sum < {}/small/{n}.tar | cut -d' ' -f1", images.display()));
        place.run(&format!("tar -xOf docker.tar {name}.tar | cmp - {}/small/{n}.tar", images.display()));
    }
    assert!(place.fails("lamel save -o dir --format oci-dir small").contains("not an empty directory"));
    assert!(place.fails("lamel save -o /dev/full small").contains("No space left"));
    assert!(place.fails("lamel save -o missing/x.tar small").contains("missing"));
    assert_eq!(place.run("ls *.part 2>/dev/null || true"), "");
}

#[test]
fn engines_load_what_is_saved() {
    let place = Place::new();
    place.run(&format!("lamel load -i {}/oci && lamel tag small docker.io/repo/small:1", images().display()));
    let id = identity(&place, "store", "small").0;
    let podman = "timeout -k 5 100 podman --root $PWD/graph --runroot $PWD/run --storage-driver vfs";
    for format in ["oci-archive", "docker-archive"] {
        let out = place.run(&format!(
            "lamel save --format {format} -o x.tar repo/small:1 && {podman} load -q -i x.tar >&2
             {podman} images --no-trunc -q && {podman} rmi -a -f >/dev/null"
        ));
        assert_eq!(out, id, "{format}");
    }
    // And what podman saves lamel loads; of sparse files podman does not find its own layers again.
    place.run("mkdir tree && cp /bin/busybox tree && tar -C tree -cf tree.tar . && lamel import tree.tar repo/tree:1");
    let id = identity(&place, "store", "repo/tree:1").0;
    place.run(&format!("lamel save -o x.tar repo/tree:1 && {podman} load -q -i x.tar >&2"));
    for format in ["oci-archive", "docker-archive"] {
        place.run(&format!(
            "{podman} save -q --format {format} -o {format}.tar repo/tree:1
             lamel load --root from-{format} -i {format}.tar"
        ));
        assert_eq!(identity(&place, &format!("from-{format}"), "repo/tree:1").0, id, "{format}");
    }
}

#[test]
fn memory_does_not_grow_with_layers() {
    let place = Place::new();
    let bounded = "prlimit --data=48000000";
    place.run(&format!(
        "truncate -s 400M big && tar -cf - big | gzip -1 | {bounded} lamel import - big:1 > /dev/null
         {bounded} lamel save big:1 | zstd -q | {bounded} lamel load > /dev/null
         {bounded} lamel verify
         lamel mount big:1 mnt && cmp big mnt/big"
    ));
    // What is mapped of the tar is let go of again.
    let daemon = "/proc/$(getfattr --only-values -n system.lamel.pid mnt)/status";
    let kilobytes = place.run(&format!("awk '/^VmRSS/ {{print $2}}' {daemon} && lamel umount mnt"));
    assert!(kilobytes.parse::<u64>().unwrap() < 65_536, "{kilobytes} kB");
}
