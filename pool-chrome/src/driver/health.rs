//! The health of a Chromium: what its probes have shown, and whether it is making progress.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::mux::Multiplexer;
use crate::process::Work;

/// Number of times in a row that it gets the benefit of the doubt.
const DOUBTS: u32 = 3;

/// Factor by which the control session is slower than usual on an overloaded machine.
const OVERLOAD: u32 = 20;

/// Results of earlier probes.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    /// The usual time to answer a trivial command.
    answer: Option<Duration>,
    proven_at: Option<Instant>,
    doubts: u32,
    doubted_at: Option<Instant>,
}

impl Health {
    fn past(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_fresh(&self, interval: Duration) -> bool {
        self.past().proven_at.is_some_and(|at| at.elapsed() < interval)
    }

    /// Takes the time of an answer into account, and returns what was usual before.
    pub(super) fn answered(&self, took: Duration) -> Duration {
        let mut past = self.past();
        let usual = past.answer.unwrap_or(took);
        past.answer = Some((usual * 7 + took) / 8);
        usual
    }

    /// Notes that answers came in time, although no page was made for them.
    pub(super) fn answers_again(&self) {
        self.past().doubts = 0;
    }

    /// Notes that a page was made.
    pub(super) fn proven(&self) {
        let mut past = self.past();
        past.proven_at = Some(Instant::now());
        past.doubts = 0;
    }

    /// Notes that no page came in time, and returns `true` if that may be the machine's fault: in
    /// that case Chromium answers everything slowly, compared with its own past. (Dead zygotes make
    /// no page either, but they do not slow anything down.)
    ///
    /// The leases of a Chromium are checked at the same time: doubts within one `spell` count once.
    pub(super) fn doubt(&self, answer: Duration, usual: Duration, spell: Duration) -> bool {
        let mut past = self.past();
        if past.doubted_at.is_none_or(|at| at.elapsed() >= spell) {
            past.doubts += 1;
            past.doubted_at = Some(Instant::now());
        }
        let slow = answer >= (usual * OVERLOAD).max(Duration::from_millis(50));
        slow && past.doubts < DOUBTS
    }
}

/// Multiple of its limit for which a Chromium may work without answering. One that only runs in
/// circles must be detected as well.
const OBSTINATE: u32 = 6;

/// Greatest slowness of a machine, compared with an idle one, that is allowed for. If everything
/// has so much to do that it is slower still, a working Chromium is ended along with the rest that
/// cannot be served.
const SLOWEST: u32 = 20;

/// Maximum time between looks if we get the CPU time that we need; usually it is a few
/// milliseconds.
const LATE: Duration = Duration::from_millis(100);

/// The weight of anything else that a Chromium says or takes while it owes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is progress.
    Counts,
    /// It does not excuse a page that does not come.
    IsNoExcuse,
}

/// Progress of a Chromium while we wait for an answer from it.
///
/// Two clocks run. One shows how long it has done nothing at all. The other shows how much time it
/// has had for the answer, not counting the time for which its threads waited for a CPU: that is
/// the machine's fault.
#[derive(Debug)]
pub(super) struct Progress {
    /// Time of the last look, and the work that it had done by then.
    looked: Option<(Instant, Work)>,
    /// Time at which it was last seen to work, or could not be judged; initially the start.
    worked: Instant,
    /// Work that it has done since, as long as that is too little to count.
    done: Duration,
    /// Time at which it began to owe the answer, or was last heard.
    began: Instant,
    /// Time for which any of it has waited for a CPU since.
    queued: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (done, queued) = Default::default();
        Self { looked: None, worked: now, done, began: now, queued }
    }

    /// Waits for an answer; returns `None` if it has not come yet.
    ///
    /// If this task was woken late, we have had no CPU time ourselves: the answer may be there
    /// unread, so nothing is known.
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

    /// Checks whether it is working, by what it says and by the work that the kernel counts for it.
    pub(super) async fn look(
        &mut self,
        mux: &Multiplexer,
        work: impl Future<Output = Work> + Send,
        heard: Heard,
    ) {
        if mux.is_held_back() {
            // Its messages are not being read.
            *self = Self::new();
            return;
        }
        let asked = Instant::now();
        let work = work.await;
        if heard == Heard::Counts {
            self.worked = self.worked.max(mux.last_moved());
            if mux.last_heard() > self.began {
                (self.began, self.queued) = (mux.last_heard(), Duration::ZERO);
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
            // Its work until now is not known.
            (self.worked, self.began) = (now, now);
            return;
        };
        let since = work.since(before);
        self.queued += since.queued.min(now - then);
        self.done += since.busy + since.queued;
        // More than the housekeeping of an idle browser, and more than the steps of 10 ms in which
        // the kernel counts.
        let enough = ((now - self.worked) / 50).max(Duration::from_millis(20));
        if work.is_stopped {
            self.done = Duration::ZERO;
        } else if self.done >= enough {
            (self.worked, self.done) = (now, Duration::ZERO);
        }
    }

    /// Returns `true` if it has done nothing for the whole limit, or has had many times the limit.
    pub(super) fn is_none(&self, limit: Duration) -> bool {
        self.is_none_at(Instant::now(), limit)
    }

    fn is_none_at(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.worked) >= limit || self.had(now) >= limit * OBSTINATE
    }

    /// Returns how much time it has had, as if the machine were its own.
    fn had(&self, now: Instant) -> Duration {
        let all = now - self.began;
        all.saturating_sub(self.queued).max(all / SLOWEST)
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

    const LIMIT: Duration = Duration::from_secs(1);
    const LOOK: Duration = Duration::from_millis(250);

    /// Watches a browser that does this much between two looks, and returns when it is taken to
    /// hang.
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
        // A tenth of a CPU, and a thread that waits for the rest of the time.
        let slow = found(LOOK / 10, LOOK * 9 / 10, false).unwrap();
        assert!(slow >= LIMIT * OBSTINATE * 9 && slow <= LIMIT * OBSTINATE * 11, "{slow:?}");
        // Many waiting threads are detected as well.
        let starved = found(LOOK / 100, LOOK * 30, false);
        assert_eq!(starved, Some(LIMIT * OBSTINATE * SLOWEST));
    }
}
