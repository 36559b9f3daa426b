//! Supply of resources: what is made and for whom, and the outcomes of jobs on resources.

use std::time::Duration;

use tokio::time::Instant;

use super::group::Claim;
use super::queue::Rank;
use super::slot::{ClassId, Pooled, Slot, SlotRef, SlotState};
use super::{Effects, Job, State, since};
use crate::{CloseReason, Event, Meta, ResourceId, ResourceState, SharedError};

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
            // While everything is leased, as under load, nothing can be closed to make room.
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
    /// room, and the best waiter of the other class has waited longer than this class's own by more
    /// than the patience, or belongs to a group that would hold less for its weight even with one
    /// lease more.
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

    /// Returns `true` if a full pool must free a place for hungry classes other than `except`. Each
    /// resource that is closing will make room for one waiter, and no more room is needed than
    /// creations may run at once.
    pub(super) fn needs_room(&self, except: Option<ClassId>) -> bool {
        let closing = self.counts.of(ResourceState::Closing);
        if closing + self.counts.of(ResourceState::Creating) >= self.config.max_creating {
            return false;
        }
        let others = self.hungry.iter().filter(|id| Some(**id) != except);
        let hunger: usize = others.map(|id| self.classes[*id].hunger()).sum();
        // After a shrink, the first resources to close leave no room.
        let coming = (self.config.max_size + closing).saturating_sub(self.slots.len());
        hunger > coming
    }

    /// Returns the hungry class with the best waiter.
    pub(super) fn hungriest(&self) -> Option<(Claim, ClassId)> {
        self.hungry.iter().filter_map(|id| Some((self.claim(*id)?, *id))).min()
    }

    /// Returns the idle resource of another class that was used longest ago, preferring one that
    /// its class can spare to one that it should keep.
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

    /// Stops counting a slot as stock, so that its replacement is made while it lives.
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

/// Outcomes of jobs: creations, recyclings, checks and closes.
impl<R> State<R> {
    pub(crate) fn created(
        &mut self,
        slot: SlotRef,
        resource: R,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = since(now, self.slots[index].since);
        self.counters.created += 1;
        fx.errors.extend(self.classes[class].breaker.succeeded());
        self.limit_lifetime(index, now);
        self.emit(fx, || Event::Created {
            id: slot.id,
            class: self.classes[class].class.clone(),
            took,
        });
        let pooled = Pooled {
            slot,
            meta: self.meta(index),
            resource,
            leased_at: None,
            waited: Duration::ZERO,
            used_at: now,
            proven_at: now,
        };
        self.arrived(Box::new(pooled), now, fx);
        if !matches!(self.slots[index].state, SlotState::Closing(_)) {
            self.retire_replaced(class, now, fx);
        }
        self.pump(now, fx);
    }

    /// Starts the lifetime of a resource when it is ready: otherwise one that took longer to make
    /// than it may live would be closed before its first lease, and made again at once.
    fn limit_lifetime(&mut self, index: usize, now: Instant) {
        let Some(lifetime) = self.config.max_lifetime else { return };
        let shorter = self.config.lifetime_jitter * self.rng.f64();
        let expires_at = now + lifetime.mul_f64(1.0 - shorter);
        self.slots[index].expires_at = Some(expires_at);
        self.arm(expires_at);
    }

    pub(crate) fn create_failed(
        &mut self,
        slot: SlotRef,
        error: SharedError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let class = self.slots[slot.index].class;
        let took = since(now, self.slots[slot.index].since);
        self.counters.create_failed += 1;
        self.remove(slot.index, fx);
        let breaker = &mut self.classes[class].breaker;
        let (retry_after, before) = breaker.failed(now, error.clone(), &self.config, &mut self.rng);
        fx.errors.extend(before);
        let consecutive = breaker.failures();
        self.arm(now + retry_after);
        self.emit(fx, || Event::CreateFailed {
            id: slot.id,
            class: self.classes[class].class.clone(),
            took,
            error,
            consecutive,
            retry_after,
        });
        self.fail_hopeless(class, now, fx);
        self.refresh(class);
        self.pump(now, fx);
    }

