use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::queue::{Links, Rank};
use super::slot::SlotRef;
use crate::{AcquireError, Meta};

pub(super) type WaiterId = usize;

/// A request in the queue, or one whose answer has not been fetched yet.
#[derive(Debug)]
pub(super) struct Waiter<R> {
    pub(super) class: ClassId,
    pub(super) rank: Rank,
    pub(super) links: Links,
    pub(super) priority: Option<u8>,
    pub(super) enqueued_at: Instant,
    /// When the pool gives up on it; `None` where its caller keeps the time.
    pub(super) expires_at: Option<Instant>,
    pub(super) acquired_at: &'static Location<'static>,
    pub(super) state: WaiterState<R>,
}

/// Only a `Waiting` waiter stands in its class's queue.
#[derive(Debug)]
pub(super) enum WaiterState<R> {
    Waiting(Option<Waker>),
    Granted(Grant<R>),
    Failed(AcquireError),
}

/// A resource on its way to its holder.
#[derive(Debug)]
pub(crate) struct Grant<R> {
    pub(crate) slot: SlotRef,
    pub(crate) meta: Meta,
    pub(crate) resource: R,
    /// `None` where nobody needs to know.
    pub(crate) leased_at: Option<Instant>,
    pub(crate) waited: Duration,
}
