//! Plays cases on a mount, many at once.

use std::{
    env, fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rustix::{
    fs::Mode,
    process::{Pid, Signal, kill_process, umask},
};

use super::{
    case::{Case, Op},
    check,
    exec::Exec,
    layers,
    strategy::cases,
    tree::Body,
    world::{Reply, UMASK, World},
};
use crate::common::{Compare, Mounted, Scratch, Stack, Subject, Tree as Dump, assert_same, dump_all};

/// Threads that play cases.
const WORKERS: usize = 2;

/// A case that takes longer hangs, and its daemon is killed so that it ends.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// How long a failing case is pruned after proptest has shrunk it.
const PRUNE_LIMIT: Duration = Duration::from_secs(60);

/// In what a subject is allowed to differ from the model.
#[derive(Debug, Clone, Copy)]
pub struct Quirks {
    /// It knows `.wh.NAME` and `.wh..wh..opq`.
    pub aufs_marks: bool,
    /// It hides whiteouts that hide nothing.
    pub idle_whiteouts: bool,
    /// The mtime of a directory changes with its entries only.
    pub dir_mtime: bool,
    /// Copying up a file's data keeps its mtime, even where its attributes were copied up before; and copying up for
    /// a rename that then fails keeps the directory's.
    pub copy_up_keeps_mtime: bool,
    /// An open for writing copies the data up; otherwise the first change of the data does, at the latest.
    pub opens_copy_up: bool,
    /// An open lower file without a name has nlink 0 and takes a fchmod.
    pub unlinked_files: bool,
    /// readdir gives the number that stat gives.
    pub d_ino: bool,
    /// Symlinks and fifos keep their numbers over a remount, and their links over a copy-up: they cannot where marks
    /// are `user.*` xattrs, which no symlink or fifo takes.
    pub special_inos: bool,
    /// Numbers never change while it is mounted. The kernel's may on an upper of another's making.
    pub identity: bool,
    /// A lower link that was removed does not count after a remount. Without metacopy, remembering it would take a
    /// copy of the data.
    pub removed_links: bool,
    /// A handle for reading may keep a lower file's content after the copy-up.
    pub old_readers: bool,
}

impl Quirks {
    /// What lamel promises.
    pub const LAMEL: Self = Self {
        aufs_marks: true,
        idle_whiteouts: true,
        dir_mtime: true,
        copy_up_keeps_mtime: true,
        opens_copy_up: false,
        unlinked_files: true,
        d_ino: true,
        special_inos: true,
        identity: true,
        removed_links: true,
        old_readers: true,
    };
    /// Kernel overlayfs.
    pub const OVERLAYFS: Self = Self {
        aufs_marks: false,
        idle_whiteouts: false,
        dir_mtime: true,
        copy_up_keeps_mtime: false,
        opens_copy_up: true,
        unlinked_files: false,
        d_ino: false,
        special_inos: true,
        identity: true,
        removed_links: true,
        old_readers: false,
    };
}

/// What was done, for the summary.
#[derive(Debug, Default)]
pub struct Stats {
    pub cases: AtomicUsize,
    pub ops: AtomicUsize,
    pub succeeded: AtomicUsize,
    pub remounts: AtomicUsize,
    pub pushdowns: AtomicUsize,
    pub handovers: AtomicUsize,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |x: &AtomicUsize| x.load(Ordering::Relaxed);
        write!(
            f,
            "{} sequences, {} operations ({} succeeded), {} remounts, {} uppers pushed down, {} taken over by the kernel",
            n(&self.cases),
            n(&self.ops),
            n(&self.succeeded),
            n(&self.remounts),
            n(&self.pushdowns),
            n(&self.handovers)
        )
    }
}

