//! Registries that fail for a while: what may pass is tried again, what came stays.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lamel_image::manifest::media;
use lamel_image::registry::{Options, Registries, Retry, Security, Timeouts, Wanted};

use crate::User;
use crate::fixture::{Image, noise};
use crate::server::{Asked, Reply, Server};

/// What a registry that has this image answers.
pub(crate) fn serve(image: &Image, asked: &Asked) -> Reply {
    if asked.path.contains("/manifests/") {
        return Reply::new(200, image.manifest.bytes.clone())
            .header("Content-Type", media::MANIFEST)
            .header("Docker-Content-Digest", &*image.manifest.digest);
    }
    match image.blobs().find(|blob| asked.path.ends_with(&blob.digest)) {
        Some(blob) => Reply::part(asked, &blob.bytes),
        None if asked.path == "/v2/" => Reply::new(200, "{}"),
        None => Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}"#),
    }
}

fn image() -> Image {
    Image::new(&[("f", noise(20, 300_000))])
}

/// How a registry answers a request for a blob.
type Way = Box<dyn Fn(&Asked, &[u8]) -> Reply + Send + Sync>;

/// A registry that answers the layer's first requests in these ways, and the later ones as it should.
fn failing(image: &Image, ways: Vec<Way>) -> Server {
    let (image, count) = (image.clone(), AtomicUsize::new(0));
    Server::start(move |asked| {
        let layer = &image.layers[0];
        if !asked.path.ends_with(&layer.digest) {
            return serve(&image, asked);
        }
        match ways.get(count.fetch_add(1, Ordering::SeqCst)) {
            Some(way) => way(asked, &layer.bytes),
            None => serve(&image, asked),
        }
    })
}

fn pull<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["pull", "--plain-http", "--retry-delay", "20ms"], more, &[name]].concat()
}

#[test]
fn a_truncated_blob_goes_on_where_it_broke_off() {
    let (user, image) = (User::new(), image());
    let size = image.layers[0].bytes.len();
    let registry = failing(
        &image,
        vec![
            Box::new(|asked, blob| Reply::part(asked, blob).cut(1000)),
            Box::new(|asked, blob| Reply::part(asked, blob).cut(150_000)),
            Box::new(|_, _| Reply::new(503, "busy")),
        ],
    );
    let name = format!("{}/app", registry.host());
    assert_eq!(user.lamel(&pull(&name, &[])), image.manifest.digest);
    let asked = registry.asked(&image.layers[0].digest);
    let ranges: Vec<_> = asked.iter().map(Asked::from).collect();
    assert_eq!(ranges, [None, Some(1000), Some(151_000), Some(151_000)]);
    assert!(size > 151_000);
}

#[test]
fn a_blob_that_never_comes_whole_is_kept_for_the_next_time() {
    let (user, image) = (User::new(), image());
    let ways = |asked: &Asked, blob: &[u8]| Reply::part(asked, blob).cut(1000);
    let registry = failing(&image, vec![Box::new(ways), Box::new(ways), Box::new(ways)]);
    let name = format!("{}/app", registry.host());
    let said = user.fails(&pull(&name, &["--retry", "2"]));
    assert!(said.contains("interrupted after 3000 of") && said.contains("ended too soon"), "{said}");
    assert!(!user.has_blob(&image.layers[0].digest));
    assert_eq!(fs::read_to_string(user.store().join("index.json")).unwrap().matches("digest").count(), 0);
    let [partial] = user.partials().try_into().unwrap();
    assert_eq!(fs::read(partial).unwrap(), image.layers[0].bytes[..3000]);
    let next = user.outcome(&pull(&name, &[]));
    assert!(next.stderr.contains("goes on after 3kB of"), "{}", next.stderr);
    assert_eq!(registry.asked(&image.layers[0].digest).last().unwrap().from(), Some(3000));
    assert_eq!(user.partials().len(), 0);
}

#[test]
fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let (user, image) = (User::new(), image());
    let registry = failing(
        &image,
        vec![
            Box::new(|asked, blob| Reply::part(asked, blob).cut(100_000)),
            Box::new(|_, blob| Reply::new(200, blob).cut(50_000)),
            Box::new(|_, blob| Reply::new(200, blob)),
        ],
    );
    let name = format!("{}/app", registry.host());
    assert_eq!(user.lamel(&pull(&name, &[])), image.manifest.digest);
    assert_eq!(registry.asked(&image.layers[0].digest).len(), 3);
}

