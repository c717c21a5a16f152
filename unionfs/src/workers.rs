//! Threads for requests that take long, so that those that serve stay free.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// More long requests than this wait for one another.
const MAX_THREADS: usize = 16;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// A pool that grows as needed.
#[derive(Default)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

impl Workers {
    /// Runs a job on a thread of the pool; here, if none can be had.
    pub(crate) fn run(&self, job: Job) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() || queue.threads >= MAX_THREADS {
            drop(queue);
            self.shared.wake.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("lamel-slow".to_owned()).spawn(move || work(&shared));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a long request");
            let job = {
                let mut queue = self.shared.queue.lock();
                queue.threads -= 1;
                queue.jobs.pop_back()
            };
            if let Some(job) = job {
                job();
            }
        }
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            job();
            queue = shared.queue.lock();
            continue;
        }
        queue.idle += 1;
        let timed_out = shared.wake.wait_for(&mut queue, IDLE).timed_out();
        queue.idle -= 1;
        if timed_out && queue.jobs.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs() {
        let workers = Workers::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            workers.run(Box::new(move || sender.send(number).unwrap()));
        }
        drop(sender);
        let mut seen: Vec<i32> = receiver.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