/// Plays `count` random cases; the error is the shrunk script of the first that fails. `LAMEL_MODEL_SEED` repeats a
/// run.
pub fn play_many(subject: &Subject, quirks: Quirks, count: u32) -> Result<Stats, String> {
    let seed = match env::var("LAMEL_MODEL_SEED") {
        Ok(text) => text.parse().expect("LAMEL_MODEL_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64),
    };
    println!("{count} sequences on {subject:?}: LAMEL_MODEL_SEED={seed}");
    let started = Instant::now();
    let (stats, stop) = (Stats::default(), AtomicBool::new(false));
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|w| {
                let (stats, stop) = (&stats, &stop);
                let count = count / WORKERS as u32 + u32::from((w as u32) < count % WORKERS as u32);
                scope.spawn(move || worker(subject, quirks, count, seed, w, stats, stop))
            })
            .collect();
        workers.into_iter().filter_map(|w| w.join().expect("a worker catches its panics")).collect()
    });
    println!("{stats} in {:.1} s", started.elapsed().as_secs_f64());
    if failures.is_empty() { Ok(stats) } else { Err(format!("LAMEL_MODEL_SEED={seed}\n{}", failures.join("\n"))) }
}

/// One thread's share; the failure, if there is one.
fn worker(
    subject: &Subject,
    quirks: Quirks,
    count: u32,
    seed: u64,
    number: usize,
    stats: &Stats,
    stop: &AtomicBool,
) -> Option<String> {
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_time: 60_000,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = number as u8;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let base = bases()[number % bases().len()].clone();
    let mut failed = false;
    let failed = std::cell::RefCell::new(&mut failed);
    let result = TestRunner::new_with_rng(config, rng).run(&cases(), |case| {
        if stop.load(Ordering::Relaxed) && !**failed.borrow() {
            return Ok(());
        }
        play(subject, quirks, &base, &case, stats).map_err(|e| {
            **failed.borrow_mut() = true;
            stop.store(true, Ordering::Relaxed);
            TestCaseError::fail(e)
        })
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(reason, case)) => {
            let (reason, case) =
                prune(case, reason.to_string(), |case| play(subject, quirks, &base, case, stats).err());
            Some(format!("{reason}\n{case}"))
        }
        Err(TestError::Abort(reason)) => Some(format!("aborted: {reason}")),
    }
}

/// Takes away, one by one, what a failing case does not need. The strategy's own shrinking leaves some of it, because
/// it aims the operations anew each time.
fn prune(mut case: Case, mut reason: String, fails: impl Fn(&Case) -> Option<String>) -> (String, Case) {
    let end = Instant::now() + PRUNE_LIMIT;
    let mut again = true;
    while again && Instant::now() < end {
        again = false;
        for smaller in smaller(&case) {
            if let Some(why) = fails(&smaller) {
                (case, reason, again) = (smaller, why, true);
                break;
            }
        }
    }
    (reason, case)
}

/// The case without one of its parts, the last operations first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut without = |cut: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        cut(&mut smaller);
        all.push(smaller);
    };
    for n in (0..case.ops.len()).rev() {
        without(&|c| drop(c.ops.remove(n)));
    }
    for layer in 0..case.layers.len() {
        if case.layers.len() > 1 {
            without(&|c| drop(c.layers.remove(layer)));
        }
        for n in 0..case.layers[layer].len() {
            without(&|c| drop(c.layers[layer].remove(n)));
        }
    }
    all
}

/// Where the layers lie: a disk, and a filesystem in memory.
fn bases() -> Vec<PathBuf> {
    match env::var_os("LAMEL_SCRATCH") {
        Some(base) => vec![base.into()],
        None => vec!["/var/tmp".into(), "/dev/shm".into()],
    }
}

/// Plays a case written by hand, on every base.
pub fn replay(subject: &Subject, quirks: Quirks, text: &str) {
    let case: Case = text.parse().unwrap_or_else(|e| panic!("{e}"));
    for base in bases() {
        let stats = Stats::default();
        play(subject, quirks, &base, &case, &stats).unwrap_or_else(|e| panic!("on {}: {e}\n{case}", base.display()));
    }
}

