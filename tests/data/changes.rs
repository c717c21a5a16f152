//! The changes of an upper as a layer: what is mounted of the new image is what the old one showed with its upper.

use std::path::Path;
use std::sync::Arc;

use lamel_image::changeset::write_changes;
use lamel_image::commit::{Commit, Format, commit};
use lamel_image::manifest::RunConfig;
use lamel_image::platform::Platform;
use lamel_image::{Digest, Store};
use lamel_unionfs::Options;
use lamel_unionfs::changeset::{Stack, look_up};
use lamel_unionfs::layer::Layer;
use lamel_unionfs::options::XattrPermissions;

use crate::base::base;
use crate::common::{Compare, Place, Who, assert_same, dump, run_in};

/// Every kind of change, made in the current directory.
pub(crate) const CHANGES: &str = r#"
rm gone merged/gone; rm -r two
rm -r opaque; mkdir opaque; echo new > opaque/new; echo again > opaque/kept
mv renamed moved; echo more >> moved/a; rm moved/b; mv moved/inner moved/inside; echo n > moved/inside/new
mkdir renamed; echo other > renamed/b
mv d/sub sub; mkdir d/sub; mv exchange d/exchange
echo more > d/new; echo more >> d/sub.file; rm merged/deep/leaf; mkdir merged/made; echo x > merged/made/x
rm -r to-file; echo file > to-file; rm replaced; mkdir replaced; echo x > replaced/x; rm emptied/x
chmod 600 meta; chown 5:6 owner; setfattr -n user.a -v b dressed; setfattr -x user.note attr; touch -d @1600000000 cap
ln meta meta2; echo more >> l1; echo n > n1; ln n1 n2; ln n1 d/n3; rm p1; mv links linked; echo far >> l4; rm l4
truncate -s 100M hole; printf tail >> hole; truncate -s 8192 small-hole; printf x >> small-hole
printf y > newcap; setcap cap_net_admin+ep newcap; printf x > suid; chown 1000 suid; chmod 4755 suid
mknod zero c 1 5; mknod sda b 8 0; mkfifo pipe; ln -s /nowhere dangling; ln -sf busybox bin/id
echo x > "$(printf '\xff\xfe')"; echo x > "a
b"; long=$(printf 'n%.0s' {1..250}); mkdir -p $long/$long; echo deep > $long/$long/$long; echo x > BZh1
chmod 700 sticky; mkdir -p only/dirs/below; setfattr -n user.dir -v x only; setfattr -n trusted.t -v y n1
setfattr -n trusted.overlay.opaque -v y only/dirs; chmod 1777 .
"#;

/// Opens what lies in `upper` over an image.
fn stack(store: &Store, upper: &Path, image: &str) -> (Stack, lamel_image::store::Image) {
    let image = store.image(&store.find(image).unwrap().descriptor, &Platform::host()).unwrap();
    let layer: Arc<dyn Layer> = store.open_image(&image).unwrap().layer.clone();
    (Stack::open(upper, XattrPermissions::Off, &[layer]).unwrap(), image)
}

fn commit_upper(place: &Place, upper: &str, image: &str, name: &str, format: Format) -> Digest {
    let store = Store::open(&place.join("store"), &[]).unwrap();
    let (stack, base) = stack(&store, &place.join(upper), image);
    let work = place.join(&format!(".{upper}.work"));
    let names = stack.names_to_look_up(&work).unwrap();
    let mut options = Options::new("/");
    (options.upper, options.work) = (Some(place.join(upper)), Some(work));
    look_up(&options, &[store.open_image(&base).unwrap().layer.clone()], &names).unwrap();
    let what = Commit {
        base: Some(&base),
        platform: Platform::host(),
        run: RunConfig::default(),
        changes: &["ENV B=2".parse().unwrap()],
        created: "2026-01-01T00:00:00Z".to_owned(),
        author: Some("somebody".to_owned()),
        comment: "a remark".to_owned(),
        created_by: "sh".to_owned(),
        format,
    };
    let writer = store.writer().unwrap();
    let made = commit(&writer, &stack, &what).unwrap();
    writer.tag(&name.parse().unwrap(), &made).unwrap();
    let image = store.image(&made, &Platform::host()).unwrap();
    // Those below are the very same.
    assert_eq!(image.diff_ids()[..base.diff_ids().len()], *base.diff_ids());
    let digests = |image: &lamel_image::store::Image| image.layers().map(|layer| layer.digest).collect::<Vec<_>>();
    assert_eq!(digests(&image)[..base.diff_ids().len()], digests(&base));
    *image.diff_ids().last().unwrap()
}

/// What the new image shows equals what the old one shows with the upper.
fn assert_equal(place: &Place, name: &str, how: Compare) {
    place.run(&format!("lamel mount -o suid,dev {name} mnt2"));
    let (want, got) = (dump(&place.join("mnt")), dump(&place.join("mnt2")));
    place.run("lamel umount mnt2");
    assert_same(name, &want, &got, how);
}

