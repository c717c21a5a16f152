//! Address translation and published ports: one table of nf_tables for each bridge, replaced as a whole.
//!
//! * What a container sends elsewhere goes out under the host's address.
//! * What is sent to a published port of the host goes to its container with the sender's own address, but from the
//!   host's loopback, and from containers, with the bridge's: their answers would not come back otherwise.
//! * Nothing else comes in from outside of the host, and nothing that comes from a wire may be for the loopback
//!   network, which the bridge has to let through for the sake of the host's own connections.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::pool::{State, Subnet};

/// Where nft is, beside the PATH, which may lack what is for administrators.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// A change that is being made, beside what else there is to do. It is waited for in any case: the next one comes after it.
pub(super) struct Change(Option<Child>);

/// Makes the table what the state says.
pub(super) fn apply(bridge: &str, subnet: Subnet, state: &State) -> Result<Change> {
    begin(&table(bridge, subnet, state))
}

/// Takes the table away, if there is one.
pub(super) fn remove(bridge: &str) -> Result<Change> {
    begin(&format!("add table ip {bridge}\ndelete table ip {bridge}\n"))
}

impl Change {
    /// Waits until it is made.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(child) = self.0.take() else { return Ok(()) };
        let out = child.wait_with_output().context("nft")?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
            bail!(
                "nft: {}; the bridge network needs a kernel with nf_tables and its address translation",
                first.trim()
            );
        }
        Ok(())
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0
            && let Err(error) = child.wait()
        {
            tracing::warn!("nft: {error}");
        }
    }
}

/// What nft(8) is given, which it does wholly or not at all.
fn table(bridge: &str, subnet: Subnet, state: &State) -> String {
    let (mut anywhere, mut somewhere) = (Vec::new(), Vec::new());
    for lease in &state.leases {
        for port in &lease.ports {
            let target = format!("{} . {} : {} . {}", port.protocol.name(), port.host, lease.address, port.container);
            if port.address.is_unspecified() {
                anywhere.push(target);
            } else {
                somewhere.push(format!("{} . {target}", port.address));
            }
        }
    }
    let elements = |list: &[String]| {
        if list.is_empty() { String::new() } else { format!("elements = {{ {} }};", list.join(", ")) }
    };
    let mut text = format!("add table ip {bridge}\ndelete table ip {bridge}\n");
    // Writing to a String cannot fail.
    write!(
        text,
        r#"table ip {bridge} {{
    map somewhere {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;
        {somewhere}
    }}
    map anywhere {{
        type inet_proto . inet_service : ipv4_addr . inet_service;
        {anywhere}
    }}
    chain wire {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop
    }}
    chain publish {{
        dnat ip to ip daddr . meta l4proto . th dport map @somewhere
        dnat ip to meta l4proto . th dport map @anywhere
    }}
    chain arriving {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump publish
    }}
    chain own {{
        type nat hook output priority -100; policy accept;
        fib daddr type local jump publish
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
        oifname "{bridge}" ct status dnat ip saddr {{ 127.0.0.0/8, {subnet} }} masquerade
    }}
    chain passing {{
        type filter hook forward priority filter; policy accept;
        oifname != "{bridge}" accept
        iifname "{bridge}" accept
        ct state established,related accept
        ct status dnat accept
        drop
    }}
}}
"#,
        somewhere = elements(&somewhere),
        anywhere = elements(&anywhere),
    )
    .ok();
    text
}

fn begin(script: &str) -> Result<Change> {
    for place in PLACES {
        let started = Command::new(place)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.with_context(|| place.to_owned())?,
        };
        if let Some(mut input) = child.stdin.take() {
            // An nft that has ended already says why.
            input.write_all(script.as_bytes()).ok();
        }
        return Ok(Change(Some(child)));
    }
    bail!(
        "the bridge network needs the program nft: install the package nftables, or use --network none, host or \
         slirp4netns"
    )
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::pool::{Lease, choose};
    use super::super::publish::{Port, Protocol};
    use super::*;

    #[test]
    fn ports_are_elements_of_two_maps() {
        let subnet = choose(&[], None).unwrap();
        let port = |address, host, protocol| Port { address, host, container: 80, protocol };
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let lease = Lease {
            id: "a".to_owned(),
            names: Vec::new(),
            address: Ipv4Addr::new(10, 88, 0, 2),
            interface: "veth1".to_owned(),
            ports: vec![
                port(everywhere, 8080, Protocol::Tcp),
                port(everywhere, 53, Protocol::Udp),
                port(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081, Protocol::Tcp),
            ],
            directory: "/c".into(),
        };
        let mut state = State::default();
        assert!(!table("lamel0", subnet, &state).contains("elements"));
        state.leases.push(lease);
        let text = table("lamel0", subnet, &state);
        assert!(text.contains("{ tcp . 8080 : 10.88.0.2 . 80, udp . 53 : 10.88.0.2 . 80 }"), "{text}");
        assert!(text.contains("{ 127.0.0.1 . tcp . 8081 : 10.88.0.2 . 80 }"), "{text}");
        assert!(text.starts_with("add table ip lamel0\ndelete table ip lamel0\ntable ip lamel0 {"), "{text}");
    }
}
