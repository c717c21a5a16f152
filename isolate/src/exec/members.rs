//! Who is in a container, and what all of them use: told by the host's /proc and the control groups alone. Nothing of the
//! container's is asked or run for it (CVE-2022-1227).

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use super::Target;
use crate::cgroup::{self, Usage};
use crate::error::Error;
use crate::sys::process;

/// The deepest that the kernel lets pid namespaces lie in one another.
const MAX_DEPTH: usize = 32;

impl Target {
    /// The numbers, as this process sees them, of all processes in the container's pid namespace and in those below it.
    ///
    /// # Errors
    /// The container has ended.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        let first = self.first.as_raw_nonzero().get();
        let gone = |_| Error::NotRunning { pid: first };
        let of = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let namespace = |pid: &str| File::open(format!("/proc/{pid}/ns/pid"));
        let wanted = namespace(&self.number.as_raw_nonzero().to_string()).and_then(|file| of(&file)).map_err(gone)?;
        let own = namespace("self").and_then(|file| of(&file)).map_err(gone)?;
        let is_inside = |pid: &str| {
            let Ok(mut file) = namespace(pid) else { return false };
            for _ in 0..MAX_DEPTH {
                match of(&file) {
                    Ok(found) if found == wanted => return true,
                    Ok(found) if found == own => return false,
                    Ok(_) => {}
                    Err(_) => return false,
                }
                match process::parent_namespace(file.as_fd()) {
                    Ok(above) => file = OwnedFd::into(above),
                    Err(_) => return false,
                }
            }
            false
        };
        let mut found: Vec<i32> = fs::read_dir("/proc")
            .map_err(gone)?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.parse().ok().map(|pid: i32| (name, pid)))
            // A plain user may not look into an init of lamel's own.
            .filter(|(name, pid)| *pid == first || is_inside(name))
            .map(|(_, pid)| pid)
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// What the container's own control groups tell that it uses.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let groups = cgroup::memberships(self.first.as_raw_nonzero().get()).unwrap_or_default();
        Usage::of(&groups)
    }

    /// Bytes that have come into and gone out of the container's network, without what it says to itself.
    #[must_use]
    pub fn traffic(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", self.first.as_raw_nonzero())).ok()?;
        Some(traffic(&text))
    }
}

fn traffic(text: &str) -> (u64, u64) {
    let devices = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let numbers = devices.filter(|(name, _)| name.trim() != "lo").map(|(_, numbers)| {
        let mut numbers = numbers.split_whitespace().map(|word| word.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.nth(7).unwrap_or(0))
    });
    numbers.fold((0, 0), |sum: (u64, u64), (came, went): (u64, u64)| {
        (sum.0.saturating_add(came), sum.1.saturating_add(went))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_devices_but_loopback() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
            \x20   lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0\n\
            \x20 eth0: 1000 1 0 0 0 0 0 0 2000 2 0 0 0 0 0 0\n  eth1:30 1 0 0 0 0 0 0 40 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (1030, 2040));
    }
}
