//! Whether a Chromium still makes pages.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::host::Host;
use super::watch::{Heard, Progress};
use crate::ChromeError;
use crate::cdp::CdpError;
use crate::mux::MuxLease;

/// Pause between two looks at a Chromium that owes an answer.
const LOOK: Duration = Duration::from_millis(250);

/// Times in a row that the benefit of the doubt is given.
const DOUBTS: u32 = 3;

/// How much slower than usual the control session answers on a machine that is overloaded.
const OVERLOAD: u32 = 20;

/// Results of earlier probes.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    /// The usual time to answer a command that costs nothing.
    answer: Option<Duration>,
    proven_at: Option<Instant>,
    doubts: u32,
    doubted_at: Option<Instant>,
}

impl Health {
    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, interval: Duration) -> bool {
        self.past().proven_at.is_some_and(|at| at.elapsed() < interval)
    }

    /// Takes an answer's time into account, and says what was usual before.
    fn answered(&self, took: Duration) -> Duration {
        let mut past = self.past();
        let usual = past.answer.unwrap_or(took);
        past.answer = Some((usual * 7 + took) / 8);
        usual
    }

    /// A page was made.
    pub(super) fn proven(&self) {
        let mut past = self.past();
        past.proven_at = Some(Instant::now());
        past.doubts = 0;
    }

    /// No page came in time. Whether that may be the machine's fault: Chromium then answers
    /// everything slowly, compared with its own past. Dead zygotes make no page and slow down
    /// nothing.
    ///
    /// The leases of a Chromium are checked at the same time: the doubts of one `spell` count once.
    fn doubt(&self, answer: Duration, usual: Duration, spell: Duration) -> bool {
        let mut past = self.past();
        if past.doubted_at.is_none_or(|at| at.elapsed() >= spell) {
            past.doubts += 1;
            past.doubted_at = Some(Instant::now());
        }
        let slow = answer >= (usual * OVERLOAD).max(Duration::from_millis(50));
        slow && past.doubts < DOUBTS
    }
}

impl Host {
    /// Proves that the Chromium answers, that the lease's warm page does, and from time to time
    /// that pages can be made, by making one: `Browser.getVersion` still answers when none can.
    ///
    /// Each may take `limit` without any progress, and much longer with: see [`Progress`].
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
                    self.health.past().doubts = 0;
                } else {
                    self.health.proven();
                }
                Ok(())
            }
            None if self.health.doubt(took, usual, limit) => {
                tracing::debug!(pid = self.pid, ?took, "a probe was slow, as everything is");
                Ok(())
            }
            None => Err(late("a page").into()),
        }
    }

    /// Awaits an answer while there is progress; `None` if there was none for the whole limit.
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
            progress.look(self, heard).await;
            if progress.is_none(limit) {
                return None;
            }
        }
    }

    async fn make_page(&self) -> Result<(), CdpError> {
        let page = super::scratch::ScratchPage::open(&self.mux, None).await?;
        let answer = page.evaluate("6*7").await?;
        page.close().await?;
        if answer == json!(42) {
            Ok(())
        } else {
            Err(CdpError::unexpected("Runtime.evaluate", format!("6*7 is {answer}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_machine_gets_the_benefit_of_the_doubt_but_not_for_ever() {
        let health = Health::default();
        let slow = Duration::from_millis(400);
        assert!(health.doubt(slow, USUAL, Duration::ZERO));
        assert!(health.doubt(slow, USUAL, Duration::ZERO));
        assert!(!health.doubt(slow, USUAL, Duration::ZERO));
        health.proven();
        assert!(health.doubt(slow, USUAL, Duration::ZERO));
    }

    #[test]
    fn a_browser_that_answers_as_fast_as_ever_but_makes_no_page_is_dead() {
        assert!(!Health::default().doubt(USUAL * 3, USUAL, Duration::ZERO));
    }
}
