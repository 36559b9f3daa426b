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

/// Interval at which an idle Chromium is asked. It costs some tenths of a millisecond.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum time an idle one may be silent: nobody would miss it, and the next holder must not get it.
const IDLE_LIMIT: Duration = Duration::from_secs(3);

/// How many times its limit a Chromium may work without a word. One that only turns in circles
/// must be found as well.
pub(super) const OBSTINATE: u32 = 6;

/// Maximum slowness of a machine, compared with an idle one. Where all have so much to do that it is
/// slower still, a Chromium that has its work to do is ended with the rest that cannot be served.
const SLOWEST: u32 = 20;

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
            progress.look(&host, Heard::Counts).await;
            if progress.is_none(limit) {
                return mux.last_heard().elapsed();
            }
        }
    }
}

/// Maximum time that a look takes where we have the CPU that we need. It is some milliseconds.
const LATE: Duration = Duration::from_millis(100);

/// Value of anything else that a Chromium says or takes while it owes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is progress.
    Counts,
    /// It is no excuse for a page that does not come.
    IsNoExcuse,
}

/// Progress of a Chromium while an answer from it is awaited.
///
/// Two clocks run. One says how long it has done nothing at all. The other says how long it has
/// had for the answer, in time of its own: what its threads wait for a CPU is the machine's.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last look, and what it had done by then.
    looked: Option<(Instant, Work)>,
    /// When it was last seen to work, or could not be judged; at first the beginning.
    worked: Instant,
    /// Work it has done since, less than counts.
    done: Duration,
    /// When it began to owe the answer, or was last heard.
    began: Instant,
    /// Time for which something of it has waited for a CPU since.
    queued: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (done, queued) = Default::default();
        Self { looked: None, worked: now, done, began: now, queued }
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
            if !self.looked.is_some_and(|(_, work)| work.is_stopped) {
                self.worked = Instant::now();
            }
            self.queued += began.elapsed() - pause;
        }
        answer
    }

    /// Looks whether it works.
    pub(super) async fn look(&mut self, host: &Host, heard: Heard) {
        if host.mux.is_held_back() {
            // What it says is not read.
            *self = Self::new();
            return;
        }
        let asked = Instant::now();
        let work = host.work().await;
        if heard == Heard::Counts {
            self.worked = self.worked.max(host.mux.last_moved());
            if host.mux.last_heard() > self.began {
                (self.began, self.queued) = (host.mux.last_heard(), Duration::ZERO);
            }
        }
        let now = Instant::now();
        self.note(now, work);
        if now - asked > LATE && !work.is_stopped {
            // As in `wait`.
            self.worked = now;
            self.queued += now - asked;
        }
    }

    fn note(&mut self, now: Instant, work: Work) {
        let Some((then, before)) = self.looked.replace((now, work)) else {
            // What it did before is not known.
            (self.worked, self.began) = (now, now);
            return;
        };
        let since = work.since(before);
        self.queued += since.queued.min(now - then);
        self.done += since.busy + since.queued;
        // More than a standing browser's own housekeeping, and than the steps of 10 ms in which
        // the kernel counts.
        let enough = ((now - self.worked) / 50).max(Duration::from_millis(20));
        if work.is_stopped {
            self.done = Duration::ZERO;
        } else if self.done >= enough {
            (self.worked, self.done) = (now, Duration::ZERO);
        }
    }

    /// Returns `true` if it has done nothing for the whole limit, or has had many times as long.
    pub(super) fn is_none(&self, limit: Duration) -> bool {
        self.is_none_at(Instant::now(), limit)
    }

    fn is_none_at(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.worked) >= limit || self.had(now) >= limit * OBSTINATE
    }

    /// Returns how long it has had, as on a machine that is its alone.
    fn had(&self, now: Instant) -> Duration {
        let all = now - self.began;
        all.saturating_sub(self.queued).max(all / SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const LOOK: Duration = Duration::from_millis(250);

    /// Looks at a browser that does so much between two looks, and returns when it is taken for
    /// hung.
    fn found(busy: Duration, queued: Duration, is_stopped: bool) -> Option<Duration> {
        let mut progress = Progress::new();
        let began = progress.began;
        (0..1000).find_map(|looks| {
            let now = began + LOOK * looks;
            progress.note(now, Work { busy: busy * looks, queued: queued * looks, is_stopped });
            progress.is_none_at(now, LIMIT).then_some(now - began)
        })
    }

    #[test]
    fn one_that_stands_still_is_found_after_the_limit() {
        let housekeeping = LOOK / 100;
        assert_eq!(found(Duration::ZERO, Duration::ZERO, false), Some(LIMIT));
        assert_eq!(found(housekeeping, Duration::ZERO, false), Some(LIMIT));
    }

    #[test]
    fn one_that_is_stopped_is_found_whatever_its_helpers_do() {
        assert_eq!(found(LOOK, LOOK, true), Some(LIMIT));
    }

    #[test]
    fn one_that_turns_in_circles_is_found_after_six_times_the_limit() {
        assert_eq!(found(LOOK, Duration::ZERO, false), Some(LIMIT * OBSTINATE));
    }

    #[test]
    fn what_a_loaded_machine_takes_from_it_is_not_held_against_it() {
        // A tenth of a CPU, and a thread that waits for the rest.
        let slow = found(LOOK / 10, LOOK * 9 / 10, false).unwrap();
        assert!(slow >= LIMIT * OBSTINATE * 9 && slow <= LIMIT * OBSTINATE * 11, "{slow:?}");
        // Many threads that wait are found as well.
        let starved = found(LOOK / 100, LOOK * 30, false);
        assert_eq!(starved, Some(LIMIT * OBSTINATE * SLOWEST));
    }
}
