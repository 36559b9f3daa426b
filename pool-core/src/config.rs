use std::time::Duration;

use crate::BuildError;

/// Longer than any pool lives, and short enough that no clock overflows when it is added.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Shortens a duration so that it can be added to any moment: `Duration::MAX` is a fair way to say
/// "never".
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(FOREVER)
}

/// The settings of a pool; every field has a default, and setters are on
/// [`PoolBuilder`](crate::PoolBuilder).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Minimum number of resources of the default class, in any state. Default: 0.
    pub min_size: usize,
    /// Maximum number of resources, over all classes and states. With 0, every request waits until
    /// the pool is resized, which makes sense if its requests may also be served elsewhere.
    /// Default: 8.
    pub max_size: usize,
    /// Maximum number of creations at the same time. Default: 2.
    pub max_creating: usize,
    /// Maximum number of waiting requests; one more is refused at once, unless an idle resource
    /// only has to be checked for it. Default: 1000.
    pub max_waiting: usize,
    /// Maximum wait of a request without a timeout of its own; `None`: for ever. Default: 30 s.
    pub acquire_timeout: Option<Duration>,
    /// Timeout of a creation with its preparation. Default: 30 s.
    pub create_timeout: Duration,
    /// Timeout of a recycling. Default: 5 s.
    pub recycle_timeout: Duration,
    /// Timeout of a check. Default: 2 s.
    pub check_timeout: Duration,
    /// Timeout of a close or a revocation, after which its place is free again. Default: 10 s.
    pub close_timeout: Duration,
    /// Time after which an idle resource above the minimum is closed. Default: 5 min.
    pub max_idle_time: Option<Duration>,
    /// Age at which a resource is replaced. Default: 1 h.
    pub max_lifetime: Option<Duration>,
    /// Share of `max_lifetime` by which lifetimes are shortened at random, so that resources made
    /// together do not end together: 0.0 to 1.0. Default: 0.1.
    pub lifetime_jitter: f64,
    /// Number of leases after which a resource is closed. Default: no limit.
    pub max_use_count: Option<u64>,
    /// Time after which a lease is reported with its call site and revoked. Default: no limit.
    pub hold_limit: Option<Duration>,
    /// Time since its last check, lease or creation after which an idle resource is checked.
    /// Default: 30 s.
    pub health_check_interval: Option<Duration>,
    /// Time that a resource may be idle without a check and still be leased without one.
    /// `Some(ZERO)`: it is always checked first. Default: 30 s.
    pub check_after_idle: Option<Duration>,
    /// How much longer a waiter of another class must have waited than the next waiter of the
    /// resource's own class before a released resource is closed to make room for it. Default: 1 s.
    ///
    /// Zero would close and create at every turn while two classes contend; with no limit at all,
    /// the busier class would never let the other in.
    pub eviction_patience: Duration,
    /// Delay of the next creation after the first failed one of a class; it doubles with every
    /// further failure, with jitter. Default: 250 ms.
    pub backoff: Duration,
    /// Number of failures in a row after which a class is unavailable: requests that only a
    /// creation could serve fail at once, and one creation is tried per `breaker_interval`.
    /// Default: 3.
    pub breaker_threshold: u32,
    /// Time between attempts to create while a class is unavailable. Default: 15 s, which keeps
    /// attempts under 8 per minute.
    pub breaker_interval: Duration,
    /// Interval between calls of [`Policy::tick`](crate::Policy::tick). Default: 1 s.
    pub tick_interval: Duration,
    /// Seed of the jitter, for runs that must repeat. Default: random.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_size: 0,
            max_size: 8,
            max_creating: 2,
            max_waiting: 1000,
            acquire_timeout: Some(Duration::from_secs(30)),
            create_timeout: Duration::from_secs(30),
            recycle_timeout: Duration::from_secs(5),
            check_timeout: Duration::from_secs(2),
            close_timeout: Duration::from_secs(10),
            max_idle_time: Some(Duration::from_secs(5 * 60)),
            max_lifetime: Some(Duration::from_secs(60 * 60)),
            lifetime_jitter: 0.1,
            max_use_count: None,
            hold_limit: None,
            health_check_interval: Some(Duration::from_secs(30)),
            check_after_idle: Some(Duration::from_secs(30)),
            eviction_patience: Duration::from_secs(1),
            backoff: Duration::from_millis(250),
            breaker_threshold: 3,
            breaker_interval: Duration::from_secs(15),
            tick_interval: Duration::from_secs(1),
            seed: None,
        }
    }
}

impl Config {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] that names the setting.
    pub fn validate(&self) -> Result<(), BuildError> {
        if self.min_size > self.max_size {
            return Err(BuildError::MinAboveMax { min: self.min_size, max: self.max_size });
        }
        let zero = [
            ("max_creating", self.max_creating == 0),
            ("create_timeout", self.create_timeout.is_zero()),
            ("recycle_timeout", self.recycle_timeout.is_zero()),
            ("check_timeout", self.check_timeout.is_zero()),
            ("close_timeout", self.close_timeout.is_zero()),
            ("max_lifetime", self.max_lifetime == Some(Duration::ZERO)),
            ("max_use_count", self.max_use_count == Some(0)),
            ("health_check_interval", self.health_check_interval == Some(Duration::ZERO)),
            ("breaker_threshold", self.breaker_threshold == 0),
            ("breaker_interval", self.breaker_interval.is_zero()),
            ("tick_interval", self.tick_interval.is_zero()),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((setting, _)) => Err(BuildError::Zero { setting }),
            None => Ok(()),
        }
    }

    /// Returns the same settings, with values that cannot overflow the engine's arithmetic.
    pub(crate) fn bounded(mut self) -> Self {
        let durations = [
            &mut self.create_timeout,
            &mut self.recycle_timeout,
            &mut self.check_timeout,
            &mut self.close_timeout,
            &mut self.eviction_patience,
            &mut self.backoff,
            &mut self.breaker_interval,
            &mut self.tick_interval,
        ];
        let options = [
            &mut self.acquire_timeout,
            &mut self.max_idle_time,
            &mut self.max_lifetime,
            &mut self.hold_limit,
            &mut self.health_check_interval,
            &mut self.check_after_idle,
        ];
        for duration in durations.into_iter().chain(options.into_iter().flatten()) {
            *duration = bounded(*duration);
        }
        let jitter = self.lifetime_jitter;
        self.lifetime_jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
        self
    }
}
