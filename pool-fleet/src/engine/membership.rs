use std::sync::Arc;
use std::time::Instant;

use super::{Beat, Effect, Effects, Load, Settings, Who, WhoReply};
use crate::message::Phase;

/// Number of shards into which the nodes of a zone hash.
pub const SHARDS: u16 = 256;

/// Returns the shard of a node's beats, by the FNV-1a hash of its name.
#[must_use]
pub fn shard(node: &str) -> u16 {
    let hash = node
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The upper bits depend on every byte of the name, the lowest ones less so.
    ((hash >> 16 ^ hash) % u32::from(SHARDS)) as u16
}

/// The nodes of the fleet, as far as one of them knows, and its own beat.
#[derive(Debug)]
pub struct Membership {
    own: Beat,
    settings: Settings,
}

impl Membership {
    pub(super) fn new(own: Beat, settings: Settings, _: fastrand::Rng, _: Instant) -> Self {
        Self { own, settings }
    }

    pub(super) fn start(&mut self, _: Instant, fx: &mut Effects) {
        fx.push(Effect::Joined);
    }

    pub(super) fn beat(&mut self, _: &Arc<Beat>, _: Instant, _: &mut Effects) {}

    pub(super) fn who(&self, _: &Who) -> Option<WhoReply> {
        None
    }

    pub(super) fn who_answered(&mut self, _: Option<&WhoReply>, _: Instant, _: &mut Effects) {}

    pub(super) fn load(&mut self, load: Load, _: Instant, _: &mut Effects) {
        self.own.load = load;
    }

    pub(super) fn phase(&mut self, phase: Phase, _: Instant, _: &mut Effects) {
        self.own.phase = phase;
    }

    pub(super) fn tick(&mut self, _: Instant, _: &mut Effects) {
        let _ = &self.settings;
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        None
    }

    /// Returns the beat of this node.
    #[must_use]
    pub fn own(&self) -> &Beat {
        &self.own
    }

    /// Iterates over the last beats of the other nodes that are not gone.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Beat>> {
        [].iter()
    }
}
