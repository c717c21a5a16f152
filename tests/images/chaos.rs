//! Many processes on one store, killed at random: what has a name is whole, and the rest is cleared.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Place;
use crate::made::images;

/// Rounds of processes that run side by side.
const ROUNDS: u64 = 25;
/// Processes of one round.
const WIDTH: u64 = 8;

/// Numbers without pattern, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(place: &Place, cmd: &str) -> Running {
    let mut command = Command::new("bash");
    let script = format!("{}\nexec {cmd}", place.environment());
    command.args(["-c", &script]).current_dir(place.scratch.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn two_hundred_loads_mounts_and_prunes_with_kills() {
    let place = Place::new();
    let images = images();
    place.run(&format!(
        "skopeo copy -q oci:{images}/oci:small oci:two:small && skopeo copy -q oci:{images}/oci:small docker-archive:d.tar:d:1
         mkdir tree && head -c 3M /dev/urandom > tree/noise && tar -C tree -cf tree.tar . && mkdir -p mounts && seq 8 | xargs -I% mkdir mounts/%",
        images = images.display()
    ));
    let mut random = Random(20_261_125);
    let mut whole = 0;
    for _ in 0..ROUNDS {
        let mut children: Vec<(Running, Option<Instant>)> = (0..WIDTH)
            .map(|slot| {
                let cmd = match random.below(7) {
                    0 | 1 => "lamel load -i two".to_owned(),
                    2 => "lamel load -i d.tar".to_owned(),
                    3 => "lamel import tree.tar tree:1".to_owned(),
                    4 => "lamel prune --all".to_owned(),
                    _ => format!("lamel mount -f small mounts/{}", slot + 1),
                };
                let limit = if cmd.contains("mount") || random.below(2) == 0 {
                    Some(Instant::now() + Duration::from_millis(random.below(350)))
                } else {
                    None
                };
                (start(&place, &cmd), limit)
            })
            .collect();
        // Those without a limit are done to the end, mounts never are.
        while let Some(at) = children.iter().filter_map(|(_, at)| *at).min() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            for (child, limit) in &mut children {
                if *limit == Some(at) {
                    child.0.kill().unwrap();
                    *limit = None;
                }
            }
        }
        for (mut child, _) in children {
            whole += u32::from(child.0.wait().unwrap().success());
        }
        place.run("for m in mounts/*; do while mountpoint -q $m || ! ls $m > /dev/null 2>&1; do umount -l $m || true; done; done");
    }
    assert!(whole > 20, "{whole} of all ended by themselves");
    let said = place.outcome("lamel verify");
    assert!(said.success(), "{}{}", said.stdout, said.stderr);
    // Whatever was left is usable, and what was missing comes back.
    place.run("lamel load -q -i two && lamel load -q -i d.tar && lamel import tree.tar tree:1 && lamel verify");
    place.run("lamel mount small mnt && cat mnt/special/later && lamel umount mnt");
    place.run("lamel prune > /dev/null && test -z \"$(ls store/tmp store/partial | grep -v :)\"");
    place.run("lamel prune --all > /dev/null");
    assert_eq!(place.run("find store -type f | grep -v lock | sort"), "store/index.json\nstore/oci-layout");
}
