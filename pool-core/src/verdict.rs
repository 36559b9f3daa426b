use std::time::Duration;

use crate::Class;

/// A policy's judgement of a released resource. Later variants are more severe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes back into the pool, recycled if its driver says so.
    #[default]
    Keep,
    /// It is recycled, whatever its driver says.
    Recycle,
    /// It is closed.
    Discard,
}

/// Minimum and maximum number of resources of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Kept at least, in any state. `None`: the pool's `min_size` for the default class, else 0.
    pub min: Option<usize>,
    /// Allowed at most, in any state. `None`: only the pool's `max_size`.
    pub max: Option<usize>,
    /// Kept idle and ready at least, as far as `max` allows. `None`: 0.
    pub warm: Option<usize>,
}

/// A change of size that a policy asks for in its tick.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjustment {
    /// Sets the limits of a class; fields that are `None` stay as they are.
    Class(Class, Limits),
    /// Sets how many resources the whole pool may have.
    MaxSize(usize),
    /// Sets how many resources the default class keeps at least.
    MinSize(usize),
}

/// The nature of a [`Rejection`]: who can do something about it, and when.
///
/// Servers answer by it, so a policy may choose any `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// The request makes no sense as it stands. HTTP: 400.
    Invalid,
    /// The request names something that does not exist. HTTP: 404.
    Unknown,
    /// The caller may not have this, however often it asks. HTTP: 403.
    Forbidden,
    /// The caller has used up its share, or asks too much at once; it may succeed later. HTTP: 429.
    Exhausted,
    /// Something that the request requires is out of service or in use. HTTP: 503.
    Unavailable,
}

/// A policy's refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Rejection {
    /// Its nature.
    pub kind: RejectionKind,
    /// A stable word for machines, in snake case (`unknown_profile`).
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// When it is worth asking again, if it is.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// Creates a refusal with a stable code and a sentence for people.
    #[must_use]
    pub fn new(kind: RejectionKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), retry_after: None }
    }

    /// Sets when it is worth asking again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}