#[test]
fn what_was_kept_and_is_wrong_comes_again() {
    let (user, image) = (User::new(), image());
    let cut = |asked: &Asked, blob: &[u8]| Reply::part(asked, blob).cut(70_000);
    let registry = failing(&image, vec![Box::new(cut)]);
    let name = format!("{}/app", registry.host());
    user.fails(&pull(&name, &["--retry", "0"]));
    let [partial] = user.partials().try_into().unwrap();
    let mut bytes = fs::read(&partial).unwrap();
    bytes[35_000] ^= 1;
    fs::write(&partial, bytes).unwrap();
    assert_eq!(user.lamel(&pull(&name, &[])), image.manifest.digest);
    let asked = registry.asked(&image.layers[0].digest);
    assert_eq!(asked.iter().map(Asked::from).collect::<Vec<_>>(), [None, Some(70_000), None]);
}

#[test]
fn a_busy_registry_is_given_the_time_that_it_asks_for() {
    let (user, image) = (User::new(), image());
    let busy = |status| move |_: &Asked, _: &[u8]| Reply::new(status, "").header("Retry-After", "1");
    let registry = failing(&image, vec![Box::new(busy(429)), Box::new(busy(503))]);
    let name = format!("{}/app", registry.host());
    let start = Instant::now();
    assert_eq!(user.lamel(&pull(&name, &[])), image.manifest.digest);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(registry.asked(&image.layers[0].digest).len(), 3);
}

#[test]
fn one_that_stays_busy_is_given_up() {
    let (user, image) = (User::new(), image());
    let tired = Server::start(move |asked| match asked.path.contains("/manifests/") {
        true => Reply::new(503, r#"{"errors":[{"code":"UNAVAILABLE","message":"come \u001b[31mback later"}]}"#),
        false => serve(&image, asked),
    });
    let name = format!("{}/app", tired.host());
    let said = user.fails(&pull(&name, &["--retry", "2"]));
    assert_eq!(tired.asked("/manifests/").len(), 3);
    assert!(said.contains("503 Service Unavailable: UNAVAILABLE, come  [31mback later"), "{said:?}");
    let patient = Server::start(|_| Reply::new(429, "").header("Retry-After", "86400"));
    let start = Instant::now();
    user.fails(&pull(&format!("{}/app", patient.host()), &[]));
    assert!(start.elapsed() < Duration::from_secs(5), "nobody waits for a day");
}

#[test]
fn one_that_falls_silent_is_left() {
    let (user, image) = (User::new(), image());
    let silence = Duration::from_millis(300);
    let registry = failing(
        &image,
        vec![
            Box::new(move |asked, blob| Reply::part(asked, blob).stall(100_000, silence * 20)),
            Box::new(move |asked, blob| Reply::part(asked, blob).stall(0, silence * 20)),
        ],
    );
    let store = lamel_image::Store::open(&user.store(), &[]).unwrap();
    let pull = |retries| {
        let options = Options {
            security: Some(Security::Plain),
            retry: Retry { retries, delay: Duration::from_millis(10), ..Retry::default() },
            timeouts: Timeouts { silence, ..Timeouts::default() },
            ..Options::default()
        };
        let name = format!("{}/app", registry.host()).parse().unwrap();
        let registries = Registries::new(options, &|_| None).unwrap();
        registries.pull(&store, &name, &Wanted::Host, &|_, _| {})
    };
    let start = Instant::now();
    let said = pull(0).unwrap_err().to_string();
    assert!(said.contains("interrupted after 100000 of") && said.contains("no answer in time"), "{said}");
    assert_eq!(pull(1).unwrap().digest.to_string(), image.manifest.digest);
    assert!(start.elapsed() >= silence * 2 && start.elapsed() < silence * 15, "{:?}", start.elapsed());
    let asked = registry.asked(&image.layers[0].digest);
    assert_eq!(asked.iter().map(Asked::from).collect::<Vec<_>>(), [None, Some(100_000), Some(100_000)]);
}
