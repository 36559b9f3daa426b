use super::class::ClassId;
use super::queue::{Links, Rank};
use super::sync::Arc;
use super::ticket::Ticket;

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
