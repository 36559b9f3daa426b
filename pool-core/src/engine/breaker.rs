use std::time::Duration;

use tokio::time::Instant;

use crate::{Config, SharedError};

/// Keeps failing creations of one class from becoming a storm.
///
/// After a failure the next creation waits, twice as long after each; after `breaker_threshold`
/// failures in a row the class is *open*: one creation is tried per `breaker_interval`, and
/// requests that only a creation could serve fail at once. One success closes it.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    threshold: u32,
    retry_at: Option<Instant>,
    last: Option<SharedError>,
}

impl Breaker {
    pub(super) fn failed(
        &mut self,
        now: Instant,
        error: SharedError,
        config: &Config,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.threshold = config.breaker_threshold;
        let delay = if self.is_open() {
            config.breaker_interval
        } else {
            let doubled = config.backoff.saturating_mul(1 << (self.failures - 1).min(16));
            doubled.min(config.breaker_interval)
        };
        // Up to a tenth more, so that classes which failed together do not retry together.
        let delay = delay.mul_f64(1.0 + rng.f64() / 10.0);
        self.retry_at = Some(now + delay);
        self.last = Some(error);
        delay
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Lets the next creation through once its time has come; says whether anything changed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.retry_at.is_some_and(|at| at <= now);
        if due {
            self.retry_at = None;
        }
        due
    }

    /// Whether one more creation may begin while `creating` are under way. After a failure they
    /// go one at a time until one succeeds.
    pub(super) fn allows(&self, creating: usize) -> bool {
        self.retry_at.is_none() && (self.failures == 0 || creating == 0)
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures > 0 && self.failures >= self.threshold
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.retry_at.is_some()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn last(&self) -> Option<&SharedError> {
        self.last.as_ref()
    }
}
