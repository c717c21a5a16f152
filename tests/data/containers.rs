//! `lamel commit`, `lamel diff` and `lamel export` of containers.

use serde_json::Value;

use crate::base::base;
use crate::common::{EVERYBODY, Place, Who};

/// Changes that a program in a container makes of `base:1`, whoever has started it.
const CHANGES: &str = r#"
cd /; rm gone merged/gone; rm -r two opaque; mkdir opaque; echo new > opaque/new
mv renamed moved; echo more >> moved/a; rm moved/b; mv moved/inner moved/inside
mv d/sub sub; mkdir d/sub; rm -r to-file; echo file > to-file; rm replaced; mkdir replaced; echo x > replaced/x
chmod 600 meta; chown 0:0 owner; ln meta meta2; echo more >> l1; echo n > n1; ln n1 n2; ln -s /nowhere dangling
mkdir -p only/dirs/below; chmod 2750 only; echo "a b" > "only/a b"; echo x > BZh1; touch -d @1600000000 attr
"#;

/// What a program in a container sees: everything but times of directories.
const PROBE: &str = r#"
cd /; find . -xdev ! -type d | grep -vxE './etc/(hosts|hostname|resolv.conf)' | sort | while read f; do stat -c '%n %F %a %u:%g %h %s %Y' "$f"; done
find . -xdev -type d ! -path ./dev ! -path ./proc ! -path ./sys | sort | while read f; do stat -c '%n %F %a %u:%g' "$f"; done
find . -xdev -type f | grep -vxE './etc/(hosts|hostname|resolv.conf)' | sort | while read f; do md5sum < "$f"; done; readlink dangling; readlink upwards
"#;

impl Place {
    /// Runs a script in a container that keeps its name.
    fn container(&self, options: &str, script: &str) -> String {
        std::fs::write(self.join("inside.sh"), script).unwrap();
        self.run(&format!("lamel run --network none {options} sh -c \"$(cat inside.sh)\""))
    }

    fn inspect(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.run(&format!("lamel inspect {name}"))).unwrap()[0].take()
    }
}

#[test]
fn what_a_container_changed_is_what_its_image_shows() {
    for who in EVERYBODY {
        let place = base(who);
        let seen = place.container("--name c1 base:1", &format!("{CHANGES}{PROBE}"));
        assert!(seen.contains("./moved/inside/x/y regular file"), "{who:?}: {seen}");
        let id = place.run("lamel commit -q c1 new:1");
        assert!(id.starts_with("sha256:"), "{who:?}: {id}");
        place.run("lamel commit c1 new:2 > /dev/null && lamel verify");
        let layers = |name: &str| place.inspect(name)["RootFS"]["Layers"].clone();
        assert_eq!(layers("new:1"), layers("new:2"), "{who:?}");
        assert_eq!(layers("new:1")[0], layers("base:1")[0], "{who:?}");
        let again = place.container("--rm new:1", PROBE);
        assert_eq!(seen, again, "{who:?}");
        // The container as a tar is its image as a tar.
        let listed = |what: &str| {
            place.run(&format!(
                "lamel export {what} -o x.tar && tar tf x.tar | grep -vxE '(dev|proc|sys)/|sparse|etc/(hosts|hostname|resolv.conf)' && tar tvf x.tar | grep -c ^h"
            ))
        };
        assert_eq!(listed("c1"), listed("new:1"), "{who:?}");
        // Owners that this user may not give are those of the image all the same.
        assert_eq!(place.run("lamel stat -c '%u:%g %a' new:1:/d/one"), "65534:65534 644", "{who:?}");
        assert_eq!(place.run("lamel stat -c '%u:%g %a' new:1:/sub/two"), "0:0 644", "{who:?}");
    }
}

