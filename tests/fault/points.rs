//! A fault at every system call of every transaction.

use crate::{
    apart::{Place, apart},
    common::Mounted,
    rig::{Rig, State, States, attempt},
    strace::{Injection, Point, Tracer},
    transaction::{ALL, Transaction},
};

/// Two halves, which the test harness runs beside each other.
fn half(number: usize) -> impl Iterator<Item = &'static Transaction> {
    ALL.iter().skip(number).step_by(2)
}

#[test]
fn killed_at_every_call_first_half() {
    apart(&killed_at_every_call_first_half, Place::Root, || {
        killed_at_every_call(half(0));
    });
}

#[test]
fn killed_at_every_call_second_half() {
    apart(&killed_at_every_call_second_half, Place::Root, || {
        killed_at_every_call(half(1));
    });
}

#[test]
fn failing_calls_first_half() {
    apart(&failing_calls_first_half, Place::Root, || {
        failing_calls(half(0));
    });
}

#[test]
fn failing_calls_second_half() {
    apart(&failing_calls_second_half, Place::Root, || {
        failing_calls(half(1));
    });
}

/// Takes fchmodat2 and the calls of Linux 6.13 for extended attributes from what this thread starts: Debian 12's strace,
/// which does the injecting, does not know them. Their older forms, which follow them, fail at the same points.
fn without_new_calls() {
    let numbers = std::iter::once(452).chain(463..=466);
    let filter = seccompiler::SeccompFilter::new(
        numbers.map(|number| (number, Vec::new())).collect(),
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(rustix::io::Errno::NOSYS.raw_os_error().cast_unsigned()),
        std::env::consts::ARCH.try_into().expect("an architecture of seccomp"),
    );
    let program: seccompiler::BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    seccompiler::apply_filter(&program).expect("seccomp");
}

fn killed_at_every_call(transactions: impl Iterator<Item = &'static Transaction>) {
    without_new_calls();
    let rig = Rig::in_memory();
    let mut all = Verdict::default();
    for transaction in transactions {
        let Some((states, points)) = all.check(transaction.name, || survey(&rig, transaction)) else {
            continue;
        };
        let mut olds = 0;
        for (number, point) in points.iter().enumerate() {
            let what = format!(
                "{}, killed at call {number} of {}: {} #{} ({}",
                transaction.name,
                points.len(),
                point.call,
                point.nth,
                point.seen
            );
            all.check(&what, || {
                let mut mounted = rig.start(transaction);
                // What is cached, is cached as it was when the points were taken.
                states.which("before the fault", mounted.root());
                let tracer = trace(&rig, &mounted, Injection::Kill, Some(point));
                let result = attempt(transaction, mounted.root());
                let killed = tracer.killed();
                if killed {
                    mounted.kill9();
                } else {
                    // It took another way, which is none of this point's business, but has to be right.
                    result.unwrap_or_else(|e| panic!("nothing was injected, and it failed: {e}"));
                    mounted.unmount();
                }
                mounted.mount_again();
                let state = states.which_after_a_crash(&what, mounted.root());
                rig.check_work(&what);
                assert!(killed || state == State::New, "it was acknowledged and is not there");
                if state == State::Old {
                    olds += 1;
                    // The way is free to do it again.
                    attempt(transaction, mounted.root()).expect("again, without a fault");
                    assert_eq!(states.which_after_a_crash("again", mounted.root()), State::New);
                }
                mounted.unmount();
                rig.check_work("at the end");
            });
        }
        println!("{}: {} points, {olds} before it was published", transaction.name, points.len());
        rig.check_lowers(transaction.name);
    }
    all.finish();
}

fn failing_calls(transactions: impl Iterator<Item = &'static Transaction>) {
    without_new_calls();
    let rig = Rig::in_memory();
    let mut all = Verdict::default();
    for transaction in transactions {
        let Some((states, points)) = all.check(transaction.name, || survey(&rig, transaction)) else {
            continue;
        };
        let mut refused = 0;
        let mut tries = 0;
        for point in &points {
            for &errno in errors_of(point) {
                let what = format!("{}, {errno} at {} #{} ({}", transaction.name, point.call, point.nth, point.seen);
                all.check(&what, || {
                    tries += 1;
                    refused += usize::from(failing_call(&rig, transaction, &states, point, errno, &what));
                });
            }
        }
        println!("{}: {tries} faults, {refused} told to the caller", transaction.name);
        rig.check_lowers(transaction.name);
    }
    all.finish();
}

