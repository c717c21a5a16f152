//! Which store is meant, and which image in it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Named, Store, StoreError};

/// The environment variable that names the store.
const ROOT_VARIABLE: &str = "LAMEL_ROOT";
/// The environment variable that names additional stores, between colons.
const ADDITIONAL_VARIABLE: &str = "LAMEL_ADDITIONAL_STORES";

/// Above the options of the store in a command's help.
pub(crate) const STORE_HEADING: &str = "Store";

/// Options of the store.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct StoreArgs {
    /// The image store [default: $LAMEL_ROOT, else /var/lib/lamel for root and
    /// $XDG_DATA_HOME/lamel for others]
    #[arg(long, global = true, value_name = "DIR", help_heading = STORE_HEADING)]
    root: Option<PathBuf>,
    /// A store that is searched after it and never written; may be given several times
    /// [default: $LAMEL_ADDITIONAL_STORES, between colons]
    #[arg(long, global = true, value_name = "DIR", help_heading = STORE_HEADING)]
    additional_store: Vec<PathBuf>,
}

impl StoreArgs {
    /// The words that name it on the command line of another `lamel`, as `store` was opened by this.
    pub(crate) fn words(&self, store: &Store) -> Vec<OsString> {
        let mut words = vec!["--root".into(), store.root().into()];
        for directory in &self.additional_store {
            words.extend(["--additional-store".into(), directory.into()]);
        }
        words
    }

    /// Where it lies, made or not.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        self.root.clone().map_or_else(default_root, Ok)
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Result<Store> {
        let root = self.path()?;
        let additional = if self.additional_store.is_empty() {
            let listed = std::env::var_os(ADDITIONAL_VARIABLE).unwrap_or_default();
            std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect()
        } else {
            self.additional_store.clone()
        };
        Ok(Store::open(&root, &additional)?)
    }
}

fn default_root() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = variable(ROOT_VARIABLE) {
        return Ok(root);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/lamel".into());
    }
    // The XDG base directory specification passes over relative paths.
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(variable("HOME")?.join(".local/share")));
    let data = data.context("neither $XDG_DATA_HOME nor $HOME is set: name a store by --root")?;
    Ok(data.join("lamel"))
}

/// The image of a name for a platform, this host's if none is given.
pub(crate) fn find(store: &Store, name: &str, platform: Option<&Platform>) -> Result<(Named, Image)> {
    let named = store.find(name)?;
    let host = Platform::host();
    let image = store.image(&named.descriptor, platform.unwrap_or(&host)).with_context(|| name.to_owned())?;
    // An image by itself is for whoever names it, unless a platform is named too.
    if let Some(wanted) = platform.filter(|wanted| image.config.platform().distance(wanted).is_none()) {
        bail!("{name} is for {}, not for {wanted}", image.config.platform());
    }
    Ok((named, image))
}

/// Whether [`find`] failed because there is no such image, or none for the platform.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::NoImage(_) | StoreError::NoPlatform { .. } | StoreError::NoBlob(_)))
}
