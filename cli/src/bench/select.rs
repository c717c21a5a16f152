//! Which workloads are run: names of them, or of a group.

use anyhow::{Context as _, Result, bail};

use super::engine::{self, Job};
use super::workload::{self, Listed, Workload};
use crate::output::print;

/// What was chosen. Groups are measured apart: what is compared differs.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// On mounts.
    Mounts(Vec<&'static Workload>),
    /// By engines, on images.
    Images(Vec<&'static Job>),
    /// By engines, on containers.
    Containers(Vec<&'static Job>),
}

impl Chosen {
    /// Reads what `--workloads` says.
    pub(crate) fn parse(names: &str) -> Result<Self> {
        match names {
            "all" => return Ok(Self::Mounts(workload::all().collect())),
            "images" => return Ok(Self::Images(engine::IMAGES.iter().collect())),
            "containers" => return Ok(Self::Containers(engine::CONTAINERS.iter().collect())),
            _ => {}
        }
        let names: Vec<&str> = names.split(',').collect();
        let (mut mounts, mut images, mut containers) = (Vec::new(), Vec::new(), Vec::new());
        for name in &names {
            let is = |job: &&Job| job.name == *name;
            if let Some(workload) = workload::all().find(|workload| workload.name == *name) {
                mounts.push(workload);
            } else if let Some(job) = engine::IMAGES.iter().find(is) {
                images.push(job);
            } else if let Some(job) = engine::CONTAINERS.iter().find(is) {
                containers.push(job);
            } else {
                bail!("--workloads: no {name:?}; `lamel bench list` tells which there are");
            }
        }
        let all = names.len();
        match (mounts.len(), images.len(), containers.len()) {
            (some, ..) if some == all => Ok(Self::Mounts(mounts)),
            (_, some, _) if some == all => Ok(Self::Images(images)),
            (_, _, some) if some == all => Ok(Self::Containers(containers)),
            _ => bail!(
                "--workloads: those on mounts, on images and on containers are measured apart, each with its own --on"
            ),
        }
    }

    /// What is compared unless `--on` says otherwise.
    pub(crate) fn on(&self) -> &'static str {
        match self {
            Self::Mounts(_) => "native,overlayfs,fuse-overlayfs,lamel",
            Self::Images(_) => engine::IMAGE_ENGINES,
            Self::Containers(_) => engine::CONTAINER_ENGINES,
        }
    }
}

/// Prints all that there are.
pub(crate) fn list() -> Result<()> {
    let mounts: Vec<Listed> = workload::all().map(Workload::listed).collect();
    let jobs = |jobs: &[Job]| jobs.iter().map(Job::listed).collect::<Vec<_>>();
    let groups = [
        ("On mounts (--workloads all)", mounts),
        ("On images (--workloads images)", jobs(engine::IMAGES)),
        ("On containers (--workloads containers)", jobs(engine::CONTAINERS)),
    ];
    let mut lines = Vec::new();
    for (title, group) in groups {
        lines.push(title.to_owned());
        for Listed { name, about, caches, rows } in group {
            let rows: Vec<&str> = rows.iter().map(|row| row.name).collect();
            lines.push(format!("  {name:<19} {about}"));
            lines.push(format!("  {:<19}   gives {}", "", rows.join(", ")));
            lines.push(format!("  {:<19}   caches: {caches}", ""));
        }
    }
    print(lines.into_iter().map(String::into_bytes)).context("the list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn groups_are_not_mixed() {
        assert!(matches!(Chosen::parse("walk,create"), Ok(Chosen::Mounts(two)) if two.len() == 2));
        assert!(matches!(Chosen::parse("pull"), Ok(Chosen::Images(one)) if one.len() == 1));
        assert!(matches!(Chosen::parse("containers"), Ok(Chosen::Containers(all)) if all.len() > 1));
        assert!(Chosen::parse("walk,pull").is_err() && Chosen::parse("nonsense").is_err());
    }

    #[test]
    fn names_are_unique_and_plain() {
        let mounts = workload::all().map(Workload::listed);
        let all: Vec<Listed> = mounts.chain(engine::IMAGES.iter().chain(engine::CONTAINERS).map(Job::listed)).collect();
        let names: Vec<&str> = all.iter().map(|listed| listed.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let rows: Vec<&str> = all.iter().flat_map(|listed| listed.rows).map(|row| row.name).collect();
        assert_eq!(rows.iter().collect::<HashSet<_>>().len(), rows.len());
        for name in names.iter().chain(&rows) {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        }
        assert!(all.iter().all(|listed| !listed.rows.is_empty() && !listed.caches.is_empty()));
    }
}
