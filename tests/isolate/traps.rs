//! What hostile images and programs are made of, for those that are started and for those that wait for somebody to come in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use sha2::{Digest, Sha256};

use super::kit::*;

/// An `/etc/passwd` with numbers that wrap to 0, and names that look like numbers.
pub(crate) const PASSWD: &str = "root:x:0:0::/:\n1000:x:0:0::/:\n4294967295:x:0:0::/:\nwrap:x:4294967296:0::/:\n\
    high:x:2147483648:0::/:\nnegative:x:-1:0::/:\n";

/// Users that are nobody over [`PASSWD`].
pub(crate) const NOBODIES: [&str; 12] = [
    "4294967295",
    "4294967296",
    "2147483648",
    "2147483648:0",
    "0:4294967296",
    "-1",
    "1000abc",
    "wrap",
    "high",
    "negative",
    "none",
    "root:none",
];

/// Commands that make something of a name that is no list of users.
pub(crate) const NO_LISTS: [&str; 6] = [
    "mkfifo",
    "mkdir",
    "ln -s /dev/zero",
    "ln -s /etc/shadow",
    "ln -s /proc/self/environ",
    "ln -s ../../../../../../../../etc/shadow",
];

/// Calls `each` for every way in which `/etc/passwd` and `/etc/group` are made to be no lists, with the user who is asked for
/// then; in the end both are lists again.
pub(crate) fn for_every_list_that_is_none(ground: &Ground, mut each: impl FnMut(&str, &str)) {
    for name in ["passwd", "group"] {
        let file = ground.root().join("etc").join(name);
        for make in NO_LISTS {
            sh(&format!("rm -rf {0}; {make} {0}", file.display()));
            each("root:shadow", &format!("{make} {name}"));
        }
        sh(&format!("rm -rf {0}; truncate -s 10G {0}", file.display()));
        each("me:none", &format!("a large {name}"));
        sh(&format!("rm {0}; echo root:x:0: > {0}", file.display()));
    }
}

/// Makes the program the worst case, the user's own and writable, and has the root directory lead to it by `again` and
/// `self`. Returns what tells one content from another.
pub(crate) fn expose_program(ground: &Ground) -> impl Fn() -> Vec<u8> + use<> {
    let bin = ground.bin();
    fs::remove_file(&bin).unwrap();
    fs::copy(Subject::lamel_bin(), &bin).unwrap();
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o777)).unwrap();
    ground.give(&bin);
    let root = ground.root();
    fs::write(root.join("bin/again"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(root.join("bin/again"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/proc/self/exe", root.join("bin/self")).unwrap();
    ground.give(&root);
    move || Sha256::digest(fs::read(&bin).unwrap()).to_vec()
}
