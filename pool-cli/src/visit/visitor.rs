use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::capture::capture;
use super::{Browsers, Job, Options, Record};
use crate::loader::{Page, Trouble};

/// An attempt at a URL that failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) trouble: Trouble,
    /// It had its Chromium to itself.
    pub(crate) alone: bool,
    /// It had begun to load.
    pub(crate) begun: bool,
    /// Time it took.
    pub(crate) ms: u64,
}

/// Visits a URL once: leases a browser, makes its page ready, waits for its turn, loads it.
pub(crate) async fn visit(
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
