use std::time::Instant;

use super::{
    Answer, Beat, Cannot, Effect, Effects, Membership, Offer, OfferReply, Pooled, Settings,
    WaiterId, Waiting,
};
use crate::message::Reason;

/// The clients that wait at a node, and what is asked for them elsewhere.
#[derive(Debug)]
pub struct Asker {
    settings: Settings,
    rng: fastrand::Rng,
    next: u64,
}

impl Asker {
    pub(super) fn new(_: &Beat, settings: Settings, rng: fastrand::Rng) -> Self {
        Self { settings, rng, next: 0 }
    }

    pub(super) fn acquire(&mut self, waiting: Waiting, _: Instant, fx: &mut Effects) -> WaiterId {
        self.next += 1;
        let waiter = WaiterId(self.next);
        let acquire = super::Acquire {
            request: waiting.request,
            waited: std::time::Duration::ZERO,
            left: waiting.timeout,
            creates: true,
        };
        fx.push(Effect::Acquire(super::Ticket::Own(waiter), acquire));
        waiter
    }

    pub(super) fn pooled(
        &mut self,
        waiter: WaiterId,
        said: Pooled,
        _: &Membership,
        _: Instant,
        fx: &mut Effects,
    ) {
        match said {
            Pooled::Granted(lease) => fx.push(Effect::Serve(waiter, super::Place::Here { lease })),
            Pooled::Queued { .. } => {}
            Pooled::Refused(cannot) => fx.push(Effect::Refuse(waiter, cannot)),
        }
    }

    pub(super) fn give_up(&mut self, waiter: WaiterId, _: Instant, fx: &mut Effects) {
        fx.push(Effect::Abandon(super::Ticket::Own(waiter)));
    }

    pub(super) fn answer(&mut self, _: &Answer, _: &Membership, _: Instant, _: &mut Effects) {}

    pub(super) fn offered(&mut self, _: &Offer, _: Instant, _: &mut Effects) -> OfferReply {
        OfferReply::Decline
    }

    pub(super) fn connected(&mut self, _: WaiterId) {}

    pub(super) fn connect_failed(
        &mut self,
        waiter: WaiterId,
        _: &Membership,
        _: Instant,
        fx: &mut Effects,
    ) {
        let lost = Cannot::new(Reason::Unavailable, "node_lost", "the node cannot be reached");
        fx.push(Effect::Refuse(waiter, lost));
    }

    pub(super) fn close(&mut self, _: Instant, _: &mut Effects) {}

    pub(super) fn tick(&mut self, _: &Membership, _: Instant, _: &mut Effects) {
        let _ = (&self.settings, &self.rng);
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        None
    }
}
