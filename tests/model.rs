//! The reference model.

mod common;

use common::*;

#[test]
fn fixture_mounts_kernel_overlayfs() {
    let s = Scratch::new();
    std::fs::write(s.lower(1).join("f"), "x").unwrap();
    let before = dump_all(&s.lower(1));
    let mut m = Subject::overlayfs_full().mount(&s, 2, true, &[]);
    m.run("chmod 600 f; ln f g; mkdir d; echo hello > d/h");
    let tree = dump(m.root());
    m.remount();
    assert_same("remount", &tree, &dump(m.root()), Compare::CONTENT);
    m.unmount();
    assert_same("lower", &before, &dump_all(&s.lower(1)), Compare::UNTOUCHED);
    let mut m = Subject::fuse_overlayfs().mount(&s, 2, true, &[]);
    assert!(m.pid().is_some());
    m.run("cat f g d/h");
    m.kill9();
    m.mount_again();
    m.run("cat f g d/h");
    m.unmount();
}
