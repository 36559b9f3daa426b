use tokio::time::Instant;

use super::class::ClassId;
use super::group::Claim;
use super::queue::Rank;
use super::slot::Slot;
use super::{Effects, Job, SlotRef, SlotState, State};
use crate::{CloseReason, Event, Meta, ResourceId, ResourceState};

impl<R> State<R> {
    /// Brings a class's place in `hungry` and `short` up to date. Called after every change of
    /// its waiters, slots, limits or breaker; cheap when nothing changed.
    #[inline]
    pub(super) fn refresh(&mut self, id: ClassId) {
        self.settle_groups(id);
        let class = &mut self.classes[id];
        let running = self.phase == super::Phase::Running;
        let hungry = running && class.waiters.ready() > 0 && class.is_hungry();
        if hungry != class.hungry {
            class.hungry = hungry;
            if hungry {
                self.hungry.insert(id);
            } else {
                self.hungry.remove(&id);
            }
        }
        let short = running && (class.min > 0 || class.warm > 0) && class.is_short();
        if short != class.short {
            class.short = short;
            if short {
                self.short.insert(id);
            } else {
                self.short.remove(&id);
            }
        }
    }

    /// Starts the creations that waiters and minimums call for, and makes room for them.
    pub(super) fn pump(&mut self, now: Instant, fx: &mut Effects<R>) {
        self.serve_relieved(now, fx);
        while !self.hungry.is_empty() {
            let creating = self.counts.of(ResourceState::Creating);
            if creating >= self.config.max_creating {
                return;
            }
            let full = self.slots.len() >= self.config.max_size;
            // While everything is leased, as under load, there is nothing to weigh.
            if full && (self.counts.of(ResourceState::Idle) == 0 || !self.needs_room(None)) {
                return;
            }
            let Some((_, class)) = self.hungriest() else { return };
            if !full {
                self.start_creation(class, now, fx);
                continue;
            }
            let Some(idle) = self.least_recently_used(class) else { return };
            self.close_idle(idle, CloseReason::Evicted, now, fx);
        }
        while let Some(&class) = self.short.first() {
            if self.slots.len() >= self.config.max_size
                || self.counts.of(ResourceState::Creating) >= self.config.max_creating
            {
                return;
            }
            self.start_creation(class, now, fx);
        }
    }

    /// Returns `true` if a resource of `class` must make room for another class: there is no other
    /// room, and the other's best waiter has waited longer than its own best one by more than the
    /// patience; or it is of a group that would hold less for its weight even then.
    pub(super) fn must_yield(&self, class: ClassId) -> bool {
        let others = self.hungry.len() - usize::from(self.classes[class].hungry);
        if others == 0 || self.slots.len() < self.config.max_size {
            return false;
        }
        if !self.needs_room(Some(class)) {
            return false;
        }
        let (Some(own), Some((other, _))) = (self.claim(class), self.hungriest()) else {
            return false;
        };
        let Claim { held, rank: Rank { at, sequence } } = other;
        own > Claim { held, rank: Rank { at: at + self.config.eviction_patience, sequence } }
    }

    /// Returns `true` if a full pool must free a place for hungry classes other than `except`. What
    /// is on its way out is enough for as many waiters, and for as many creations as may run at
    /// once.
    pub(super) fn needs_room(&self, except: Option<ClassId>) -> bool {
        let closing = self.counts.of(ResourceState::Closing);
        if closing + self.counts.of(ResourceState::Creating) >= self.config.max_creating {
            return false;
        }
        let others = self.hungry.iter().filter(|id| Some(**id) != except);
        let hunger: usize = others.map(|id| self.classes[*id].hunger()).sum();
        // After a shrink the first ones to go leave no room.
        let coming = (self.config.max_size + closing).saturating_sub(self.slots.len());
        hunger > coming
    }

    /// The hungry class with the best waiter.
    pub(super) fn hungriest(&self) -> Option<(Claim, ClassId)> {
        self.hungry.iter().filter_map(|id| Some((self.claim(*id)?, *id))).min()
    }

    /// The idle resource of another class that was used longest ago; one that its class can
    /// spare before one that it should keep.
    pub(super) fn least_recently_used(&self, hungry: ClassId) -> Option<usize> {
        if self.counts.of(ResourceState::Idle) == 0 {
            return None;
        }
        self.classes
            .iter()
            .filter(|(id, class)| *id != hungry && class.waiters.ready() == 0)
            .filter_map(|(_, class)| class.idle.front().map(|index| (class.can_spare(), *index)))
            .min_by_key(|(spare, index)| (!spare, self.idle(*index).used_at))
            .map(|(_, index)| index)
    }

    fn start_creation(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        self.next_id += 1;
        let id = ResourceId(self.next_id.try_into().expect("ids start at 1"));
        let index = self.slots.insert(Slot {
            state: SlotState::Creating,
            since: now,
            uses: 0,
            id,
            class,
            created_at: now,
            expires_at: None,
            last_check: None,
            doomed: None,
            group: None,
            retiring: false,
        });
        self.counts.add(ResourceState::Creating);
        self.classes[class].counts.add(ResourceState::Creating);
        self.refresh(class);
        let meta: Meta = self.meta(index);
        self.emit(fx, || Event::Creating { id, class: meta.class.clone() });
        fx.jobs.push(Job::Create { slot: SlotRef { index, id }, meta });
    }

    /// No longer counts a slot as stock, so that its replacement is made while it lives.
    pub(super) fn mark_retiring(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.retiring && !matches!(slot.state, SlotState::Closing(_)) {
            slot.retiring = true;
            let class = slot.class;
            self.classes[class].retiring += 1;
            self.refresh(class);
        }
    }
}
