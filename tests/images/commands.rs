//! The commands on the store, as people and scripts use them.

use crate::common::Place;
use crate::made::images;

#[test]
fn images_are_listed_named_and_removed() {
    let place = Place::new();
    place.run(&format!("lamel load -q -i {}/oci && lamel rmi one eight", images().display()));
    assert_eq!(place.run("lamel images --format '{{.Repository}}:{{.Tag}}'"), "localhost/small:latest");
    place.run("lamel tag small repo/a:1 repo/a:2 example.org:5000/b/c:x");
    let id = place.run("lamel images -q");
    assert_eq!(id.len(), 12);
    let listed = |args: &str| {
        place.run(&format!("lamel images {args} --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | sort | paste -sd' '"))
    };
    assert_eq!(listed(""), "example.org:5000/b/c:x localhost/small:latest repo/a:1 repo/a:2");
    assert_eq!(listed("--filter reference='repo/*'"), "repo/a:1 repo/a:2");
    assert_eq!(listed("'repo/a:2'"), "repo/a:2");
    assert_eq!(listed("--filter dangling=true"), "");
    assert_eq!(listed("--filter label=none"), "");
    let lines = place.run("lamel images --format json");
    assert!(lines.lines().all(|line| line.starts_with('{') && line.contains("\"Repository\"")), "{lines}");
    let table = place.run("lamel images --no-trunc --digests");
    assert!(table.starts_with("REPOSITORY ") && table.contains("DIGEST") && table.contains("sha256:"), "{table}");
    assert_eq!(place.run(&format!("lamel inspect -f '{{{{len .RepoTags}}}}' {id}")), "4");
    assert_eq!(place.run("lamel inspect small missing -f '{{.Architecture}}' || true"), "amd64");
    assert_eq!(place.run("lamel history small -q | head -1"), id);
    // A name is given to another image: the first one stays, without it.
    place.run("mkdir tree && echo x > tree/f && tar -C tree -cf tree.tar . && gzip -k tree.tar");
    place.run("lamel import tree.tar.gz repo/a:1 -c 'CMD [\"/f\"]' -c 'ENV A=1 B=2' -c 'LABEL k=v' -m made");
    assert_eq!(place.run("lamel inspect repo/a:1 -f '{{.Config.Cmd}}{{.Config.Env}}'"), "[/f][A=1 B=2]");
    assert_eq!(listed("--filter label=k=v"), "repo/a:1");
    assert_eq!(listed("--filter since=small"), "repo/a:1");
    assert_eq!(place.run("lamel history repo/a:1 --format '{{.Comment}}'"), "made");
    assert!(place.fails("lamel import tree.tar -c 'RUN x'").contains("WORKDIR"));
    assert!(place.fails("lamel import /etc/passwd").contains("tar"));
    assert!(place.fails(&format!("lamel load -i {}/oci --tag x", images().display())).contains("3 images"));
    // Removing.
    assert!(place.fails(&format!("lamel rmi {id}")).contains("3 names"));
    assert!(place.fails("lamel rmi missing").contains("no image \"missing\""));
    place.run("lamel mount small mnt && test -e mnt/special/suid");
    assert_eq!(place.run("lamel rmi repo/a:2 example.org:5000/b/c:x").lines().count(), 2);
    assert!(place.fails("lamel rmi small").contains("mounted"));
    let pruned = place.run("lamel prune --all");
    assert!(pruned.contains("Untagged: docker.io/repo/a:1") && !pruned.contains("small"), "{pruned}");
    assert!(pruned.lines().last().unwrap().starts_with("Total reclaimed space: "));
    // It waits for who adds to the store, and says so; removing an image does not.
    place.run(
        "(flock -s 9; sleep 1; touch done) 9< store/lock & sleep .3; lamel prune 2>&1 | grep waiting; test -e done",
    );
    place.run("lamel rmi -f small && cat mnt/special/later && lamel umount mnt");
    assert_eq!(place.run("find store -type f | grep -v lock | sort"), "store/index.json\nstore/oci-layout");
}

