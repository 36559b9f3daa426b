use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Breaker;
use super::line::Line;
use crate::{Class, Limits, Load, ResourceState};

pub(super) type ClassId = usize;

/// The class of requests that ask for nothing in particular; it always exists.
pub(super) const DEFAULT_CLASS: ClassId = 0;

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

    /// All but those that are on their way out.
    pub(super) fn live(&self) -> usize {
        self.total() - self.of(ResourceState::Closing)
    }

    /// Those that will be idle soon without anyone's doing.
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

/// Totals of the leases of a class. A pool's are the sum of its classes', so that a lease
/// is counted in one place, among what it changes anyway.
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
    /// Has limits that somebody set, so it is kept when it is empty.
    pub(super) limited: bool,
    /// Live slots that will go soon; they do not count towards `min`.
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

    /// Returns `true` if a waiter is left that nothing on its way will serve, and a creation could.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiters.creators() > self.counts.arriving() && self.may_create()
    }

    /// Returns the number of further resources that its waiters could use.
    pub(super) fn hunger(&self) -> usize {
        let unserved = self.waiters.creators().saturating_sub(self.counts.arriving());
        // After a failure creations go one at a time.
        let tries = if self.breaker.is_failing() { 1 } else { usize::MAX };
        unserved.min(self.max.saturating_sub(self.counts.total())).min(tries)
    }

    /// Returns `true` if it has fewer than it should keep.
    pub(super) fn is_short(&self) -> bool {
        let stock = self.counts.live() - self.retiring;
        let ready = self.idle.len() + self.counts.arriving();
        (stock < self.min || (self.warm > 0 && ready < self.warm + self.waiters.creators()))
            && self.may_create()
    }

    /// Returns `true` if it may give an idle resource away and still keep its minimum.
    pub(super) fn can_spare(&self) -> bool {
        self.counts.live() - self.retiring > self.min && self.idle.len() > self.warm
    }

    /// Returns `true` if it still waits for the replacement of a retiring idle resource.
    pub(super) fn lacks_replacement(&self) -> bool {
        let made = self.counts.live() - self.counts.of(ResourceState::Creating);
        made.saturating_sub(self.retiring) < self.min || self.idle.len() <= self.warm
    }

    /// Returns `true` if no waiter can be served until a creation succeeds, and none is allowed
    /// now.
    pub(super) fn is_hopeless(&self) -> bool {
        self.breaker.is_open() && self.breaker.is_blocked() && self.counts.live() == 0
    }

    /// Returns `true` if the class is empty; it may be forgotten unless its failures must be
    /// remembered.
    pub(super) fn is_empty(&self) -> bool {
        !self.limited && self.waiters.is_empty() && self.counts.total() == 0
    }

    /// Returns `true` if forgetting the class would lose nothing.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.is_empty() && self.breaker.remembers_until().is_none_or(|until| until <= now)
    }
}
