use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Class;

/// The occupancy of a pool at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Resources being created.
    pub creating: usize,
    /// Resources ready to be leased.
    pub idle: usize,
    /// Resources in a holder's hands.
    pub leased: usize,
    /// Resources being cleaned after a lease.
    pub recycling: usize,
    /// Resources being checked.
    pub checking: usize,
    /// Resources being closed.
    pub closing: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Maximum number of resources, in all states together.
    pub max_size: usize,
}

impl Load {
    /// Returns the number of resources in all states; at most `max_size`, except after a shrink.
    #[must_use]
    pub fn total(&self) -> usize {
        self.creating + self.idle + self.leased + self.recycling + self.checking + self.closing
    }

    /// Returns the share of leased resources among all that could be leased, 0.0 to 1.0.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        let usable = self.idle + self.leased + self.recycling + self.checking;
        if usable == 0 { 0.0 } else { self.leased as f64 / usable as f64 }
    }
}

/// Totals since the pool was built. Every field only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Leases that began.
    pub acquired: u64,
    /// Leases that ended.
    pub released: u64,
    /// Total time that granted requests have waited.
    pub waited: Duration,
    /// Creations that succeeded.
    pub created: u64,
    /// Creations that failed.
    pub create_failed: u64,
    /// Resources that are gone.
    pub closed: u64,
    /// Recyclings that succeeded.
    pub recycled: u64,
    /// Recyclings that failed.
    pub recycle_failed: u64,
    /// Checks that were made.
    pub checks: u64,
    /// Checks that failed.
    pub checks_failed: u64,
    /// Requests that ran out of time.
    pub timeouts: u64,
    /// Requests that were refused: the queue was full, or a policy said no.
    pub rejected: u64,
    /// Requests whose caller went away.
    pub cancelled: u64,
    /// Requests that failed because nothing could be created or the pool was closed.
    pub errors: u64,
    /// Leases that were revoked.
    pub revoked: u64,
    /// Hooks of policies that panicked.
    pub policy_panics: u64,
}

/// A snapshot of a pool: load, counters, classes and groups.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Time at which it was taken.
    pub at: Instant,
    /// The whole pool.
    pub load: Load,
    /// Totals so far.
    pub counters: Counters,
    /// Every class that has a resource, a waiter or limits of its own; the default class first.
    pub classes: Vec<ClassStats>,
    /// Every group that holds something, waits, or whose last turn is not past, by name.
    pub groups: Vec<GroupStats>,
    /// Time that the oldest waiter has waited so far.
    pub oldest_wait: Option<Duration>,
    /// The pool is draining or closed.
    pub draining: bool,
}

/// One class in a [`Stats`] snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClassStats {
    /// The class.
    pub class: Class,
    /// Its resources and waiters; `max_size` is the class's own maximum.
    pub load: Load,
    /// Minimum in any state.
    pub min: usize,
    /// Minimum that is idle and ready.
    pub warm: usize,
    /// Total time that its granted requests have waited, since the pool was built.
    pub waited: Duration,
    /// Requests of the class granted since the pool was built.
    pub granted: u64,
    /// Its creations are failing, and the next one is delayed.
    pub failing: bool,
}

/// One waiting request, as [`Pool::waiters`](crate::Pool::waiters) lists them: best first within
/// each group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaiterInfo {
    /// Its class.
    pub class: Class,
    /// Name of its group.
    pub group: Option<Arc<str>>,
    /// Its priority, if it had one.
    pub priority: Option<u8>,
    /// Time waited so far.
    pub waited: Duration,
}

/// One group in a [`Stats`](crate::Stats) snapshot, and in errors about its limits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: Arc<str>,
    /// Its leases, including granted ones that are not fetched yet.
    pub leased: usize,
    /// Its requests in the queue.
    pub waiting: usize,
    /// Maximum number of leases at the same time.
    pub max_leases: Option<usize>,
    /// Maximum number of waiting requests.
    pub max_waiting: Option<usize>,
    /// Its weight.
    pub weight: f64,
}
