//! `idmap[=uids=FROM-TO-COUNT[#…];gids=…]`, an option of bind mounts, as podman writes it: owners of the files are shown
//! as others.

use anyhow::{Context as _, Result, bail};
use lamel_isolate::idmap::mapping;
use lamel_isolate::oci::{LinuxIdMapping, Mount};

use super::identity::Maps;

/// Maps of the mount's own.
#[derive(Debug, Default)]
struct Own {
    uids: Option<Vec<LinuxIdMapping>>,
    gids: Option<Vec<LinuxIdMapping>>,
}

/// Whether an option of a mount is this one.
pub(super) fn is_idmap(option: &str) -> bool {
    option == "idmap" || option == "ridmap" || option.starts_with("idmap=")
}

/// Turns the option, if it has maps, into maps of the mount, and `idmap`.
pub(super) fn resolve(mount: &mut Mount, container: Option<&Maps>) -> Result<()> {
    let mut options = mount.options().clone().unwrap_or_default();
    let Some(option) = options.iter_mut().find(|option| option.starts_with("idmap=")) else { return Ok(()) };
    let own = parse(option, container).with_context(|| option.clone())?;
    *option = "idmap".to_owned();
    // One that is not given is as without maps: the container's.
    let of_container = |which: fn(&Maps) -> &Vec<LinuxIdMapping>, word| {
        container.map(which).cloned().with_context(|| format!("idmap= without {word} needs a user namespace"))
    };
    let uids = own.uids.map_or_else(|| of_container(|maps| &maps.uids, "uids"), Ok)?;
    let gids = own.gids.map_or_else(|| of_container(|maps| &maps.gids, "gids"), Ok)?;
    mount.set_options(Some(options)).set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    Ok(())
}

fn parse(option: &str, container: Option<&Maps>) -> Result<Own> {
    let mut own = Own::default();
    for part in option.strip_prefix("idmap=").unwrap_or_default().split(';') {
        let (key, text) = part.split_once('=').context("needs uids= or gids=")?;
        let (which, of_container) = match key {
            "uids" => (&mut own.uids, container.map(|maps| &maps.uids)),
            "gids" => (&mut own.gids, container.map(|maps| &maps.gids)),
            _ => bail!("{key}: uids or gids"),
        };
        let ranges: Result<Vec<LinuxIdMapping>> =
            text.split('#').map(|range| self::range(range, of_container)).collect();
        *which = Some(ranges?);
    }
    Ok(own)
}

/// `[@]FROM-TO-COUNT`: the ids of the files, and those that they are on the host, or with `@` in the container.
fn range(text: &str, container: Option<&Vec<LinuxIdMapping>>) -> Result<LinuxIdMapping> {
    let shown = || format!("{text:?}: [@]FROM-TO-COUNT");
    let (numbers, inside) = text.strip_prefix('@').map_or((text, false), |numbers| (numbers, true));
    let numbers: Vec<u32> = numbers.split('-').map(str::parse).collect::<Result<_, _>>().with_context(shown)?;
    let [from, to, count] = *numbers.as_slice() else { bail!(shown()) };
    let Some(maps) = container.filter(|_| inside) else { return Ok(mapping(from, to, count)) };
    let host = maps.iter().find_map(|map| {
        let at = to.checked_sub(map.container_id())?;
        (u64::from(at) + u64::from(count) <= u64::from(map.size())).then(|| map.host_id() + at)
    });
    Ok(mapping(from, host.with_context(|| format!("{text}: not in one range of the container's ids"))?, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(option: &str, container: Option<&Maps>) -> Result<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)> {
        let mut mount = Mount::default();
        mount.set_options(Some(vec!["rbind".to_owned(), option.to_owned()]));
        resolve(&mut mount, container)?;
        assert_eq!(mount.options().as_deref(), Some(&["rbind".to_owned(), "idmap".to_owned()][..]));
        Ok((mount.uid_mappings().clone().unwrap(), mount.gid_mappings().clone().unwrap()))
    }

    #[test]
    fn maps_as_podman_writes_them() {
        let both = resolved("idmap=uids=0-1-10#10-11-10;gids=0-100-10", None).unwrap();
        assert_eq!(both, (vec![mapping(0, 1, 10), mapping(10, 11, 10)], vec![mapping(0, 100, 10)]));
        let maps = Maps { uids: vec![mapping(0, 100_000, 65536)], gids: vec![mapping(0, 200_000, 65536)] };
        let relative = resolved("idmap=uids=@1000-0-1;gids=1000-5-1", Some(&maps)).unwrap();
        assert_eq!(relative, (vec![mapping(1000, 100_000, 1)], vec![mapping(1000, 5, 1)]));
        let one = resolved("idmap=uids=1000-0-1", Some(&maps)).unwrap();
        assert_eq!(one.1, maps.gids);
        for option in
            ["idmap=", "idmap=uids=", "idmap=uids=1-2", "idmap=x=1-2-3", "idmap=uids=a-b-c", "idmap=uids=0-1-1"]
        {
            assert!(resolved(option, None).is_err(), "{option}");
        }
        assert!(resolved("idmap=uids=@0-65530-10", Some(&maps)).is_err());
    }

    #[test]
    fn without_maps_the_option_stays() {
        let mut mount = Mount::default();
        mount.set_options(Some(vec!["idmap".to_owned()]));
        resolve(&mut mount, None).unwrap();
        assert!(mount.uid_mappings().is_none() && is_idmap("idmap") && is_idmap("idmap=x") && !is_idmap("idmapped"));
    }
}