#[test]
fn an_image_takes_changes_above_it() {
    let place = Place::new();
    place.run(&format!("lamel load -q -i {}/oci", images().display()));
    // Read-only by default; a program of the image runs.
    place.run("lamel mount small mnt && ! touch mnt/x 2>/dev/null && test $(chroot mnt /bin/sh -c 'echo ran') = ran");
    assert!(place.run("findmnt -no OPTIONS,SOURCE mnt").contains("nosuid,nodev"));
    assert_eq!(place.run("findmnt -no SOURCE mnt"), "localhost/small:latest");
    place.run("lamel umount mnt");
    // Kept.
    place.run("mkdir up && lamel mount small mnt --upper up && echo new > mnt/etc/new && rm mnt/special/one && lamel umount mnt");
    place.run("lamel mount small mnt --upper up -o suid && grep new mnt/etc/new && ! test -e mnt/special/one && lamel umount mnt");
    assert_eq!(place.run("ls up/etc"), "new");
    // Not kept, and nothing is left of it.
    place.run("lamel mount small mnt --rw && echo new > mnt/new && chmod 0 mnt/special && lamel umount mnt && test -z \"$(ls store/tmp)\"");
    place.run("lamel mount small mnt && ! test -e mnt/new && lamel umount mnt");
    // Killed: the next command clears up.
    place.run(
        "lamel mount small mnt --rw && echo new > mnt/new && kill -9 $(getfattr --only-values -n system.lamel.pid mnt)
         lamel umount --lazy mnt; lamel images -q > /dev/null; test -z \"$(ls store/tmp)\"",
    );
    // Layers of directories above it, and in the foreground.
    place.run("mkdir dir && echo above > dir/f && lamel mount --lower dir small mnt && cat mnt/f mnt/special/later && lamel umount mnt");
    place.run("(lamel mount -f small mnt & echo $! > pid); for i in $(seq 100); do mountpoint -q mnt && break; sleep .05; done; cat mnt/etc/passwd && lamel umount mnt");
    for wrong in [
        "lamel mount --rw mnt",
        "lamel mount missing mnt",
        "lamel mount small missing",
        "lamel mount small mnt --platform linux/s390x",
    ] {
        assert!(!place.fails(wrong).is_empty());
    }
    place.run("! mountpoint -q mnt");
}

#[test]
fn a_second_store_is_searched_and_never_written() {
    let place = Place::new();
    place.run(&format!("lamel load --root shared -q -i {}/oci", images().display()));
    let before = place.run("find shared -type f -printf '%p %s %T@\\n' | sort");
    place.run(
        "export LAMEL_ADDITIONAL_STORES=$PWD/shared
         lamel mount small mnt && cat mnt/special/later && lamel umount mnt
         lamel images | grep -q small && lamel tag small mine:1 && lamel inspect mine:1 > /dev/null
         lamel prune --all > /dev/null && lamel inspect small > /dev/null",
    );
    assert!(place.fails("lamel rmi --additional-store shared small").contains("only read"));
    assert!(place.fails("lamel images --additional-store mnt").contains("oci-layout"));
    assert_eq!(place.run("find shared -type f -printf '%p %s %T@\\n' | sort"), before);
    assert!(place.fails("lamel inspect small").contains("no image"));
    // Named before the command, as podman's is, or after it.
    place.run(
        "lamel --root shared images | grep -q small && lamel images --root=shared | grep -q small
         lamel --root shared volume ls",
    );
    assert!(place.fails("lamel --additional-store mnt images").contains("oci-layout"));
}

