//! Events of the pool and the gateway, counted for Prometheus and kept for the dashboard.
//!
//! There is one [`Metrics`] for each pool and no global recorder, so that several pools in one
//! process, as in tests, are counted separately.

mod exposition;
mod journal;
mod observer;

pub use exposition::Metrics;
pub(crate) use exposition::WorkOutcome;
pub use journal::{Journal, Waits};
pub use observer::Observer;
