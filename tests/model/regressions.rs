//! Shrunk failures, kept as named tests.

use super::runner::{Quirks, replay};
use crate::common::Subject;

fn lamel(text: &str) {
    replay(&Subject::lamel(), Quirks::LAMEL, text);
}

/// The copy got one name only, and the wrong link count.
#[test]
fn links_of_a_lower_symlink_stay_links() {
    lamel(
        "
        layer
          symlink c a
          link a/a c
        ops
          link c b
          unlink c
          remount
        ",
    );
}

/// Data came to one of the two names alone that the kernel had given a metacopy.
#[test]
fn links_of_the_kernels_metacopy_stay_links() {
    for write in ["write a 0 1x7", "truncate b 0", "open 0 a rw"] {
        lamel(&format!(
            "
            layer
              file a 1x9 hole=0 644 0 0
            ops
              kernel
              link a b
              remount
              {write}
              remount
            "
        ));
    }
}

/// A removed lower link was subtracted once in the index and once again.
#[test]
fn a_removed_link_is_counted_once() {
    lamel(
        "
        opts metacopy=off
        layer
          file c/b 1x0 hole=0 644 0 0
          link a/a c/b
          file b/c/a 1x0 hole=0 644 0 0
        ops
          unlink c/b
          link a/a b/b
        ",
    );
}

/// A redirect named the path in the layer that has the object, where a whiteout of a higher lower layer is.
#[test]
fn a_redirect_leads_past_the_whiteouts_of_other_lowers() {
    for object in ["a/b/a", "a/b/d"] {
        lamel(&format!(
            "
            layer
              file c/a 1x1 hole=0 644 0 0
              dir c/d - 755 0 0
              file c/d/f 2x9 hole=0 644 0 0
            layer
              file a/a 1x0 hole=0 644 0 0
            ops
              rename c a/b -
              pushdown
              rename {object} c -
              remount
              kernel
            "
        ));
    }
}

/// The copy of a metacopy that the kernel made kept the number of the file that it replaced, for others to get.
#[test]
fn a_number_is_not_given_away_with_the_metacopy_that_had_it() {
    lamel(
        "
        layer
          file c/b 6x5866 hole=0 777 1000 1000 xattr=5
        ops
          rename a b/a -
          mkdir a 600
          kernel
          setxattr c/b user.k 6x9 replace
          remount
          append c/b 1x85
          mkdir a/b 777
        ",
    );
}

/// Two names of a symlink were two inodes to the kernel after the copy-up of one.
#[test]
fn a_symlink_keeps_its_number_without_a_mark() {
    lamel(
        "
        opts userxattr
        layer
          symlink c/a/a a
          file b/a 1x0 hole=0 644 0 0
        ops
          link c/a/a b/b
          unlink b/b
          rename c/a/a c/a/b -
        ",
    );
}

/// A lower link of a symlink had no name in the upper to be renamed.
#[test]
fn a_linked_symlink_is_renamed_without_an_index() {
    lamel(
        "
        opts userxattr
        layer
          symlink a/a a
        ops
          link a/a a/b
          rename a/a b -
          rename a/b a/c -
        ",
    );
}

/// The data came to one of two names of a metacopy that kernel overlayfs had made and linked.
#[test]
fn a_linked_metacopy_of_the_kernel_keeps_its_links() {
    lamel(
        "
        layer
          file b 1x0 hole=0 644 0 0
        ops
          kernel
          link b a
          remount
          link a c
        ",
    );
}

/// The model took the data for copied up; the kernel did that later, and its copy-up gives a new mtime.
#[test]
fn an_open_without_a_write_may_leave_a_metacopy() {
    lamel(
        "
        layer
          file b/b 1x1 hole=0 644 0 0
        ops
          utimens b/b 0 0
          create b/b 777 - - 6x0
          kernel
          open 0 b/b rw
        ",
    );
}
