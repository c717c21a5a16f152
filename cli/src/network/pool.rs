//! The bridge's addresses, and who has them: `<root>/networks/bridge.json`.
//!
//! The file is written beside and renamed, and changed only under a lock on
//! `<root>/networks/lock`. A lease names the container's directory, whose
//! `lock` is held as long as the container's lamel process lives: a lease
//! whose lock is free is stale, and taken away by whoever comes next.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::publish::Port;

/// Bytes of the file that are read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A network of version 4: addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Subnet {
    base: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            Some(Self {
                base: base.parse().ok()?,
                prefix: prefix.parse().ok().filter(|prefix| (8..=29).contains(prefix))?,
            })
        };
        parse().ok_or_else(|| format!("{text}: no network"))
    }
}

impl Subnet {
    /// Where a network may be, the first choice first. All are private (RFC 1918), and none is docker's own.
    fn candidates() -> impl Iterator<Item = Self> {
        let subnet = |a, b, c, prefix| Self { base: Ipv4Addr::new(a, b, c, 0), prefix };
        let tens = (88..=255).map(move |b| subnet(10, b, 0, 16));
        let seventeens = (20..=31).map(move |b| subnet(172, b, 0, 16));
        let small = (100..=254).map(move |c| subnet(192, 168, c, 24));
        tens.chain(seventeens).chain(small)
    }

    /// How many addresses there are.
    fn len(self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.prefix)).unwrap_or(u32::MAX)
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(offset))
    }

    /// The bridge's own address.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    fn overlaps(self, (base, prefix): (Ipv4Addr, u8)) -> bool {
        let shift = 32 - u32::from(self.prefix.min(prefix).min(32));
        u32::from(self.base).checked_shr(shift) == u32::from(base).checked_shr(shift)
    }

    /// Where an address stands, if a container may have it: not the network's own, the gateway's, or everybody's.
    fn offset(self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(u32::from(self.base))?;
        (offset > 1 && offset < self.len() - 1).then_some(offset)
    }
}

/// What a container has of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) id: String,
    /// By which others reach it.
    pub(crate) names: Vec<String>,
    pub(crate) address: Ipv4Addr,
    /// The host's end.
    pub(crate) interface: String,
    pub(crate) ports: Vec<Port>,
    /// The container's own.
    pub(crate) directory: PathBuf,
}

/// Takes the lock of a container's directory, which is held as long as the file is open.
pub(super) fn hold(directory: &Path) -> std::io::Result<File> {
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Whether somebody holds the lock of a container's directory: whether the container lives.
pub(super) fn is_held(directory: &Path) -> bool {
    // Whoever else looks for a moment holds it shared as well.
    File::open(directory.join("lock"))
        .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The network, while there are leases of it.
    pub(crate) subnet: Option<Subnet>,
    /// The address that was given last: the next container gets another one than the last.
    last: u32,
    pub(crate) leases: Vec<Lease>,
}

/// The state, locked.
#[derive(Debug)]
pub(crate) struct Pool {
    directory: PathBuf,
    pub(crate) state: State,
    _lock: File,
}

/// Where the networks of a store are.
fn directory(root: &Path) -> PathBuf {
    root.join("networks")
}

/// Waits for the lock on everything of a store's networks.
pub(super) fn lock(root: &Path) -> Result<File> {
    let directory = directory(root);
    let take = || {
        fs::create_dir_all(&directory)?;
        hold(&directory)
    };
    take().with_context(|| directory.display().to_string())
}

impl Pool {
    /// Whether there has ever been one; without, there is nothing to look after.
    pub(crate) fn exists(root: &Path) -> bool {
        directory(root).join("bridge.json").exists()
    }

    /// Waits for the lock, and reads.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let lock = lock(root)?;
        let directory = directory(root);
        let state = read(&directory.join("bridge.json"))?;
        Ok(Self { directory, state, _lock: lock })
    }

    /// Writes the state down.
    pub(crate) fn save(&self) -> Result<()> {
        let (new, path) = (self.directory.join("bridge.json.new"), self.directory.join("bridge.json"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&self.state)?)?;
            fs::rename(&new, &path)
        };
        write().with_context(|| path.display().to_string())
    }

    /// Takes away the leases of containers that are no more.
    pub(crate) fn take_stale(&mut self) -> Vec<Lease> {
        self.state.leases.extract_if(.., |lease| !is_held(&lease.directory)).collect()
    }

    /// A free address: the one that is asked for, or the next.
    pub(crate) fn address(&mut self, subnet: Subnet, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let taken = |leases: &[Lease], address| leases.iter().any(|lease| lease.address == address);
        if let Some(address) = wanted {
            if subnet.offset(address).is_none() {
                bail!("--ip {address}: no address for a container in the network {subnet}");
            }
            if taken(&self.state.leases, address) {
                bail!("--ip {address}: Address already in use");
            }
            return Ok(address);
        }
        let last = self.state.last;
        let (start, count) = (2, subnet.len() - 3);
        for step in 0..count {
            let offset = start + (last.max(start - 1) - (start - 1) + step) % count;
            let address = subnet.at(offset);
            if !taken(&self.state.leases, address) {
                self.state.last = offset;
                return Ok(address);
            }
        }
        Err(anyhow!("no available IPv4 addresses on this network's address pool: {subnet}"))
    }
}

