use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::queue::{Links, Rank};
use super::slot::SlotRef;
use super::sync::Arc;
use super::ticket::Ticket;
use crate::Meta;

pub(super) type WaiterId = usize;

/// A request's place in the queue.
///
/// One cache line, since each goes from core to core.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Waiter<R> {
    pub(super) ticket: Arc<Ticket<R>>,
    pub(super) class: ClassId,
    pub(super) rank: Rank,
    pub(super) links: Links,
}

#[cfg(not(pool_loom))]
const _: () = assert!(size_of::<Waiter<()>>() <= 64);

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
