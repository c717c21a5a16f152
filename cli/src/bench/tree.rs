//! The generated tree on disk: made once a size, kept in the state directory.
//!
//! `merged-SIZE` is what every backend must show, and what `native` runs on. `bottom-SIZE` is the lowest layer, with the
//! large file, the large directory and the git repository; `layers-SIZE-N` holds the N-1 layers above it. The large file
//! is written in full, not sparse: a hole would be copied up for nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, FileType, FlockOperation, Mode};

use super::copy::copy_tree;
use super::plan::{BOTTOM, Body, Plan, ROOT, Shape, Size};
use super::random::Random;

/// Part of every name: raised when the tree changes, so that no run takes an older one.
const VERSION: u32 = 1;

/// In one file of 50, for the programs that search.
pub(crate) const NEEDLE: &str = "a-needle-in-the-haystack";

/// Where the tree is.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) merged: PathBuf,
    /// Top first.
    pub(crate) layers: Vec<PathBuf>,
    /// A tar of a part of it.
    pub(crate) archive: PathBuf,
}

/// The parts that other programs make or run.
pub(crate) const GIT: &str = "git";
pub(crate) const BULK: &str = "bulk/data";
pub(crate) const PROGRAM: &str = "bin/true";

/// Finds the tree or makes it; `say` tells what takes long.
pub(crate) fn tree(state: &Path, size: Size, layers: usize, say: &dyn Fn(&str)) -> Result<Tree> {
    let _lock = lock(state)?;
    let maker = Maker { shape: size.shape(), plan: Plan::new(&size.shape(), layers), text: text() };
    let name = size.name();
    let bottom = once(state, &format!("bottom-{name}"), say, |to| maker.bottom(to))?;
    let merged = once(state, &format!("merged-{name}"), say, |to| maker.merged(to, &bottom))?;
    let above = once(state, &format!("layers-{name}-{layers}"), say, |to| maker.above(to, layers))?;
    let archive = once(state, &format!("archive-{name}"), say, |to| maker.archive(to, &merged))?;
    let mut stack: Vec<PathBuf> = (0..layers - 1).map(|layer| above.join(format!("{layer}"))).collect();
    stack.push(bottom);
    Ok(Tree { merged, layers: stack, archive: archive.join("root.tar") })
}

/// Makes the state directory, and keeps other runs from making things in it.
pub(crate) fn lock(state: &Path) -> Result<File> {
    fs::create_dir_all(state).with_context(|| format!("state directory {}", state.display()))?;
    let path = state.join("lock");
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("locking the state directory")?;
    Ok(lock)
}

/// Whether files can be given to others: root's, outside of a user namespace of a single id.
pub(crate) fn is_privileged() -> bool {
    let whole = |map: String| map.split_whitespace().nth(2).is_some_and(|length| length != "1");
    rustix::process::geteuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

/// The directory of this name in the state directory; made under another name first, so that half of one is never used.
pub(crate) fn once(
    state: &Path,
    name: &str,
    say: &dyn Fn(&str),
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = state.join(format!("{name}.{VERSION}"));
    if path.is_dir() {
        return Ok(path);
    }
    say(&format!("making {}", path.display()));
    let draft = state.join(format!(".{name}.{VERSION}"));
    if draft.exists() {
        fs::remove_dir_all(&draft).with_context(|| draft.display().to_string())?;
    }
    fs::create_dir(&draft).with_context(|| draft.display().to_string())?;
    make(&draft)?;
    // Written back now, and not while the first workload is measured.
    let opened = File::open(&draft).with_context(|| draft.display().to_string())?;
    rustix::fs::syncfs(&opened).context("writing the tree back")?;
    fs::rename(&draft, &path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Makes the parts of the tree.
struct Maker {
    shape: Shape,
    plan: Plan,
    text: Vec<u8>,
}

impl Maker {
    fn bottom(&self, to: &Path) -> Result<()> {
        let mut writer = Writer::new(to, &self.text);
        for item in &self.plan.items {
            if item.layer == BOTTOM {
                writer.write(&item.path, &item.body)?;
            } else if item.replaces {
                writer.write(&item.path, &Body::File(100))?;
            }
        }
        for (path, _) in &self.plan.deleted {
            writer.write(path, &Body::File(1000))?;
        }
        self.bulk(&to.join(BULK))?;
        let program = Path::new("/bin/true");
        if program.exists() {
            writer.parents(PROGRAM)?;
            fs::copy(program, to.join(PROGRAM)).context("copying /bin/true")?;
        }
        if found("git") {
            self.repository(&to.join(GIT))?;
        }
        Ok(())
    }

    fn merged(&self, to: &Path, bottom: &Path) -> Result<()> {
        let mut writer = Writer::new(to, &self.text);
        for item in &self.plan.items {
            writer.write(&item.path, &item.body)?;
        }
        for part in [BULK, PROGRAM, GIT] {
            let from = bottom.join(part);
            if from.exists() {
                writer.parents(part)?;
                copy_tree(&from, &to.join(part))?;
            }
        }
        Ok(())
    }

    fn above(&self, to: &Path, layers: usize) -> Result<()> {
        let mut writers: Vec<Writer<'_>> = Vec::new();
        for layer in 0..layers - 1 {
            let path = to.join(format!("{layer}"));
            fs::create_dir(&path).with_context(|| path.display().to_string())?;
            writers.push(Writer::new(&path, &self.text));
        }
        for item in &self.plan.items {
            if let Some(writer) = writers.get_mut(item.layer) {
                writer.write(&item.path, &item.body)?;
            }
        }
        for (path, layer) in &self.plan.deleted {
            if let Some(writer) = writers.get_mut(*layer) {
                writer.whiteout(path)?;
            }
        }
        Ok(())
    }

    /// Directories come with all their files, so that unpacking makes each once.
    fn archive(&self, to: &Path, merged: &Path) -> Result<()> {
        if !found("tar") {
            return Ok(());
        }
        let mut list = String::new();
        let items = self.plan.items.iter().filter(|item| item.path.starts_with(ROOT));
        for item in items.take(self.shape.archived.saturating_mul(2)).step_by(2) {
            list.push_str(&item.path);
            list.push('\n');
        }
        let names = to.join("names");
        fs::write(&names, list).with_context(|| names.display().to_string())?;
        let mut tar = Command::new("tar");
        tar.arg("--no-recursion").arg("-C").arg(merged).arg("-cf").arg(to.join("root.tar")).arg("-T").arg(&names);
        succeed(&mut tar)
    }

    fn bulk(&self, path: &Path) -> Result<()> {
        let at = || path.display().to_string();
        fs::create_dir_all(path.parent().unwrap_or(path)).with_context(at)?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(at)?);
        let mut left = self.shape.bulk;
        let mut number = 0_u64;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.text.len());
            // Blocks differ, so that no filesystem shares them.
            file.write_all(&number.to_le_bytes()).with_context(at)?;
            file.write_all(self.text.get(8..take).unwrap_or_default()).with_context(at)?;
            left = left.saturating_sub(take as u64);
            number += 1;
        }
        file.flush().with_context(at)
    }

    fn repository(&self, path: &Path) -> Result<()> {
        let mut writer = Writer::new(path, &self.text);
        fs::create_dir(path).with_context(|| path.display().to_string())?;
        let mut random = Random::new(3);
        for file in 0..self.shape.repository {
            writer.write(&format!("{:02x}/file{file}.c", file % 97), &Body::File(500 + random.below(6000)))?;
        }
        for words in ["init -q", "add .", "commit -q -m all", "gc -q"] {
            let mut git = git(path);
            git.args(words.split(' '));
            succeed(&mut git)?;
        }
        Ok(())
    }
}

