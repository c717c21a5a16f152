//! Two hundred containers, twenty at a time, treated badly.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::house::*;

const CONTAINERS: usize = 200;
const AT_ONCE: usize = 20;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One container's life; its name, and what its state has to be at the end.
fn live(house: &House, number: usize) -> (String, &'static [&'static str]) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let name = format!("c{number}");
    let script = "echo start; trap 'exit 7' TERM; while :; do sleep 0.02; done";
    let mut options = vec!["run", "-d", "--name", &name];
    if dice.roll(2) == 0 {
        options.push("--init");
    }
    if dice.roll(4) == 0 {
        options.extend(["--restart", "on-failure:1"]);
    }
    options.extend(["bb", "sh", "-c", script]);
    house.ok(&options);
    let monitor = house.inspect(&name, ".State.MonitorPid");
    std::thread::sleep(std::time::Duration::from_millis(dice.roll(60)));
    let wanted: &[&str] = match dice.roll(6) {
        0 => {
            house.ok(&["stop", "-t", "5", &name]);
            &["exited 7", "exited 143"]
        }
        1 => {
            house.ok(&["kill", &name]);
            house.ok(&["wait", &name]);
            &["exited 137"]
        }
        2 => {
            house.ok(&["rm", "-f", &name]);
            &[""]
        }
        3 => {
            sh(&format!("kill -9 {monitor}"));
            &["exited 137"]
        }
        4 => {
            sh(&format!("kill -9 {monitor}"));
            house.ok(&["rm", "-f", &name]);
            &[""]
        }
        _ => {
            // Whoever is first, the others see it through.
            let mut both = [house.spawn(&["stop", "-t", "0", &name]), house.spawn(&["kill", &name])];
            for child in &mut both {
                child.wait().unwrap();
            }
            &["exited 137", "exited 7"]
        }
    };
    (name, wanted)
}

#[test]
fn a_storm_leaves_nothing_behind() {
    let house = House::new(Who::Root);
    let next = AtomicUsize::new(0);
    let outcomes: Vec<(String, &[&str])> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= CONTAINERS {
                            return done;
                        }
                        done.push(live(&house, number));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(outcomes.len(), CONTAINERS);
    house.eventually("no monitor is left", || house.monitors().is_empty());
    let listed = house.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"]);
    for (name, wanted) in &outcomes {
        let state = listed.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap_or("");
        assert!(wanted.contains(&state), "{name}: {state:?}, not {wanted:?}");
    }
    house.ok(&["container", "prune", "-f"]);
    house.assert_empty();
    // What killed monitors left of control groups goes with the next container.
    house.ok(&["run", "--rm", "bb", "true"]);
    let ids: Vec<String> = house
        .ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=create", "--format", "{{.ID}}"])
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(ids.len(), CONTAINERS + 1);
    let groups = sh("find /sys/fs/cgroup -maxdepth 6 -type d -name 'lamel-*' -printf '%f\\n' | sort -u");
    let ours: Vec<&str> = groups.lines().filter(|group| ids.iter().any(|id| group.contains(id.as_str()))).collect();
    assert!(ours.is_empty(), "{ours:?}");
    let locks = sh("cat /proc/locks | wc -l");
    assert!(locks.parse::<usize>().unwrap() < 1000, "{locks} locks");
}
