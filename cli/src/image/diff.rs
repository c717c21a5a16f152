//! `lamel diff REF1 REF2`

use std::path::Path;

use anyhow::{Context as _, Result};
use lamel_image::compare::compare;
use lamel_unionfs::diff::Change;

use super::inside::{Images, InsideArgs};

/// What differs between two images.
pub(crate) fn run(args: &InsideArgs, one: &Path, other: &str) -> Result<Vec<Change>> {
    let one = one.to_str().with_context(|| format!("{} is no name of an image", one.display()))?;
    // Each by itself: the first must stay while the second is opened.
    let (mut old, mut new) = (Images::new(args)?, Images::new(args)?);
    Ok(compare(old.view(one)?, new.view(other)?)?)
}
