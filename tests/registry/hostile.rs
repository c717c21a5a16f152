//! Registries that lie, and such that want what is not theirs.

use std::fs;

use lamel_image::manifest::media;
use serde_json::{Value, json};

use crate::User;
use crate::daemon::Daemon;
use crate::faults::serve;
use crate::fixture::{Blob, Image, noise};
use crate::server::{Reply, Server};

fn image() -> Image {
    Image::new(&[("f", noise(30, 100_000))])
}

/// Pulls from a registry that has this manifest of this type.
fn refusal(manifest: Vec<u8>, kind: &str) -> String {
    let (user, kind) = (User::new(), kind.to_owned());
    let registry = Server::start(move |asked| match asked.path.contains("/manifests/") {
        true => Reply::new(200, manifest.clone()).header("Content-Type", kind.clone()),
        false => Reply::new(404, ""),
    });
    let said = user.fails(&["pull", "--plain-http", "--retry", "0", &format!("{}/app", registry.host())]);
    assert_eq!(fs::read_dir(user.store().join("blobs/sha256")).unwrap().count(), 0, "{said}");
    said
}

#[test]
fn content_of_another_digest_leaves_nothing() {
    let (user, image) = (User::new(), image());
    let mut wrong = image.layers[0].bytes.clone();
    let last = wrong.len() - 1;
    wrong[last / 2] ^= 1;
    for bytes in [wrong.clone(), [&image.layers[0].bytes[..], b"more"].concat(), vec![0; wrong.len()]] {
        let served = image.clone();
        let registry = Server::start(move |asked| match asked.path.ends_with(&served.layers[0].digest) {
            true => Reply::new(200, bytes.clone()),
            false => serve(&served, asked),
        });
        let said = user.fails(&["pull", "--plain-http", &format!("{}/app", registry.host())]);
        assert!(
            said.contains(&image.layers[0].digest) && said.contains(" where ") | said.contains("has the digest"),
            "{said}"
        );
        assert_eq!(registry.asked(&image.layers[0].digest).len(), 1, "a lie is not asked for again");
        assert!(!user.has_blob(&image.layers[0].digest));
        assert_eq!(user.partials().len(), 0, "{said}");
        let index = fs::read_to_string(user.store().join("index.json")).unwrap();
        assert!(!index.contains("digest"), "{index}");
    }
}

#[test]
fn a_manifest_of_another_digest_is_refused() {
    let (user, image) = (User::new(), image());
    let registry = Server::start(move |asked| serve(&image, asked));
    let digest = lamel_image::Digest::of(b"something else");
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app@{digest}", registry.host())]);
    assert!(said.contains("has the digest"), "{said}");
    let torn = Server::start(|_| {
        Reply::new(200, "{}").header("Docker-Content-Digest", lamel_image::Digest::of(b"{...}").to_string())
    });
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app", torn.host())]);
    assert!(said.contains("has the digest"), "{said}");
}

#[test]
fn manifests_are_bounded_and_of_one_meaning() {
    let image = image();
    let mut large: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    large["annotations"] = json!({"a": "x".repeat(5 << 20)});
    let said = refusal(serde_json::to_vec(&large).unwrap(), media::MANIFEST);
    assert!(said.contains("more than 4194304 bytes"), "{said}");
    let mut both: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    both["manifests"] = json!([]);
    let both = serde_json::to_vec(&both).unwrap();
    assert!(refusal(both.clone(), media::MANIFEST).contains("lists layers and images"));
    assert!(refusal(both, media::INDEX).contains("lists layers and images"));
    let said = refusal(image.manifest.bytes.clone(), media::INDEX);
    assert!(said.contains("calls itself"), "{said}");
    let old = json!({"schemaVersion": 1, "name": "app", "fsLayers": [], "history": []});
    let said = refusal(serde_json::to_vec(&old).unwrap(), "application/vnd.docker.distribution.manifest.v1+prettyjws");
    assert!(said.contains("schema 1"), "{said}");
    let said = refusal(b"<html>".to_vec(), "text/html");
    assert!(said.contains("malformed manifest"), "{said}");
    let mut path: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    path["layers"][0]["digest"] = "sha256:../../../x".into();
    assert!(refusal(serde_json::to_vec(&path).unwrap(), media::MANIFEST).contains("is no digest"));
}

#[test]
fn an_index_that_calls_an_image_something_else_is_refused() {
    let (user, image) = (User::new(), image());
    let mut entry = json!({"mediaType": media::DOCKER_MANIFEST, "digest": image.manifest.digest,
                           "size": image.manifest.bytes.len(), "platform": {"os": "linux", "architecture": "amd64"}});
    entry["platform"]["architecture"] = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.into();
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [entry]});
    let index = Blob::new(serde_json::to_vec(&index).unwrap());
    let registry = Server::start(move |asked| match asked.path.ends_with("/latest") {
        true => Reply::new(200, index.bytes.clone()).header("Content-Type", media::INDEX),
        false => serve(&image, asked),
    });
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app", registry.host())]);
    assert!(said.contains("the index calls it"), "{said}");
}

