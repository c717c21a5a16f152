//! One upper, three readers: what lamel writes, kernel overlayfs and fuse-overlayfs show as lamel does, and the
//! reverse. Every view is also compared with a plain directory on which the same was done.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and is a crate that nobody uses"
)]

#[path = "interop/apart.rs"]
mod apart;
#[path = "interop/bench.rs"]
mod bench;
mod common;
#[path = "interop/marks.rs"]
mod marks;
#[path = "interop/parties.rs"]
mod parties;

use apart::{Place, apart};
use bench::Bench;
use parties::{fuse_overlayfs, kernel_full, kernel_plain, kernel_user, lamel_full, lamel_plain, lamel_user};

/// Redirects, metacopies, the index: read by the kernel, which has all three.
#[test]
fn lamel_writes_the_kernel_reads() {
    apart(&lamel_writes_the_kernel_reads, Place::Root, || {
        Bench::all_generations(Place::Root, &lamel_full(), &[kernel_full()]);
    });
}

#[test]
fn lamel_writes_plainly_and_all_read() {
    apart(&lamel_writes_plainly_and_all_read, Place::Root, || {
        let readers = [kernel_plain(), fuse_overlayfs(), lamel_full()];
        Bench::all_generations(Place::Root, &lamel_plain(), &readers);
        // Not between the others: with an index the kernel marks the upper's root with its origin, and fuse-overlayfs
        // then shows nothing of the lowers in any directory of the upper.
        Bench::all_generations(Place::Root, &lamel_plain(), &[kernel_full()]);
    });
}

#[test]
fn the_kernel_writes_lamel_reads() {
    apart(&the_kernel_writes_lamel_reads, Place::Root, || {
        Bench::all_generations(Place::Root, &kernel_full(), &[lamel_full()]);
    });
}

#[test]
fn the_kernel_writes_plainly_and_all_read() {
    apart(&the_kernel_writes_plainly_and_all_read, Place::Root, || {
        let readers = [lamel_plain(), lamel_full(), fuse_overlayfs()];
        Bench::all_generations(Place::Root, &kernel_plain(), &readers);
    });
}

#[test]
fn fuse_overlayfs_writes_and_all_read() {
    apart(&fuse_overlayfs_writes_and_all_read, Place::Root, || {
        let readers = [lamel_plain(), lamel_full(), kernel_plain()];
        Bench::all_generations(Place::Root, &fuse_overlayfs(), &readers);
    });
}

/// Each works on what the other left.
#[test]
fn lamel_and_the_kernel_take_turns() {
    apart(&lamel_and_the_kernel_take_turns, Place::Root, || {
        for writers in [[lamel_full(), kernel_full(), lamel_full()], [kernel_full(), lamel_full(), kernel_full()]] {
            Bench::chain(Place::Root, &writers, &[lamel_full(), kernel_full()]);
        }
    });
}

#[test]
fn all_three_take_turns() {
    apart(&all_three_take_turns, Place::Root, || {
        let readers = [lamel_plain(), kernel_plain(), fuse_overlayfs()];
        // Kernel overlayfs cannot go on after fuse-overlayfs: it fails to remove directories that hold its whiteouts of
        // `.wh..opq` (#306).
        for writers in [
            [lamel_plain(), kernel_plain(), fuse_overlayfs()],
            [fuse_overlayfs(), lamel_plain(), fuse_overlayfs()],
            [kernel_plain(), fuse_overlayfs(), lamel_plain()],
        ] {
            Bench::chain(Place::Root, &writers, &readers);
        }
    });
}

/// In a user namespace marks are `user.overlay.*`, and the kernel follows neither redirects nor metacopies.
#[test]
fn in_a_user_namespace() {
    apart(&in_a_user_namespace, Place::UserNamespace, || {
        let (kernel, lamel) = (kernel_user(), lamel_user());
        Bench::all_generations(Place::UserNamespace, &kernel, std::slice::from_ref(&lamel));
        Bench::all_generations(Place::UserNamespace, &lamel, std::slice::from_ref(&kernel));
        let turns = [lamel.clone(), kernel.clone(), lamel.clone()];
        Bench::chain(Place::UserNamespace, &turns, &[kernel, lamel]);
    });
}

/// lamel's defaults in a user namespace, where no other reader follows them.
#[test]
fn redirects_in_a_user_namespace() {
    apart(&redirects_in_a_user_namespace, Place::UserNamespace, || {
        Bench::all_generations(Place::UserNamespace, &lamel_full(), &[]);
    });
}
