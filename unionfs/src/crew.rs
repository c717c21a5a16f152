//! Which of the session's threads serve, and on which CPU they wake up.
//!
//! A request that wakes a sleeping CPU costs several times what serving it does,
//! and a scheduler wakes an idle CPU rather than share the caller's. So while
//! many requests follow one another, a companion of the lowest priority keeps the
//! other CPU of a machine of two from looking idle, and one thread, the leader,
//! serves alone, beside its caller. Where the scheduler put the caller beside the
//! companion instead, the two threads change places. The others come to help as
//! soon as the leader takes long over a request, or somebody else has work for the
//! other CPU. When requests cease, everybody sleeps.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Requests closer to one another than this are a burst.
const BURST: Duration = Duration::from_micros(200);
/// So many of them wake the companion: fewer are over before it pays.
const MANY: u64 = 4;
/// The companion stays awake so long after the last request.
const LINGER: Duration = Duration::from_millis(1);
/// A request that takes longer is long: the others help.
const LONG: Duration = Duration::from_micros(50);
/// The companion is not needed on a CPU that others kept from it for so long.
const PUT_OFF: Duration = Duration::from_millis(1);
/// Who is kept from its CPU for so long was disturbed, by more than an interrupt.
const DISTURBED: Duration = Duration::from_micros(4);
/// After so many requests the companion judges its place by how often it was disturbed.
const JUDGED: u64 = 32;
/// Whoever rests looks after so long by himself whether he is needed.
const REST: Duration = Duration::from_millis(10);
/// The lowest priority that is still one: an idle-class thread's CPU counts as idle.
const NICE: i32 = 19;
/// Turns of a spin loop between two looks at the clock, about a microsecond.
const SPINS: u32 = 32;

/// The threads of a session.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    together: bool,
    /// Started by the first burst: a mount is not to wait for a thread that it does not need yet.
    companion: OnceLock<Option<Thread>>,
}

struct Shared {
    epoch: Instant,
    /// Nanoseconds since `epoch` at the last request that came while the companion slept.
    last: AtomicU64,
    /// Requests that followed closely upon one another, up to that one.
    following: AtomicU64,
    /// Requests so far.
    requests: AtomicU64,
    /// The companion is awake.
    awake: AtomicBool,
    /// The thread that serves alone while the companion is awake, by its id.
    leader: AtomicI32,
    /// Odd while the leader serves a request.
    turn: AtomicU64,
    ended: AtomicBool,
    /// How often those who rest were called.
    calls: Mutex<u64>,
    called: Condvar,
}

/// One request's time with a thread; it ends after the reply.
pub(crate) struct Turn<'a> {
    shared: Option<&'a Shared>,
    leads: bool,
}

/// The CPUs of the companion and the leader, for one stay awake.
struct Places {
    leader: Option<Pid>,
    /// Where both may run, once they were kept to one CPU each.
    before: Option<CpuSet>,
}

/// This thread's id.
fn me() -> i32 {
    thread_local! {
        static ME: Cell<i32> = Cell::new(gettid().as_raw_nonzero().get());
    }
    ME.get()
}

impl Crew {
    /// A crew that works as above if `together`; otherwise its threads serve as the kernel wakes them.
    pub(crate) fn new(together: bool) -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            last: AtomicU64::new(0),
            following: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            awake: AtomicBool::new(false),
            leader: AtomicI32::new(0),
            turn: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            calls: Mutex::new(0),
            called: Condvar::new(),
        });
        Self { shared, together, companion: OnceLock::new() }
    }

    fn companion(&self) -> Option<&Thread> {
        let start = || {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new().name("lamel-awake".to_owned()).spawn(move || shared.keep_company());
            spawned
                .map(|thread| thread.thread().clone())
                .inspect_err(|error| tracing::info!(%error, "no companion thread"))
                .ok()
        };
        self.companion.get_or_init(start).as_ref()
    }

    /// A request came.
    pub(crate) fn turn(&self) -> Turn<'_> {
        if !self.together {
            return Turn { shared: None, leads: false };
        }
        let shared = &*self.shared;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if !shared.awake.load(Ordering::Relaxed)
            && shared.is_burst()
            && let Some(companion) = self.companion()
        {
            shared.leader.store(me(), Ordering::Relaxed);
            companion.unpark();
        }
        let leads = shared.leader.load(Ordering::Relaxed) == me();
        if leads {
            shared.turn.fetch_or(1, Ordering::Relaxed);
        }
        Turn { shared: Some(shared), leads }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(Some(companion)) = self.companion.get() {
            companion.unpark();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(shared) = self.shared else { return };
        if self.leads {
            shared.turn.fetch_add(1, Ordering::Relaxed);
        } else if shared.awake.load(Ordering::Relaxed) {
            shared.rest();
        }
    }
}

