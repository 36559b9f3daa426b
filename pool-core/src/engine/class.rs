use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::line::Line;
use crate::{Class, Config, Limits, Load, ResourceState, SharedError};

/// Number of slots in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts([u32; 6]);

impl Counts {
    pub(super) fn of(&self, state: ResourceState) -> usize {
        self.0[state as usize] as usize
    }

    pub(super) fn add(&mut self, state: ResourceState) {
        self.0[state as usize] += 1;
    }

    pub(super) fn remove(&mut self, state: ResourceState) {
        self.0[state as usize] -= 1;
    }

    pub(super) fn total(&self) -> usize {
        self.0.iter().sum::<u32>() as usize
    }

    /// Returns the number of all slots except those that are closing.
    pub(super) fn live(&self) -> usize {
        self.total() - self.of(ResourceState::Closing)
    }

    /// Returns the number of slots that will be idle soon without further action.
    pub(super) fn arriving(&self) -> usize {
        self.of(ResourceState::Creating)
            + self.of(ResourceState::Recycling)
            + self.of(ResourceState::Checking)
    }

    pub(super) fn load(&self, waiting: usize, max_size: usize) -> Load {
        Load {
            creating: self.of(ResourceState::Creating),
            idle: self.of(ResourceState::Idle),
            leased: self.of(ResourceState::Leased),
            recycling: self.of(ResourceState::Recycling),
            checking: self.of(ResourceState::Checking),
            closing: self.of(ResourceState::Closing),
            waiting,
            max_size,
        }
    }
}

/// Totals of the leases of a class. The pool's totals are the sum over its classes, so that each
/// lease is counted in one place only, beside the fields that it changes anyway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leases {
    pub(super) granted: u64,
    pub(super) released: u64,
    pub(super) waited: Duration,
}

impl Leases {
    pub(super) fn add(&mut self, other: Self) {
        self.granted += other.granted;
        self.released += other.released;
        self.waited += other.waited;
    }
}

/// The stock and the waiters of one class.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ClassState {
    pub(super) counts: Counts,
    pub(super) leases: Leases,
    pub(super) waiters: Line,
    /// Slot indices, least recently used first.
    pub(super) idle: VecDeque<usize>,
    pub(super) class: Class,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) warm: usize,
    /// Somebody has set limits for it, so it is kept even when it is empty.
    pub(super) limited: bool,
    /// Live slots that will be closed soon; they do not count towards `min`.
    pub(super) retiring: usize,
    pub(super) breaker: Breaker,
    /// The class is in the engine's `hungry` set.
    pub(super) hungry: bool,
    /// The class is in the engine's `short` set.
    pub(super) short: bool,
}

impl ClassState {
    pub(super) fn new(class: Class) -> Self {
        Self {
            counts: Counts::default(),
            leases: Leases::default(),
            waiters: Line::default(),
            idle: VecDeque::new(),
            class,
            min: 0,
            max: usize::MAX,
            warm: 0,
            limited: false,
            retiring: 0,
            breaker: Breaker::default(),
            hungry: false,
            short: false,
        }
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limited = true;
        self.min = limits.min.unwrap_or(self.min);
        self.max = limits.max.unwrap_or(self.max);
        self.warm = limits.warm.unwrap_or(self.warm);
    }

    /// Returns `true` if the class allows another creation to begin.
    fn may_create(&self) -> bool {
        self.counts.total() < self.max
            && self.breaker.allows(self.counts.of(ResourceState::Creating))
    }

    /// Returns `true` if a waiter is left that nothing under way will serve, but a creation could.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiters.creators() > self.counts.arriving() && self.may_create()
    }

    /// Returns the number of additional resources that its waiters could use.
    pub(super) fn hunger(&self) -> usize {
        let unserved = self.waiters.creators().saturating_sub(self.counts.arriving());
        // After a failure, creations run one at a time.
        let tries = if self.breaker.is_failing() { 1 } else { usize::MAX };
        unserved.min(self.max.saturating_sub(self.counts.total())).min(tries)
    }

    /// Returns `true` if it has fewer resources than it should keep.
    pub(super) fn is_short(&self) -> bool {
        let stock = self.counts.live() - self.retiring;
        let ready = self.idle.len() + self.counts.arriving();
        (stock < self.min || (self.warm > 0 && ready < self.warm + self.waiters.creators()))
            && self.may_create()
    }

    /// Returns `true` if it can give away an idle resource and still keep its minimum.
    pub(super) fn can_spare(&self) -> bool {
        self.counts.live() - self.retiring > self.min && self.idle.len() > self.warm
    }

    /// Returns `true` if it is still waiting for the replacement of a retiring idle resource.
    pub(super) fn lacks_replacement(&self) -> bool {
        let made = self.counts.live() - self.counts.of(ResourceState::Creating);
        made.saturating_sub(self.retiring) < self.min || self.idle.len() <= self.warm
    }

    /// Returns `true` if no waiter can be served until a creation succeeds, and none is allowed
    /// now.
    pub(super) fn is_hopeless(&self) -> bool {
        self.breaker.is_open() && self.breaker.is_blocked() && self.counts.live() == 0
    }

    /// Returns `true` if the class is empty; it may then be forgotten, unless its failures must be
    /// remembered.
    pub(super) fn is_empty(&self) -> bool {
        !self.limited && self.waiters.is_empty() && self.counts.total() == 0
    }

    /// Returns `true` if forgetting the class would lose nothing.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.is_empty() && self.breaker.remembers_until().is_none_or(|until| until <= now)
    }
}

/// Time since its last failure during which a class is not forgotten, so that asking again and
/// again does not restart the count of failures.
const MEMORY: Duration = Duration::from_secs(60);

/// Keeps failing creations of one class from becoming a storm.
///
/// After a failure the next creation is delayed, each time for twice as long; after
/// `breaker_threshold` failures in a row the breaker is *open*: one creation is tried per
/// `breaker_interval`, and requests that only a creation could serve fail at once. One success
/// closes it, but a resource that breaks before its first lease does not count as a success, and
/// the failures before it count again.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Failures before creations that have succeeded, but whose resources have not been proved yet.
    on_probation: u32,
    threshold: u32,
    failed_at: Option<Instant>,
    retry_at: Option<Instant>,
    last: Option<SharedError>,
}

impl Breaker {
    /// Notes that a creation has failed; returns the time to wait, and the previous error.
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
        // Up to a tenth more, so that classes that failed together do not retry together.
        let delay = delay.mul_f64(1.0 + rng.f64() / 10.0);
        self.failed_at = Some(now);
        self.retry_at = Some(now + delay);
        (delay, self.last.replace(error))
    }

    /// Notes that a creation has succeeded; its resource has yet to prove that it works. Returns
    /// the previous error.
    pub(super) fn succeeded(&mut self) -> Option<SharedError> {
        let on_probation = self.on_probation.max(self.failures);
        let after = Self { on_probation, failed_at: self.failed_at, ..Self::default() };
        std::mem::replace(self, after).last
    }

    /// Notes that a resource has come back from a lease, or passed a check.
    pub(super) fn proved(&mut self) {
        // Written only if it changes: any write takes the cache line away from the other cores.
        if self.on_probation != 0 {
            self.on_probation = 0;
        }
    }

    /// Lets the next creation through once its time has come; returns `true` if that changed
    /// anything.
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

    /// Returns the time until which its failures must be remembered, if there are any.
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
