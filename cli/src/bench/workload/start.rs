//! What a mount costs by itself.

use anyhow::{Context as _, Result};

use super::{Run, Stopped, Unit, Workload, row};

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "mount",
        about: "from the start of the program to the first answer of its mount",
        caches: "warm: the program and the layers' roots were used before",
        needs: &[],
        writes: false,
        rows: &[row("mount", Unit::Seconds)],
        run: mount,
    },
    Workload {
        name: "round-trip",
        about: "statfs of the root again and again: nothing that any cache answers",
        caches: "warm",
        needs: &[],
        writes: false,
        rows: &[row("round-trip", Unit::Each)],
        run: round_trip,
    },
];

fn mount(run: &Run<'_>) -> Result<(), Stopped> {
    run.put("mount", run.mounted_after.as_secs_f64(), None, None);
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
