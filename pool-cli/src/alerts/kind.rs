use pool_core::{CloseReason, Event, Refusal};

use crate::config::{AlertsConfig, Secret};
use crate::error::chain;

/// The subjects of alerts; each has a webhook of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlertKind {
    /// A client has to wait for a browser.
    Queue,
    /// A client was refused at once.
    Reject,
    /// A client has waited in vain.
    Timeout,
    /// A browser could not be launched, crashed or hung.
    Error,
    /// An idle browser failed its check.
    FailedHealth,
}

impl AlertKind {
    pub(super) const ALL: [Self; 5] =
        [Self::Queue, Self::Reject, Self::Timeout, Self::Error, Self::FailedHealth];

    /// A stable word for the body of a call and for logs, in snake case.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Reject => "reject",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::FailedHealth => "failed_health",
        }
    }

    /// Describes what has happened so often, for people.
    pub(super) fn sentence(self, count: u64) -> String {
        let clients = if count == 1 { "1 client".to_owned() } else { format!("{count} clients") };
        let browsers =
            if count == 1 { "1 browser".to_owned() } else { format!("{count} browsers") };
        match self {
            Self::Queue => format!("{clients} had to wait for a browser"),
            Self::Reject => format!("{clients} refused"),
            Self::Timeout => format!("{clients} waited for a browser in vain"),
            Self::Error => format!("{browsers} could not be launched, crashed or hung"),
            Self::FailedHealth => format!("{browsers} failed the health check"),
        }
    }

    /// The kind of alert that an event is one for, if any.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Enqueued { .. } => Some(Self::Queue),
            Event::Refused { outcome: Refusal::Rejected, .. } => Some(Self::Reject),
            Event::Refused { outcome: Refusal::Timeout, .. } => Some(Self::Timeout),
            Event::CreateFailed { .. } => Some(Self::Error),
            Event::Closing { reason: CloseReason::Broken(_), .. } => Some(Self::Error),
            Event::Closing { reason: CloseReason::CheckFailed(_), .. } => Some(Self::FailedHealth),
            _ => None,
        }
    }

    pub(super) fn url(self, config: &AlertsConfig) -> Option<&Secret> {
        match self {
            Self::Queue => config.queue_url.as_ref(),
            Self::Reject => config.reject_url.as_ref(),
            Self::Timeout => config.timeout_url.as_ref(),
            Self::Error => config.error_url.as_ref(),
            Self::FailedHealth => config.failed_health_url.as_ref(),
        }
    }
}

/// Returns the label `tenant` of the request that the event is about, if it has one.
pub(super) fn tenant(event: &Event) -> Option<&str> {
    match event {
        Event::Enqueued { labels, .. } | Event::Refused { labels, .. } => labels.get("tenant"),
        _ => None,
    }
}

/// Returns the reason, if the event has one.
pub(super) fn reason(event: &Event) -> Option<String> {
    match event {
        Event::CreateFailed { error, .. } => Some(chain(error.get())),
        Event::Closing { reason: CloseReason::Broken(what), .. } => Some(what.clone()),
        Event::Closing { reason: CloseReason::CheckFailed(error), .. } => Some(chain(error.get())),
        _ => None,
    }
}
