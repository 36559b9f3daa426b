use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A kind of resource: resources of one class are interchangeable, others are not.
///
/// A class is a short list of parts, one from each policy that tells resources apart
/// (`profile=work`, `region=eu-west`). The empty class is the default one. Clones are cheap.
///
/// # Examples
///
/// ```
/// use pool_core::Class;
///
/// let mut class = Class::default();
/// assert_eq!(class.to_string(), "default");
/// class.insert("profile", "work");
/// class.insert("region", "eu-west");
/// assert_eq!(class.get("profile"), Some("work"));
/// assert_eq!(class.to_string(), "profile=work,region=eu-west");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(Option<Arc<[Part]>>);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Part {
    label: &'static str,
    value: Arc<str>,
}

impl Class {
    /// Adds a part, or replaces the one with the same label. The order of insertion does not
    /// matter.
    pub fn insert(&mut self, label: &'static str, value: impl Into<Arc<str>>) {
        let part = Part { label, value: value.into() };
        self.0 = Some(match self.0.take() {
            None => Arc::new([part]),
            Some(parts) => {
                let mut parts: Vec<Part> =
                    parts.iter().filter(|held| held.label != label).cloned().collect();
                let at = parts.partition_point(|held| held.label < label);
                parts.insert(at, part);
                parts.into()
            }
        });
    }

    /// Returns the value of a part.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&str> {
        self.parts().find(|(held, _)| *held == label).map(|(_, value)| value)
    }

    /// Iterates over all parts, ordered by label.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().flat_map(|parts| parts.iter()).map(|part| (part.label, &*part.value))
    }

    /// Returns `true` for the default class, that of requests that ask for nothing in particular.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() {
            return f.write_str("default");
        }
        for (i, (label, value)) in self.parts().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{label}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({self})")
    }
}

/// The identity of a resource, unique within its pool and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub(crate) NonZeroU64);

impl ResourceId {
    /// Returns the number itself: 1 for the first resource of a pool, then upwards.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceId({self})")
    }
}

/// The pool's record of a resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Meta {
    /// Its identity.
    pub id: ResourceId,
    /// Its class.
    pub class: Class,
    /// Time at which its creation began.
    pub created_at: Instant,
    /// Number of leases, including the present one.
    pub uses: u64,
}

/// The state a resource is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceState {
    /// Being made, preparation included.
    Creating,
    /// Ready.
    Idle,
    /// In a holder's hands.
    Leased,
    /// Being cleaned.
    Recycling,
    /// Being checked.
    Checking,
    /// Being closed.
    Closing,
}

/// One resource, as [`Pool::resources`](crate::Pool::resources) lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResourceInfo {
    /// The resource.
    pub id: ResourceId,
    /// Its class.
    pub class: Class,
    /// Its state.
    pub state: ResourceState,
    /// Time at which it entered this state. For a lease that nobody watched (no event stream, no
    /// policy that watches, no hand-out check, no hold limit), it is the end of the state before.
    pub since: Instant,
    /// Time at which its creation began.
    pub created_at: Instant,
    /// Number of leases so far.
    pub uses: u64,
    /// End and duration of its last successful check.
    pub last_check: Option<(Instant, Duration)>,
}
