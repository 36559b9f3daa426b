//! A small client of the Chrome DevTools Protocol, for using a browser directly.

mod client;

use std::time::Duration;

use crate::mux::EndReason;

pub use client::{Client, Event, Outgoing, Session};

/// Reasons why a command over the Chrome DevTools Protocol has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CdpError {
    /// Chromium refused it.
    #[error("{method}: {message} ({code})")]
    Refused {
        /// The command.
        method: String,
        /// The protocol's error code.
        code: i64,
        /// Chromium's message.
        message: String,
    },
    /// The answer does not conform to the protocol.
    #[error("{method}: unexpected answer: {message}")]
    Unexpected {
        /// The command.
        method: String,
        /// Description of the problem.
        message: String,
    },
    /// The session, the lease or the browser is gone.
    #[error("the connection has ended: {0}")]
    Ended(EndReason),
    /// No answer came in time.
    #[error("{method}: no answer within {waited:?}")]
    Timeout {
        /// The command.
        method: String,
        /// Time that the caller waited.
        waited: Duration,
    },
    /// Part of a lease was still there after it was disposed of.
    #[error("the lease left behind: {0}")]
    Leftover(String),
    /// This Chromium does not behave as virtual browsers require.
    #[error("this Chromium is not suited to shared leases: {0}")]
    Unsuited(String),
}

impl CdpError {
    pub(crate) fn unexpected(method: &str, message: impl Into<String>) -> Self {
        Self::Unexpected { method: method.to_owned(), message: message.into() }
    }
}
