use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::{GroupStats, Load};

/// Error returned when a resource cannot be leased.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The wait was longer than the request's timeout.
    #[error("no resource was free within {waited:?}{}", because(last.as_ref()))]
    Timeout {
        /// Time the caller has waited.
        waited: Duration,
        /// The pool at that moment.
        load: Load,
        /// The last creation error of the class, if the caller was waiting for a creation.
        last: Option<SharedError>,
    },
    /// The waiting queue is full.
    #[error("the waiting queue is full: {} requests are waiting", load.waiting)]
    QueueFull {
        /// The pool at that moment.
        load: Load,
    },
    /// The request's group has as many leases as it is allowed, and gave none back in time.
    #[error("{} already has {} leases, its maximum", group.name, group.leased)]
    GroupFull {
        /// Time the caller has waited.
        waited: Duration,
        /// The group at that moment, without this request.
        group: Box<GroupStats>,
    },
    /// As many requests of the group are waiting as are allowed.
    #[error("{} already has {} waiting requests, its maximum", group.name, group.waiting)]
    GroupQueueFull {
        /// The group at that moment.
        group: Box<GroupStats>,
    },
    /// Resources of this class cannot be created at present, and there are none.
    #[error("no resource can be created at present: {last}")]
    Unavailable {
        /// Error of the last creation.
        last: SharedError,
        /// Time until the pool tries the next creation.
        retry_after: Duration,
    },
    /// A policy refused the request.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    /// The pool is draining or closed.
    #[error("the pool is closed")]
    Closed,
}

fn because(last: Option<&SharedError>) -> String {
    last.map(|error| format!("; the last creation failed: {error}")).unwrap_or_default()
}

/// An error that several waiters can share.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SharedError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl SharedError {
    /// Returns the error itself, to downcast.
    #[must_use]
    pub fn get(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl From<BoxError> for SharedError {
    fn from(error: BoxError) -> Self {
        Self(error.into())
    }
}

/// The nature of a [`Rejection`]: who can do something about it, and when.
///
/// Servers choose their response by it, so a policy is free to choose any `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// The request makes no sense as it stands. HTTP: 400.
    Invalid,
    /// The request names something that does not exist. HTTP: 404.
    Unknown,
    /// The caller may not have this, however often it asks. HTTP: 403.
    Forbidden,
    /// The caller has used up its share or asks for too much at once; retry later. HTTP: 429.
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
    /// Time after which it is worth asking again, if that helps at all.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// Creates a refusal with a stable code and a sentence for people.
    #[must_use]
    pub fn new(kind: RejectionKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), retry_after: None }
    }

    /// Sets the time after which it is worth asking again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// Error returned when a pool cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `min_size` is larger than `max_size`.
    #[error("min_size {min} is larger than max_size {max}")]
    MinAboveMax {
        /// The configured minimum.
        min: usize,
        /// The configured maximum.
        max: usize,
    },
    /// A setting that must be at least 1, or longer than zero, is zero.
    #[error("{setting} must not be zero")]
    Zero {
        /// The setting's name.
        setting: &'static str,
    },
    /// There is no Tokio runtime to run the pool's tasks on.
    #[error(
        "no tokio runtime here: build the pool inside one, or name it with PoolBuilder::runtime"
    )]
    NoRuntime,
}

/// The error type for hooks that may fail for any reason.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A step of a driver or a policy took longer than the pool's configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} took longer than {limit:?}")]
pub struct TimedOut {
    /// The step: `create`, `recycle` or `check`.
    pub step: &'static str,
    /// The limit that it exceeded.
    pub limit: Duration,
}

/// A task of the pool ended without a result: its driver panicked, or the runtime shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task was ended before it was done")]
pub struct Aborted;

pub(crate) fn shared_error(error: impl Into<BoxError>) -> SharedError {
    SharedError::from(error.into())
}