/// Plays one case. The error says at which step what was wrong.
pub fn play(subject: &Subject, quirks: Quirks, base: &Path, case: &Case, stats: &Stats) -> Result<(), String> {
    umask(Mode::from_raw_mode(UMASK));
    let at = AtomicUsize::new(0);
    let daemon = Arc::new(AtomicU32::new(0));
    let (done, watchdog) = watch(daemon.clone());
    let result =
        catch_unwind(AssertUnwindSafe(|| Player::start(subject, quirks, base, case, &daemon)?.run(&at, stats)));
    drop(done);
    let hang = watchdog.join().unwrap_or(false);
    stats.cases.fetch_add(1, Ordering::Relaxed);
    let error = match result {
        Ok(Ok(())) if !hang => return Ok(()),
        Ok(Ok(())) => "slow".to_owned(),
        Ok(Err(e)) => e,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()))
            .unwrap_or_else(|| "panic".to_owned()),
    };
    let step = at.load(Ordering::Relaxed);
    let place = match step.checked_sub(1).map(|i| (i, case.ops.get(i))) {
        None => "before the first operation".to_owned(),
        Some((i, Some(op))) => format!("operation {} `{op}`", i + 1),
        Some((_, None)) => "after the last operation".to_owned(),
    };
    Err(format!("{place}: {}{error}", if hang { "HANG, " } else { "" }))
}

/// Kills the daemon when the case takes too long, so that the calls which wait for it return.
fn watch(daemon: Arc<AtomicU32>) -> (mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        let late = wait.recv_timeout(CASE_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
        if late && let Some(pid) = Pid::from_raw(daemon.load(Ordering::Relaxed).cast_signed()) {
            for task in ["self".to_owned(), pid.as_raw_nonzero().to_string()] {
                print!("{}", waiting(&task));
            }
            let killed = kill_process(pid, Signal::KILL);
            println!("hang: killed the daemon {pid:?}: {killed:?}");
        }
        late
    });
    (done, thread)
}

/// What the threads of a process wait for.
fn waiting(process: &str) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let (name, stack) = (read(task.path().join("comm")), read(task.path().join("stack")));
        format!("hang: {process} {} {}\n{stack}", task.file_name().display(), name.trim())
    };
    tasks.map(of).collect()
}

/// A case being played. Fields drop in this order: files, mount, scratch.
struct Player<'a> {
    exec: Exec,
    mounted: Mounted,
    world: World,
    /// The lowers as they were, and must stay.
    lowers: Vec<(PathBuf, Dump)>,
    /// A lower holds hard links: an upper that has copied up one name of several says so in its index only, which
    /// belongs to the workdir. Such an upper is not pushed down.
    linked: bool,
    /// The kernel's overlayfs knows all that the layers hold and can take the upper over.
    kernel_reads: bool,
    /// The kernel's overlayfs has taken it over.
    in_kernel: bool,
    pushed: usize,
    scratch: Scratch,
    subject: &'a Subject,
    quirks: Quirks,
    case: &'a Case,
    daemon: &'a AtomicU32,
}

impl<'a> Player<'a> {
    fn start(
        subject: &'a Subject,
        quirks: Quirks,
        base: &Path,
        case: &'a Case,
        daemon: &'a AtomicU32,
    ) -> Result<Self, String> {
        let quirks =
            Quirks { special_inos: case.opts != "userxattr", removed_links: case.opts != "metacopy=off", ..quirks };
        let scratch = Scratch::new_in(base);
        let dirs = scratch.lowers(case.layers.len());
        let tree = layers::write(&case.layers, &dirs, &quirks);
        let lowers = dirs.iter().map(|dir| (dir.clone(), dump_all(dir))).collect();
        let lamel = matches!(subject, Subject::Lamel { .. });
        let opts: Vec<&str> = if lamel && !case.opts.is_empty() { vec![&case.opts] } else { Vec::new() };
        let mounted = subject.mount(&scratch, dirs.len(), true, &opts);
        let exec = Exec::new(mounted.root());
        let world = World::new(tree, quirks);
        let linked = layers::has_links(&case.layers);
        let kernel_reads = lamel
            && !matches!(case.opts.as_str(), "userxattr" | "volatile")
            && layers::same_for(&case.layers, &quirks, &Quirks::OVERLAYFS);
        let mut player = Self {
            exec,
            mounted,
            world,
            lowers,
            linked,
            kernel_reads,
            in_kernel: false,
            pushed: 0,
            scratch,
            subject,
            quirks,
            case,
            daemon,
        };
        player.note_daemon();
        player.everything("the fresh mount")?;
        Ok(player)
    }

