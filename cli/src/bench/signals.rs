//! Ctrl-C: the mount goes, and the upper, and then the program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::UnmountFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What is left behind when a signal ends the program in the middle of a run.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) mountpoints: Vec<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
}

/// Cleans up when a signal asks the program to end. Daemons end by themselves: they die with their parent.
pub(crate) fn clean_up_on_signal(left: Leftovers) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("waiting for signals")?;
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        // Of the mount that is there now; the next one comes only after the directories below it are gone.
        for mountpoint in &left.mountpoints {
            lamel_unionfs::mount::unmount(mountpoint, true).ok();
        }
        for directory in &left.directories {
            detach_below(directory);
            // The workload still runs, and may make files where they are removed.
            for _ in 0..20 {
                match std::fs::remove_dir_all(directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    _ => break,
                }
            }
        }
        eprintln!("lamel: ended by a signal; nothing was measured to its end");
        std::process::exit(128 + signal);
    });
    Ok(())
}

/// Detaches everything that is mounted below a directory, the innermost first.
pub(crate) fn detach_below(directory: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for mount in mounts.filter(|mount| mount.starts_with(directory)).collect::<Vec<_>>().into_iter().rev() {
        rustix::mount::unmount(mount, UnmountFlags::DETACH).ok();
    }
}
