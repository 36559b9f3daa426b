use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::line::GroupId;
use super::sync::Arc;
use super::ticket::Ticket;
use crate::{CloseReason, Meta, ResourceId, ResourceState};

/// Names a slot from outside the engine; stale ones are told apart by the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRef {
    pub(crate) index: usize,
    pub(crate) id: ResourceId,
}

/// One resource in whatever state. As long as a slot exists it counts towards `max_size`.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot<R> {
    pub(super) state: SlotState<R>,
    /// Since when it is in this state.
    pub(super) since: Instant,
    pub(super) uses: u64,
    pub(super) id: ResourceId,
    pub(super) class: ClassId,
    pub(super) created_at: Instant,
    pub(super) expires_at: Option<Instant>,
    pub(super) last_check: Option<(Instant, Duration)>,
    /// Set when it must be closed as soon as it is back in the pool's hands.
    pub(super) doomed: Option<CloseReason>,
    /// The group of its holder, as long as it is leased.
    pub(super) group: Option<GroupId>,
    /// Counted in the class's `retiring`: it will go soon, so it no longer counts as stock.
    pub(super) retiring: bool,
}

/// Location of the resource: in the engine while idle, in the ticket of its waiter until that is
/// fetched, else with a job or a holder.
#[derive(Debug)]
pub(super) enum SlotState<R> {
    Creating,
    Idle(Box<Pooled<R>>),
    Leased {
        overdue_at: Option<Instant>,
        /// Call site of the acquire, unless it had to wait: then the ticket has it.
        acquired_at: Option<&'static Location<'static>>,
        /// Ticket that it was granted through, if its holder had to wait.
        ticket: Option<Arc<Ticket<R>>>,
    },
    Recycling,
    Checking,
    Closing(CloseReason),
}

impl<R> SlotState<R> {
    pub(super) fn kind(&self) -> ResourceState {
        match self {
            Self::Creating => ResourceState::Creating,
            Self::Idle(_) => ResourceState::Idle,
            Self::Leased { .. } => ResourceState::Leased,
            Self::Recycling => ResourceState::Recycling,
            Self::Checking => ResourceState::Checking,
            Self::Closing(_) => ResourceState::Closing,
        }
    }
}

impl<R> Slot<R> {
    /// Returns the wait of its holder, if the holder has not fetched it yet.
    pub(super) fn unfetched(&self) -> Option<Duration> {
        match &self.state {
            SlotState::Leased { ticket, .. } => ticket.as_ref()?.unfetched(),
            _ => None,
        }
    }
}

/// A resource, with what its holder and its jobs are told of it.
///
/// It is boxed once, when the resource has been created, and stays where it is until that is
/// closed: between the engine, its holders and its jobs only a pointer moves.
#[derive(Debug)]
pub(crate) struct Pooled<R> {
    pub(crate) slot: SlotRef,
    pub(crate) meta: Meta,
    pub(crate) resource: R,
    /// When its lease began; `None` where nobody needs to know.
    pub(crate) leased_at: Option<Instant>,
    /// Wait of its holder.
    pub(crate) waited: Duration,
    /// When its creation, its last lease or its last recycling ended. A check in between is no use,
    /// or a pool that is checked would never shrink.
    pub(super) used_at: Instant,
    /// When it was last known to work: created, leased, recycled or checked.
    pub(super) proven_at: Instant,
}

impl<R> Pooled<R> {
    /// Notes what its holder is told of the lease that begins.
    #[inline]
    pub(super) fn lease(&mut self, uses: u64, leased_at: Option<Instant>, waited: Duration) {
        self.meta.uses = uses;
        self.leased_at = leased_at;
        self.waited = waited;
    }

    /// Notes that it has just served, and so works.
    #[inline]
    pub(super) fn served(&mut self, now: Instant) {
        self.used_at = now;
        self.proven_at = now;
    }
}
