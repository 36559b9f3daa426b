use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Browser, Client};

/// A change to the pool, made by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Closes a browser, when it comes back if it is leased.
    Retire { browser: u64 },
    /// Ends the lease of a browser.
    EndLease { browser: u64, lease: String, who: String },
    /// Closes the idle browsers.
    Flush,
    /// Lets leases finish and ends the pool.
    Drain,
}

/// Result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) failed: bool,
}

/// Longer than the pool takes for any of them.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Change {
    /// The end of a browser's lease, if a client holds it.
    pub(super) fn end_lease(browser: &Browser) -> Option<Self> {
        let holder = browser.lease.as_ref()?;
        Some(Self::EndLease { browser: browser.id, lease: holder.id.clone(), who: holder.who() })
    }

    /// The question to ask first; `None` for changes that disturb nobody.
    pub(super) fn question(&self) -> Option<String> {
        match self {
            Self::Retire { .. } => None,
            Self::EndLease { browser, who, .. } => {
                Some(format!("end the lease of browser {browser}, held by {who}?"))
            }
            Self::Flush => Some("close all idle browsers?".to_owned()),
            Self::Drain => {
                Some("drain: no new leases, and the pool ends after the last?".to_owned())
            }
        }
    }

    /// Asks the pool for it.
    pub(super) fn make(&self, client: &Client) -> Outcome {
        let path = match self {
            Self::Retire { browser } => format!("/api/browsers/{browser}/retire"),
            Self::EndLease { lease, .. } => format!("/api/leases/{lease}/kill"),
            Self::Flush => "/api/flush".to_owned(),
            Self::Drain => "/api/drain".to_owned(),
        };
        match client.post::<Value>(&path, &json!({}), PATIENCE) {
            Ok(answer) => Outcome { text: self.done(&answer.unwrap_or_default()), failed: false },
            Err(failure) => Outcome { text: failure.message().to_owned(), failed: true },
        }
    }

    fn done(&self, answer: &Value) -> String {
        match self {
            Self::Retire { browser } => format!("browser {browser} is retired"),
            Self::EndLease { browser, .. } => format!("the lease of browser {browser} has ended"),
            Self::Flush => format!("{} idle browsers closed", answer["closed"]),
            Self::Drain => "the pool drains".to_owned(),
        }
    }
}
