//! Events of the pool and the gateway, counted for Prometheus and kept for the dashboard.
//!
//! There is one [`Metrics`] for each pool and no global recorder, so that several pools in one
//! process, as in tests, do not count together.

mod exposition;
mod journal;
mod observer;
mod series;
mod waits;

#[cfg(test)]
pub(crate) use exposition::LEASE_ENDS;
pub use exposition::Metrics;
pub(crate) use exposition::WorkOutcome;
pub use journal::{Entry, Journal, Severity};
pub use observer::Observer;
pub use series::TenantNumbers;
pub use waits::{WaitSummary, Waits};