/// git without the user's and the system's settings.
pub(crate) fn git(path: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(path).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for (name, value) in [("NAME", "lamel bench"), ("EMAIL", "bench@localhost"), ("DATE", "2026-01-01T00:00:00Z")] {
        git.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    // The tree is the invoking user's, but a user namespace or a squashing backend may show another owner.
    git.args(["-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "init.defaultBranch=main"]);
    git
}

/// Whether a program is in the search path.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a program that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(())
}

/// A mebibyte of words in lines.
fn text() -> Vec<u8> {
    const WORDS: [&str; 8] = ["layer", "union", "mount", "upper", "lower", "index", "inode", "blob"];
    let mut random = Random::new(1);
    let mut text = String::with_capacity(1 << 20);
    while text.len() < 1 << 20 {
        text.push_str(WORDS[random.below(WORDS.len())]);
        text.push(if random.chance(10) { '\n' } else { ' ' });
    }
    text.truncate(1 << 20);
    text.into_bytes()
}

/// Writes objects below a directory, and the directories that lead there.
struct Writer<'a> {
    base: PathBuf,
    text: &'a [u8],
    made: HashSet<String>,
}

impl<'a> Writer<'a> {
    fn new(base: &Path, text: &'a [u8]) -> Self {
        Self { base: base.to_owned(), text, made: HashSet::new() }
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        if self.made.insert(parent.to_owned()) {
            let path = self.base.join(parent);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn write(&mut self, path: &str, body: &Body) -> Result<()> {
        self.parents(path)?;
        let place = self.base.join(path);
        let done = match body {
            Body::Directory if self.made.insert(path.to_owned()) => fs::create_dir_all(&place),
            Body::Directory => Ok(()),
            Body::Link(target) => symlink(target, &place),
            Body::File(_) if path.ends_with(".py") => fs::write(&place, MODULE),
            Body::File(0) => File::create(&place).map(drop),
            Body::File(length) => fs::write(&place, self.content(path, *length)),
        };
        done.with_context(|| place.display().to_string())
    }

    /// It follows from the path alone: the same in a layer and in the merged tree.
    fn content(&self, path: &str, length: usize) -> Vec<u8> {
        let seed = path.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let from = Random::new(seed).below(self.text.len().saturating_sub(length));
        let mut content = self.text.get(from..from + length).unwrap_or(self.text).to_vec();
        if seed.is_multiple_of(50) {
            content.splice(0..0, NEEDLE.bytes());
        }
        content
    }

    fn whiteout(&mut self, path: &str) -> Result<()> {
        self.parents(path)?;
        let place = self.base.join(path);
        rustix::fs::mknodat(CWD, &place, FileType::CharacterDevice, Mode::empty(), 0)
            .with_context(|| format!("whiteout {}", place.display()))
    }
}

/// A Python module of ordinary size.
const MODULE: &str = "\"\"\"A module.\"\"\"\n\n\nclass Thing:\n    \"\"\"A thing.\"\"\"\n\n    def __init__(self, value=0):\n        \
self.value = value\n\n    def double(self):\n        return Thing(self.value * 2)\n\n\ndef make(values):\n    return \
[Thing(value).double().value for value in values]\n\n\nTABLE = {name: make(range(8)) for name in ('a', 'b', 'c', 'd')}\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::MANY;

    #[test]
    fn the_large_directory_is_merged() {
        let plan = Plan::new(&Size::Small.shape(), 3);
        let layers: HashSet<usize> = plan
            .items
            .iter()
            .filter(|item| item.path.starts_with(&format!("{MANY}/")))
            .map(|item| item.layer)
            .collect();
        assert_eq!(layers, HashSet::from([0, BOTTOM]));
    }
}
