//! Events of the pool and the gateway, counted for Prometheus and kept for the dashboard.
//!
//! There is one [`Metrics`] for each pool and no global recorder, so that several pools in one
//! process, as in tests, are counted separately.

mod exposition;
mod journal;

use std::sync::Arc;
use std::time::Duration;

use pool_core::{Driver, Event, Policy, async_trait};
use tracing::{debug, info, warn};

use crate::alerts::Alerts;
pub use exposition::Metrics;
pub(crate) use exposition::WorkOutcome;
pub use journal::{Journal, Waits};
use journal::{is_failure, most, why};

/// A policy that decides nothing: it counts, remembers, logs and passes on the events of the pool.
///
/// It is a policy rather than a reader of [`Pool::events`](pool_core::Pool::events), because a
/// reader that is too slow misses events, and the counts would be wrong.
#[derive(Clone, Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    waits: Arc<Waits>,
    alerts: Arc<Alerts>,
}

impl Observer {
    /// Creates the observer of the pool with this name.
    #[must_use]
    pub fn new(pool: &str) -> Self {
        Self {
            metrics: Arc::new(Metrics::new(pool)),
            journal: Arc::default(),
            waits: Arc::default(),
            alerts: Arc::new(Alerts::new(pool)),
        }
    }

    /// Returns the counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the journal of events.
    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Returns the waits of requests.
    #[must_use]
    pub fn waits(&self) -> &Arc<Waits> {
        &self.waits
    }

    /// Returns the alerts for webhooks.
    #[must_use]
    pub fn alerts(&self) -> &Arc<Alerts> {
        &self.alerts
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for Observer {
    fn name(&self) -> &str {
        "observer"
    }

    fn event(&self, event: &Event) {
        self.metrics.observe(event);
        self.alerts.observe(event);
        if !matches!(event, Event::Enqueued { .. }) {
            // Under load there are thousands a second, and they say nothing that the load does not.
            self.journal.record(event);
        }
        if let Event::Leased { waited, .. } = event {
            self.waits.add(*waited);
        }
        log(event);
    }
}

/// Logs changes of the pool; events of every lease only at debug level.
fn log(event: &Event) {
    match event {
        Event::Creating { id, class } => debug!(browser = %id, %class, "launching a browser"),
        Event::Created { id, class, took } => {
            info!(browser = %id, %class, took_ms = ms(*took), "browser ready");
        }
        Event::CreateFailed { id, class, error, consecutive, retry_after, .. } => warn!(
            browser = %id, %class, error = crate::exit::chain(error.get()), consecutive,
            retry_after_ms = ms(*retry_after), "browser could not be launched"
        ),
        Event::Leased { id, class, waited, .. } => {
            debug!(browser = %id, %class, waited_ms = ms(*waited), "leased");
        }
        Event::Released { id, class, held } => {
            debug!(browser = %id, %class, held_ms = ms(*held), "released");
        }
        Event::Recycled { id, class, took } => {
            debug!(browser = %id, %class, took_ms = ms(*took), "browser reset");
        }
        Event::Checked { id, class, took } => {
            debug!(browser = %id, %class, took_ms = ms(*took), "browser checked");
        }
        Event::Overdue { id, class, held, acquired_at } => warn!(
            browser = %id, %class, held_ms = ms(*held), %acquired_at, "lease held too long, taken back"
        ),
        Event::Closing { id, class, reason } if is_failure(reason) => {
            warn!(browser = %id, %class, reason = why(reason), "closing a browser");
        }
        Event::Closing { id, class, reason } => {
            info!(browser = %id, %class, reason = why(reason), "closing a browser");
        }
        Event::Closed { id, class, reason, took } => {
            debug!(browser = %id, %class, reason = reason.code(), took_ms = ms(*took), "browser gone");
        }
        Event::Resized { class, min, max, warm } => {
            let class = class.as_ref().map(ToString::to_string);
            info!(class, min, max = most(*max), warm, "resized");
        }
        Event::Draining => info!("draining: no new leases"),
        Event::PolicyPanicked { policy, hook, message } => {
            warn!(policy, hook, message, "a policy panicked; its default was used");
        }
        other => debug!(event = ?other, "pool"),
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
