use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pool_core::{Class, CloseReason, Event, Refusal, ResourceId};
use tokio::time::Instant;

use crate::api::{Entry, Severity, Wait, unix_ms};
use crate::exit::chain;

/// Number of entries that are kept of all events, and of the errors separately, so that a busy pool
/// does not push yesterday's failed launch out of sight.
const KEPT: usize = 256;
const ERRORS_KEPT: usize = 64;

/// The latest events of a pool, for people to read: dashboard, `status`, `top`.
///
/// It remembers the last few hundred events and is not a log; the log has all of them.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    all: VecDeque<Entry>,
    errors: VecDeque<Entry>,
}

impl Journal {
    /// Records an event.
    pub fn record(&self, event: &Event) {
        let entry = Entry::of(event);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(entry);
    }

    /// Records something that is not an event of the pool.
    pub fn note(&self, event: &'static str, severity: Severity, reason: impl Into<String>) {
        let entry = Entry { reason: Some(reason.into()), severity, ..Entry::new(event) };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(entry);
    }

    /// Returns the latest events, newest first.
    #[must_use]
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all.iter().rev().take(count).cloned().collect()
    }

    /// Returns the latest warnings, newest first.
    #[must_use]
    pub fn errors(&self, count: usize) -> Vec<Entry> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.errors.iter().rev().take(count).cloned().collect()
    }
}

impl Kept {
    fn push(&mut self, mut entry: Entry) {
        entry.number = self.next;
        self.next += 1;
        if entry.severity == Severity::Warning {
            if self.errors.len() == ERRORS_KEPT {
                self.errors.pop_front();
            }
            self.errors.push_back(entry.clone());
        }
        if self.all.len() == KEPT {
            self.all.pop_front();
        }
        self.all.push_back(entry);
    }
}

impl Entry {
    fn new(event: &'static str) -> Self {
        Self { at_ms: unix_ms(), event: event.into(), ..Self::default() }
    }

    fn about(event: &'static str, id: ResourceId, class: &Class) -> Self {
        Self { browser: Some(id.get()), class: Some(class.to_string()), ..Self::new(event) }
    }

    fn took(self, took: Duration) -> Self {
        Self { took_ms: Some(took.as_secs_f64() * 1000.0), ..self }
    }

    fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    fn of(event: &Event) -> Self {
        match event {
            Event::Creating { id, class } => Self::about("creating", *id, class),
            Event::Created { id, class, took } => Self::about("created", *id, class).took(*took),
            Event::CreateFailed { id, class, took, error, .. } => {
                Self::about("create_failed", *id, class)
                    .took(*took)
                    .because(chain(error.get()))
                    .warning()
            }
            Event::Leased { id, class, waited, .. } => {
                Self::about("leased", *id, class).took(*waited)
            }
            Event::Released { id, class, held } => Self::about("released", *id, class).took(*held),
            Event::Recycled { id, class, took } => Self::about("recycled", *id, class).took(*took),
            Event::Checked { id, class, took } => Self::about("checked", *id, class).took(*took),
            Event::Overdue { id, class, held, .. } => {
                Self::about("overdue", *id, class).took(*held).warning()
            }
            Event::Closing { id, class, reason } => {
                let entry = Self::about("closing", *id, class).because(why(reason));
                if is_failure(reason) { entry.warning() } else { entry }
            }
            Event::Closed { id, class, reason, took } => {
                Self::about("closed", *id, class).took(*took).because(reason.code())
            }
            Event::Enqueued { class, .. } => {
                Self { class: Some(class.to_string()), ..Self::new("enqueued") }
            }
            Event::Refused { class, outcome, waited, .. } => {
                let entry = Self { class: Some(class.to_string()), ..Self::new("refused") };
                entry.took(*waited).because(match outcome {
                    Refusal::Timeout => "timeout",
                    Refusal::Rejected => "rejected",
                    Refusal::Cancelled => "cancelled",
                    _ => "error",
                })
            }
            Event::Resized { class, min, max, warm } => {
                let class = class.as_ref().map(ToString::to_string);
                let sizes = format!("min {min}, max {}, warm {warm}", most(*max));
                Self { class, ..Self::new("resized") }.because(sizes)
            }
            Event::Draining => Self::new("draining"),
            Event::PolicyPanicked { policy, hook, message } => Self::new("policy_panicked")
                .because(format!("{policy} in {hook}: {message}"))
                .warning(),
            _ => Self::new("other"),
        }
    }
}

/// Describes a maximum, which may be absent.
pub(super) fn most(max: usize) -> String {
    if max == usize::MAX { "none".to_owned() } else { max.to_string() }
}

/// Returns the code of a reason, with the error if there is one.
pub(super) fn why(reason: &CloseReason) -> String {
    match reason {
        CloseReason::CheckFailed(error) | CloseReason::RecycleFailed(error) => {
            format!("{}: {}", reason.code(), chain(error.get()))
        }
        CloseReason::Broken(what) => format!("broken: {what}"),
        _ => reason.code().to_owned(),
    }
}

/// Returns `true` if the browser is closed because something went wrong.
pub(super) fn is_failure(reason: &CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::CheckFailed(_)
            | CloseReason::RecycleFailed(_)
            | CloseReason::Broken(_)
            | CloseReason::Overdue
    )
}

/// Age beyond which samples say nothing about the present.
const WINDOW: Duration = Duration::from_secs(60);

/// Enough for exact percentiles, and few enough to sort every second.
const CAPACITY: usize = 2048;

/// Waits of the requests granted in the last minute.
#[derive(Debug, Default)]
pub struct Waits(Mutex<VecDeque<(Instant, Duration)>>);

impl Waits {
    /// Adds the wait of a request that was granted now.
    pub fn add(&self, waited: Duration) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == CAPACITY {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), waited));
    }

    /// Summarizes the last minute.
    #[must_use]
    pub fn summary(&self) -> Wait {
        let now = Instant::now();
        let mut waits: Vec<f64> = {
            let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            while samples.front().is_some_and(|(at, _)| now - *at > WINDOW) {
                samples.pop_front();
            }
            samples.iter().map(|(_, waited)| waited.as_secs_f64() * 1000.0).collect()
        };
        if waits.is_empty() {
            return Wait::default();
        }
        waits.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| waits[((waits.len() as f64 * share).ceil() as usize).max(1) - 1];
        Wait {
            samples: waits.len(),
            avg_ms: waits.iter().sum::<f64>() / waits.len() as f64,
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_outlive_a_flood_of_events() {
        let journal = Journal::default();
        journal.note("create_failed", Severity::Warning, "no such file");
        for _ in 0..1000 {
            journal.record(&Event::Draining);
        }
        assert_eq!(journal.latest(usize::MAX).len(), KEPT);
        assert_eq!(journal.latest(1)[0].number, 1000);
        assert_eq!(journal.errors(9)[0].reason.as_deref(), Some("no such file"));
    }

    #[tokio::test(start_paused = true)]
    async fn percentiles_are_of_the_last_minute() {
        let waits = Waits::default();
        waits.add(Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(61)).await;
        for ms in 1..=100 {
            waits.add(Duration::from_millis(ms));
        }
        let summary = waits.summary();
        assert_eq!(summary.samples, 100);
        assert_eq!((summary.p50_ms, summary.p95_ms, summary.p99_ms), (50.0, 95.0, 99.0));
    }
}