    fn run(mut self, at: &AtomicUsize, stats: &Stats) -> Result<(), String> {
        for op in &self.case.ops {
            at.fetch_add(1, Ordering::Relaxed);
            stats.ops.fetch_add(1, Ordering::Relaxed);
            match op {
                Op::Remount | Op::Kill => {
                    self.remount(*op == Op::Kill)?;
                    stats.remounts.fetch_add(1, Ordering::Relaxed);
                }
                Op::Kernel if self.linked || !self.kernel_reads => {}
                Op::Kernel => {
                    self.hand_over()?;
                    stats.handovers.fetch_add(1, Ordering::Relaxed);
                }
                Op::PushDown if self.linked || self.has_linked_specials() => {}
                Op::PushDown => {
                    self.push_down()?;
                    stats.pushdowns.fetch_add(1, Ordering::Relaxed);
                }
                _ => self.step(op, stats)?,
            }
        }
        at.fetch_add(1, Ordering::Relaxed);
        self.remount(false)?;
        stats.remounts.fetch_add(1, Ordering::Relaxed);
        if self.kernel_reads && !self.linked {
            self.hand_over()?;
            stats.handovers.fetch_add(1, Ordering::Relaxed);
        }
        self.mounted.unmount();
        self.on_disk();
        Ok(())
    }

    fn step(&mut self, op: &Op, stats: &Stats) -> Result<(), String> {
        let want = self.world.apply(op);
        if want == Ok(Reply::Skip) {
            if let Op::Open { slot, .. } = op {
                self.exec.slots[*slot] = None;
            }
            return Ok(());
        }
        let got = self.exec.apply(op);
        match (&want, &got) {
            (Ok(Reply::Data(allowed)), Ok(Reply::Data(got))) => {
                let allowed = if self.quirks.old_readers { &allowed[..] } else { &allowed[..1] };
                if !got.iter().all(|g| allowed.contains(g)) {
                    return Err(check::content_differs(&allowed[0], &got[0]));
                }
            }
            _ if want != got => return Err(format!("want {}, got {}", show(&want), show(&got))),
            _ => {}
        }
        stats.succeeded.fetch_add(usize::from(want.is_ok()), Ordering::Relaxed);
        check::touched(&mut self.world, &self.exec, &op.clone().paths_mut(), &self.quirks)
    }

    fn everything(&mut self, when: &str) -> Result<(), String> {
        check::everything(&mut self.world, &self.exec, &self.quirks).map_err(|e| format!("{when}: {e}"))
    }

    fn close_all(&mut self) {
        self.exec.slots.fill_with(|| None);
        self.world.slots.fill_with(|| None);
    }

    /// Unmounts and mounts again, or has the daemon die: what was written back must survive it. A volatile mount
    /// promises nothing of the kind.
    fn remount(&mut self, kill: bool) -> Result<(), String> {
        self.everything("before the remount")?;
        let kill = kill && self.mounted.pid().is_some() && self.case.opts != "volatile";
        if self.in_kernel {
            return self.take_back();
        }
        if kill {
            let root = std::fs::File::open(self.mounted.root()).map_err(|e| format!("open the root: {e}"))?;
            rustix::fs::syncfs(&root).map_err(|e| format!("syncfs: {e}"))?;
            drop(root);
            self.mounted.kill9();
            self.close_all();
        } else {
            self.close_all();
            self.mounted.unmount();
            self.on_disk();
        }
        self.mounted.mount_again();
        self.note_daemon();
        if !self.quirks.special_inos {
            for node in self.world.tree.all_mut().filter(|n| matches!(n.body, Body::Symlink(_) | Body::Fifo)) {
                node.st_ino = None;
            }
        }
        self.everything(if kill { "after the crash" } else { "after the remount" })
    }

