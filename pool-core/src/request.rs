use std::sync::Arc;
use std::time::Duration;

use crate::{Rejection, RejectionKind};

/// A caller's request: labels for the policies, a priority, and a maximum wait.
///
/// A request is cheap to clone and may be kept and used for many acquires.
///
/// # Examples
///
/// ```
/// use pool_core::Request;
/// use std::time::Duration;
///
/// let request =
///     Request::new().label("profile", "work").priority(1).timeout(Duration::from_secs(5));
/// assert_eq!(request.get("profile"), Some("work"));
/// assert_eq!(request.priority, Some(1));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// 1 (most urgent) to 10; read by a priority policy, ignored without one. Default: none.
    pub priority: Option<u8>,
    /// Maximum wait. Default: the pool's
    /// [`acquire_timeout`](crate::Config::acquire_timeout).
    pub timeout: Option<Duration>,
    /// The labels that policies and observers use.
    pub labels: Labels,
    /// Time that the request had already waited elsewhere before it came here. Default: none.
    pub waited: Duration,
    /// Permission to create a resource for it. Default: `true`.
    pub creates: bool,
    /// The group that it counts towards, filled in by a policy. Default: none.
    pub group: Option<Arc<Group>>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            priority: None,
            timeout: None,
            labels: Labels::default(),
            waited: Duration::ZERO,
            creates: true,
            group: None,
        }
    }
}

/// Names and values that describe a request: policies decide by them, and events carry them.
///
/// Clones share one list and are cheap.
///
/// # Examples
///
/// ```
/// use pool_core::Request;
///
/// let labels = Request::new().label("tenant", "ada").labels;
/// assert_eq!(labels.get("tenant"), Some("ada"));
/// assert_eq!(labels.iter().count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<Vec<Label>>>);

/// A name and its value.
type Label = (Arc<str>, Arc<str>);

impl Labels {
    /// Sets a label, replacing an earlier one with that name.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        let (name, value) = (name.into(), value.into());
        let labels = Arc::make_mut(self.0.get_or_insert_default());
        match labels.iter_mut().find(|(held, _)| *held == name) {
            Some(slot) => slot.1 = value,
            None => labels.push((name, value)),
        }
    }

    /// Returns the value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| &**value)
    }

    /// Returns the value of a label as a shared string, for policies that keep it.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Arc<str>> {
        self.0.as_ref()?.iter().find(|(held, _)| &**held == name).map(|(_, value)| value)
    }

    /// Iterates over all labels, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| labels.iter()).map(|(name, value)| (&**name, &**value))
    }
}

impl Request {
    /// Creates a request for any resource of the default class.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the priority, 1 (most urgent) to 10.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets how long to wait; `Duration::ZERO` means not at all: the request succeeds only at once.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time that the request has already waited elsewhere, such as in another pool's
    /// queue. It is ranked as if it had come that much earlier, and the time counts as waited, up
    /// to one day.
    ///
    /// It does not shorten the request's timeout.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Limits the request to resources that exist or come back: none is created for it, and none of
    /// another class is closed to make room for it.
    ///
    /// This is for a request that waits in several pools at once, only one of which may create.
    #[must_use]
    pub fn without_creating(mut self) -> Self {
        self.creates = false;
        self
    }

    /// Sets a label, replacing an earlier one with that name.
    #[must_use]
    pub fn label(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a label in place, replacing an earlier one with that name.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        self.labels.set(name, value);
    }

    /// Returns the value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }

    /// Returns the value of a label that must be there.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] with the code `missing_label`.
    pub fn require(&self, name: &'static str) -> Result<&str, Rejection> {
        self.get(name).ok_or_else(|| {
            Rejection::new(
                RejectionKind::Invalid,
                "missing_label",
                format!("the request needs a {name}"),
            )
        })
    }
}

/// Requests that are limited and weighed together, such as those of one tenant.
///
/// A policy puts a group into a request's [`group`](crate::Request::group). Groups need no
/// registration: the first request that names one creates it, and it is forgotten when it holds
/// nothing, none of its requests wait, and its last turn is past. A later request with the same
/// name but other numbers changes the group, as [`Pool::set_group`](crate::Pool::set_group) does.
///
/// Among the waiters of a [`Class`](crate::Class), groups take turns by weighted fair queueing: a
/// group of weight 2 gets twice as many leases as one of weight 1, as long as both wait. A group
/// does not save up time in which it does not wait. Within a group, waiters are served by
/// [rank](crate::Policy::rank), as in a pool without groups. Where classes compete for room, it
/// goes to the group that holds the least for its weight. All requests without a group count as one
/// group of weight 1.
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
    /// Its name, which identifies it.
    pub name: Arc<str>,
    /// Maximum number of leases at the same time. It applies when a lease is granted, so a request
    /// beyond it waits while others pass. Default: no limit but the pool's.
    pub max_leases: Option<usize>,
    /// Maximum number of waiting requests; one more is refused at once. The pool's own
    /// [`max_waiting`](crate::Config::max_waiting) applies as well. Default: no limit but that.
    pub max_waiting: Option<usize>,
    /// Its share of the leases while others wait too, relative to theirs: 0.001 to 1000; values
    /// beyond that are clamped. Default: 1.
    pub weight: f64,
}

/// The range of weights; values beyond it are clamped.
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

/// Virtual time that a lease costs a group of weight 1: fine enough for any weight, and 64 bits
/// last for ten billion leases of the lightest group.
const LEASE: u64 = 1 << 20;

impl Group {
    /// Creates a group without limits and with weight 1.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), max_leases: None, max_waiting: None, weight: 1.0 }
    }

    /// Sets the maximum number of its leases at the same time.
    #[must_use]
    pub fn max_leases(mut self, max: usize) -> Self {
        self.max_leases = Some(max);
        self
    }

    /// Sets the maximum number of its waiting requests.
    #[must_use]
    pub fn max_waiting(mut self, max: usize) -> Self {
        self.max_waiting = Some(max);
        self
    }

    /// Sets its share of the leases while others wait too.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Returns the virtual time that one of its leases costs.
    pub(crate) fn stride(&self) -> u64 {
        let (least, most) = WEIGHTS.into_inner();
        // A weight that is not a number counts as the least.
        let weight = if self.weight >= least { self.weight.min(most) } else { least };
        (LEASE as f64 / weight) as u64
    }

    /// Returns the virtual time that a lease without a group costs.
    pub(crate) fn plain_stride() -> u64 {
        LEASE
    }
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
