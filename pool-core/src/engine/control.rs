//! Operators' changes to the pool, and their views of it.

use std::time::Duration;

use tokio::time::Instant;

use super::slot::{ClassId, DEFAULT_CLASS, SlotState};
use super::{Effects, Phase, State, since};
use crate::{
    AcquireError, Class, ClassStats, CloseReason, Counters, Event, GroupStats, Limits, Load, Meta,
    ResourceId, ResourceInfo, Stats, WaiterInfo,
};

impl<R> State<R> {
    /// Sets the size of the pool. Leased resources are never taken away; a surplus one is closed
    /// when it comes back.
    pub(crate) fn resize(&mut self, min: usize, max: usize, now: Instant, fx: &mut Effects<R>) {
        if (self.config.min_size, self.config.max_size) == (min, max) {
            return;
        }
        self.config.max_size = max;
        self.config.min_size = min;
        self.classes[DEFAULT_CLASS].min = min;
        let warm = self.classes[DEFAULT_CLASS].warm;
        self.emit(fx, || Event::Resized { class: None, min, max, warm });
        while self.counts.live() > max {
            let spare = self
                .classes
                .iter()
                .filter_map(|(_, class)| Some((!class.can_spare(), *class.idle.front()?)))
                .min_by_key(|(keep, index)| (*keep, self.idle(*index).used_at));
            let Some((_, index)) = spare else { break };
            self.close_idle(index, CloseReason::Surplus, now, fx);
        }
        self.refresh(DEFAULT_CLASS);
        self.pump(now, fx);
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        (self.config.min_size, self.config.max_size)
    }

    /// Returns `true` if the class is known here, which means that the policies have been asked for
    /// its limits.
    pub(crate) fn knows(&self, class: &Class) -> bool {
        self.class_id(class).is_some()
    }

    /// Sets the limits of a class; `None` leaves one as it is.
    pub(crate) fn set_limits(
        &mut self,
        class: &Class,
        limits: Limits,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let id = self.intern(class, None);
        let state = &mut self.classes[id];
        let before = (state.min, state.max, state.warm);
        state.set_limits(limits);
        let (min, max, warm) = (state.min, state.max, state.warm);
        if before == (min, max, warm) {
            return;
        }
        if id == DEFAULT_CLASS {
            self.config.min_size = min;
        }
        self.emit(fx, || Event::Resized { class: Some(class.clone()), min, max, warm });
        while self.classes[id].counts.live() > max {
            let Some(&index) = self.classes[id].idle.front() else { break };
            self.close_idle(index, CloseReason::Surplus, now, fx);
        }
        self.refresh(id);
        self.pump(now, fx);
    }