/// A network that none of the host's routes leads into, with the address in it that is wanted.
pub(crate) fn choose(routes: &[(Ipv4Addr, u8)], wanted: Option<Ipv4Addr>) -> Result<Subnet> {
    let free = |subnet: &Subnet| !routes.iter().any(|route| route.1 > 0 && subnet.overlaps(*route));
    let fits = |subnet: &Subnet| wanted.is_none_or(|address| subnet.offset(address).is_some());
    Subnet::candidates().filter(free).find(fits).ok_or_else(|| match wanted {
        Some(address) => anyhow!("--ip {address}: not in a network that a bridge could have here"),
        None => {
            anyhow!("could not find an available, non-overlapping IPv4 address pool: all private networks are in use")
        }
    })
}

fn read(path: &Path) -> Result<State> {
    let shown = || path.display().to_string();
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::default()),
        other => other.with_context(shown)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).with_context(shown)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: no list of leases; remove it when no container runs", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str, address: Ipv4Addr, directory: &Path) -> Lease {
        Lease {
            id: id.to_owned(),
            names: vec![id.to_owned()],
            address,
            interface: format!("veth{id}"),
            ports: Vec::new(),
            directory: directory.to_owned(),
        }
    }

    #[test]
    fn a_network_is_chosen_that_no_route_leads_into() {
        let at = |a, b, prefix| (Ipv4Addr::new(a, b, 0, 0), prefix);
        assert_eq!(choose(&[(Ipv4Addr::UNSPECIFIED, 0)], None).unwrap().to_string(), "10.88.0.0/16");
        // A part of it, all of it, and the neighbour.
        let routes = [(Ipv4Addr::new(10, 88, 7, 0), 24), at(10, 89, 16), at(10, 90, 15), at(10, 93, 32)];
        assert_eq!(choose(&routes, None).unwrap().to_string(), "10.92.0.0/16");
        assert_eq!(choose(&[at(10, 0, 8)], None).unwrap().to_string(), "172.20.0.0/16");
        assert!(choose(&[at(0, 0, 1)], None).unwrap().to_string().starts_with("172."));
        let all = [at(10, 0, 8), at(172, 16, 12), at(192, 168, 16)];
        assert!(choose(&all, None).unwrap_err().to_string().contains("non-overlapping"));
        let wanted = Some(Ipv4Addr::new(192, 168, 120, 9));
        assert_eq!(choose(&[], wanted).unwrap().to_string(), "192.168.120.0/24");
        assert!(choose(&[], Some(Ipv4Addr::new(8, 8, 8, 8))).is_err());
    }

    #[test]
    fn addresses_go_round() {
        let root = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(root.path()).unwrap();
        let subnet = Subnet { base: Ipv4Addr::new(192, 168, 100, 0), prefix: 29 };
        let mut given = Vec::new();
        for _ in 0..5 {
            let address = pool.address(subnet, None).unwrap();
            pool.state.leases.push(lease("a", address, root.path()));
            given.push(address.octets()[3]);
        }
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(pool.address(subnet, None).unwrap_err().to_string().contains("no available IPv4 addresses"));
        pool.state.leases.remove(1);
        assert_eq!(pool.address(subnet, None).unwrap().octets()[3], 3);
        pool.state.leases.clear();
        // Not again the one that was given last.
        assert_eq!(pool.address(subnet, None).unwrap().octets()[3], 4);
        let ask = |pool: &mut Pool, last| pool.address(subnet, Some(Ipv4Addr::new(192, 168, 100, last)));
        assert!(ask(&mut pool, 5).is_ok());
        for last in [0, 1, 7, 8, 99] {
            assert!(ask(&mut pool, last).is_err(), "{last}");
        }
        pool.state.leases.push(lease("a", Ipv4Addr::new(192, 168, 100, 5), root.path()));
        assert!(ask(&mut pool, 5).unwrap_err().to_string().contains("already in use"));
    }

    #[test]
    fn a_lease_lives_as_long_as_its_lock_is_held() {
        let root = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(root.path()).unwrap();
        let directories = ["held", "free", "none"].map(|name| root.path().join(name));
        for directory in &directories[..2] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("lock"), "").unwrap();
        }
        let held = File::open(directories[0].join("lock")).unwrap();
        rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        for (id, directory) in ["a", "b", "c"].into_iter().zip(&directories) {
            pool.state.leases.push(lease(id, Ipv4Addr::new(10, 88, 0, 2), directory));
        }
        pool.state.subnet = Some(choose(&[], None).unwrap());
        pool.save().unwrap();
        drop(pool);
        let mut pool = Pool::open(root.path()).unwrap();
        let stale: Vec<String> = pool.take_stale().into_iter().map(|lease| lease.id).collect();
        assert_eq!(stale, ["b", "c"]);
        assert_eq!(pool.state.leases.len(), 1);
        drop(held);
        assert_eq!(pool.take_stale().len(), 1);
    }
}
