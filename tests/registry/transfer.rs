//! What is pulled and pushed is what was there, and what others make of it.

use std::fs;
use std::process::Stdio;

use crate::User;
use crate::common::run_in;
use crate::daemon::Daemon;
use crate::faults::serve;
use crate::fixture::{Image, noise, write_index};
use crate::server::Server;

fn app() -> Image {
    Image::new(&[("hello", b"hello\n".to_vec()), ("noise", noise(1, 300_000)), ("more", noise(2, 2_000_000))])
}

#[test]
fn what_skopeo_pushes_lamel_pulls_and_the_reverse() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let (host, image) = (registry.host(), app());
    image.write(&user.path("layout"), "t");
    registry.put(&user.path("layout"), "t", "team/app:1");

    let name = format!("{host}/team/app:1");
    let first = user.outcome(&["pull", &name]);
    assert!(first.success(), "{}", first.stderr);
    assert_eq!(first.stdout, format!("{}\n", image.manifest.digest));
    assert_eq!(first.stderr.matches(": pulled, ").count(), 3, "{}", first.stderr);
    let again = user.outcome(&["pull", "--quiet", &name]);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), (first.stdout.as_str(), ""));
    let third = user.outcome(&["pull", &format!("docker://{name}")]);
    assert_eq!(third.stderr.matches(": already there").count(), 3, "{}", third.stderr);
    for blob in image.blobs() {
        let stored = user.store().join("blobs").join(blob.digest.replace(':', "/"));
        assert_eq!(fs::read(stored).unwrap(), blob.bytes);
    }
    assert_eq!(user.partials().len(), 0);
    run_in(&user.store(), &format!("skopeo inspect oci:.:{name} | grep -q {}", image.manifest.digest));

    // To a repository of the same registry nothing is sent, to another registry all of it.
    let mounted = user.outcome(&["push", &name, &format!("{host}/other:2")]);
    assert_eq!(mounted.stderr.matches(": mounted from another repository").count(), 4, "{}", mounted.stderr);
    let elsewhere = Daemon::open(&user.path("elsewhere"));
    let pushed = user.outcome(&["push", &name, &format!("{}/new/app:3", elsewhere.host())]);
    assert_eq!(pushed.stderr.matches(": pushed, ").count(), 4, "{}", pushed.stderr);
    assert_eq!(pushed.stdout, first.stdout);
    let again = user.outcome(&["push", &name, &format!("{}/new/app:4", elsewhere.host())]);
    assert_eq!(again.stderr.matches(": already there").count(), 4, "{}", again.stderr);
    assert_eq!(registry.digest("other:2"), image.manifest.digest);
    assert_eq!(elsewhere.digest("new/app:4"), image.manifest.digest);

    // podman and skopeo take all of it.
    let from = format!("{}/new/app@{}", elsewhere.host(), image.manifest.digest);
    let dir = user.path("out");
    run_in(
        user.scratch.path(),
        &format!("skopeo copy -q --src-tls-verify=false docker://{from} dir:{}", dir.display()),
    );
    assert_eq!(fs::read(dir.join(&image.layers[2].digest[7..])).unwrap(), image.layers[2].bytes);
    let podman =
        format!("podman --root {0}/graph --runroot {0}/podman --storage-driver vfs", user.scratch.path().display());
    let digest = run_in(
        user.scratch.path(),
        &format!(
            "timeout 60 {podman} pull -q --tls-verify=false {from} && {podman} image inspect --format '{{{{.Digest}}}}' {from}"
        ),
    );
    assert_eq!(digest.lines().last(), Some(image.manifest.digest.as_str()));
}

#[test]
fn what_is_pulled_can_be_mounted_at_once() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let image = app();
    image.write(&user.path("layout"), "t");
    registry.put(&user.path("layout"), "t", "app:1");
    let name = format!("{}/app", registry.host());
    for name in [format!("{name}:1"), format!("{name}@{}", image.manifest.digest)] {
        user.lamel(&["pull", &name]);
        let mountpoint = user.scratch.mnt();
        let mountpoint = mountpoint.to_str().unwrap();
        user.lamel(&["mount", &name, mountpoint]);
        let read = fs::read(user.path("mnt/hello")).unwrap();
        user.lamel(&["umount", mountpoint]);
        assert_eq!(read, b"hello\n");
        fs::remove_dir_all(user.store()).unwrap();
    }
}

#[test]
fn a_terminal_is_shown_bars() {
    let user = User::new();
    let image = Image::new(&[("f", noise(15, 2_000_000))]);
    let served = image.clone();
    // Slow enough for a bar to be drawn.
    let pause = std::time::Duration::from_millis(400);
    let registry = Server::start(move |asked| match asked.path.ends_with(&served.layers[0].digest) {
        true if asked.from().is_none() => serve(&served, asked).stall(1_000_000, pause),
        _ => serve(&served, asked),
    });
    let lamel = crate::Subject::lamel_bin().canonicalize().unwrap();
    let path = user.scratch.path().display();
    let pull = format!("{} pull --plain-http --retry-delay 10ms {}/app", lamel.display(), registry.host());
    let said = run_in(
        user.scratch.path(),
        &format!(
            "env -i TERM=xterm HOME={path}/home LAMEL_ROOT={path}/store script -qefc '{pull}' /dev/null < /dev/null"
        ),
    );
    let short = &image.layers[0].digest[7..19];
    assert!(said.contains("\u{1b}[") && said.contains(&format!("{short} [")), "{said:?}");
    assert!(said.contains(&format!("{short}: pulled, ")) && said.contains(&image.manifest.digest), "{said:?}");
}

