//! The watch over each Chromium: its death is noticed at once, and so is that it hangs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::host::Host;
use crate::mux::{EndReason, Multiplexer};
use crate::process::Work;

/// Watches over a Chromium until it is gone. The task does not keep the host.
pub(super) fn watch(host: &Arc<Host>, hang_timeout: Duration) {
    let (weak, mux, exited) = (Arc::downgrade(host), host.mux.clone(), host.exited());
    tokio::spawn(async move {
        let why = tokio::select! {
            exit = exited => {
                mux.end(EndReason::Crashed);
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

/// Interval at which an idle Chromium is asked. It costs some tenths of a millisecond.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum time an idle one may be silent: nobody would miss it, and the next holder must not get it.
const IDLE_LIMIT: Duration = Duration::from_secs(3);

/// How many times its limit a Chromium may work without a word. One that only turns in circles
/// must be found as well.
pub(super) const OBSTINATE: u32 = 6;

/// Returns when Chromium has made no progress for the whole limit, with how long it was silent.
///
/// Progress is an answer or anything else that it says, bytes that it takes, and work that the
/// kernel counts for it: a browser on a machine with much else to do is slow, and not hung. One
/// that was stopped and goes on in time is no case for us.
async fn hung(host: &Weak<Host>, mux: &Multiplexer, limit: Duration) -> Duration {
    let params = json!({});
    loop {
        let leased = mux.has_clients();
        let pause = (limit / 8).clamp(Duration::from_millis(50), IDLE_PAUSE);
        sleep(if leased { pause } else { IDLE_PAUSE }).await;
        if host.strong_count() == 0 {
            // The last holder is gone: the process ends with it.
            std::future::pending::<()>().await;
        }
        let answer = mux.call(None, "Browser.getVersion", &params);
        tokio::pin!(answer);
        let mut progress = Progress::new();
        while progress.wait(pause, &mut answer).await.is_none() {
            let limit = if mux.has_clients() { limit } else { limit.min(IDLE_LIMIT) };
            let Some(host) = host.upgrade() else { break };
            progress.look(&host).await;
            if mux.is_held_back() {
                continue;
            }
            let silent = mux.last_heard().elapsed();
            if progress.none_for(mux) >= limit || silent >= limit * OBSTINATE {
                return silent;
            }
        }
    }
}

/// Progress of a Chromium while an answer from it is awaited.
#[derive(Debug)]
pub(super) struct Progress {
    /// Work it had done when it was last seen to work.
    looked: Option<(Instant, Work)>,
    /// When it was last seen to work, or could not be judged; at first the beginning.
    worked: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { looked: None, worked: Instant::now() }
    }

    /// Waits for an answer; `None` if it has not come yet.
    ///
    /// Where this was woken late, we have had no CPU ourselves: the answer may be there and not
    /// be read, and nothing is known.
    pub(super) async fn wait<T>(
        &mut self,
        pause: Duration,
        answer: &mut (impl Future<Output = T> + Unpin),
    ) -> Option<T> {
        let began = Instant::now();
        let answer = timeout(pause, answer).await.ok();
        if answer.is_none() && began.elapsed() > pause * 2 {
            self.worked = Instant::now();
        }
        answer
    }

    /// Looks whether it works.
    pub(super) async fn look(&mut self, host: &Host) {
        if host.mux.is_held_back() {
            // What it says is not read.
            self.worked = Instant::now();
            return;
        }
        let (now, work) = (Instant::now(), host.work().await);
        let (then, before) = *self.looked.get_or_insert((now, work));
        if work.is_progress_since(before, now - then) {
            self.worked = now;
            self.looked = Some((now, work));
        } else if work.busy < before.busy {
            // A process has ended, and its share is counted no more.
            self.looked = Some((now, work));
        }
    }

    /// Returns how long it has done nothing, as far as the kernel counts it.
    pub(super) fn idle_for(&self) -> Duration {
        self.worked.elapsed()
    }

    /// Returns how long there has been no sign of progress at all.
    pub(super) fn none_for(&self, mux: &Multiplexer) -> Duration {
        mux.last_moved().max(self.worked).elapsed()
    }
}
