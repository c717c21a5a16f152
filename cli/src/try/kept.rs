//! `lamel try --list`, `--apply` and `--drop`: changes that were kept under a name.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::diff::diff;

use super::{Caller, Place, View, apply, check_name, line, list, say, state_directory};
use crate::container::remove::remove;
use crate::output::human::columns;
use crate::output::print;

/// Lists what is kept: the names, or the changes under one of them.
pub(super) fn show(name: Option<&str>) -> Result<()> {
    let base = state_directory()?;
    if let Some(name) = name {
        let place = find(&base, name)?;
        return print(diff(&place.join("upper"), &[PathBuf::from("/")])?.iter().map(line));
    }
    let mut names: Vec<String> = std::fs::read_dir(&base)
        .with_context(|| base.display().to_string())?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort();
    let mut rows = vec![vec!["NAME".to_owned(), "CHANGES".to_owned()]];
    for name in names {
        let changes = diff(&base.join(&name).join("upper"), &[PathBuf::from("/")]);
        let count = changes.map_or_else(|error| error.to_string(), |changes| changes.len().to_string());
        rows.push(vec![name, count]);
    }
    print(columns(&rows))
}

/// Applies what is kept under a name, and forgets it then.
pub(super) fn apply_to_system(name: &str) -> Result<()> {
    let caller = Caller::of(false)?;
    find(&caller.base, name)?;
    let place = Place::make(&caller.base, Some(name), &caller.id)?;
    caller.part_mounts()?;
    let view = View::mount(&place, &caller)?;
    let applied = || -> Result<()> {
        let changes = diff(&place.upper(), &[PathBuf::from("/")])?;
        list(&changes)?;
        let stage = place.stage()?;
        let done = apply::apply(&view.0, &stage, Path::new("/"), &changes);
        remove(&stage).with_context(|| stage.display().to_string())?;
        done
    };
    let applied = applied();
    view.unmount();
    match applied {
        Ok(()) => remove(&place.0).with_context(|| format!("removing {}", place.0.display())),
        Err(error) => {
            place.clean(Some(name));
            Err(error.context(format!("the changes stay under the name {name}")))
        }
    }
}

/// Forgets what is kept under a name.
pub(super) fn discard(name: &str) -> Result<()> {
    let base = state_directory()?;
    let kept = find(&base, name)?;
    // Taken, so that nobody is working on it.
    let place = Place::make(&base, Some(name), "")?;
    remove(&kept).with_context(|| format!("removing {}", kept.display()))?;
    drop(place);
    say(format_args!("dropped {name}"));
    Ok(())
}

/// Where the changes of a name lie.
fn find(base: &Path, name: &str) -> Result<PathBuf> {
    check_name(name)?;
    let place = base.join(name);
    if !place.join("upper").is_dir() {
        bail!("no changes are kept under the name {name}; lamel try --list tells which are");
    }
    Ok(place)
}
