//! The bridge: one for each store, made for the first container and removed after the last.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::Created;
use lamel_isolate::net::{Mac, Netlink, Peer, forget_datagrams};
use sha2::{Digest as _, Sha256};

use super::files::Files;
use super::pool::{self, Lease, Pool, Subnet};
use super::publish::{self, Held, Port, Protocol};
use super::{Endpoint, Member, Request, firewall};

/// The interface in the container.
const INSIDE: &str = "eth0";
/// The store whose bridge has the plain name.
const DEFAULT_ROOT: &str = "/var/lib/lamel";

/// A container's part in the bridge; given back when dropped.
#[derive(Debug)]
pub(super) struct Attached {
    root: PathBuf,
    id: String,
    endpoint: Endpoint,
    held: Held,
}

impl Attached {
    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    pub(super) fn ports(&self) -> &[Port] {
        &self.held.ports
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.root, &self.id) {
            tracing::warn!("giving the network back: {error:#}");
        }
    }
}

/// Connects a container, whose first process waits for that.
pub(super) fn attach(request: &Request, member: &Member<'_>, created: &Created) -> Result<Attached> {
    let root = member.root;
    let bridge = name(root);
    let path = created.namespace("net");
    let namespace = File::open(&path).with_context(|| path.display().to_string())?;
    let mut pool = Pool::open(root)?;
    let mut host = Netlink::here()?;
    sweep_locked(&mut pool, &bridge, &mut host)?;

    let taken: Vec<Port> = pool.state.leases.iter().flat_map(|lease| lease.ports.iter().copied()).collect();
    let held = publish::hold(&request.wishes, &taken)?;
    let first = pool.state.subnet.is_none();
    let subnet = match pool.state.subnet {
        Some(subnet) => subnet,
        None => pool::choose(&host.routes()?, request.ip)?,
    };
    let address = pool.address(subnet, request.ip)?;
    let interface = format!("veth{}", member.id.get(..8).unwrap_or(member.id));
    pool.state.subnet = Some(subnet);
    pool.state.leases.push(Lease {
        id: member.id.to_owned(),
        names: member.names(request),
        address,
        interface: interface.clone(),
        ports: held.ports.clone(),
        directory: member.directory.to_owned(),
    });
    // Written down before it is done: what is left of a process that ends here is found by the next one.
    pool.save()?;
    let mac = request.mac()?.unwrap_or_else(|| mac_of(address));
    let mut connect = || -> Result<()> {
        let index = host.index(&bridge)?;
        let changes = first || !held.ports.is_empty() || index.is_none();
        // The rules name interfaces that may still be missing, and the container waits for both.
        let rules = changes.then(|| firewall::apply(&bridge, subnet, &pool.state)).transpose()?;
        let index = match index {
            Some(index) => index,
            None => make(&bridge, subnet, &mut host)?,
        };
        host.make_pair(&interface, index, &Peer { namespace: namespace.as_fd(), name: INSIDE, mac })?;
        host.set_port_up(&interface)?;
        let mut inside = Netlink::inside(namespace.as_fd())?;
        let end = inside.index(INSIDE)?.context("the interface in the container is gone")?;
        inside.set_up(end)?;
        inside.add_address(end, address, subnet.prefix)?;
        inside.add_default_route(subnet.gateway())?;
        let files = Files::of(member.directory);
        files.add(IpAddr::V4(address), &member.own_names(request))?;
        let gateway: Vec<String> = request.gateway_names()?;
        if !gateway.is_empty() {
            files.add(IpAddr::V4(subnet.gateway()), &gateway)?;
        }
        if let Some(rules) = rules {
            rules.finish()?;
        }
        forget(&held.ports)?;
        tell_all(&pool);
        Ok(())
    };
    match connect() {
        Ok(()) => {
            let endpoint = Endpoint { address, prefix: subnet.prefix, gateway: subnet.gateway(), mac: Some(mac) };
            Ok(Attached { root: root.to_owned(), id: member.id.to_owned(), endpoint, held })
        }
        Err(error) => {
            let left = drop_leases(&mut pool, &bridge, &mut host, |lease| lease.id == member.id);
            if let Err(error) = left {
                tracing::warn!("taking back what was done of the network: {error:#}");
            }
            Err(error)
        }
    }
}

/// Gives back what a container had.
fn detach(root: &Path, id: &str) -> Result<()> {
    let mut pool = Pool::open(root)?;
    drop_leases(&mut pool, &name(root), &mut Netlink::here()?, |lease| lease.id == id)
}

