//! Transfers that are cut off by force, against a real registry: they go on, and do not begin again.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::User;
use crate::common::{TIMEOUT, spawn_captured};
use crate::daemon::Daemon;
use crate::fixture::{Image, noise};
use crate::server::{Line, Reply, Server, UNLIMITED};

const SIZE: usize = 6_000_000;

fn image() -> Image {
    Image::new(&[("large", noise(40, SIZE))])
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not after 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn published(user: &User, image: &Image) -> Daemon {
    let registry = Daemon::open(&user.path("registry"));
    image.write(&user.path("layout"), "t");
    registry.put(&user.path("layout"), "t", "app:1");
    registry
}

/// Bytes of blobs that have come so far.
fn kept(user: &User) -> u64 {
    user.partials().iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn a_pull_goes_on_after_the_client_was_killed() {
    let (user, image) = (User::new(), image());
    let registry = published(&user, &image);
    let line = Line::start(&registry.host(), 3_000_000, UNLIMITED, false);
    let name = format!("{}/app:1", line.host());
    let mut child = user
        .command(&["pull", "--plain-http", "-q", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("half of the blob", || kept(&user) > 2_500_000);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = kept(&user);
    let size = image.layers[0].bytes.len() as u64;
    assert!(before < size);
    line.mend();
    let second = Line::start(&registry.host(), size - before + 300_000, UNLIMITED, true);
    // The other line has no more than what is missing, and breaks: to begin again is more than it carries.
    let other = name.replace(&line.host(), &second.host());
    let done = spawn_captured(user.command(&["pull", "--plain-http", "--retry", "0", &other]), TIMEOUT);
    assert_eq!(done.stdout.trim(), image.manifest.digest, "{}", done.stderr);
    assert!(done.stderr.contains("goes on after"), "{}", done.stderr);
    assert_eq!(user.partials().len(), 0);
}

#[test]
fn a_pull_goes_on_after_the_registry_was_killed() {
    let (user, image) = (User::new(), image());
    let mut registry = published(&user, &image);
    let line = Line::start(&registry.host(), 3_000_000, UNLIMITED, false);
    let name = format!("{}/app:1", line.host());
    let mut child = user
        .command(&["pull", "--plain-http", "--retry-delay", "200ms", &name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("half of the blob", || kept(&user) > 2_500_000);
    registry.kill();
    line.sever();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the registry");
    registry.restart();
    line.mend();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), image.manifest.digest, "{said}");
    assert!(said.contains("trying again in"), "{said}");
    // The whole blob is counted once: what came before the registry died did not come again.
    assert!(said.contains("pulled, 6.33MB"), "{said}");
}

/// Pushes over a line that breaks in the middle of a blob; returns what was said.
fn push_over_broken_line(user: &User, image: &Image, host: &str) -> (Line, String) {
    image.write(&user.store(), "localhost/large:1");
    let line = Line::start(host, UNLIMITED, 3_000_000, true);
    let to = format!("{}/large:1", line.host());
    let child = user
        .command(&["push", "--plain-http", "--retry-delay", "100ms", "localhost/large:1", &to])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("half of the blob", || line.is_used_up());
    line.mend();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), image.manifest.digest, "{said}");
    assert!(said.contains("trying again in"), "{said}");
    (line, said)
}

#[test]
fn a_push_succeeds_after_it_was_broken_off() {
    let (user, image) = (User::new(), image());
    let registry = Daemon::open(&user.path("registry"));
    // This one forgets an upload that broke off: it begins again.
    push_over_broken_line(&user, &image, &registry.host());
    assert_eq!(registry.digest("large:1"), image.manifest.digest);
}

#[test]
fn a_push_goes_on_where_the_registry_says() {
    let (user, image) = (User::new(), image());
    let layer = image.layers[0].clone();
    let upload: Arc<Mutex<Vec<u8>>> = Arc::default();
    let state = Arc::clone(&upload);
    let registry = Server::start(move |asked| {
        let mut upload = state.lock().unwrap();
        let there = |upload: &Vec<u8>| format!("0-{}", upload.len().saturating_sub(1));
        match asked.method.as_str() {
            "HEAD" => Reply::new(if asked.path.ends_with(&layer.digest) { 404 } else { 200 }, ""),
            "POST" => Reply::new(202, "").header("Location", "/upload?state=0"),
            "PATCH" => {
                upload.extend_from_slice(&asked.body);
                Reply::new(202, "").header("Location", "/upload?state=1").header("Range", there(&upload))
            }
            "GET" => Reply::new(204, "").header("Location", "/upload?state=2").header("Range", there(&upload)),
            _ => Reply::new(201, ""),
        }
    });
    let (line, said) = push_over_broken_line(&user, &image, &registry.host());
    let size = image.layers[0].bytes.len();
    assert!(line.passed_up() < size as u64 - 2_000_000, "what had come was sent again: {said}");
    assert!(*upload.lock().unwrap() == image.layers[0].bytes, "{said}");
    let parts: Vec<_> = registry.asked("/upload").into_iter().filter(|asked| asked.method == "PATCH").collect();
    let second = parts[1].header("content-range").unwrap();
    assert_eq!(second, format!("{}-{}", parts[0].body.len(), size - 1));
    let ends: Vec<_> = registry.asked("/upload").into_iter().filter(|asked| asked.method == "PUT").collect();
    assert_eq!(ends[0].path, format!("/upload?state=1&digest={}", image.layers[0].digest));
}

#[test]
fn a_registry_that_takes_only_small_parts_gets_them() {
    let (user, image) = (User::new(), Image::new(&[("large", noise(41, 10_000_000))]));
    image.write(&user.store(), "localhost/large:1");
    let layer = image.layers[0].clone();
    let upload: Arc<Mutex<Vec<u8>>> = Arc::default();
    let state = Arc::clone(&upload);
    let registry = Server::start(move |asked| {
        let mut upload = state.lock().unwrap();
        match asked.method.as_str() {
            "HEAD" => Reply::new(if asked.path.ends_with(&layer.digest) { 404 } else { 200 }, ""),
            "POST" => Reply::new(202, "").header("Location", "/upload"),
            "PATCH" if asked.body.len() > 9_000_000 => Reply::new(413, ""),
            "PATCH" => {
                upload.extend_from_slice(&asked.body);
                Reply::new(202, "").header("Location", "/upload")
            }
            _ => Reply::new(201, ""),
        }
    });
    user.lamel(&["push", "--plain-http", "localhost/large:1", &format!("{}/large:1", registry.host())]);
    assert!(*upload.lock().unwrap() == image.layers[0].bytes);
}
