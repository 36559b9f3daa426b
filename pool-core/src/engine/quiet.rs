//! A lease that concerns nobody else: one class, something idle in it, nobody waiting anywhere.
//!
//! It needs no effects, and leaves no class hungry or short that was not so before, so these two
//! calls do without either; that is most of what an uncontended acquire and release cost.
//! Whatever is not plain is left to `acquire` and `release`.

use std::panic::Location;

use tokio::time::Instant;

use super::{Pooled, SlotState, State};
use crate::{Class, Config};

impl<R> State<R> {
    /// Leases an idle resource of the class if nothing else has to be decided.
    ///
    /// Without a `now` nobody has asked for the time of this lease: see
    /// [`needs_clock`](Self::needs_clock).
    #[inline]
    pub(crate) fn lease_quietly(
        &mut self,
        class: &Class,
        acquired_at: &'static Location<'static>,
        now: Option<Instant>,
    ) -> Option<Box<Pooled<R>>> {
        let id = self.class_id(class)?;
        let class = &self.classes[id];
        let index = *class.idle.back()?;
        // The last use and a class that keeps some warm call for a replacement.
        let plain = class.warm == 0 && self.config.max_use_count.is_none();
        if !plain || !self.is_quiet() || now.is_some_and(|now| self.is_stale(index, now)) {
            return None;
        }
        let class = &mut self.classes[id];
        class.idle.pop_back();
        class.leases.granted += 1;
        Some(self.lease_idle(index, acquired_at, now))
    }

    /// Takes a good resource back into idle if nothing else has to be decided; gives it back to
    /// the caller otherwise.
    #[inline]
    pub(crate) fn release_quietly(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        now: Instant,
    ) -> Result<(), Box<Pooled<R>>> {
        let index = pooled.slot.index;
        let held = match self.slot(pooled.slot) {
            Some(held) if matches!(held.state, SlotState::Leased { .. }) => held,
            _ => return Err(pooled),
        };
        let class = held.class;
        if held.group.is_some() || !self.is_quiet() || self.end_of(index, now).is_some() {
            return Err(pooled);
        }
        pooled.served(now);
        self.classes[class].leases.released += 1;
        self.classes[class].breaker.proved();
        self.make_idle(pooled, now);
        Ok(())
    }

    /// Returns `true` if a lease must know when it begins: a check may be due first, or it must end
    /// in time.
    ///
    /// Reading the clock twice is a third of what an uncontended lease costs.
    pub(crate) fn needs_clock(config: &Config) -> bool {
        config.check_after_idle.is_some() || config.hold_limit.is_some()
    }

    /// Returns `true` if nobody waits, nothing is missing, and the pool is running.
    fn is_quiet(&self) -> bool {
        self.waiters.is_empty()
            && self.hungry.is_empty()
            && self.short.is_empty()
            && !self.is_draining()
    }
}
