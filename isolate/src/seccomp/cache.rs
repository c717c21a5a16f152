//! Compiled filters, kept in a directory of the user's own.
//!
//! A file is named by the sha256 of all that its program was made from. What is
//! read back becomes a filter as it is: the directory must be the user's, and
//! nobody else's to write.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest as _, Sha256};

use super::{MAX_INSTRUCTIONS, SeccompError, compile};
use crate::sys::bpf::Instruction;

/// Changes whenever the compiler makes other programs.
const VERSION: &[u8] = b"lamel seccomp 1\n";
/// Bytes of an instruction on disk.
const WIDTH: usize = 8;

/// Where compiled filters are kept.
#[derive(Clone, Debug)]
pub struct Cache(PathBuf);

impl Cache {
    /// In this directory, which is made when it is first needed.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The program of a filter. A cache that does not work costs time and nothing else.
    pub(crate) fn compile(&self, seccomp: &LinuxSeccomp) -> Result<Vec<Instruction>, SeccompError> {
        let key = key(seccomp)?;
        if let Some(program) = self.read(&key) {
            return Ok(program);
        }
        let program = compile(seccomp)?;
        if let Err(error) = self.write(&key, &program) {
            tracing::debug!("seccomp cache {}: {error}", self.0.display());
        }
        Ok(program)
    }

    fn read(&self, key: &str) -> Option<Vec<Instruction>> {
        let directory = File::open(&self.0).ok()?;
        if !is_own(&directory) {
            tracing::debug!("seccomp cache {}: not this user's alone", self.0.display());
            return None;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.0.join(key))
            .ok()?;
        if !is_own(&file) {
            return None;
        }
        let mut bytes = Vec::new();
        file.take((MAX_INSTRUCTIONS * WIDTH + 1) as u64).read_to_end(&mut bytes).ok()?;
        decode(&bytes)
    }

    fn write(&self, key: &str, program: &[Instruction]) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        if !is_own(&File::open(&self.0)?) {
            return Err(std::io::Error::other("not this user's alone"));
        }
        // Published by a rename: nobody reads half a filter.
        let draft = self.0.join(format!(".{key}.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(&encode(program)).and_then(|()| std::fs::rename(&draft, self.0.join(key)));
        if written.is_err() {
            std::fs::remove_file(&draft).ok();
        }
        written
    }
}

fn is_own(file: &File) -> bool {
    let me = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|meta| meta.uid() == me && meta.mode() & 0o022 == 0)
}

fn key(seccomp: &LinuxSeccomp) -> Result<String, SeccompError> {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    hash.update(serde_json::to_vec(seccomp)?);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * WIDTH);
    for Instruction { code, jt, jf, k } in program {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*jt, *jf]);
        bytes.extend(k.to_ne_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(WIDTH) || bytes.len() / WIDTH > MAX_INSTRUCTIONS {
        return None;
    }
    let instruction = |b: &[u8]| match *b {
        [c0, c1, jt, jf, k0, k1, k2, k3] => {
            Some(Instruction { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) })
        }
        _ => None,
    };
    bytes.chunks_exact(WIDTH).map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT_PROFILE, Profile};
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_filter_is_compiled_once_and_only_a_private_cache_is_believed() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path().join("a/b"));
        let seccomp = Profile::parse(DEFAULT_PROFILE).unwrap().resolve(&[], "6.1").unwrap();
        let bytes = encode(&cache.compile(&seccomp).unwrap());
        let key = key(&seccomp).unwrap();
        assert_eq!(std::fs::read(place.path().join("a/b").join(&key)).unwrap(), bytes);
        // It is read back, as a changed one shows; cut short it is compiled again.
        std::fs::write(cache.0.join(&key), &bytes[..WIDTH]).unwrap();
        assert_eq!(cache.compile(&seccomp).unwrap().len(), 1);
        std::fs::write(cache.0.join(&key), &bytes[..WIDTH + 1]).unwrap();
        assert_eq!(encode(&cache.compile(&seccomp).unwrap()), bytes);
        // Others may write there: it is not believed.
        std::fs::write(cache.0.join(&key), &bytes[..WIDTH]).unwrap();
        std::fs::set_permissions(&cache.0, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(encode(&cache.compile(&seccomp).unwrap()), bytes);
    }
}
