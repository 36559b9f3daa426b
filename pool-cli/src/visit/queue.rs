use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Job;

/// The jobs that are still to be done. Workers take from it and say what became of what they took.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Job>,
    /// Those that wait for their next attempt, in no order: there are few.
    later: Vec<(Instant, Job)>,
    /// Taken, and not yet done or put back.
    in_hand: usize,
}

impl Queue {
    pub(crate) fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        let ready = jobs.into_iter().collect();
        Self {
            state: Mutex::new(State { ready, later: Vec::new(), in_hand: 0 }),
            changed: Notify::new(),
        }
    }

    /// Takes the next job; waits for one that is put back for later. `None` when all are done.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn take(&self) -> Option<Job> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From now on, so that nothing is missed between the look and the wait.
            changed.as_mut().enable();
            let next_try = {
                let mut state = self.lock();
                let now = Instant::now();
                if let Some(due) = state.later.iter().position(|(at, _)| *at <= now) {
                    state.in_hand += 1;
                    return Some(state.later.swap_remove(due).1);
                }
                if let Some(job) = state.ready.pop_front() {
                    state.in_hand += 1;
                    return Some(job);
                }
                if state.later.is_empty() && state.in_hand == 0 {
                    return None;
                }
                state.later.iter().map(|(at, _)| *at).min()
            };
            match next_try {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// A job that was taken is done.
    pub(crate) fn done(&self) {
        self.change(|state| state.in_hand -= 1);
    }

    /// A job that was taken goes back, to be tried again after a while.
    pub(crate) fn put_back(&self, job: Job, after: Duration) {
        self.change(|state| {
            state.in_hand -= 1;
            state.later.push((Instant::now() + after, job));
        });
    }

    /// Returns the number of jobs that nobody has taken.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        state.ready.len() + state.later.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(urls: &[&str]) -> Queue {
        Queue::new(urls.iter().map(|url| Job::new(*url)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_ends_when_the_last_job_in_hand_is_done() {
        let queue = queue(&["a"]);
        let job = queue.take().await.unwrap();
        let other = queue.take();
        tokio::pin!(other);
        assert!(futures_util::poll!(&mut other).is_pending(), "the job may come back");
        drop(job);
        queue.done();
        assert_eq!(other.await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_was_put_back_comes_again_when_it_is_due_and_not_before() {
        let queue = queue(&["a", "b"]);
        let first = queue.take().await.unwrap();
        queue.put_back(first, Duration::from_secs(3));
        assert_eq!(queue.take().await.unwrap().url, "b");
        queue.done();
        let began = Instant::now();
        assert_eq!(queue.take().await.unwrap().url, "a");
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        queue.done();
        assert_eq!(queue.take().await, None);
    }
}
