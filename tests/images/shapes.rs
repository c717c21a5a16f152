//! Every shape in which tools write images into files, and in which lamel does.

use crate::place::{Place, images};

/// What an image is, whatever it came in.
fn identity(place: &Place, root: &str, name: &str) -> (String, String) {
    let asked = |format: &str| place.run(&format!("lamel inspect --root {root} --format '{format}' {name}"));
    (asked("{{.Id}}"), asked("{{json .RootFS.Layers}}"))
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
         mkdir docker24 && tar -C docker24 -xf podman.tar && cd docker24
         python3 - <<'END'
import json, os, shutil
manifest = json.load(open('manifest.json'))
for item in manifest:
    for number, layer in enumerate(item['Layers']):
        name = f'{{number:064x}}'
        os.makedirs(name)
        shutil.copy(os.path.realpath(layer), name + '/layer.tar')
        open(name + '/VERSION', 'w').write('1.0')
        parent = {{'parent': f'{{number - 1:064x}}'}} if number else {{}}
        step = {{'container_config': {{'Cmd': ['step', str(number)]}}, 'config': {{'Cmd': ['sh']}}, 'os': 'linux'}}
        json.dump({{'id': name, 'architecture': 'amd64', **parent, **step}}, open(name + '/json', 'w'))
        item['Layers'][number] = name + '/layer.tar'
json.dump(manifest, open('manifest.json', 'w'))
json.dump({{'repo/small': {{'1': f'{{len(manifest[0][\"Layers\"]) - 1:064x}}'}}}}, open('repositories', 'w'))
END
         find . -maxdepth 1 -type l -delete; rm -f [0-9a-f]*.tar
         tar -cf ../docker24.tar . && rm *.json && tar -cf ../docker1.9.tar .
         cd .. && cp -r $oci docker25 && cd docker25
         python3 - <<'END'
import json
place = lambda descriptor: 'blobs/sha256/' + descriptor['digest'][7:]
index = json.load(open('index.json'))
index['manifests'] = [m for m in index['manifests'] if m['annotations']['org.opencontainers.image.ref.name'] == 'small']
index['manifests'][0]['annotations'] = {{
    'io.containerd.image.name': 'docker.io/repo/small:1', 'org.opencontainers.image.ref.name': '1'}}
manifest = json.load(open(place(index['manifests'][0])))
json.dump(index, open('index.json', 'w'))
json.dump([{{'Config': place(manifest['config']), 'RepoTags': ['repo/small:1'],
    'Layers': [place(layer) for layer in manifest['layers']]}}], open('manifest.json', 'w'))
END
         tar -cf ../docker25.tar . && rm index.json oci-layout && tar -cf ../compressed-layers.tar .
         cd .. && gzip -1k podman.tar && xz -0k oci.tar && bzip2 -k docker24.tar && zstd -q podman.tar",
        images = images.display()
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
    // What is mapped of the tar is the page cache's, which the kernel takes back.
    let daemon = "/proc/$(getfattr --only-values -n system.lamel.pid mnt)/status";
    let kilobytes = place.run(&format!("awk '/^RssAnon/ {{print $2}}' {daemon} && lamel umount mnt"));
    assert!(kilobytes.parse::<u64>().unwrap() < 65_536, "{kilobytes} kB");
}
