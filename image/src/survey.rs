//! What each layer of an image did to those below it, and what of all that is wasted, counted as dive counts it.
//!
//! dive looks at the leaves of each layer's own tree, a whiteout standing for the name that it deletes, and adds up
//! their sizes by path. A path that several layers have is wasted space in all of them; a whiteout of a directory has
//! the size of what it deletes, one of a file none. The efficiency is the part that would do: the smallest size of each
//! path.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::index::{Inode, ROOT};
use crate::view::{View, ViewError};

/// What one layer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSurvey {
    /// Names in it, whiteouts included.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of files where nothing was before.
    pub added: u64,
    /// Bytes of files in the place of others.
    pub changed: u64,
    /// Bytes of lower layers' files that are gone from here on, without others in their place.
    pub removed: u64,
}

/// A path that several layers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waste {
    /// From the image's root.
    pub path: Vec<u8>,
    /// How often it is there.
    pub count: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}

/// What all layers did.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Each layer, the bottom one first.
    pub layers: Vec<LayerSurvey>,
    /// Paths that several layers have, the most wasteful one first.
    pub waste: Vec<Waste>,
    /// Bytes of all of those.
    pub wasted: u64,
    /// The part of all bytes that would do, from 0 to 1.
    pub efficiency: f64,
}

impl Survey {
    /// Bytes of all layers.
    pub fn bytes(&self) -> u64 {
        sum(self.layers.iter().map(|layer| layer.bytes))
    }

    /// The part of the bytes above the bottom layer, on which an image was built, that the wasted bytes are; 0 where
    /// there are none above it.
    pub fn user_wasted(&self) -> f64 {
        ratio(self.wasted, sum(self.layers.iter().skip(1).map(|layer| layer.bytes))).unwrap_or(0.0)
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A directory, as the way to something.
    Passed,
    /// Nothing was there before.
    Added,
    /// Something else was there before.
    Changed,
    /// It is gone; the bytes are those of everything below it.
    Removed,
}

/// One object of one tree: of a layer's, or of the merged one.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The layer whose tree it is; `None` for the merged tree.
    pub tree: Option<usize>,
    /// The layer that it is from.
    pub layer: usize,
    /// From the image's root.
    pub path: &'a [u8],
    /// What became of it.
    pub fate: Fate,
    /// Its size.
    pub bytes: u64,
}

