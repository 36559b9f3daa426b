use std::sync::Arc;

/// Requests that are limited and weighed together, such as those of one tenant.
///
/// A policy puts a group into a request's [`group`](crate::Request::group). Groups need no
/// registration: the first request of a name makes one, and it is forgotten when it holds nothing,
/// nobody of it waits, and its last turn is past. A later request of the same name with other
/// numbers changes the group, as [`Pool::set_group`](crate::Pool::set_group) does.
///
/// Among the waiters of a [`Class`](crate::Class), groups take turns by weighted fair queueing: one
/// of weight 2 gets twice the leases of one of weight 1, as long as both wait. Time in which a
/// group does not wait is not saved up. Within a group, waiters are served by
/// [rank](crate::Policy::rank), as in a pool without groups. Where classes compete for room, it
/// goes to the group that holds the least for its weight. Requests of no group are one of weight 1.
///
/// # Examples
///
/// ```
/// use pool_core::{Group, Request};
/// use std::sync::Arc;
///
/// let group = Arc::new(Group::new("ada").max_leases(2).weight(0.5));
/// let mut request = Request::new();
/// request.group = Some(group);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Group {
    /// Its name, which makes it what it is.
    pub name: Arc<str>,
    /// Leases at the same time, at most; judged at the grant, so that a request over it waits, and
    /// others pass. Default: no limit but the pool's.
    pub max_leases: Option<usize>,
    /// Requests that may wait; one more is refused at once. The pool's own
    /// [`max_waiting`](crate::Config::max_waiting) holds as well. Default: no limit but that.
    pub max_waiting: Option<usize>,
    /// Its part of the leases while others wait too, relative to theirs: 0.001 to 1000, and what is
    /// beyond counts as that. Default: 1.
    pub weight: f64,
}

/// The weights that are told apart.
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

/// Virtual time that a lease takes of a group of weight 1: fine enough for any weight, and 64 bits
/// last for ten thousand million leases of the lightest.
const LEASE: u64 = 1 << 20;

impl Group {
    /// Creates a group without limits and with weight 1.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), max_leases: None, max_waiting: None, weight: 1.0 }
    }

    /// Sets how many leases it may have at the same time.
    #[must_use]
    pub fn max_leases(mut self, max: usize) -> Self {
        self.max_leases = Some(max);
        self
    }

    /// Sets how many of its requests may wait.
    #[must_use]
    pub fn max_waiting(mut self, max: usize) -> Self {
        self.max_waiting = Some(max);
        self
    }

    /// Sets its part of the leases while others wait too.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Returns the virtual time that one of its leases takes.
    pub(crate) fn stride(&self) -> u64 {
        let (least, most) = WEIGHTS.into_inner();
        // A weight that is no number counts as the least.
        let weight = if self.weight >= least { self.weight.min(most) } else { least };
        (LEASE as f64 / weight) as u64
    }

    /// Returns the virtual time that a lease of no group takes.
    pub(crate) fn plain_stride() -> u64 {
        LEASE
    }
}

/// One group in a [`Stats`](crate::Stats) snapshot, and in errors about its limits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: Arc<str>,
    /// Leases that it has, granted ones that are not fetched yet included.
    pub leased: usize,
    /// Its requests in the queue.
    pub waiting: usize,
    /// Leases at the same time, at most.
    pub max_leases: Option<usize>,
    /// Requests that may wait.
    pub max_waiting: Option<usize>,
    /// Its weight.
    pub weight: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_twice_the_weight_takes_half_the_time() {
        let stride = |weight| Group::new("any").weight(weight).stride();
        assert_eq!(stride(1.0), Group::plain_stride());
        assert_eq!(stride(2.0) * 2, stride(1.0));
        assert_eq!(stride(4.0) * 4, stride(1.0));
    }

    #[test]
    fn no_weight_makes_a_lease_free_or_endless() {
        let stride = |weight| Group::new("any").weight(weight).stride();
        let (quick, slow) = (stride(1000.0), stride(0.001));
        assert!(quick > 0);
        for weight in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(stride(weight), slow);
        }
        assert_eq!(stride(f64::INFINITY), quick);
    }
}