/// A plain user without subordinate ids: the container sees all as its root's, which may do everything with it.
#[test]
fn owners_that_a_container_of_one_id_does_not_have_are_kept() {
    let place = base(Who::Alone);
    let touched = "/setid /sticky /d/one /moved";
    let seen = place.container(
        "--name c1 base:1",
        &format!(
            "echo more >> /setid; chmod 711 /sticky; echo x > /sticky/new; mv /setid /moved; ln /moved /setid; chmod 600 /d/one
             ! chown 33 /d/one 2> /dev/null; chown 0 /disk; stat -c '%n %u:%g %a' {touched}; grep -c more /moved"
        ),
    );
    assert_eq!(seen, "/setid 0:0 755\n/sticky 0:0 711\n/d/one 0:0 600\n/moved 0:0 755\n1");
    assert_eq!(place.run("lamel diff c1"), "C /d\nC /d/one\nC /disk\nA /moved\nC /setid\nC /sticky\nA /sticky/new");
    place.run("lamel commit -q c1 new:1 > /dev/null && lamel verify && lamel save --format oci-dir -o out new:1");
    let stat = format!("for f in {touched} /sticky/new; do lamel stat -c '%u:%g %a' new:1:$f; done");
    let stored = "1000:1000 755\n65534:65534 711\n65534:65534 600\n1000:1000 755\n0:0 644";
    assert_eq!(place.run(&stat), stored);
    let layer = "cat out/blobs/sha256/$(lamel inspect -f '{{json .Manifest.layers}}' new:1 | grep -o 'sha256:[^\"]*' | sed -n '2s/.*://p')";
    for tar in ["lamel export c1", "lamel export new:1", layer] {
        let owners =
            place.run(&format!("{tar} | tar tv --numeric-owner moved setid sticky | awk '{{print $2}}' | sort"));
        assert_eq!(owners, "0/0\n1000/1000\n1000/1000\n65534/65534", "{tar}");
    }
    // Copied is what it sees itself.
    assert_eq!(place.run("lamel cp c1:/moved - | tar tv --numeric-owner | awk '{print $2}'"), "0/0");
    assert_eq!(place.container("--rm new:1", &format!("stat -c '%u:%g' {touched} | sort -u")), "0:0");
}

#[test]
fn a_running_container_is_paused_and_goes_on() {
    let place = base(Who::Root);
    place.run(
        "lamel run -d --name r1 --network none base:1 sh -c 'i=0; while :; do i=$((i+1)); echo $i >> /count; done' > /dev/null
         sleep 0.5; lamel commit r1 new:1 > /dev/null",
    );
    assert_eq!(place.run("lamel inspect -f '{{.State.Status}}' r1"), "running");
    let counted = |what: &str| place.run(&format!("{what} | wc -l")).trim().parse::<u64>().unwrap();
    let committed = counted("lamel cat new:1:/count");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let now = counted("lamel cp r1:/count - | tar xO");
    assert!(committed > 0 && now > committed, "{committed} {now}");
    place.run("lamel commit --pause=false r1 new:2 > /dev/null || true; lamel rm -f r1 > /dev/null");
}