    /// Closes a resource as soon as it is back in the pool's hands: at once if it is idle.
    pub(crate) fn doom(
        &mut self,
        id: ResourceId,
        reason: CloseReason,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> bool {
        let Some(index) = self.slots.iter().find(|(_, slot)| slot.id == id).map(|(at, _)| at)
        else {
            return false;
        };
        match self.slots[index].state {
            SlotState::Idle(_) => self.close_idle(index, reason, now, fx),
            SlotState::Closing(_) => return false,
            SlotState::Creating
            | SlotState::Leased { .. }
            | SlotState::Recycling
            | SlotState::Checking => {
                self.slots[index].doomed = Some(reason);
                self.mark_retiring(index);
            }
        }
        self.pump(now, fx);
        true
    }

    /// Closes every idle resource; minimums are then created anew.
    pub(crate) fn flush_idle(&mut self, now: Instant, fx: &mut Effects<R>) -> usize {
        let idle: Vec<usize> =
            self.classes.iter().flat_map(|(_, class)| class.idle.iter().copied()).collect();
        for index in &idle {
            self.close_idle(*index, CloseReason::Invalidated, now, fx);
        }
        self.pump(now, fx);
        idle.len()
    }

    /// Returns the records of all resources that are not already on their way out.
    pub(crate) fn metas(&self) -> Vec<Meta> {
        self.slots
            .iter()
            .filter(|(_, slot)| !matches!(slot.state, SlotState::Closing(_)))
            .map(|(index, _)| self.meta(index))
            .collect()
    }

    /// Refuses new requests, fails those that wait, and closes idle resources; leases are left
    /// alone until the deadline.
    pub(crate) fn drain(&mut self, grace: Option<Duration>, now: Instant, fx: &mut Effects<R>) {
        let deadline = grace.map(|grace| now + grace);
        if !self.is_draining() {
            self.emit(fx, || Event::Draining);
        }
        self.phase = match self.phase {
            Phase::Draining { deadline: Some(earlier) } => {
                Phase::Draining { deadline: Some(deadline.map_or(earlier, |at| at.min(earlier))) }
            }
            Phase::Running | Phase::Draining { deadline: None } => Phase::Draining { deadline },
        };
        let classes: Vec<ClassId> = self.classes.iter().map(|(id, _)| id).collect();
        for class in classes {
            self.fail_waiters(class, &AcquireError::Closed, now, fx);
            while let Some(&index) = self.classes[class].idle.front() {
                self.close_idle(index, CloseReason::Drained, now, fx);
            }
            self.refresh(class);
            self.forget(class, now, fx);
        }
        if let Some(at) = deadline {
            self.arm(at);
        }
        fx.drained |= self.slots.is_empty();
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_draining() && self.slots.is_empty()
    }
}

/// Snapshots.
impl<R> State<R> {
    pub(crate) fn load(&self) -> Load {
        self.counts.load(self.waiters.len(), self.config.max_size)
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let oldest = self.waiters.iter().map(|(_, waiter)| waiter.ticket.enqueued_at).min();
        // They were counted when granted, but do not show as leases until they are fetched.
        let unfetched = self.slots.iter().map(|(_, slot)| (slot.class, slot.unfetched()));
        let unfetched: Vec<_> =
            unfetched.filter_map(|(class, waited)| Some((class, waited?))).collect();
        let classes = self.classes.iter().map(|(id, class)| {
            let own = unfetched.iter().filter(|(class, _)| *class == id);
            ClassStats {
                class: class.class.clone(),
                load: class.counts.load(class.waiters.len(), class.max.min(self.config.max_size)),
                min: class.min,
                warm: class.warm,
                waited: class.leases.waited - own.clone().map(|(_, waited)| *waited).sum(),
                granted: class.leases.granted - own.count() as u64,
                failing: class.breaker.is_failing(),
            }
        });
        let mut leases = self.gone;
        self.classes.iter().for_each(|(_, class)| leases.add(class.leases));
        let counters = Counters {
            acquired: leases.granted - unfetched.len() as u64,
            released: leases.released,
            waited: leases.waited - unfetched.iter().map(|(_, waited)| *waited).sum(),
            ..self.counters
        };
        Stats {
            at: now,
            load: self.load(),
            counters,
            classes: classes.collect(),
            groups: self.group_stats(),
            oldest_wait: oldest.map(|at| since(now, at)),
            draining: self.is_draining(),
        }
    }

    /// Returns all known groups, by name.
    fn group_stats(&self) -> Vec<GroupStats> {
        let mut all: Vec<_> = self.groups.iter().map(|(_, state)| state.stats()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub(crate) fn resources(&self) -> Vec<ResourceInfo> {
        let mut all: Vec<ResourceInfo> = self
            .slots
            .iter()
            .map(|(_, slot)| ResourceInfo {
                id: slot.id,
                class: self.classes[slot.class].class.clone(),
                state: slot.state.kind(),
                since: slot.since,
                created_at: slot.created_at,
                uses: slot.uses,
                last_check: slot.last_check,
            })
            .collect();
        all.sort_by_key(|info| info.id);
        all
    }

    pub(crate) fn waiters(&self, now: Instant) -> Vec<WaiterInfo> {
        let mut waiting: Vec<_> = self
            .classes
            .iter()
            .flat_map(|(_, class)| class.waiters.sorted(&self.waiters))
            .collect();
        waiting.sort_unstable_by_key(|(rank, _)| *rank);
        waiting
            .into_iter()
            .map(|(_, waiter)| {
                let waiter = &self.waiters[waiter];
                WaiterInfo {
                    class: self.classes[waiter.class].class.clone(),
                    group: waiter.group.map(|id| self.groups[id].group.name.clone()),
                    priority: waiter.ticket.priority,
                    waited: since(now, waiter.ticket.enqueued_at),
                }
            })
            .collect()
    }
}
