//! A registry on this host: Debian's docker-registry on a port of its own.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::sys;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Killed with its value.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(super) host: String,
}

impl Registry {
    /// Starts one that keeps its data in a directory.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("data")).with_context(|| dir.display().to_string())?;
        // Whoever takes the port before the registry does makes it fail.
        let host = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("a port")?.to_string();
        let conf = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: '{host}', secret: bench}}\n\
             storage:\n  filesystem: {{rootdirectory: '{}'}}\n",
            dir.join("data").display()
        );
        fs::write(dir.join("conf.yml"), conf).context("the registry's configuration")?;
        let log = File::create(dir.join("log")).context("the registry's log")?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("conf.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        sys::die_with_parent(&mut command);
        let mut registry = Self { child: command.spawn().context("starting docker-registry")?, host };
        let start = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            let ended = registry.child.try_wait().context("waiting for docker-registry")?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                bail!("docker-registry does not serve: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