/// Takes away what is left of containers whose process was killed.
pub(super) fn sweep(root: &Path) -> Result<()> {
    if !Pool::exists(root) {
        return Ok(());
    }
    let mut pool = Pool::open(root)?;
    if pool.state.leases.is_empty() {
        return Ok(());
    }
    sweep_locked(&mut pool, &name(root), &mut Netlink::here()?)
}

fn sweep_locked(pool: &mut Pool, bridge: &str, host: &mut Netlink) -> Result<()> {
    let stale = pool.take_stale();
    if stale.is_empty() { Ok(()) } else { take_down(pool, bridge, host, &stale) }
}

fn drop_leases(pool: &mut Pool, bridge: &str, host: &mut Netlink, which: impl Fn(&Lease) -> bool) -> Result<()> {
    let dropped: Vec<Lease> = pool.state.leases.extract_if(.., |lease| which(lease)).collect();
    take_down(pool, bridge, host, &dropped)
}

/// Undoes what was done for leases that are out of the pool, all that can be, and then writes the pool down.
fn take_down(pool: &mut Pool, bridge: &str, host: &mut Netlink, leases: &[Lease]) -> Result<()> {
    let mut done = Ok(());
    let mut note = |result: Result<()>| {
        if done.is_ok() {
            done = result;
        }
    };
    // The kernel takes its time for both, the rules and the interfaces.
    let (rules, last) = match pool.state.subnet {
        Some(subnet) if !pool.state.leases.is_empty() => {
            let changes = leases.iter().any(|lease| !lease.ports.is_empty());
            (changes.then(|| firewall::apply(bridge, subnet, &pool.state)), false)
        }
        _ => (Some(firewall::remove(bridge)), true),
    };
    for lease in leases {
        note(host.remove(&lease.interface).map_err(Into::into));
    }
    if last {
        note(host.remove(bridge).map_err(Into::into));
        pool.state.subnet = None;
    }
    if let Some(rules) = rules {
        note(rules.and_then(firewall::Change::finish));
    }
    note(leases.iter().try_for_each(|lease| forget(&lease.ports)));
    tell_all(pool);
    note(pool.save());
    done
}

/// Lets datagrams that were on their way before go where the rules now say.
fn forget(ports: &[Port]) -> Result<()> {
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        if let IpAddr::V4(address) = port.address {
            forget_datagrams((!address.is_unspecified()).then_some(address), port.host)?;
        }
    }
    Ok(())
}

/// Tells every container of the others.
fn tell_all(pool: &Pool) {
    for lease in &pool.state.leases {
        if let Err(error) = Files::of(&lease.directory).set_others(&lease.id, &pool.state.leases) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Makes the bridge and lets packets through.
fn make(bridge: &str, subnet: Subnet, host: &mut Netlink) -> Result<u32> {
    host.make_bridge(bridge, mac_of(subnet.gateway()))?;
    let index = host.index(bridge)?.context("the bridge is gone again")?;
    // From the wire's side it is IPv4 alone: no container advertises itself as the host's router.
    set(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1").or_else(missing_is_fine)?;
    // For connections of the host's own from its loopback address; `firewall` keeps others from it.
    set(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    set("ipv4/ip_forward", "1")?;
    host.add_address(index, subnet.gateway(), subnet.prefix)?;
    host.set_up(index)?;
    Ok(index)
}

/// Sets a parameter of this process's network namespace.
fn set(parameter: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{parameter}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).with_context(|| format!("setting {} to {value}", parameter.replace('/', ".")))
}

fn missing_is_fine(error: anyhow::Error) -> Result<()> {
    match error.downcast_ref::<std::io::Error>() {
        Some(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// As docker makes them of the address, so that it is never another's in somebody's cache.
fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// A bridge for each store: their containers do not see one another, and their pools need not agree.
fn name(root: &Path) -> String {
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if real == Path::new(DEFAULT_ROOT) {
        return "lamel0".to_owned();
    }
    let hash = Sha256::digest(real.as_os_str().as_encoded_bytes());
    // An interface's name has at most 15 characters.
    hash.iter().take(4).fold("lamel-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// What a request must not ask of a bridge.
pub(super) fn check(request: &Request) -> Result<()> {
    if let Some(address) = request.wishes.iter().find_map(|wish| wish.address().filter(IpAddr::is_ipv6)) {
        bail!("-p {address}: the bridge network is IPv4 alone");
    }
    Ok(())
}
