use std::sync::Arc;
use std::time::Duration;

use pool_core::AcquireError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::visitor::{Attempt, visit};
use super::{Browsers, Options, Queue, Record};
use crate::loader::Trouble;

/// The wait before the first retry of a URL; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// The workers that visit what is in a queue.
#[derive(Debug)]
pub(crate) struct Crew {
    queue: Queue,
    browsers: Arc<Browsers>,
    options: Options,
    /// Pages may load at the same time only as many as there are turns.
    turns: Semaphore,
}

/// Reason for which the crew stops before everything is done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there are no browsers to visit with: {0}")]
pub(crate) struct NoBrowsers(#[from] AcquireError);

impl Crew {
    pub(crate) fn new(queue: Queue, browsers: Arc<Browsers>, options: Options) -> Arc<Self> {
        let turns = Semaphore::new(options.concurrency);
        Arc::new(Self { queue, browsers, options, turns })
    }

    /// Visits everything in the queue and sends a record of each URL.
    ///
    /// # Errors
    ///
    /// If there is no way to get a browser. What has no record by then was not visited.
    ///
    /// # Cancel safety
    ///
    /// Dropped, all that is under way is given up.
    pub(crate) async fn work(
        self: Arc<Self>,
        records: mpsc::Sender<Record>,
    ) -> Result<(), NoBrowsers> {
        let mut workers = JoinSet::new();
        for _ in 0..self.options.workers() {
            workers.spawn(Arc::clone(&self).worker(records.clone()));
        }
        drop(records);
        while let Some(ended) = workers.join_next().await {
            match ended {
                Ok(outcome) => outcome?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        Ok(())
    }

    async fn worker(self: Arc<Self>, records: mpsc::Sender<Record>) -> Result<(), NoBrowsers> {
        while let Some(mut job) = self.queue.take().await {
            let is_last = || self.queue.waiting() == 0;
            let visited =
                visit(&mut job, &self.browsers, &self.turns, &self.options, is_last).await;
            let record = match visited {
                Ok(record) => record,
                Err(Attempt { trouble: Trouble::NoBrowser(error), .. }) if is_final(&error) => {
                    return Err(error.into());
                }
                Err(attempt) => {
                    // Where it had not begun to load, the browser's death cannot be its doing.
                    let alone = attempt.alone && attempt.begun;
                    if job.try_again(attempt.trouble.blame(), alone, self.options.retries) {
                        let doublings = job.failures().saturating_sub(1).min(6);
                        let pause = if job.failures() == 0 {
                            Duration::ZERO
                        } else {
                            PAUSE * (1 << doublings)
                        };
                        self.queue.put_back(job, pause);
                        continue;
                    }
                    Record::failed(&job, attempt.ms, &attempt.trouble)
                }
            };
            if records.send(record).await.is_err() {
                // Nobody takes them any more: the run is over.
                return Ok(());
            }
            self.queue.done(&job);
        }
        Ok(())
    }
}

/// Returns `true` if the next URL would get no browser, either.
fn is_final(error: &AcquireError) -> bool {
    !matches!(error, AcquireError::Timeout { .. } | AcquireError::QueueFull { .. })
}