#[test]
fn damage_is_named() {
    let place = Place::new();
    place.run(&format!("lamel load -q -i {}/oci", images().display()));
    place.run("lamel verify && lamel verify small");
    let blob = place.run("lamel inspect small -f '{{(index .Manifest.layers 0).digest}}' 2>/dev/null || lamel inspect small -f '{{json .Manifest.layers}}' | grep -o 'sha256:[0-9a-f]*' | head -1");
    let hex = blob.trim_start_matches("sha256:");
    let layer = place.run("lamel inspect small -f '{{index .RootFS.Layers 0}}'");
    let tar = format!("store/layers/sha256/{}/tar", layer.trim_start_matches("sha256:"));
    let spoil = |file: &str| {
        place.run(&format!("chmod +w {file} && printf x | dd of={file} bs=1 seek=5000 conv=notrunc status=none"))
    };
    spoil(&tar);
    let said = place.outcome("lamel verify");
    assert!(!said.success() && said.stdout.contains(&layer) && said.stdout.contains("made again"), "{said:?}");
    place.run("lamel verify");
    spoil(&format!("store/blobs/sha256/{hex}"));
    let said = place.outcome("lamel verify small");
    assert!(!said.success() && said.stdout.contains(hex) && said.stderr.contains("1 fault"), "{said:?}");
    place.run("lamel verify one");
    place.outcome("lamel verify --remove");
    place.run(&format!("lamel load -q -i {}/oci && lamel verify", images().display()));
    // Cut off, as a power failure leaves it: seen when it is opened, and made again.
    place.run(&format!(
        "truncate -s 1000 {tar} && lamel mount small mnt && cat mnt/etc/passwd && lamel umount mnt && lamel verify"
    ));
}

#[test]
fn an_image_may_have_no_layers_and_an_index_attestations() {
    let place = Place::new();
    place.run(
        "mkdir none && echo '{\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}' > none/c.json
         echo '[{\"Config\":\"c.json\",\"RepoTags\":[\"none:1\"],\"Layers\":[]}]' > none/manifest.json
         lamel load -i none && lamel mount none:1 mnt && test -z \"$(ls -A mnt)\" && df mnt > /dev/null && lamel umount mnt
         lamel mount none:1 mnt --rw && touch mnt/x && lamel umount mnt && lamel verify",
    );
    // As BuildKit lays it out: the image, and beside it something that is none.
    let images = images();
    place.run(&format!(
        "skopeo copy -q oci:{images}/oci:small oci:with:small && cd with && ARCH=$(dpkg --print-architecture) python3 - <<'END'
import hashlib, json, os
def blob(value):
    text = json.dumps(value).encode()
    name = hashlib.sha256(text).hexdigest()
    open('blobs/sha256/' + name, 'wb').write(text)
    return {{'digest': 'sha256:' + name, 'size': len(text)}}
index = json.load(open('index.json'))
image = dict(index['manifests'][0], platform={{'os': 'linux', 'architecture': os.environ['ARCH']}})
kind = 'application/vnd.oci.image.'
statement = dict(blob({{'_type': 'statement'}}), mediaType='application/vnd.in-toto+json')
config = dict(blob({{'rootfs': {{'type': 'layers', 'diff_ids': []}}}}), mediaType=kind + 'config.v1+json')
manifest = {{'schemaVersion': 2, 'mediaType': kind + 'manifest.v1+json', 'config': config, 'layers': [statement]}}
unknown = {{'os': 'unknown', 'architecture': 'unknown'}}
attestation = dict(blob(manifest), mediaType=kind + 'manifest.v1+json', platform=unknown)
other = {{'mediaType': kind + 'manifest.v1+json', 'digest': 'sha256:' + 64 * '0', 'size': 7,
    'platform': {{'os': 'linux', 'architecture': 's390x'}}}}
both = {{'schemaVersion': 2, 'mediaType': kind + 'index.v1+json', 'manifests': [other, attestation, image]}}
index['manifests'] = [dict(blob(both), mediaType=kind + 'index.v1+json')]
json.dump(index, open('index.json', 'w'))
END
",
        images = images.display()
    ));
    place.run("lamel load -i with --tag with:1 && lamel verify && lamel mount with:1 mnt && cat mnt/special/later && lamel umount mnt");
    assert!(place.fails("lamel inspect --platform linux/s390x with:1").contains("not in the store"));
    assert!(place.fails("lamel inspect --platform linux/riscv64 with:1").contains("linux/s390x"));
    place.run("lamel prune && lamel save -o saved.tar with:1 && lamel load --root again -i saved.tar && lamel mount --root again with:1 mnt && lamel umount mnt");
}
