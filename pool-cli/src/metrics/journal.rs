use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pool_core::{Class, CloseReason, Event, Refusal, ResourceId};
use serde::Serialize;

/// Entries kept of everything, and of the errors by themselves, so that a busy pool does not push
/// yesterday's failed launch out of sight.
const KEPT: usize = 256;
const ERRORS_KEPT: usize = 64;

/// The latest that happened in a pool, for people to read: dashboard, `status`, `top`.
///
/// It is a memory of the last few hundred events, not a log; the log has them all.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    all: VecDeque<Entry>,
    errors: VecDeque<Entry>,
}

/// One event of a pool.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counts up from 0, so that a reader knows what it has seen.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The kind of event, in one word.
    pub event: &'static str,
    /// Severity.
    pub severity: Severity,
    /// The browser that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<u64>,
    /// The class of the browser, or of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The reason, or the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Duration of what has ended: time taken, waited or held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
}

/// Severity of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It belongs to every day.
    Info,
    /// Something went wrong that the pool has dealt with.
    Warning,
}

impl Journal {
    /// Writes down an event.
    pub fn record(&self, event: &Event) {
        let entry = Entry::of(event);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(entry);
    }

    /// Writes down something that is no event of the pool.
    pub fn note(&self, event: &'static str, severity: Severity, reason: impl Into<String>) {
        let entry = Entry { reason: Some(reason.into()), severity, ..Entry::new(event) };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(entry);
    }

    /// The latest events, newest first.
    #[must_use]
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all.iter().rev().take(count).cloned().collect()
    }

    /// The latest of those that are warnings, newest first.
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
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            number: 0,
            at_ms: at.as_millis() as u64,
            event,
            severity: Severity::Info,
            browser: None,
            class: None,
            reason: None,
            took_ms: None,
        }
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
                    .because(crate::error::chain(error.get()))
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

/// A maximum, which may be none.
pub(super) fn most(max: usize) -> String {
    if max == usize::MAX { "none".to_owned() } else { max.to_string() }
}

/// The code of a reason, with what went wrong where something did.
pub(super) fn why(reason: &CloseReason) -> String {
    match reason {
        CloseReason::CheckFailed(error) | CloseReason::RecycleFailed(error) => {
            format!("{}: {}", reason.code(), crate::error::chain(error.get()))
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
}