    /// Has the kernel's overlayfs mount the upper that lamel has written.
    fn hand_over(&mut self) -> Result<(), String> {
        if self.in_kernel {
            return Ok(());
        }
        self.everything("before the kernel takes over")?;
        self.close_all();
        self.mounted.unmount();
        self.on_disk();
        let stack = Stack { opts: Vec::new(), ..self.mounted.stack().clone() };
        let metacopy = if self.case.opts == "metacopy=off" { "metacopy=off" } else { "metacopy=on" };
        let opts = ["redirect_dir=on", metacopy, "index=off"].map(str::to_owned).to_vec();
        self.mounted = Subject::Overlayfs { opts }.mount_stack(stack);
        self.in_kernel = true;
        self.quirks = Quirks { identity: false, ..Quirks::OVERLAYFS };
        self.changed_hands("in the kernel's overlayfs")
    }

    /// Has lamel mount the upper that the kernel has written to.
    fn take_back(&mut self) -> Result<(), String> {
        self.close_all();
        self.mounted.unmount();
        self.on_disk();
        let opts = if self.case.opts.is_empty() { Vec::new() } else { vec![self.case.opts.clone()] };
        let stack = Stack { opts, ..self.mounted.stack().clone() };
        self.mounted = self.subject.mount_stack(stack);
        self.in_kernel = false;
        self.quirks = Quirks::LAMEL;
        self.changed_hands("after the kernel's overlayfs")
    }

    /// Numbers are each filesystem's own.
    fn changed_hands(&mut self, when: &str) -> Result<(), String> {
        self.note_daemon();
        self.world.quirks = self.quirks;
        for node in self.world.tree.all_mut() {
            node.st_ino = None;
        }
        self.everything(when)
    }

    fn note_daemon(&self) {
        self.daemon.store(self.mounted.pid().unwrap_or(0), Ordering::Relaxed);
    }

    /// Objects whose links would not survive a copy-up.
    fn has_linked_specials(&mut self) -> bool {
        let special = |body: &Body| matches!(body, Body::Symlink(_) | Body::Fifo);
        !self.quirks.special_inos && self.world.tree.all_mut().any(|n| n.nlink > 1 && special(&n.body))
    }

    fn push_down(&mut self) -> Result<(), String> {
        if self.in_kernel {
            self.take_back()?;
        }
        self.everything("before the upper is pushed down")?;
        self.close_all();
        self.mounted.unmount();
        self.on_disk();
        let Some((old, _)) = self.mounted.stack().upper.clone() else {
            return Err("the stack has no upper".to_owned());
        };
        self.linked = self.world.tree.all_mut().any(|n| n.nlink > 1 && !n.is_dir());
        self.lowers.insert(0, (old.clone(), dump_all(&old)));
        self.pushed += 1;
        let upper = self.scratch.dir(format!("upper{}", self.pushed));
        let work = self.scratch.dir(format!("work{}", self.pushed));
        let mut stack: Stack = self.mounted.stack().clone();
        stack.lowers.insert(0, old);
        stack.upper = Some((upper, work));
        self.mounted = self.subject.mount_stack(stack);
        self.note_daemon();
        let root = self.world.tree.root;
        self.world.tree.node_mut(root).mtime = None;
        for node in self.world.tree.all_mut() {
            // Identity is promised for a stack, and this is another.
            node.st_ino = None;
            node.lower_data = matches!(node.body, Body::File(_));
        }
        self.everything("after the upper was pushed down")
    }

    /// What a mount must leave on disk: untouched lowers, an empty staging directory.
    fn on_disk(&self) {
        for (dir, before) in &self.lowers {
            assert_same(&format!("the lower {}", dir.display()), before, &dump_all(dir), Compare::UNTOUCHED);
        }
        // The kernel keeps a whiteout there, to link it wherever it needs one.
        if let Some((_, work)) = self.mounted.stack().upper.as_ref().filter(|_| !self.in_kernel) {
            let staging = work.join("work");
            let left: Vec<_> =
                std::fs::read_dir(&staging).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default();
            assert!(left.is_empty(), "left in the staging directory: {left:?}");
        }
    }
}

fn show(r: &Result<Reply, rustix::io::Errno>) -> String {
    match r {
        Ok(Reply::Done) => "success".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(e) => e.to_string(),
    }
}
