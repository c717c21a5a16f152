//! Many pulls into one store, killed at random while it is mounted and pruned: what has a name is whole, and the rest comes again.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::User;
use crate::daemon::Daemon;
use crate::fixture::{Image, noise};

/// Rounds of processes that run side by side.
const ROUNDS: u64 = 25;
/// Processes of one round.
const WIDTH: u64 = 8;

#[test]
fn two_hundred_pulls_mounts_and_prunes_with_kills() {
    let user = User::new();
    let registry = Daemon::open(&user.path("registry"));
    let shared = ("shared", noise(50, 700_000));
    let images =
        [1, 2, 3].map(|seed| Image::new(&[shared.clone(), ("own", noise(50 + seed, 400_000)), ("x", noise(1, 9))]));
    for (number, image) in images.iter().enumerate() {
        let layout = user.path(format!("layout{number}"));
        image.write(&layout, "t");
        registry.put(&layout, "t", &format!("app{number}:1"));
    }
    let name = |number: u64| format!("{}/app{number}:1", registry.host());
    let mut state = 20_261_125_u64;
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mounts: Vec<String> = (0..WIDTH).map(|slot| user.path(format!("mount{slot}")).display().to_string()).collect();
    mounts.iter().for_each(|place| std::fs::create_dir(place).unwrap());
    let mut whole = 0;
    for _ in 0..ROUNDS {
        let children: Vec<_> = mounts
            .iter()
            .map(|place| {
                let name = name(below(3));
                let (args, ends) = match below(7) {
                    0 => (vec!["prune", "--all"], true),
                    1 => (vec!["mount", "-f", &name, place], false),
                    _ => (vec!["pull", "-q", &name], true),
                };
                let limit = (below(3) > 0 || !ends).then(|| Duration::from_millis(below(250)));
                let child = user.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                (child, Instant::now(), limit)
            })
            .collect();
        for (mut child, start, limit) in children {
            if let Some(limit) = limit {
                std::thread::sleep(limit.saturating_sub(start.elapsed()));
                child.kill().unwrap();
            }
            whole += u32::from(child.wait().unwrap().success());
        }
        // Nothing serves them any more.
        for place in &mounts {
            while Command::new("umount").args(["-l", place]).stderr(Stdio::null()).status().unwrap().success() {}
        }
    }
    assert!(whole > 10, "{whole} of all ended by themselves");
    let store = lamel_image::Store::open(&user.store(), &[]).unwrap();
    let faults = store.verify(None, false).unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
    for (number, image) in (0..).zip(&images) {
        assert_eq!(user.lamel(&["pull", "-q", &name(number)]), image.manifest.digest);
    }
    assert!(store.verify(None, false).unwrap().faults.is_empty());
    assert_eq!(store.images().unwrap().len(), 3);
    assert_eq!(user.partials().len(), 0);
}