#[test]
fn several_images_under_one_name() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let images = [Image::of("amd64", &[("a", noise(3, 9000))]), Image::of("arm64", &[("b", noise(4, 9000))])];
    let index = write_index(&user.path("layout"), &[&images[0], &images[1]], "t");
    registry.put(&user.path("layout"), "t", "multi:1");
    let name = format!("{}/multi:1", registry.host());
    let host = usize::from(std::env::consts::ARCH == "aarch64");

    assert_eq!(user.lamel(&["pull", &name]), index.digest);
    assert!(user.has_blob(&images[host].layers[0].digest));
    assert!(!user.has_blob(&images[1 - host].layers[0].digest));
    // What is not for this host is not missing.
    user.lamel(&["verify"]);
    user.lamel(&["prune"]);
    assert!(user.lamel(&["images", "--digests"]).contains(&index.digest));
    user.lamel(&["save", "--format", "oci-archive", "-o", "saved.tar", &name]);
    run_in(user.scratch.path(), "skopeo inspect oci-archive:saved.tar > /dev/null");
    // Of the index the store has one image: that one is pushed.
    let one = user.outcome(&["push", &name, &format!("{}/one:1", registry.host())]);
    assert_eq!(one.stdout.trim(), images[host].manifest.digest, "{}", one.stderr);
    assert_eq!(registry.digest("one:1"), images[host].manifest.digest);

    assert_eq!(user.lamel(&["pull", "--platform", "linux/arm64", &name]), images[1].manifest.digest);
    let missing = user.fails(&["pull", "--platform", "linux/riscv64", &name]);
    assert!(missing.contains("choose one of these by --platform: linux/amd64 linux/arm64"), "{missing}");
    let single = format!("{}/one:1", registry.host());
    let other = user.fails(&["pull", "--platform", "linux/s390x", &single]);
    assert!(other.contains("has no image for linux/s390x"), "{other}");

    assert_eq!(user.lamel(&["pull", "--all-platforms", &name]), index.digest);
    assert_eq!(user.lamel(&["push", &name, &format!("{}/all:1", registry.host())]), index.digest);
    assert_eq!(registry.digest("all:1"), index.digest);
    let by_digest = format!("{}/all@{}", registry.host(), index.digest);
    assert_eq!(user.lamel(&["pull", &by_digest]), index.digest);
    run_in(user.scratch.path(), &format!("skopeo copy -q --all --src-tls-verify=false docker://{by_digest} dir:out"));
}

#[test]
fn mirrors_are_asked_first() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let image = Image::new(&[("f", noise(5, 5000))]);
    image.write(&user.path("layout"), "t");
    registry.put(&user.path("layout"), "t", "hub/library/app:latest");
    let conf = user.path("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \
         \"127.0.0.1:1/dead\"\n[[registry.mirror]]\nlocation = \"{}/hub\"\n[[registry]]\nprefix = \
         \"bad.example\"\nblocked = true\n",
        registry.host()
    );
    fs::write(&conf, text).unwrap();
    let run = |args: &[&str]| {
        let mut command = user.command(args);
        command.env("CONTAINERS_REGISTRIES_CONF", &conf);
        crate::spawn_captured(command, crate::TIMEOUT)
    };
    let pulled = run(&["pull", "app"]);
    assert_eq!(pulled.stdout.trim(), image.manifest.digest, "{}", pulled.stderr);
    let index = fs::read_to_string(user.store().join("index.json")).unwrap();
    assert!(index.contains("docker.io/library/app:latest"), "{index}");
    let blocked = run(&["pull", "bad.example/app"]);
    assert!(blocked.stderr.contains("registries.conf blocks this registry"), "{}", blocked.stderr);
}

#[test]
fn large_blobs_in_parts() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let image = Image::new(&[("large", noise(6, 3_000_000))]);
    image.write(&user.path("store"), "localhost/large:1");
    let store = lamel_image::Store::open(&user.store(), &[]).unwrap();
    let options = lamel_image::registry::Options { chunk: Some(700_000), ..Default::default() };
    let registries = lamel_image::registry::Registries::new(options, &|_| None).unwrap();
    let named = store.find("localhost/large:1").unwrap();
    let to = format!("{}/large:1", registry.host()).parse().unwrap();
    registries.push(&store, &named, &to, &|_, _| {}).unwrap();
    assert_eq!(registry.digest("large:1"), image.manifest.digest);
    assert_eq!(user.lamel(&["pull", &to.to_string()]), image.manifest.digest);
}

#[test]
fn many_pull_the_same_at_once() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let image = app();
    image.write(&user.path("layout"), "t");
    let name = format!("{}/app:1", registry.host());
    registry.put(&user.path("layout"), "t", "app:1");
    let start = || user.command(&["pull", "-q", &name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pulls: Vec<_> = (0..4).map(|_| start()).collect();
    for pull in pulls {
        let done = pull.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), image.manifest.digest, "{said}");
    }
    let store = lamel_image::Store::open(&user.store(), &[]).unwrap();
    assert!(store.verify(None, false).unwrap().faults.is_empty());
    assert_eq!(store.images().unwrap().len(), 1);
}
