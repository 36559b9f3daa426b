use std::panic::Location;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::{Class, Labels, ResourceId, SharedError};

/// One transition of the pool, with its reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A creation began.
    Creating {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
    },
    /// A creation succeeded, preparation included.
    Created {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Time it took. */
        took: Duration,
    },
    /// A creation failed.
    CreateFailed {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Time it took. */
        took: Duration,
        /** The reason. */
        error: SharedError,
        /** Failed creations of the class in a row. */
        consecutive: u32,
        /** When the next one may begin. */
        retry_after: Duration,
    },
    /// A lease began.
    Leased {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Wait of its holder. */
        waited: Duration,
        /** Labels of its holder's request. */
        labels: Labels,
    },
    /// A lease ended.
    Released {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Duration of the lease. */
        held: Duration,
    },
    /// A resource was recycled and is idle again.
    Recycled {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Time it took. */
        took: Duration,
    },
    /// A check passed.
    Checked {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Time it took. */
        took: Duration,
    },
    /// A lease has been held for longer than the hold limit and is about to be revoked.
    Overdue {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** Duration of the lease so far. */
        held: Duration,
        /** Where it was acquired. */
        acquired_at: &'static Location<'static>,
    },
    /// A resource is being closed.
    Closing {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** The reason. */
        reason: CloseReason,
    },
    /// A resource is gone and its place is free.
    Closed {
        /** The resource. */
        id: ResourceId,
        /** Its class. */
        class: Class,
        /** The reason. */
        reason: CloseReason,
        /** Time the closing took. */
        took: Duration,
    },
    /// A request joined the queue.
    Enqueued {
        /** Its class. */
        class: Class,
        /** Its labels. */
        labels: Labels,
    },
    /// A request left the queue without a lease, or was refused.
    Refused {
        /** Its class. */
        class: Class,
        /** The outcome. */
        outcome: Refusal,
        /** Time it had waited. */
        waited: Duration,
        /** Its labels. */
        labels: Labels,
    },
    /// The limits of the pool or a class were changed.
    Resized {
        /** The class, or `None` for the whole pool. */
        class: Option<Class>,
        /** At least. */
        min: usize,
        /** At most. */
        max: usize,
        /** Kept idle and ready at least. */
        warm: usize,
    },
    /// The pool takes no new requests and waits for its leases to end.
    Draining,
    /// A policy's hook panicked, and the hook's default was used.
    PolicyPanicked {
        /** The policy. */
        policy: String,
        /** Its hook. */
        hook: &'static str,
        /** Message of the panic. */
        message: String,
    },
}

/// The reason for closing a resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// It was idle for longer than the maximum idle time.
    IdleTimeout,
    /// It was older than the maximum lifetime.
    Lifetime,
    /// It was leased as often as allowed.
    MaxUses,
    /// Its check failed.
    CheckFailed(SharedError),
    /// It could not be recycled.
    RecycleFailed(SharedError),
    /// It broke by itself, as its driver reported.
    Broken(String),
    /// Its holder discarded it.
    Discarded,
    /// A policy discarded it when it was released.
    Policy,
    /// Its lease was held longer than the hold limit.
    Overdue,
    /// It made room for a waiter of another class.
    Evicted,
    /// The pool or its class has more than it may have.
    Surplus,
    /// It was invalidated.
    Invalidated,
    /// The pool was draining.
    Drained,
}

impl CloseReason {
    /// Returns the driver's error, if this reason has one.
    pub(crate) fn into_error(self) -> Option<SharedError> {
        match self {
            Self::CheckFailed(error) | Self::RecycleFailed(error) => Some(error),
            Self::IdleTimeout
            | Self::Lifetime
            | Self::MaxUses
            | Self::Broken(_)
            | Self::Discarded
            | Self::Policy
            | Self::Overdue
            | Self::Evicted
            | Self::Surplus
            | Self::Invalidated
            | Self::Drained => None,
        }
    }

    /// Returns a stable word for logs and metrics, in snake case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::MaxUses => "max_uses",
            Self::CheckFailed(_) => "check_failed",
            Self::RecycleFailed(_) => "recycle_failed",
            Self::Broken(_) => "broken",
            Self::Discarded => "discarded",
            Self::Policy => "policy",
            Self::Overdue => "overdue",
            Self::Evicted => "evicted",
            Self::Surplus => "surplus",
            Self::Invalidated => "invalidated",
            Self::Drained => "drained",
        }
    }
}

/// The way in which a request ended without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Its timeout passed.
    Timeout,
    /// The queue was full, or a policy refused it.
    Rejected,
    /// Its caller went away.
    Cancelled,
    /// No resource can be created, or the pool is closed.
    Error,
}

/// The events of a pool from the moment it was made, from [`Pool::events`](crate::Pool::events).
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Event>,
    missed: u64,
}

impl EventStream {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver, missed: 0 }
    }

    /// Waits for the next event; returns `None` once the pool is gone.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.missed += missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Returns the next event if it is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => self.missed += missed,
                Err(_) => return None,
            }
        }
    }

    /// Returns the number of events dropped because this reader was too slow for the pool's
    /// [`event_capacity`](crate::PoolBuilder::event_capacity).
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
