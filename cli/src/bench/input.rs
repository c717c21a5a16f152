//! What the workloads run on: a stack of layers, and lists of what is in them, read natively beforehand.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::plan::{MANY, PYTHON, ROOT, Shape, Size};
use super::tree::{BULK, GIT, PROGRAM, Tree};

/// A part of the tree that a workload needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The root filesystem.
    Root,
    /// Small files.
    Small,
    /// The large directory.
    Many,
    /// The large file.
    Bulk,
    /// A git repository.
    Git,
    /// Python modules.
    Python,
    /// A program to start.
    Program,
}

impl Part {
    /// Its name in the tree.
    fn name(self) -> &'static str {
        match self {
            Self::Root => ROOT,
            Self::Small => super::plan::SMALL,
            Self::Many => MANY,
            Self::Bulk => BULK,
            Self::Git => GIT,
            Self::Python => PYTHON,
            Self::Program => PROGRAM,
        }
    }
}

/// The layers and what is in them.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// What the merged tree shows, as a plain directory.
    pub(crate) merged: PathBuf,
    /// Top first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) archive: PathBuf,
    pub(crate) shape: Shape,
    /// Where the root filesystem begins.
    pub(crate) subject: CString,
    /// Everything in it but itself.
    pub(crate) entries: Vec<CString>,
    pub(crate) directories: usize,
    pub(crate) small: Vec<CString>,
    /// Whether the tree is somebody's and not generated.
    pub(crate) foreign: bool,
    /// The words that name an image to `lamel mount`, if the layers are those of one.
    pub(crate) stored: Option<Vec<OsString>>,
}

/// A small file of a tree that was not generated.
const SMALL_LIMIT: u64 = 64 * 1024;

impl Input {
    /// The generated tree.
    pub(crate) fn generated(tree: Tree, size: Size) -> Result<Self> {
        let mut input = Self {
            merged: tree.merged,
            layers: tree.layers,
            archive: tree.archive,
            shape: size.shape(),
            subject: CString::new(ROOT)?,
            entries: Vec::new(),
            directories: 0,
            small: Vec::new(),
            foreign: false,
            stored: None,
        };
        input.directories = list(&input.merged, Path::new(ROOT), &mut |path, _| input.entries.push(path))?;
        list(&input.merged, Path::new(super::plan::SMALL), &mut |path, kind| {
            if kind.is_file() {
                input.small.push(path);
            }
        })?;
        Ok(input)
    }

    /// A directory of the user's as the only layer.
    pub(crate) fn foreign(directory: &Path, size: Size) -> Result<Self> {
        let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
        Self::layered(directory.clone(), vec![directory], size)
    }

    /// An image of the store: its layers are extracted once for those that need directories.
    pub(crate) fn image(words: Vec<OsString>, extracted: &Path, layers: usize, size: Size) -> Result<Self> {
        let layers = (0..layers).rev().map(|layer| extracted.join(layer.to_string())).collect();
        let mut input = Self::layered(extracted.join("merged"), layers, size)?;
        input.stored = Some(words);
        Ok(input)
    }

    /// A tree that was not generated.
    fn layered(merged: PathBuf, layers: Vec<PathBuf>, size: Size) -> Result<Self> {
        let mut input = Self {
            layers,
            archive: PathBuf::new(),
            merged,
            shape: size.shape(),
            subject: CString::new(".")?,
            entries: Vec::new(),
            directories: 0,
            small: Vec::new(),
            foreign: true,
            stored: None,
        };
        let limit = input.shape.small;
        input.directories = list(&input.merged, Path::new("."), &mut |path, kind| {
            if kind.is_file() && kind.len() > 0 && kind.len() <= SMALL_LIMIT && input.small.len() < limit {
                input.small.push(path.clone());
            }
            input.entries.push(path);
        })?;
        if input.small.is_empty() {
            bail!("{}: no file of at most {} KiB in it", input.merged.display(), SMALL_LIMIT / 1024);
        }
        Ok(input)
    }

    /// Where a part lies in the tree, and whether it is there.
    pub(crate) fn part(&self, part: Part) -> Option<PathBuf> {
        let path = match (self.foreign, part) {
            (true, Part::Root | Part::Small) => ".",
            (true, _) => return None,
            (false, part) => part.name(),
        };
        self.merged.join(path).exists().then(|| path.into())
    }

    /// Reads the small files where they lie, so that a backend that copies them finds them in the page cache.
    pub(crate) fn warm_small(&self) {
        for file in &self.small {
            let file = path(file);
            // The one that is not in a layer is in another.
            if self.layers.iter().any(|layer| fs::read(layer.join(file)).is_ok()) {
                fs::read(self.merged.join(file)).ok();
            }
        }
    }
}

/// A path as the standard library takes it.
pub(crate) fn path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}

/// Gives every object below `from` in `base`; returns how many are directories, itself included.
fn list(base: &Path, from: &Path, give: &mut dyn FnMut(CString, &fs::Metadata)) -> Result<usize> {
    let directory = base.join(from);
    let at = || directory.display().to_string();
    let mut directories = 1;
    for entry in fs::read_dir(&directory).with_context(at)? {
        let name = entry.with_context(at)?.file_name();
        let path = from.join(&name);
        let kind = fs::symlink_metadata(base.join(&path)).with_context(|| base.join(&path).display().to_string())?;
        give(CString::new(path.as_os_str().as_bytes())?, &kind);
        if kind.is_dir() {
            directories += list(base, &path, give)?;
        }
    }
    Ok(directories)
}
