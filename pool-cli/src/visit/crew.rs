use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_core::AcquireError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::files::capture;
use super::{Browsers, Job, Options, Queue, Record};
use crate::loader::{Page, Trouble};

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

/// An attempt at a URL that failed.
#[derive(Debug)]
struct Attempt {
    trouble: Trouble,
    /// It had its Chromium to itself.
    alone: bool,
    /// It had begun to load.
    begun: bool,
    /// Time it took.
    ms: u64,
}

/// Visits a URL once: leases a browser, makes its page ready, waits for its turn, loads it.
async fn visit(
    job: &mut Job,
    browsers: &Browsers,
    turns: &Semaphore,
    options: &Options,
    is_last: impl FnOnce() -> bool,
) -> Result<Record, Attempt> {
    let alone = options.is_alone(job.suspect);
    let before = |trouble| Attempt { trouble, alone, begun: false, ms: 0 };
    let browser =
        browsers.lease(job.suspect).await.map_err(|error| before(Trouble::NoBrowser(error)))?;
    let stage = async {
        // The terms that count are those that are set first.
        browser.begin(&options.terms()).await?;
        Page::stage(&browser, &job.url, &options.furniture).await
    };
    let staged = timeout(options.timeout, stage).await;
    let mut page = match staged.unwrap_or(Err(Trouble::Timeout { waited: options.timeout })) {
        Ok(page) => page,
        Err(trouble) => {
            browser.discard();
            return Err(before(trouble));
        }
    };
    let turn = turns.acquire().await.expect("the semaphore is never closed");
    job.attempts += 1;
    let began = Instant::now();
    let elapsed = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let url = job.url.clone();
    let load = async {
        let details = page.load().await?;
        let waited = options.timeout.saturating_sub(began.elapsed());
        let come = timeout(waited, options.take.wait(&mut page)).await;
        come.unwrap_or_else(|_| Err(options.take.missing(options.timeout)))?;
        let ms = elapsed();
        let taken = options.take.take(&mut page).await?;
        let captured = capture(&mut page, &url, options).await?;
        Ok((details, ms, taken, captured))
    };
    let loaded = timeout(options.patience(), load).await;
    drop(turn);
    match loaded.unwrap_or(Err(Trouble::Timeout { waited: options.timeout })) {
        Ok((details, ms, taken, captured)) => {
            if is_last() {
                // Nobody needs it clean again.
                browser.discard();
            }
            Ok(Record {
                url,
                final_url: Some(details.final_url),
                status: details.status,
                title: Some(details.title),
                ms,
                error: None,
                attempts: job.attempts,
                screenshot: captured.screenshot,
                pdf: captured.pdf,
                html: captured.html,
                taken,
            })
        }
        Err(trouble) => {
            // Whatever still runs in there, and whatever state it is in.
            browser.discard();
            Err(Attempt { trouble, alone, begun: true, ms: elapsed() })
        }
    }
}
