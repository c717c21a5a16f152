//! A test in mount namespaces of its own.
//!
//! A new mount namespace holds a copy of every mount, and a copy keeps a daemon, an upper or a loop device in use after
//! its unmount. So a test that others may run beside runs where nobody copies from, and lets go of what it copied.

use std::{any::type_name_of_val, env, process::Command, time::Duration};

use crate::common::spawn_captured;

/// Where a test runs: as root, or as uid 0 of a user namespace that maps this one uid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Root,
    UserNamespace,
}

/// Set in the inner run.
const INSIDE: &str = "LAMEL_TEST_APART";

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Detaches the scratch mounts of others, and goes on to be the test.
const LET_GO: &str = r#"
    awk '$5 ~ "/lamel-test-" { print $5 }' /proc/self/mountinfo | tac | xargs -r -n1 umount -l 2>/dev/null
    exec "$@"
"#;

/// Runs `body`, which is what the test function `test` does, in a process of its own; panics if it fails there.
pub fn apart<T>(test: &T, place: Place, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let path = type_name_of_val(test);
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", LET_GO, "apart"]);
    if place == Place::UserNamespace {
        command.args(["unshare", "-U", "-r", "-m"]);
    }
    command
        .arg(env::current_exe().expect("the path of this program"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1");
    let out = spawn_captured(command, LIMIT);
    print!("{}", out.stdout);
    assert!(out.success() && out.stdout.contains("1 passed"), "{}{}", out.stdout, out.stderr);
}