#[test]
fn indexes_of_indexes_come_to_an_end() {
    let user = User::new();
    // Each one names the next one, under a name that leads to itself a hundred times.
    let index = |children: &[(&str, &str, usize)]| {
        let entry =
            |(digest, kind, size): &(&str, &str, usize)| json!({"mediaType": kind, "digest": digest, "size": size});
        let entries: Vec<_> = children.iter().map(entry).collect();
        Blob::new(
            serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries})).unwrap(),
        )
    };
    let image = image();
    let mut chain = vec![index(&vec![(&*image.manifest.digest, media::MANIFEST, image.manifest.bytes.len()); 100])];
    for _ in 0..4 {
        let last = chain.last().unwrap();
        let next = index(&vec![(&*last.digest, media::INDEX, last.bytes.len()); 100]);
        chain.push(next);
    }
    let served = chain.clone();
    let registry = Server::start(move |asked| {
        let named = asked.path.rsplit('/').next().unwrap();
        let found =
            served.iter().find(|index| index.digest == named).or_else(|| served.get(named.parse::<usize>().ok()?));
        match found {
            Some(index) => Reply::new(200, index.bytes.clone()).header("Content-Type", media::INDEX),
            None => serve(&image, asked),
        }
    });
    let name = |depth: usize| format!("{}/app:{depth}", registry.host());
    assert_eq!(user.lamel(&["pull", "--plain-http", "--all-platforms", &name(2)]), chain[2].digest);
    assert_eq!(registry.asked("/manifests/").len(), 4, "each is asked for once");
    let real = Daemon::open(&user.path("registry"));
    let pushed = user.lamel(&["push", &name(2), &format!("{}/app:1", real.host())]);
    assert_eq!((pushed.as_str(), real.digest("app:1")), (chain[2].digest.as_str(), chain[2].digest.clone()));
    let said = user.fails(&["pull", "--plain-http", "--all-platforms", &name(4)]);
    assert!(said.contains("lie deeper than 3"), "{said}");
}

/// A registry that asks for name and password, and has its blobs on another host.
#[test]
fn credentials_stay_with_their_host() {
    let (user, image) = (User::new(), image());
    let served = image.clone();
    let store = Server::start(move |asked| match asked.header("authorization") {
        // A second question, to those who have an answer to the first.
        None if asked.path.contains("ask") => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        None => serve(&served, asked),
        Some(_) => Reply::new(200, "secrets"),
    });
    for ask in ["", "ask/"] {
        let (served, to) = (image.clone(), format!("http://{}/{ask}", store.host()));
        let registry = Server::start(move |asked| {
            if asked.header("authorization").is_none() {
                return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"registry\"");
            }
            match asked.path.contains("/blobs/") {
                true => Reply::new(307, "").header("Location", format!("{to}{}?signature=abc", &asked.path[1..])),
                false => serve(&served, asked),
            }
        });
        let name = format!("{}/app{}", registry.host(), ask.trim_matches('/'));
        let args = ["--log-level", "trace", "pull", "--plain-http", "--retry", "0", "--creds", "me:hunter2", &name];
        if ask.is_empty() {
            // The signature of the address is part of it.
            let done = user.outcome(&args);
            assert!(!done.success(), "the store knows no blob by that path and signature");
            assert!(!done.stderr.contains("signature"), "{}", done.stderr);
        } else {
            let said = user.fails(&args);
            assert!(said.contains("401") && !said.contains("signature"), "{said}");
        }
        let asked = store.asked("/blobs/");
        assert!(!asked.is_empty());
        for asked in asked {
            assert_eq!(asked.header("authorization"), None, "{asked:?}");
        }
    }
}

#[test]
fn a_blob_on_another_host_is_read_there() {
    let (user, image) = (User::new(), image());
    let served = image.clone();
    let store = Server::start(move |asked| serve(&served, asked));
    let (served, to) = (image.clone(), store.host());
    let registry = Server::start(move |asked| match asked.path.contains("/blobs/") {
        true => Reply::new(302, "").header("Location", format!("http://{to}{}", asked.path)),
        false => serve(&served, asked),
    });
    assert_eq!(user.lamel(&["pull", "--plain-http", &format!("{}/app", registry.host())]), image.manifest.digest);
    assert_eq!(store.asked("/blobs/").len(), 2);
    let circle = Server::start(|asked| Reply::new(302, "").header("Location", asked.path.clone()));
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app", circle.host())]);
    assert!(said.contains("one too many"), "{said}");
}

#[test]
fn a_registry_that_never_has_enough_is_left() {
    let user = User::new();
    let tokens = Server::start(|_| Reply::new(200, r#"{"token":"t","expires_in":3000}"#));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host());
    let registry = Server::start(move |_| Reply::new(401, "").header("WWW-Authenticate", realm.clone()));
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app", registry.host())]);
    assert!(said.contains("refuses access"), "{said}");
    assert_eq!(registry.asked("/manifests/").len(), 2);
    let strange = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Negotiate"));
    let said = user.fails(&["pull", "--plain-http", &format!("{}/app", strange.host())]);
    assert!(said.contains("a way that lamel does not know: \"Negotiate\""), "{said}");
}

#[test]
fn where_a_manifest_says_that_a_layer_lies_is_not_asked_for_nothing() {
    let (user, image) = (User::new(), image());
    let elsewhere = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""));
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", elsewhere.host())]);
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    let (manifest, served) = (Blob::new(serde_json::to_vec(&manifest).unwrap()), image.clone());
    let registry = Server::start(move |asked| {
        if asked.path.contains("/manifests/") {
            return Reply::new(200, manifest.bytes.clone()).header("Content-Type", media::MANIFEST);
        }
        match asked.path.ends_with(&served.layers[0].digest) {
            true => Reply::new(404, ""),
            false => serve(&served, asked),
        }
    });
    let name = format!("{}/app", registry.host());
    let said = user.fails(&["pull", "--plain-http", "--creds", "me:hunter2", &name]);
    assert!(said.contains("does not have it"), "{said}");
    assert_eq!(elsewhere.asked("").len(), 0, "an address without TLS is not even asked");
}
