//! What the container is connected to, each time that it starts.

use anyhow::{Context as _, Result, bail};
use lamel_isolate::Created;
use lamel_isolate::oci::Spec;

use super::super::settings::Port;
use super::super::state::{Endpoint, State};
use super::life::outside;
use super::serve::Monitor;
use crate::network::{self, Connection, Member, Request};
use crate::run::config;

/// The network that a container is about to have.
pub(super) struct Network<'a> {
    request: &'a Request,
    member: Member<'a>,
}

impl<'a> Network<'a> {
    /// Makes the container's files, and puts into the configuration what is known only now.
    pub(super) fn of(monitor: &'a Monitor, spec: &mut Spec) -> Result<Self> {
        let settings = &monitor.record.settings;
        let request = &settings.request;
        if let Some(name) = request.joins() {
            let other = monitor.containers.find(name)?;
            let state = other.state()?;
            if state.pid == 0 {
                bail!("cannot join network of a non running container: {}", other.id());
            }
            let hostname = other.spec()?.hostname().clone().unwrap_or_default();
            config::set_network(spec, &network::joined(state.pid, other.dir(), hostname)?)?;
        }
        let member = Member {
            root: monitor.containers.store(),
            directory: monitor.record.dir(),
            id: monitor.record.id(),
            name: &settings.name,
            hostname: monitor.spec.hostname().as_deref().unwrap_or_default(),
        };
        if request.joins().is_none() {
            // A plain user's are his own, as whatever he is inside.
            let owner = rustix::process::geteuid().is_root() && !monitor.nested;
            let owner = owner.then(|| outside(spec, (0, 0)));
            request.write_files(&member, owner).context("the container's files in /etc")?;
        }
        Ok(Self { request, member })
    }

    pub(super) fn connect(&self, created: &Created) -> Result<Connection> {
        self.request.connect(&self.member, created)
    }
}

/// Puts into the state what the container has.
pub(super) fn tell(state: &mut State, name: &str, connection: Option<&Connection>) {
    let port = |port: &network::publish::Port| Port {
        address: port.address.to_string(),
        host: port.host,
        container: port.container,
        protocol: port.protocol.name().to_owned(),
    };
    state.ports = connection.iter().flat_map(|connection| connection.ports()).map(port).collect();
    state.networks.clear();
    if let Some(endpoint) = connection.and_then(Connection::endpoint) {
        let endpoint = Endpoint {
            address: endpoint.address.to_string(),
            prefix: endpoint.prefix,
            gateway: endpoint.gateway.to_string(),
            mac: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        };
        state.networks.insert(name.to_owned(), endpoint);
    }
}
