//! What a mount costs by itself.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::read::walk_root;
use super::{Ground, Part, Run, Stopped, Unit, Workload, row, skip};

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "mount",
        about: "from the start of the program to the first answer of its mount",
        caches: "warm: the program and the layers' roots were used before",
        needs: &[],
        ground: Ground::Given,
        writes: false,
        rows: &[row("mount", Unit::Seconds)],
        run: mount,
    },
    Workload {
        name: "round-trip",
        about: "statfs of the root again and again: nothing that any cache answers",
        caches: "warm",
        needs: &[],
        ground: Ground::Given,
        writes: false,
        rows: &[row("round-trip", Unit::Each)],
        run: round_trip,
    },
    Workload {
        name: "idle",
        about: "what a mount uses that nobody asks for anything: ticks of CPU time and wake-ups of the daemon in 2 seconds",
        caches: "after a walk, half a second later",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[row("idle-ticks", Unit::Count), row("idle-wake-ups", Unit::Count)],
        run: idle,
    },
];

fn mount(run: &Run<'_>) -> Result<(), Stopped> {
    run.put("mount", run.mounted_after.as_secs_f64(), None, None);
    Ok(())
}

fn idle(run: &Run<'_>) -> Result<(), Stopped> {
    walk_root(run)?;
    let Some(daemon) = &run.daemon else { return skip("no process serves it") };
    std::thread::sleep(Duration::from_millis(500));
    let (before, ticks) = (daemon.read(), daemon.ticks());
    std::thread::sleep(Duration::from_secs(2));
    let used = daemon.ticks().zip(ticks).map(|(after, before)| after.saturating_sub(before));
    let switches = daemon.since(&before).voluntary_switches;
    run.put("idle-ticks", used.context("the daemon's CPU time")? as f64, None, Some(&before));
    run.put("idle-wake-ups", switches as f64, None, Some(&before));
    Ok(())
}

fn round_trip(run: &Run<'_>) -> Result<(), Stopped> {
    let calls = run.input.shape.calls;
    let ask = |calls: usize| -> Result<()> {
        for _ in 0..calls {
            rustix::fs::fstatfs(&run.root).context("statfs")?;
        }
        Ok(())
    };
    ask(calls / 10)?;
    run.measure_each("round-trip", Some(calls as u64), || ask(calls))?;
    Ok(())
}
