//! Debian's docker-registry.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::run_in;

/// A registry on a port of its own. It is killed with its value.
pub(crate) struct Daemon {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Daemon {
    /// Without TLS and without asking who comes.
    pub(crate) fn open(dir: &Path) -> Self {
        Self::start(dir, "", "")
    }

    /// `auth` is that section of the configuration, `http` more lines of the other; with four and two spaces before.
    pub(crate) fn start(dir: &Path, auth: &str, http: &str) -> Self {
        // Whoever gets it between this and the registry makes the registry fail, and is tried to be told apart below.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::create_dir_all(dir.join("data")).unwrap();
        let conf = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n  \
             secret: of all instances\n{http}storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: \
             true}}\n{auth}",
            dir.join("data").display()
        );
        fs::write(dir.join("conf.yml"), conf).unwrap();
        let child = spawn(dir, port);
        Self { dir: dir.to_owned(), port, child }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it; what it has stays.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.dir, self.port);
    }

    /// Puts the image of an OCI layout there, as skopeo does.
    pub(crate) fn put(&self, layout: &Path, tag: &str, name: &str) {
        let options = "--dest-tls-verify=false --all --preserve-digests";
        run_in(
            &self.dir,
            &format!("skopeo copy -q {options} oci:{}:{tag} docker://{}/{name}", layout.display(), self.host()),
        );
    }

    /// The digest that skopeo finds under a name.
    pub(crate) fn digest(&self, name: &str) -> String {
        let raw = format!("skopeo inspect --raw --tls-verify=false docker://{}/{name} | sha256sum", self.host());
        format!("sha256:{}", run_in(&self.dir, &raw).split(' ').next().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(dir: &Path, port: u16) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("conf.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("docker-registry");
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = child.try_wait().unwrap();
        let said = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(ended.is_none() && start.elapsed() < Duration::from_secs(20), "docker-registry: {ended:?}\n{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}