/// Returns true if the caller got an error.
fn failing_call(
    rig: &Rig,
    transaction: &Transaction,
    states: &States,
    point: &Point,
    errno: &'static str,
    what: &str,
) -> bool {
    let mut mounted = rig.start(transaction);
    states.which("before the fault", mounted.root());
    let tracer = trace(rig, &mounted, Injection::Error(errno), Some(point));
    let result = attempt(transaction, mounted.root());
    tracer.detach();
    let state = states.which(what, mounted.root());
    // A failed fsync says that it may be lost, not that it is undone; and what cannot be looked at after the change
    // cannot be told to the caller.
    let may_be_done =
        matches!(point.call.as_str(), "fsync" | "fdatasync" | "syncfs" | "fstat" | "newfstatat" | "statx");
    match (&result, state) {
        (Ok(()), State::Old) => panic!("acknowledged, but not done"),
        (Err(e), State::New) if !may_be_done => panic!("done, but answered with: {e}"),
        _ => {}
    }
    if let Err(e) = &result {
        assert_eq!(e.raw_os_error(), Some(number_of(errno)), "the caller got another error: {e}");
    }
    // The mount goes on: what was refused can be done now.
    if state == State::Old {
        attempt(transaction, mounted.root()).expect("again, without a fault");
        assert_eq!(states.which("again", mounted.root()), State::New);
    }
    mounted.remount();
    assert_eq!(states.which("after a remount", mounted.root()), State::New);
    mounted.unmount();
    rig.check_work("at the end");
    result.is_err()
}

/// The states of a transaction, and the calls that the daemon makes for it.
fn survey(rig: &Rig, transaction: &Transaction) -> (States, Vec<Point>) {
    let states = rig.states(transaction);
    let mut mounted = rig.start(transaction);
    states.which("before the survey", mounted.root());
    let tracer = trace(rig, &mounted, Injection::None, None);
    attempt(transaction, mounted.root()).expect("without a fault");
    let points = tracer.detach();
    mounted.unmount();
    assert!(!points.is_empty(), "{}: the daemon did nothing", transaction.name);
    (states, points)
}

fn trace(rig: &Rig, mounted: &Mounted, injection: Injection, point: Option<&Point>) -> Tracer {
    let pid = mounted.pid().expect("the daemon's pid");
    Tracer::attach(pid, &rig.scratch().join("strace.log"), injection, point)
}

/// What can go wrong with a call.
fn errors_of(point: &Point) -> &'static [&'static str] {
    if point.seen.contains(" = -1 ") {
        // It fails without a fault: it only asks.
        return &[];
    }
    match point.call.as_str() {
        "open" | "openat" | "openat2" => &["EMFILE", "ENOSPC", "EIO"],
        "dup" | "dup2" | "dup3" => &["EMFILE"],
        "mknodat" | "mkdirat" | "symlinkat" | "linkat" | "renameat" | "renameat2" | "setxattr" | "lsetxattr"
        | "fsetxattr" | "pwrite64" | "pwritev" | "copy_file_range" | "fallocate" | "ftruncate" => {
            &["ENOSPC", "EDQUOT", "EIO"]
        }
        // Closing, and what cannot fail. Where a filesystem has no handles there is no index: no error to tell.
        "close" | "umask" | "lseek" | "setfsuid" | "setfsgid" | "name_to_handle_at" => &[],
        // A copy-up gives its parents their times back as well as it can.
        "utimensat" if point.seen.contains("AT_SYMLINK_NOFOLLOW") => &[],
        _ => &["EIO"],
    }
}

fn number_of(errno: &str) -> i32 {
    use rustix::io::Errno;
    match errno {
        "EMFILE" => Errno::MFILE,
        "ENOSPC" => Errno::NOSPC,
        "EDQUOT" => Errno::DQUOT,
        _ => Errno::IO,
    }
    .raw_os_error()
}

/// All failures of a sweep, told together at its end.
#[derive(Default)]
struct Verdict {
    failures: Vec<String>,
}

impl Verdict {
    fn check<T>(&mut self, what: &str, body: impl FnOnce() -> T) -> Option<T> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            Ok(value) => Some(value),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()))
                    .unwrap_or_default();
                self.failures.push(format!("{what}\n    {}", text.replace('\n', "\n    ")));
                assert!(self.failures.len() < 30, "too many failures:\n{}", self.failures.join("\n"));
                None
            }
        }
    }

    fn finish(self) {
        assert!(self.failures.is_empty(), "{} failures:\n{}", self.failures.len(), self.failures.join("\n"));
    }
}
