//! How several `--filter` options go together.

use std::mem::{Discriminant, discriminant};

use anyhow::Result;

/// Whether something passes: of each kind of filter one has to, but of those that `adds_up` all, as docker has it for labels.
pub(crate) fn fits<F>(
    filters: &[F],
    adds_up: impl Fn(&F) -> bool,
    passes: impl Fn(&F) -> Result<bool>,
) -> Result<bool> {
    let mut kinds: Vec<(Discriminant<F>, bool)> = Vec::new();
    for filter in filters {
        let (kind, passes) = (discriminant(filter), passes(filter)?);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, fits)) if adds_up(filter) => *fits &= passes,
            Some((_, fits)) => *fits |= passes,
            None => kinds.push((kind, passes)),
        }
    }
    Ok(kinds.iter().all(|(_, fits)| *fits))
}
