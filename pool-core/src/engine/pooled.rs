use std::time::Duration;

use tokio::time::Instant;

use super::slot::SlotRef;
use crate::Meta;

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
