//! Where a result was measured.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// The host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: u64,
    pub(crate) kernel: String,
}

impl Machine {
    /// This host.
    pub(crate) fn here() -> Self {
        let cpu = field("/proc/cpuinfo", "model name").or_else(|| field("/proc/cpuinfo", "Model"));
        let memory = field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text));
        let system = rustix::system::uname();
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory.unwrap_or_default(),
            kernel: format!(
                "{} {} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy(),
                system.machine().to_string_lossy()
            ),
        }
    }
}

/// The value of the first line `key: value`.
pub(crate) fn field(path: impl AsRef<Path>, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == key);
    value.map(|(_, value)| value.trim().to_owned())
}

/// `12 kB` in bytes.
pub(crate) fn kibibytes(text: &str) -> Option<u64> {
    Some(text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// The type of the filesystem that a directory is on.
pub(crate) fn filesystem(path: &Path) -> String {
    let device = || {
        let stat = rustix::fs::stat(path).ok()?;
        let device = format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
        Some(line.split_once(" - ")?.1.split(' ').next()?.to_owned())
    };
    device().unwrap_or_else(|| "unknown".to_owned())
}

/// The first line that a program prints for `--version`.
pub(crate) fn version(program: &Path) -> Result<String> {
    let done = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    // fuse-overlayfs's first line may be that of fusermount3.
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let own = text.lines().find(|line| line.contains("overlayfs") || line.starts_with("lamel"));
    Ok(own.or_else(|| text.lines().next()).unwrap_or("unknown").trim().to_owned())
}

/// Writes back what is dirty and forgets what is clean; says whether that is allowed here.
pub(crate) fn drop_caches() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3\n").is_ok()
}

/// Whether a file in one directory can share its blocks with one in another.
pub(crate) fn can_reflink(from: &Path, to: &Path) -> bool {
    let (source, target) = (from.join(".lamel-reflink-probe"), to.join(".lamel-reflink-probe-copy"));
    let shares = || {
        fs::write(&source, [0_u8; 4096]).ok()?;
        let source = fs::File::open(&source).ok()?;
        let target = rustix::fs::open(&target, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, 0o600.into()).ok()?;
        rustix::fs::ioctl_ficlone(&target, &source).ok()
    };
    let shared = shares().is_some();
    fs::remove_file(source).ok();
    fs::remove_file(target).ok();
    shared
}
