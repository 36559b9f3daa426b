use std::time::Duration;

use tokio::time::Instant;

use crate::{Config, SharedError};

/// For so long after its last failure a class is not forgotten, so that asking again and again
/// does not start the count of failures anew.
const MEMORY: Duration = Duration::from_secs(60);

/// Keeps failing creations of one class from becoming a storm.
///
/// After a failure the next creation waits, twice as long after each; after `breaker_threshold`
/// failures in a row the class is *open*: one creation is tried per `breaker_interval`, and
/// requests that only a creation could serve fail at once. One success closes it; but a resource
/// that breaks before its first lease was no success, and the failures before it count again.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Failures before creations that have ended well, but whose resources have not been proved.
    on_probation: u32,
    threshold: u32,
    failed_at: Option<Instant>,
    retry_at: Option<Instant>,
    last: Option<SharedError>,
}

impl Breaker {
    /// A creation has failed; says how long to wait, and gives back the error before this one.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        error: SharedError,
        config: &Config,
        rng: &mut fastrand::Rng,
    ) -> (Duration, Option<SharedError>) {
        self.failures = self.failures.max(self.on_probation).saturating_add(1);
        self.on_probation = 0;
        self.threshold = config.breaker_threshold;
        let delay = if self.is_open() {
            config.breaker_interval
        } else {
            let doubled = config.backoff.saturating_mul(1 << (self.failures - 1).min(16));
            doubled.min(config.breaker_interval)
        };
        // Up to a tenth more, so that classes which failed together do not retry together.
        let delay = delay.mul_f64(1.0 + rng.f64() / 10.0);
        self.failed_at = Some(now);
        self.retry_at = Some(now + delay);
        (delay, self.last.replace(error))
    }

    /// A creation has ended well; its resource must still show that it lives. Gives back the error
    /// before it.
    pub(super) fn succeeded(&mut self) -> Option<SharedError> {
        let on_probation = self.on_probation.max(self.failures);
        let after = Self { on_probation, failed_at: self.failed_at, ..Self::default() };
        std::mem::replace(self, after).last
    }

    /// A resource has come back from a lease, or passed a check.
    pub(super) fn proved(&mut self) {
        // A write that changes nothing would still take the line away from the other cores.
        if self.on_probation != 0 {
            self.on_probation = 0;
        }
    }

    /// Lets the next creation through once its time has come; says whether anything changed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.retry_at.is_some_and(|at| at <= now);
        if due {
            self.retry_at = None;
        }
        due
    }

    /// Returns `true` if one more creation may begin while `creating` are under way. After a
    /// failure they go one at a time until one succeeds.
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

    /// Until when its failures must be remembered, if it has any.
    pub(super) fn remembers_until(&self) -> Option<Instant> {
        let memory = self.failed_at.map(|at| at + MEMORY);
        memory.max(self.retry_at)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn into_last(self) -> Option<SharedError> {
        self.last
    }

    pub(super) fn last(&self) -> Option<&SharedError> {
        self.last.as_ref()
    }
}
