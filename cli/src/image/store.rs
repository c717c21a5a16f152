//! Where the image store lies.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use lamel_image::Store;

/// Which store is used.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// The image store [default: $LAMEL_ROOT, else /var/lib/lamel for root and $XDG_DATA_HOME/lamel for others]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl StoreArgs {
    /// Opens the store; makes one where there is nothing.
    pub(crate) fn open(&self) -> Result<Store> {
        Ok(Store::open(&self.place()?, &[])?)
    }

    fn place(&self) -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = self.root.clone().or_else(|| variable("LAMEL_ROOT")) {
            return Ok(root);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/lamel"));
        }
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = data.or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        Ok(data.context("nowhere to keep images: set HOME or LAMEL_ROOT, or give --root")?.join("lamel"))
    }
}