/// Looks through the layers of an image, the bottom one first. `each` sees every object of each layer, and then those of
/// the merged tree; directories before what is in them.
///
/// # Errors
/// A layer is damaged.
pub fn survey(layers: &[View], each: &mut dyn FnMut(Seen<'_>)) -> Result<Survey, ViewError> {
    let mut stack = Stack::default();
    stack.places.push(Place { alive: true, dir: true, ..Place::default() });
    let layers = layers.iter().enumerate().map(|(number, view)| stack.add(number, view, each));
    let layers = layers.collect::<Result<_, _>>()?;
    stack.show(each);
    Ok(stack.judge(layers))
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

#[allow(clippy::cast_precision_loss, reason = "a part of something, of which three digits are shown")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A path that some layer has, for good.
#[derive(Default)]
struct Place {
    above: u32,
    name: Arc<[u8]>,
    below: BTreeMap<Arc<[u8]>, u32>,
    /// Whether something is there in the stack so far: what, of which size and layer.
    alive: bool,
    dir: bool,
    size: u64,
    layer: usize,
    /// As dive counts: how often it was a leaf, all sizes together, the smallest one.
    count: u64,
    cumulative: u64,
    least: u64,
}

/// The layers so far, on one another.
#[derive(Default)]
struct Stack {
    places: Vec<Place>,
}

const TOP: u32 = 0;

impl Stack {
    fn at(&mut self, number: u32) -> &mut Place {
        &mut self.places[number as usize]
    }

    fn below(&mut self, dir: u32, name: &[u8]) -> u32 {
        if let Some(known) = self.at(dir).below.get(name) {
            return *known;
        }
        // Stores hold no more entries than 32 bits count.
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let name: Arc<[u8]> = name.into();
        self.places.push(Place { above: dir, name: Arc::clone(&name), ..Place::default() });
        self.at(dir).below.insert(name, number);
        number
    }

    /// A leaf, of this size.
    fn count(&mut self, place: u32, size: u64) {
        let place = self.at(place);
        place.least = if place.count == 0 { size } else { place.least.min(size) };
        place.count += 1;
        place.cumulative = place.cumulative.saturating_add(size);
    }

    /// Everything below a place is gone; the bytes of it.
    fn empty(&mut self, place: u32) -> u64 {
        let mut bytes: u64 = 0;
        let mut todo: Vec<u32> = self.at(place).below.values().copied().collect();
        while let Some(place) = todo.pop() {
            let place = self.at(place);
            if place.alive {
                bytes = bytes.saturating_add(place.size);
                (place.alive, place.dir, place.size) = (false, false, 0);
                todo.extend(place.below.values());
            }
        }
        bytes
    }

    /// What is at a place is gone: the bytes of it and of what is below it.
    fn remove(&mut self, place: u32) -> (u64, u64) {
        if !self.at(place).alive {
            return (0, 0);
        }
        let below = self.empty(place);
        let place = self.at(place);
        let own = std::mem::take(&mut place.size);
        (place.alive, place.dir) = (false, false);
        (own, below)
    }

    fn add(&mut self, number: usize, view: &View, each: &mut dyn FnMut(Seen<'_>)) -> Result<LayerSurvey, ViewError> {
        let index = view.index();
        let mut layer = LayerSurvey::default();
        // Of an object with several names, the first one has its data, as in an archive.
        let mut named: HashSet<u32> = HashSet::new();
        if index.inode(ROOT)?.is_opaque() {
            layer.removed = self.empty(TOP);
        }
        let mut todo = vec![(ROOT, TOP, b"/".to_vec())];
        while let Some((dir, here, path)) = todo.pop() {
            let mut dirs = Vec::new();
            for entry in index.entries(dir)? {
                let entry = entry?;
                layer.entries += 1;
                let place = self.below(here, entry.name);
                let path = crate::view::joined(&path, entry.name);
                let mut tell = |fate, bytes| each(Seen { tree: Some(number), layer: number, path: &path, fate, bytes });
                if entry.whiteout {
                    let was_dir = self.at(place).dir;
                    let (own, below) = self.remove(place);
                    self.count(place, if was_dir { below } else { 0 });
                    layer.removed = layer.removed.saturating_add(own.saturating_add(below));
                    tell(Fate::Removed, own.saturating_add(below));
                }
                let Some(found) = entry.inode else { continue };
                let inode = index.child(dir, found)?;
                if inode.is_dir() {
                    let leaf = index.entries(found)?.next().is_none();
                    let gone = self.enter(place, &inode, leaf, number);
                    layer.removed = layer.removed.saturating_add(gone);
                    tell(Fate::Passed, 0);
                    if gone > 0 {
                        tell(Fate::Removed, gone);
                    }
                    dirs.push((found, place, path));
                    continue;
                }
                let first = inode.nlink < 2 || named.insert(found);
                let size = if first && inode.format() == libc::S_IFREG { inode.size } else { 0 };
                self.count(place, size);
                if self.at(place).dir {
                    let (_, below) = self.remove(place);
                    layer.removed = layer.removed.saturating_add(below);
                    tell(Fate::Removed, below);
                }
                let known = self.at(place);
                let fate = if known.alive { Fate::Changed } else { Fate::Added };
                (known.alive, known.size, known.layer) = (true, size, number);
                let bytes = if fate == Fate::Changed { &mut layer.changed } else { &mut layer.added };
                *bytes = bytes.saturating_add(size);
                layer.bytes = layer.bytes.saturating_add(size);
                tell(fate, size);
            }
            todo.extend(dirs.into_iter().rev());
        }
        Ok(layer)
    }

    /// A layer has a directory there; the bytes that it hides.
    fn enter(&mut self, place: u32, inode: &Inode, leaf: bool, number: usize) -> u64 {
        if leaf {
            self.count(place, 0);
        }
        let mut gone = 0;
        if inode.is_opaque() {
            gone = self.empty(place);
        }
        let place = self.at(place);
        if !place.dir {
            gone += std::mem::take(&mut place.size);
        }
        (place.alive, place.dir, place.layer) = (true, true, number);
        gone
    }

    /// The merged tree.
    fn show(&self, each: &mut dyn FnMut(Seen<'_>)) {
        let mut todo: Vec<(u32, Vec<u8>)> = vec![(TOP, b"/".to_vec())];
        while let Some((number, path)) = todo.pop() {
            let Some(place) = self.places.get(number as usize).filter(|place| place.alive) else { continue };
            if number != TOP {
                let fate = if place.dir { Fate::Passed } else { Fate::Added };
                each(Seen { tree: None, layer: place.layer, path: &path, fate, bytes: place.size });
            }
            todo.extend(place.below.iter().rev().map(|(name, below)| (*below, crate::view::joined(&path, name))));
        }
    }

    fn judge(&self, layers: Vec<LayerSurvey>) -> Survey {
        let counted = || self.places.iter().filter(|place| place.count > 0);
        let (least, all) = (sum(counted().map(|place| place.least)), sum(counted().map(|place| place.cumulative)));
        let several = counted().filter(|place| place.count > 1);
        let mut waste: Vec<Waste> = several
            .map(|place| Waste { path: self.path(place), count: place.count, bytes: place.cumulative })
            .collect();
        waste.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.path.cmp(&other.path)));
        let wasted = sum(waste.iter().map(|waste| waste.bytes));
        Survey { layers, waste, wasted, efficiency: ratio(least, all).unwrap_or(1.0) }
    }

    fn path(&self, place: &Place) -> Vec<u8> {
        let mut names = vec![Arc::clone(&place.name)];
        let mut above = place.above;
        while above != TOP {
            let Some(place) = self.places.get(above as usize) else { break };
            names.push(Arc::clone(&place.name));
            above = place.above;
        }
        names.iter().rev().flat_map(|name| b"/".iter().chain(name.iter())).copied().collect()
    }
}
