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
///
/// Under load each goes from core to core three times: two cache lines hold it.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Waiter {
    pub(super) class: ClassId,
    pub(super) rank: Rank,
    pub(super) links: Links,
    pub(super) priority: Option<u8>,
    pub(super) enqueued_at: Instant,
    /// When the pool gives up on it; `None` where its caller keeps the time.
    pub(super) expires_at: Option<Instant>,
    pub(super) acquired_at: &'static Location<'static>,
    pub(super) state: WaiterState,
}

const _: () = assert!(size_of::<Waiter>() <= 128);

/// Only a `Waiting` waiter stands in its class's queue.
#[derive(Debug)]
pub(super) enum WaiterState {
    Waiting(Option<Waker>),
    /// The slot of the resource that is kept for it.
    Granted(usize),
    Failed(Box<AcquireError>),
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
