use std::sync::Arc;
use std::time::Duration;

use crate::{Group, Rejection, RejectionKind};

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
/// let request = Request::new().label("profile", "work").priority(1).timeout(Duration::from_secs(5));
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
    /// The labels that policies and observers go by.
    pub labels: Labels,
    /// Time that the request has waited elsewhere before it came here. Default: none.
    pub waited: Duration,
    /// Whether a resource may be created for it. Default: yes.
    pub creates: bool,
    /// The group that it counts towards, for a policy to fill in. Default: none.
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

/// Names and values that describe a request: what policies decide by, and what events carry.
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
    /// Sets a label, replacing an earlier one of that name.
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
    /// A request for any resource of the default class.
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

    /// Sets how long to wait; `Duration::ZERO` means: only if one can be had at once.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time that the request has already waited elsewhere, such as in another pool's queue:
    /// it is ranked as if it had come that much earlier, and the time counts as waited. At most a
    /// day counts.
    ///
    /// The request's timeout is not shortened by it.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Lets the request have only what exists or comes back: no resource is created for it, and
    /// none of another class is closed to make room for it.
    ///
    /// For a request that waits in several pools at once, of which one may create.
    #[must_use]
    pub fn without_creating(mut self) -> Self {
        self.creates = false;
        self
    }

    /// Sets a label, replacing an earlier one of that name.
    #[must_use]
    pub fn label(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a label in place, replacing an earlier one of that name.
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
