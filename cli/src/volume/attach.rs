//! The volumes of a container that is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lamel_isolate::oci::{Mount, Spec};

use super::fill::{Files, fill};
use super::store::{About, Held, Volumes};
use crate::container::records::Containers;
use crate::container::settings::VolumeUsed;
use crate::run::identity::{Maps, random_id};
use crate::run::volume::{VolumeArgs, Wish, bind};

/// Mounts that are made for every container and are no other one's to have.
const OWN: [&str; 5] = ["/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev"];

/// What a container is to have.
pub(crate) struct Asking<'a, 'b> {
    pub(crate) args: &'a VolumeArgs,
    /// `VOLUME` of the image.
    pub(crate) of_image: Vec<String>,
    /// What new volumes are filled from.
    pub(crate) files: Files<'a>,
    pub(crate) maps: Option<Maps>,
    pub(crate) containers: &'b Containers,
}

/// Volumes that are a container's as soon as it is known. Those that were made for it go again if it never is.
pub(crate) struct Attached<'a> {
    pub(crate) used: Vec<VolumeUsed>,
    volumes: Volumes,
    containers: &'a Containers,
    held: Option<Held>,
    new: Vec<String>,
}

impl Attached<'_> {
    /// The container is known.
    pub(crate) fn keep(mut self) {
        self.new.clear();
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // Who removes waits for those who hold.
        drop(self.held.take());
        self.volumes.remove_anonymous(std::mem::take(&mut self.new), self.containers);
    }
}

impl<'b> Asking<'_, 'b> {
    /// Makes the volumes that are missing, fills those that are empty, and puts all of them into the configuration.
    pub(crate) fn attach(&self, spec: &mut Spec) -> Result<Attached<'b>> {
        let volumes = Volumes::open(self.containers.store())?;
        let (containers, used) = (self.containers, Vec::new());
        let mut attached = Attached { used, volumes, containers, held: None, new: Vec::new() };
        let own: Vec<PathBuf> =
            self.args.resolve(self.maps.as_ref())?.iter().map(|mount| mount.destination().clone()).collect();
        let mut wishes = self.args.wishes()?;
        let mut binds = Vec::new();
        for text in &self.args.volumes_from {
            self.take_over(text, &own, &mut wishes, &mut binds).with_context(|| format!("--volumes-from {text}"))?;
        }
        let taken = |place: &Path, wishes: &[Wish]| {
            own.iter().chain(binds.iter().map(Mount::destination)).any(|other| other == place)
                || wishes.iter().any(|wish| wish.destination == place)
        };
        for place in &self.of_image {
            let destination = Path::new("/").join(place);
            if destination != Path::new("/") && !taken(&destination, &wishes) {
                wishes.push(Wish { name: None, destination, read_only: false, nocopy: false, options: Vec::new() });
            }
        }
        if wishes.is_empty() && binds.is_empty() {
            return Ok(attached);
        }
        attached.held = Some(attached.volumes.hold()?);
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for wish in &wishes {
            binds.push(self.mount(wish, &mut attached)?);
        }
        mounts.retain(|mount| !binds.iter().any(|other| other.destination() == mount.destination()));
        mounts.extend(binds);
        // What is mounted on another mount comes after it.
        mounts.sort_by_key(|mount| mount.destination().components().count());
        spec.set_mounts(Some(mounts));
        Ok(attached)
    }

    fn mount(&self, wish: &Wish, attached: &mut Attached<'_>) -> Result<Mount> {
        let about = About {
            name: wish.name.clone().map_or_else(random_id, Ok)?,
            created: Timestamp::now(),
            labels: BTreeMap::new(),
            anonymous: wish.name.is_none(),
        };
        let (volume, new) = attached.volumes.make(&about)?;
        if new && about.anonymous {
            attached.new.push(about.name.clone());
        }
        if !wish.nocopy {
            fill(&volume, &self.files, &wish.destination, self.maps.as_ref())?;
        }
        attached.used.push(VolumeUsed {
            name: about.name,
            destination: wish.destination.clone(),
            read_only: wish.read_only,
            anonymous: volume.about.anonymous,
        });
        let options: Vec<&str> = wish.options.iter().map(String::as_str).collect();
        bind(&volume.data(), &wish.destination, wish.read_only, &options)
    }

    /// What another container has mounted, where this one has nothing yet.
    fn take_over(&self, text: &str, own: &[PathBuf], wishes: &mut Vec<Wish>, binds: &mut Vec<Mount>) -> Result<()> {
        let (name, mode) = text.rsplit_once(':').map_or((text, None), |(name, mode)| (name, Some(mode)));
        let read_only = match mode {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(other) => bail!("invalid mode {other:?}: ro or rw"),
        };
        let record = self.containers.find(name)?;
        let is_free = |place: &Path, wishes: &[Wish], binds: &[Mount]| {
            !own.iter().chain(binds.iter().map(Mount::destination)).any(|other| other == place)
                && !wishes.iter().any(|wish| wish.destination == place)
        };
        for used in &record.settings.volumes {
            if is_free(&used.destination, wishes, binds) {
                wishes.push(Wish {
                    name: Some(used.name.clone()),
                    destination: used.destination.clone(),
                    read_only: read_only || used.read_only,
                    nocopy: true,
                    options: Vec::new(),
                });
            }
        }
        for mount in record.spec()?.mounts().iter().flatten() {
            let place = mount.destination();
            let source = mount.source().clone().unwrap_or_default();
            let foreign = mount.typ().as_deref() == Some("bind")
                && !source.starts_with(self.containers.store())
                && !OWN.iter().any(|own| place == Path::new(own));
            if foreign && is_free(place, wishes, binds) {
                let options = mount.options().clone().unwrap_or_default();
                let read_only = read_only || options.iter().any(|option| option == "rro" || option == "ro");
                let kept = |option: &&String| !["ro", "rro", "rw"].contains(&option.as_str());
                let more: Vec<&str> = options.iter().filter(kept).map(String::as_str).collect();
                let mut taken = bind(&source, place, read_only, &more)?;
                taken.set_uid_mappings(mount.uid_mappings().clone()).set_gid_mappings(mount.gid_mappings().clone());
                binds.push(taken);
            }
        }
        Ok(())
    }
}