impl Shared {
    fn is_burst(&self) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.last.swap(now, Ordering::Relaxed);
        if u128::from(now.saturating_sub(before)) >= BURST.as_nanos() {
            self.following.store(0, Ordering::Relaxed);
            return false;
        }
        self.following.fetch_add(1, Ordering::Relaxed) >= MANY
    }

    /// Until the leader needs help.
    fn rest(&self) {
        let mut calls = self.calls.lock();
        let before = *calls;
        while *calls == before && self.awake.load(Ordering::Relaxed) {
            if self.called.wait_for(&mut calls, REST).timed_out() {
                break;
            }
        }
    }

    fn call(&self) {
        *self.calls.lock() += 1;
        self.called.notify_all();
    }

    /// The companion's life.
    fn keep_company(&self) {
        if let Err(errno) = rustix::process::setpriority_process(None, NICE) {
            // At the usual priority it would be in everybody's way.
            return tracing::info!(%errno, "no companion: setpriority");
        }
        while !self.ended.load(Ordering::Relaxed) {
            thread::park();
            self.awake.store(true, Ordering::Relaxed);
            self.stay_awake();
            self.awake.store(false, Ordering::Relaxed);
            self.call();
        }
    }

    /// Until no request came for a while, or its CPU is busy without it.
    fn stay_awake(&self) {
        let mut now = Instant::now();
        let (mut seen, mut since) = (self.requests.load(Ordering::Relaxed), now);
        let (mut turn, mut taken) = (self.turn.load(Ordering::Relaxed), now);
        let mut places = Places { leader: Pid::from_raw(self.leader.load(Ordering::Relaxed)), before: None };
        let (mut judged, mut disturbed) = (seen, 0);
        loop {
            for _ in 0..SPINS {
                std::hint::spin_loop();
            }
            // Whatever its priority, a thread that has just begun to run keeps its CPU for a millisecond and more from one
            // that wakes up there, which may be the client or the leader.
            thread::yield_now();
            let before = std::mem::replace(&mut now, Instant::now());
            let (requests, current) = (self.requests.load(Ordering::Relaxed), self.turn.load(Ordering::Relaxed));
            if requests != seen {
                (seen, since) = (requests, now);
            } else if now - since > LINGER {
                return;
            }
            if now - before > PUT_OFF {
                return;
            }
            disturbed += u64::from(now - before > DISTURBED);
            if requests - judged >= JUDGED {
                // Each request of a client on this CPU disturbs: the client runs meanwhile.
                if 2 * disturbed > requests - judged
                    && let Err(errno) = places.change()
                {
                    tracing::debug!(%errno, "the companion keeps its place");
                }
                (judged, disturbed) = (requests, 0);
            }
            if current != turn {
                (turn, taken) = (current, now);
            }
            if turn % 2 == 1 && now - taken > LONG {
                self.call();
                taken = now;
            }
        }
    }
}

impl Places {
    /// Sends the leader to the CPU where the companion is, which calls this, and the companion to the other one.
    fn change(&mut self) -> rustix::io::Result<()> {
        let allowed = match &self.before {
            Some(before) => *before,
            None => sched_getaffinity(None)?,
        };
        let cpu = sched_getcpu();
        let (mut here, mut there) = (CpuSet::new(), allowed);
        here.set(cpu);
        there.unset(cpu);
        self.before = Some(allowed);
        sched_setaffinity(self.leader, &here)?;
        sched_setaffinity(None, &there)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        for thread in [self.leader, None] {
            if let Err(errno) = sched_setaffinity(thread, before) {
                tracing::debug!(%errno, "a thread stays on its CPU");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_crew_wakes_with_a_burst_and_sleeps_after_it() {
        let crew = Crew::new(true);
        until("requests close to one another wake the companion", || {
            for _ in 0..100 {
                drop(crew.turn());
            }
            crew.shared.awake.load(Ordering::Relaxed)
        });
        until("it sleeps when they cease", || !crew.shared.awake.load(Ordering::Relaxed));
    }

    #[test]
    fn whoever_rests_is_called_when_the_leader_takes_long() {
        let crew = Crew::new(true);
        thread::scope(|scope| {
            let leading = crew.turn();
            until("a burst", || {
                for _ in 0..2 * MANY {
                    drop(crew.turn());
                }
                crew.shared.leader.load(Ordering::Relaxed) == me()
            });
            // All that this thread waits for below is done by the other one, who rests in between.
            let helper = scope.spawn(|| {
                for _ in 0..50 {
                    drop(crew.turn());
                }
            });
            until("the other goes on", || helper.is_finished());
            drop(leading);
        });
    }

    #[test]
    fn those_who_change_places_may_go_anywhere_afterwards() {
        let before = sched_getaffinity(None).unwrap();
        let ended = &AtomicBool::new(false);
        thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            scope.spawn(move || {
                tell.send(me()).unwrap();
                until("the test is over", || ended.load(Ordering::Relaxed));
            });
            let mut places = Places { leader: Pid::from_raw(told.recv().unwrap()), before: None };
            let changed = (0..2).map(|_| places.change()).collect::<rustix::io::Result<Vec<()>>>();
            assert_eq!(changed.is_ok(), before.count() > 1, "one CPU has no other");
            let (mine, its) = (sched_getaffinity(None).unwrap(), sched_getaffinity(places.leader).unwrap());
            assert_eq!(its.count(), 1);
            assert!(changed.is_err() || (0..CpuSet::MAX_CPU).all(|cpu| !(mine.is_set(cpu) && its.is_set(cpu))));
            let leader = places.leader;
            drop(places);
            assert!(sched_getaffinity(None).unwrap() == before && sched_getaffinity(leader).unwrap() == before);
            ended.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn without_a_companion_nobody_rests() {
        let crew = Crew::new(false);
        let turn = crew.turn();
        assert!(turn.shared.is_none() && !turn.leads);
    }
}
