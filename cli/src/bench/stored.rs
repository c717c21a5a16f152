//! An image of lamel's store as input: lamel serves it from there, and for the others its layers are extracted once.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lamel_image::IndexedLayer;
use lamel_image::store::{Image, Opened, Store};

use super::extract::extract;
use super::input::Input;
use super::plan::Size;
use super::tree;
use crate::image::{StoreArgs, find};

/// An image whose layers are open.
pub(crate) struct Stored {
    pub(crate) name: String,
    /// Where its store is.
    pub(crate) root: PathBuf,
    image: Image,
    /// What names it to a `lamel` that is started.
    pub(crate) words: Vec<OsString>,
    /// The bottom one first.
    layers: Vec<Arc<IndexedLayer>>,
    merged: Opened,
}

impl Stored {
    /// Opens it. Before a user namespace is entered, in which the store of a user would be another one.
    pub(crate) fn open(args: &StoreArgs, name: &str) -> Result<Self> {
        let store = args.open()?;
        let mut stored = Self::of(&store, name)?;
        stored.words = args.words(&store);
        stored.words.push(name.into());
        Ok(stored)
    }

    /// Opens an image of a store.
    pub(crate) fn of(store: &Store, name: &str) -> Result<Self> {
        let (_, image) = find(store, name, None)?;
        let merged = store.open_image(&image)?;
        let layers = store.open_layers(&image)?;
        let words = vec!["--root".into(), store.root().into(), name.into()];
        Ok(Self { name: name.to_owned(), root: store.root().to_owned(), image, words, layers, merged })
    }

    /// Extracts its layers below the state directory, unless they are there.
    pub(crate) fn input(&self, state: &Path, size: Size, say: &dyn Fn(&str)) -> Result<Input> {
        let _lock = tree::lock(state)?;
        // Of what lies there, owners and devices depend on who has extracted it.
        let caller = if tree::is_privileged() { "" } else { "-plain" };
        let name = format!("image-{}{caller}", self.image.chain_id().hex());
        let extracted = tree::once(state, &name, say, |to| {
            // An image's set-user-id programs are for nobody else on this host.
            fs::set_permissions(to, Permissions::from_mode(0o700)).with_context(|| to.display().to_string())?;
            let layers = self.layers.iter().enumerate().map(|(number, layer)| (number.to_string(), layer));
            for (name, layer) in layers.chain([("merged".to_owned(), &self.merged.layer)]) {
                let to = to.join(name);
                fs::create_dir(&to).with_context(|| to.display().to_string())?;
                extract(layer, &to)?;
            }
            Ok(())
        })?;
        Input::image(self.words.clone(), &extracted, self.layers.len(), size)
    }
}
