use std::sync::Arc;
use std::time::Duration;

use crate::{BoxError, GroupStats, Load, Rejection};

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
        /// The last creation error of the class, if it is what the caller waited for.
        last: Option<SharedError>,
    },
    /// The waiting queue is full.
    #[error("the waiting queue is full: {} requests wait", load.waiting)]
    QueueFull {
        /// The pool at that moment.
        load: Load,
    },
    /// The request's group has as many leases as it may, and gave none back in time.
    #[error("{} has {} leases, as many as it may", group.name, group.leased)]
    GroupFull {
        /// Time the caller has waited.
        waited: Duration,
        /// The group at that moment, without this request.
        group: Box<GroupStats>,
    },
    /// As many requests of the group wait as may.
    #[error("{} requests of {} wait, as many as may", group.waiting, group.name)]
    GroupQueueFull {
        /// The group at that moment.
        group: Box<GroupStats>,
    },
    /// Resources of this class cannot be made at present, and none is alive.
    #[error("no resource can be created at present: {last}")]
    Unavailable {
        /// Error of the last creation.
        last: SharedError,
        /// When the pool will try the next creation.
        retry_after: Duration,
    },
    /// A policy refused the request.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    /// The pool drains or is closed.
    #[error("the pool is closed")]
    Closed,
}

fn because(last: Option<&SharedError>) -> String {
    last.map(|error| format!("; the last creation failed: {error}")).unwrap_or_default()
}

/// An error that several waiters are told of.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SharedError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl SharedError {
    /// The error itself, to downcast.
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