#[test]
fn every_kind_of_change_comes_back() {
    let place = base(Who::Root);
    let how = Compare { dir_mtime: true, ..Compare::CONTENT };
    place.run("mkdir upper && lamel mount -o suid,dev base:1 --upper upper mnt");
    run_in(&place.join("mnt"), CHANGES);
    place.run("lamel umount mnt");
    let digest = commit_upper(&place, "upper", "base:1", "new:1", Format::Oci);
    assert_eq!(
        commit_upper(&place, "upper", "base:1", "new:2", Format::Docker),
        digest,
        "the same upper, the same layer"
    );
    place.run("lamel mount -o suid,dev base:1 --upper upper mnt");
    assert_equal(&place, "new:1", how);
    assert_equal(&place, "new:2", how);
    place.run("lamel verify new:1 && lamel verify new:2");
    // Changes of what was made of changes.
    place.run("mkdir upper2 && lamel mount -o suid,dev new:1 --upper upper2 mnt2");
    run_in(
        &place.join("mnt2"),
        "mv moved/inside back; rm back/new; mv sub d/sub/sub; rm -r opaque; chmod 640 meta2; rm n1",
    );
    place.run("lamel umount mnt2");
    commit_upper(&place, "upper2", "new:1", "new:3", Format::Oci);
    place.run("lamel umount mnt && lamel mount -o suid,dev new:1 --upper upper2 mnt");
    assert_equal(&place, "new:3", how);
    place.run("lamel umount mnt");
}

#[test]
fn other_tools_see_the_same_tree() {
    let place = base(Who::Root);
    place.run("mkdir upper && lamel mount -o suid,dev base:1 --upper upper mnt");
    run_in(&place.join("mnt"), CHANGES);
    run_in(&place.join("mnt"), "setfattr -x trusted.overlay.opaque only/dirs");
    place.run("lamel umount mnt");
    commit_upper(&place, "upper", "base:1", "new:1", Format::Oci);
    place.run("lamel mount -o suid,dev base:1 --upper upper mnt");
    let podman = "timeout -k 5 100 podman --root $PWD/graph --runroot $PWD/run --storage-driver vfs";
    place.run(&format!(
        "lamel save --format docker-archive -o x.tar new:1
         {podman} load -q -i x.tar >&2
         ln -sfn $({podman} image mount new:1) podman"
    ));
    let theirs = place.join("podman").canonicalize().unwrap();
    // The driver copies attributes of the layer below only where they are the user's or a capability.
    let trusted = |tree: &mut crate::common::Tree| {
        tree.values_mut().for_each(|node| node.xattrs.retain(|name, _| !name.to_string_lossy().starts_with("trusted.")))
    };
    let (mut want, mut got) = (dump(&place.join("mnt")), dump(&theirs));
    trusted(&mut want);
    trusted(&mut got);
    assert_same("podman", &want, &got, Compare { root: false, ..Compare::CONTENT });
    place.run(&format!("{podman} image umount -a >&2; {podman} rmi -af >&2; lamel umount mnt"));
}

#[test]
fn a_layer_lists_what_changed_and_nothing_else() {
    let place = base(Who::Root);
    place.run("mkdir upper && lamel mount base:1 --upper upper mnt");
    run_in(
        &place.join("mnt"),
        "echo n > d/new; rm gone; rm -r opaque; mkdir opaque; echo x > opaque/x; mv renamed moved; ln meta meta2
         mkdir never; rmdir never; echo x > never; rm never",
    );
    place.run("lamel umount mnt");
    let store = Store::open(&place.join("store"), &[]).unwrap();
    let (stack, _) = stack(&store, &place.join("upper"), "base:1");
    let tar = write_changes(&stack, Vec::new()).unwrap();
    std::fs::write(place.join("layer.tar"), &tar).unwrap();
    let want = "./\nd/\nd/new\n.wh.gone\nmeta\nmeta2\nmoved/\nmoved/a\nmoved/b\nmoved/inner/\nmoved/inner/x/\n\
        moved/inner/x/y\nopaque/\nopaque/.wh..wh..opq\nopaque/x\n.wh.renamed";
    assert_eq!(place.run("tar tf layer.tar"), want);
    assert!(place.run("tar tvf layer.tar meta2").contains("link to meta"));
    assert_eq!(write_changes(&stack, Vec::new()).unwrap(), tar);
}

/// The time that a commit takes is that of the changes.
#[test]
fn the_layers_below_are_not_walked() {
    let place = base(Who::Root);
    place.run(
        "mkdir big big/d{1..200} && for dir in big/d*; do touch $dir/f{1..50}; done
         tar -C big -cf big.tar . && lamel import big.tar big:1 > /dev/null
         mkdir upper && lamel mount big:1 --upper upper mnt && echo n > mnt/d7/new && lamel umount mnt",
    );
    let store = Store::open(&place.join("store"), &[]).unwrap();
    let (stack, _) = stack(&store, &place.join("upper"), "big:1");
    std::fs::write(place.join("layer.tar"), write_changes(&stack, Vec::new()).unwrap()).unwrap();
    assert_eq!(place.run("tar tf layer.tar"), "./\nd7/\nd7/new");
}