    pub(crate) fn recycled(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let SlotRef { index, id } = pooled.slot;
        let took = since(now, self.slots[index].since);
        let failed = match result {
            Ok(()) => {
                self.counters.recycled += 1;
                pooled.served(now);
                let class = &self.classes[self.slots[index].class].class;
                self.emit(fx, || Event::Recycled { id, class: class.clone(), took });
                None
            }
            Err(error) => {
                self.counters.recycle_failed += 1;
                Some(CloseReason::RecycleFailed(error))
            }
        };
        self.handed_back(pooled, failed, now, fx);
        self.pump(now, fx);
    }

    pub(crate) fn checked(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let SlotRef { index, id } = pooled.slot;
        let took = since(now, self.slots[index].since);
        let class = self.slots[index].class;
        self.counters.checks += 1;
        let failed = match result {
            Ok(()) => {
                pooled.proven_at = now;
                self.slots[index].last_check = Some((now, took));
                self.classes[class].breaker.proved();
                let class = &self.classes[class].class;
                self.emit(fx, || Event::Checked { id, class: class.clone(), took });
                None
            }
            Err(error) => {
                self.counters.checks_failed += 1;
                Some(CloseReason::CheckFailed(error))
            }
        };
        self.handed_back(pooled, failed, now, fx);
        // A waiter may have counted on this resource; the next one is now checked for it.
        self.serve(class, now, fx);
        self.pump(now, fx);
    }

    /// Takes a resource back from its job, in good order or with a reason to close it. A reason
    /// that the pool has found in the meantime takes precedence.
    fn handed_back(
        &mut self,
        pooled: Box<Pooled<R>>,
        failed: Option<CloseReason>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        match failed {
            None => self.arrived(pooled, now, fx),
            Some(reason) => match self.slots[pooled.slot.index].doomed.clone() {
                Some(doomed) => {
                    fx.errors.extend(reason.into_error());
                    self.close(pooled, doomed, now, fx);
                }
                None => self.close(pooled, reason, now, fx),
            },
        }
    }

    /// Frees the place of a resource whose close or revocation has ended.
    pub(crate) fn closed(&mut self, slot: SlotRef, now: Instant, fx: &mut Effects<R>) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = since(now, self.slots[index].since);
        self.counters.closed += 1;
        if let SlotState::Closing(reason) = &self.slots[index].state {
            let reason = reason.clone();
            self.emit(fx, || Event::Closed {
                id: slot.id,
                class: self.classes[class].class.clone(),
                reason,
                took,
            });
        }
        self.remove(index, fx);
        self.fail_hopeless(class, now, fx);
        self.refresh(class);
        self.pump(now, fx);
        self.forget(class, now, fx);
    }

    /// Gives up a resource that was lost with its job (the driver panicked, or the runtime shut
    /// down).
    pub(crate) fn lost(
        &mut self,
        slot: SlotRef,
        error: SharedError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let Some(held) = self.slot(slot) else { return };
        let reason = match held.state {
            SlotState::Creating => return self.create_failed(slot, error, now, fx),
            SlotState::Checking => {
                self.counters.checks += 1;
                self.counters.checks_failed += 1;
                Some(CloseReason::CheckFailed(error))
            }
            SlotState::Recycling | SlotState::Idle(_) | SlotState::Leased { .. } => {
                self.counters.recycle_failed += 1;
                Some(CloseReason::RecycleFailed(error))
            }
            SlotState::Closing(_) => None,
        };
        if let Some(reason) = reason {
            self.closing(slot.index, &reason, now, fx);
            self.set_state(slot.index, SlotState::Closing(reason), now);
            self.serve(self.slots[slot.index].class, now, fx);
        }
        self.closed(slot, now, fx);
    }
}
