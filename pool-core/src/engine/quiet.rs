//! A lease that concerns nobody else: one class, something idle in it, nobody waiting anywhere.
//!
//! It needs no effects, and leaves no class hungry or short that was not so before, so these two
//! calls do without either; that is most of what an uncontended acquire and release cost.
//! Whatever is not plain is left to `acquire` and `release`.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::{Grant, SlotRef, SlotState, State};
use crate::{Class, Config};

impl<R> State<R> {
    /// Leases an idle resource if nothing else has to be decided; gives the class back otherwise.
    ///
    /// Without a `now` nobody has asked for the time of this lease: see
    /// [`needs_clock`](Self::needs_clock).
    #[inline]
    pub(crate) fn lease_quietly(
        &mut self,
        class: Class,
        acquired_at: &'static Location<'static>,
        now: Option<Instant>,
    ) -> Result<Grant<R>, Class> {
        let Some(id) = self.class_id(&class) else { return Err(class) };
        let state = &self.classes[id];
        let Some(&index) = state.idle.back() else { return Err(class) };
        // The last use and a class that keeps some warm call for a replacement.
        let plain = state.warm == 0 && self.config.max_use_count.is_none();
        if !plain || !self.is_quiet() || now.is_some_and(|now| self.is_stale(index, now)) {
            return Err(class);
        }
        self.classes[id].idle.pop_back();
        self.classes[id].granted += 1;
        self.counters.acquired += 1;
        let leased_at = now.unwrap_or(self.slots[index].since);
        let resource = self.lease_idle(index, acquired_at, leased_at);
        let meta = self.slots[index].meta(class);
        let slot = SlotRef { index, id: meta.id };
        Ok(Grant { slot, meta, resource, leased_at: now, waited: Duration::ZERO })
    }

    /// Takes a good resource back into idle if nothing else has to be decided; gives it back to
    /// the caller otherwise.
    #[inline]
    pub(crate) fn release_quietly(
        &mut self,
        slot: SlotRef,
        resource: R,
        now: Instant,
    ) -> Result<(), R> {
        let index = slot.index;
        let held = match self.slot(slot) {
            Some(held) if matches!(held.state, SlotState::Leased { .. }) => held,
            _ => return Err(resource),
        };
        let class = held.class;
        let last_used_at = std::mem::replace(&mut held.used_at, now);
        if !self.is_quiet() || self.end_of(index, now).is_some() {
            self.slots[index].used_at = last_used_at;
            return Err(resource);
        }
        self.slots[index].proven_at = now;
        self.counters.released += 1;
        self.classes[class].breaker.proved();
        self.make_idle(index, resource, now);
        Ok(())
    }

    /// Whether a lease must know when it begins: a check may be due first, or it must end in time.
    ///
    /// Reading the clock twice is a third of what an uncontended lease costs.
    pub(crate) fn needs_clock(config: &Config) -> bool {
        config.check_after_idle.is_some() || config.hold_limit.is_some()
    }

    /// Whether nobody waits, nothing is missing, and the pool goes on.
    fn is_quiet(&self) -> bool {
        self.waiters.is_empty()
            && self.hungry.is_empty()
            && self.short.is_empty()
            && !self.is_draining()
    }
}
