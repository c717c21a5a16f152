//! What networks of containers are made of.

use std::fs::OpenOptions;
use std::process::Command;

use super::probe::{Probe, find, run};
use super::{Check, State};

const AREA: &str = "networks";

/// Tries what can be tried.
pub(super) fn checks() -> Vec<Check> {
    let root = rustix::process::geteuid().is_root();
    vec![veth(root), nft(root), tun(root), user_mode(root)]
}

fn veth(root: bool) -> Check {
    let name = "bridge, veth";
    if find("ip").is_none() {
        let module = |name: &str| std::path::Path::new("/sys/module").join(name).exists();
        let known = module("bridge") && module("veth");
        let (state, reason) =
            if known { (State::Ok, "loaded") } else { (State::Limited, "not loaded; not tried, for want of ip(8)") };
        return Check::new(AREA, name, state, reason);
    }
    match Probe::Veth.attempt() {
        Ok(()) => Check::new(AREA, name, State::Ok, "tried, in a network namespace"),
        Err(why) => {
            let check =
                Check::new(AREA, name, State::Limited, format!("{why}: containers have the host's network or none"));
            check.fix(if root { "modprobe bridge veth" } else { "as root: modprobe bridge veth" })
        }
    }
}

fn nft(root: bool) -> Check {
    let Some(path) = find("nft") else {
        return Check::new(
            AREA,
            "nft",
            State::Limited,
            "not installed: no ports of a bridge's containers are published",
        )
        .fix("as root: apt-get install nftables");
    };
    if !root {
        return Check::new(AREA, "nft", State::Ok, format!("{}; for root alone", path.display()));
    }
    match run(Command::new(&path).args(["list", "tables"])) {
        Ok(_) => Check::new(AREA, "nft", State::Ok, format!("{}, tried", path.display())),
        Err(why) => Check::new(AREA, "nft", State::Limited, why).fix("modprobe nf_tables"),
    }
}

fn tun(root: bool) -> Check {
    let (name, path) = ("/dev/net/tun", "/dev/net/tun");
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Check::new(AREA, name, State::Ok, "can be opened"),
        Err(error) => {
            let state = if root { State::Unused } else { State::Limited };
            let fix = "as root: modprobe tun && chmod 666 /dev/net/tun";
            Check::new(AREA, name, state, format!("{error}: a plain user's containers have the host's network or none"))
                .fix(fix)
        }
    }
}

fn user_mode(root: bool) -> Check {
    let name = "pasta, slirp4netns";
    let found: Vec<String> =
        ["pasta", "slirp4netns"].into_iter().filter_map(find).map(|path| path.display().to_string()).collect();
    if !found.is_empty() {
        return Check::new(AREA, name, State::Ok, found.join(", "));
    }
    let state = if root { State::Unused } else { State::Limited };
    Check::new(AREA, name, state, "not installed: a plain user's containers have the host's network or none")
        .fix("as root: apt-get install passt, or slirp4netns where there is none")
}
