//! The watch over each Chromium: it is noticed at once if one dies, hangs, or makes no more pages.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::health::{Heard, Progress};
use super::host::Host;
use super::scratch_page::ScratchPage;
use crate::ChromeError;
use crate::cdp::CdpError;
use crate::mux::{EndReason, Multiplexer, MuxLease};

/// Watches over a Chromium until it is gone. The task does not keep the host alive.
pub(super) fn watch(host: &Arc<Host>, hang_timeout: Duration) {
    let (weak, mux, exited) = (Arc::downgrade(host), host.mux.clone(), host.exited());
    tokio::spawn(async move {
        let why = tokio::select! {
            exit = exited => {
                mux.end(if exit.is_out_of_memory() {
                    EndReason::OutOfMemory
                } else {
                    EndReason::Crashed
                });
                format!("the browser has ended: {exit}")
            }
            reason = mux.ended() => match reason {
                // Whoever closed it knows.
                EndReason::Closed => return,
                reason => reason.to_string(),
            },
            waited = hung(&weak, &mux, hang_timeout) => {
                if let Some(host) = weak.upgrade() {
                    tracing::warn!(pid = host.pid, ?waited, "a browser hangs and is killed");
                    host.kill(EndReason::Hung);
                }
                EndReason::Hung.to_string()
            }
        };
        if let Some(host) = weak.upgrade() {
            host.broken(&why);
        }
    });
}

/// Interval at which an idle Chromium is asked. It costs a few tenths of a millisecond.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum time that an idle Chromium may be silent: nobody would miss it, and the next holder must
/// not get it.
const IDLE_LIMIT: Duration = Duration::from_secs(3);

/// Returns when Chromium has made no progress for the whole limit, with the time for which it was
/// silent.
///
/// Progress is an answer or anything else that it says, bytes that it takes, and work that the
/// kernel counts for it: on a machine with much else to do, a browser is slow but does not hang.
/// One that was stopped and continues in time is not a case for us.
async fn hung(host: &Weak<Host>, mux: &Multiplexer, limit: Duration) -> Duration {
    let params = json!({});
    loop {
        let leased = mux.has_clients();
        let pause = (limit / 8).clamp(Duration::from_millis(50), IDLE_PAUSE);
        sleep(if leased { pause } else { IDLE_PAUSE }).await;
        if host.strong_count() == 0 {
            // The last holder is gone, so the process ends with it.
            std::future::pending::<()>().await;
        }
        let answer = mux.call(None, "Browser.getVersion", &params);
        tokio::pin!(answer);
        let mut progress = Progress::new();
        while progress.wait(pause, &mut answer).await.is_none() {
            let limit = if mux.has_clients() { limit } else { limit.min(IDLE_LIMIT) };
            let Some(host) = host.upgrade() else { break };
            progress.look(&host.mux, host.work(), Heard::Counts).await;
            if progress.is_none(limit) {
                return mux.last_heard().elapsed();
            }
        }
    }
}

/// Pause between two looks at a Chromium that owes an answer.
const LOOK: Duration = Duration::from_millis(250);

impl Host {
    /// Proves that the Chromium and the lease's warm page answer, and at intervals that pages can
    /// be made, by making one: `Browser.getVersion` still answers when none can.
    ///
    /// Each may take `limit` without any progress, and much longer with progress: see [`Progress`].
    pub(super) async fn probe(
        &self,
        lease: &MuxLease,
        interval: Duration,
        limit: Duration,
    ) -> Result<(), ChromeError> {
        let began = Instant::now();
        let late =
            |what: &str| CdpError::Timeout { method: what.to_owned(), waited: began.elapsed() };
        let params = json!({});
        let answer = self.mux.call(None, "Browser.getVersion", &params);
        let answer = self.within(limit, std::pin::pin!(answer), Heard::Counts).await;
        answer.ok_or_else(|| late("Browser.getVersion"))??;
        let took = began.elapsed();
        let usual = self.health.answered(took);
        let fresh = self.health.is_fresh(interval);
        let page = async {
            lease.probe_warm_page().await?;
            if fresh { Ok(()) } else { self.make_page().await }
        };
        match self.within(limit, std::pin::pin!(page), Heard::IsNoExcuse).await {
            Some(made) => {
                made?;
                if fresh {
                    self.health.answers_again();
                } else {
                    self.health.proven();
                }
                Ok(())
            }
            None if self.health.doubt(took, usual, limit) => {
                tracing::debug!(pid = self.pid, ?took, "a probe was slow, like the whole machine");
                Ok(())
            }
            None => Err(late("a page").into()),
        }
    }

    /// Waits for an answer while there is progress; returns `None` if there was none for the whole
    /// limit.
    async fn within<T>(
        &self,
        limit: Duration,
        mut answer: impl Future<Output = T> + Unpin + Send,
        heard: Heard,
    ) -> Option<T> {
        let mut progress = Progress::new();
        loop {
            if let Some(answer) = progress.wait(LOOK.min(limit), &mut answer).await {
                return Some(answer);
            }
            progress.look(&self.mux, self.work(), heard).await;
            if progress.is_none(limit) {
                return None;
            }
        }
    }

    async fn make_page(&self) -> Result<(), CdpError> {
        let page = ScratchPage::open(&self.mux, None).await?;
        let answer = page.evaluate("6*7").await?;
        page.close().await?;
        if answer == json!(42) {
            Ok(())
        } else {
            Err(CdpError::unexpected("Runtime.evaluate", format!("6*7 is {answer}")))
        }
    }
}
