use std::time::Instant;

use super::{Ask, Asks, Beat, Cancel, Effects, OfferReply, Pooled, Settings};

/// The requests of other nodes that wait at a node, and what is offered to them.
#[derive(Debug)]
pub struct Holder {
    settings: Settings,
}

impl Holder {
    pub(super) fn new(_: &Beat, settings: Settings) -> Self {
        Self { settings }
    }

    pub(super) fn ask(&mut self, _: Ask, _: Instant, _: &mut Effects) {}

    pub(super) fn asks(&mut self, _: &Asks, _: Instant, _: &mut Effects) {}

    pub(super) fn cancel(&mut self, _: &Cancel, _: Instant, _: &mut Effects) {}

    pub(super) fn offer_answered(
        &mut self,
        _: u64,
        _: Option<OfferReply>,
        _: Instant,
        _: &mut Effects,
    ) {
    }

    pub(super) fn pooled(&mut self, _: u64, _: Pooled, _: Instant, _: &mut Effects) {}

    pub(super) fn taken(&mut self, _: u64) {}

    pub(super) fn drain(&mut self, _: Instant, _: &mut Effects) {}

    pub(super) fn undrain(&mut self) {}

    pub(super) fn tick(&mut self, _: Instant, _: &mut Effects) {
        let _ = &self.settings;
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        None
    }
}