#[test]
fn an_image_says_how_its_container_was_run_and_what_is_changed_of_that() {
    let place = base(Who::Root);
    place.container("--name c1 -e B='two words' -w /d -u 1000 -l from=run base:1", "touch /tmp/x 2> /dev/null; true");
    place.run(
        r#"lamel commit -m 'a remark' -a 'some body' -c 'CMD ["id","-u"]' -c 'ENV C=3' -c 'LABEL l=m' c1 new:1 > /dev/null
           lamel commit --format docker c1 new:2 > /dev/null"#,
    );
    let image = place.inspect("new:1");
    let config = &image["Config"];
    assert_eq!(config["Env"], serde_json::json!(["A=1", "B=two words", "C=3"]));
    assert_eq!((config["WorkingDir"].as_str(), config["User"].as_str()), (Some("/d"), Some("1000")));
    assert_eq!(config["Labels"], serde_json::json!({"from": "run", "l": "m"}));
    assert_eq!(image["Author"], "some body");
    let history = image["History"].as_array().unwrap();
    assert_eq!((history.len(), &history[1]["comment"]), (2, &"a remark".into()));
    assert_eq!(place.run("lamel run --rm --network none new:1"), "1000");
    let docker = place.inspect("new:2");
    assert_eq!(docker["Manifest"]["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    place.run("lamel save --format oci-dir -o out new:2 && skopeo inspect oci:out > /dev/null");
    let said = place.fails("lamel commit nothing new:3");
    assert!(said.contains("No such container"), "{said}");
    let said = place.fails("lamel commit -c 'RUN x' c1 new:3");
    assert!(said.contains("CMD, ENTRYPOINT"), "{said}");
    place.run("lamel create --rootfs tree --name dir sh > /dev/null");
    let said = place.fails("lamel commit dir new:3");
    let (_, advice) = said.split_once("runs over a directory").and_then(|(_, said)| said.split_once("by: ")).unwrap();
    place.run(&format!("{} > /dev/null", advice.trim_end()));
    assert_eq!(place.run("lamel run --rm --network none new:3 cat /d/one"), "d/one");
    let said = place.fails("lamel diff dir");
    assert!(said.contains("there is no layer of its changes"), "{said}");
}

#[test]
fn differences_are_told_in_docker_s_letters() {
    for who in EVERYBODY {
        let place = base(who);
        place.container(
            "--name c1 base:1",
            "rm /gone; echo n > /d/new; chmod 600 /meta; mkdir /a; echo x > /a/b; rm -r /two",
        );
        let want = "A /a\nA /a/b\nC /d\nA /d/new\nD /gone\nC /meta\nD /two";
        assert_eq!(place.run("lamel diff c1"), want, "{who:?}");
        let id = place.run("lamel ps -aq");
        assert_eq!(place.run(&format!("lamel diff {id} --json | grep -c path")), "7", "{who:?}");
        place.run(
            "lamel run -d --name r1 --network none base:1 sh -c 'echo x > /x; exec sleep 100' > /dev/null; sleep 0.3",
        );
        assert_eq!(place.run("lamel diff r1"), "A /x", "{who:?}");
        let said = place.fails("lamel diff nothing");
        assert!(said.contains("neither a container nor a mount"), "{who:?}: {said}");
    }
}

/// What is mounted has a place in the container that its image lacks: a file, a directory, one in a directory that is a
/// link in the image, and one below others that are missing.
#[test]
fn places_of_mounts_are_no_changes() {
    for who in EVERYBODY {
        let place = base(who);
        place.run(
            "mkdir -p shared/in && echo outside > shared/file && ln -s links/in via && cp base.tar linked.tar
             tar rf linked.tar via && lamel import linked.tar linked:1 > /dev/null",
        );
        let mounts =
            "-v v1:/new/deep/volume -v $PWD/shared/file:/new/file:ro -v $PWD/shared:/via/bound --tmpfs /scratch";
        let run = |name: &str, script: &str| {
            place.run(&format!("lamel run --network none --name {name} {mounts} linked:1 sh -c '{script}'"))
        };
        let said =
            run("c1", "cat /new/file; ls /links/in/bound; echo x > /new/deep/volume/x; echo y > /scratch/y; id -u");
        assert_eq!(said, "outside\nfile\nin\n0", "{who:?}");
        assert_eq!(place.run("lamel diff c1"), "", "{who:?}");
        place.run("lamel commit c1 new:1 > /dev/null; lamel save --format oci-dir -o out new:1");
        let layer = "tar tf out/blobs/sha256/$(lamel inspect -f '{{json .Manifest.layers}}' new:1 | grep -o 'sha256:[^\"]*' | sed -n '2s/.*://p')";
        assert_eq!(place.run(layer), "./", "{who:?}");
        assert_eq!(place.run("lamel ls new:1"), place.run("lamel ls linked:1"), "{who:?}");
        // It is started again, and what it writes beside them is its own.
        place.run("lamel start -a c1 > /dev/null");
        assert_eq!(place.run("lamel diff c1"), "", "{who:?}");
        let owners = run(
            "c2",
            "echo x > /new/own; mv /new /moved; echo x > /etc/own; chmod 700 /links/in; stat -c %u:%g /moved /moved/deep",
        );
        assert_eq!(owners, "0:0\n0:0", "{who:?}");
        assert_eq!(
            place.run("lamel diff c2"),
            "C /etc\nA /etc/own\nC /links\nC /links/in\nA /moved\nA /moved/own\nD /new",
            "{who:?}"
        );
        place.run("lamel commit c2 new:2 > /dev/null");
        assert_eq!(
            place.run("lamel cat new:2:/moved/own new:2:/etc/own; lamel stat -c %a new:2:/links/in"),
            "x\nx\n700",
            "{who:?}"
        );
    }
}

/// An image says where its volumes are: one that cannot be there keeps its container from starting, and has no place.
#[test]
fn no_place_is_made_of_a_hostile_volume() {
    let place = base(Who::Root);
    let (long, far, deep) = ("n".repeat(300), "/name".repeat(2000), "/d".repeat(1900));
    for (volume, starts) in [
        ("/.wh.bin", false),
        ("/d/.wh..wh..opq", false),
        (&*format!("/{long}"), false),
        (&*far, false),
        ("/meta/below", false),
        ("/absolute/below", false),
        ("/../../up/../etc/new", true),
        (&*deep, true),
    ] {
        let shown = &volume[..volume.len().min(20)];
        place.run(&format!(
            "lamel commit -c 'VOLUME [\"{volume}\"]' $(lamel create --network none base:1) hostile:1 > /dev/null
             lamel create --name h --network none hostile:1 ls -a /etc > /dev/null"
        ));
        let listed = place.run("lamel export h | tar t");
        assert!(
            listed.contains("bin/busybox") && !listed.contains(".wh.") && !listed.contains(&long),
            "{shown}: {listed}"
        );
        let out = place.outcome("lamel start -a h");
        assert_eq!(out.success(), starts, "{shown}: {}{}", out.stdout, out.stderr);
        assert_eq!(place.run("lamel diff h"), "", "{shown}");
        place.run("lamel rm -v h > /dev/null");
    }
}

#[test]
fn a_mount_of_an_image_is_compared_with_the_image() {
    let place = base(Who::Root);
    place.run(
        "mkdir upper && lamel mount base:1 --upper upper mnt && rm mnt/gone && echo n > mnt/meta && mkdir mnt/new",
    );
    assert_eq!(place.run("lamel diff mnt"), "D /gone\nC /meta\nA /new");
    place.run("lamel umount mnt");
}
