//! Images in files: what `docker save`, `podman save`, `buildah`, `skopeo` and lamel itself write, read into the store
//! and written from it.
//!
//! | shape | told by |
//! |---|---|
//! | OCI archive or directory (also what Docker writes since version 25) | `oci-layout` |
//! | Docker's, a directory for each layer, or layers and configuration side by side | `manifest.json` |
//! | Docker's before version 1.10 | `repositories` |
//!
//! Reading order: `members`, `load` with `docker` and `v1`; `save`; `import` with `change`; `export`.

mod change;
mod docker;
mod export;
mod import;
mod load;
mod members;
mod save;
mod v1;

use std::io;

pub use change::{Change, ChangeError};
pub(crate) use docker::fuzz_list;
pub use export::{ExportError, Exported, Mounts, export, export_dir, export_from, export_tree};
pub use import::{Import, import};
pub use load::{Loaded, load};
pub use members::Input;
pub use save::{Format, save_archive, save_dir};

use crate::index::IndexError;
use crate::manifest::ManifestError;
use crate::reference::ReferenceError;
use crate::store::StoreError;

/// Why an archive is not loaded, or not written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive itself cannot be read.
    #[error("reading the archive: {0}")]
    Read(#[source] io::Error),
    /// It is no tar, or a malformed one.
    #[error("the archive is no image: {0}")]
    Tar(#[source] IndexError),
    /// A tar or directory, but not of an image.
    #[error(
        "no image: neither oci-layout nor manifest.json nor repositories is in it; a root filesystem is taken by `lamel import`"
    )]
    NoImage,
    /// Something that the archive names is not in it, or no regular file.
    #[error("{0:?} is not in the archive")]
    Missing(String),
    /// A member cannot be used.
    #[error("{name}: {source}")]
    Document {
        /// The member's name.
        name: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// One name for several images.
    #[error("the archive has {0} images: one name cannot be given to all of them")]
    SeveralImages(usize),
    /// An image whose parents lead in a circle.
    #[error("image {0:?} is its own ancestor")]
    Circle(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is written cannot be written.
    #[error("writing {what}: {source}")]
    Write {
        /// Which part.
        what: String,
        /// What the system answered.
        source: io::Error,
    },
    /// Docker's archives hold images alone.
    #[error("{0} is for several platforms, which a docker-archive cannot hold in one: choose oci-archive or oci-dir")]
    SeveralPlatforms(String),
    /// The destination is in use.
    #[error("{path} exists and is not an empty directory", path = .0.display())]
    NotEmpty(std::path::PathBuf),
}

type Result<T, E = ArchiveError> = std::result::Result<T, E>;
