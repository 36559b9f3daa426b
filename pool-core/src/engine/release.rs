use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::{Effects, Job, SlotRef, SlotState, State};
use crate::{BoxError, CloseReason, Event, ResourceState, SharedError, Verdict};

/// How a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// By the verdict of the policies; a plain `Keep` skips the recycling.
    Judged(Verdict),
    /// Its holder says that it is no good.
    Discarded,
}

impl<R> State<R> {
    /// A holder gives a resource back.
    pub(crate) fn release(
        &mut self,
        slot: SlotRef,
        resource: R,
        how: Return,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.counters.released += 1;
        let Some(held) = self.slot(slot) else {
            fx.drop = Some(resource);
            return;
        };
        if !matches!(held.state, SlotState::Leased { .. }) {
            // It was revoked: its place is being freed by that.
            fx.drop = Some(resource);
            return;
        }
        held.proven_at = now;
        held.used_at = now;
        let index = slot.index;
        let class = self.slots[index].class;
        if how != Return::Discarded {
            self.classes[class].breaker.proved();
        }
        let reason = match how {
            Return::Discarded => Some(CloseReason::Discarded),
            Return::Judged(Verdict::Discard) => Some(CloseReason::Policy),
            Return::Judged(_) => None,
        };
        if let Some(reason) = reason.or_else(|| self.end_of(index, now)) {
            self.close(index, resource, reason, now, fx);
        } else if how == Return::Judged(Verdict::Recycle) {
            self.set_state(index, SlotState::Recycling, now);
            let meta = self.meta(index);
            fx.jobs.push(Job::Recycle { slot, meta, resource });
            self.refresh(self.slots[index].class);
        } else {
            self.offer(index, resource, now, fx);
        }
        self.pump(now, fx);
    }

    pub(crate) fn created(
        &mut self,
        slot: SlotRef,
        resource: R,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = now.saturating_duration_since(self.slots[index].since);
        self.counters.created += 1;
        self.classes[class].breaker.succeeded();
        self.slots[index].proven_at = now;
        self.slots[index].used_at = now;
        self.limit_lifetime(index, now);
        self.emit(fx, || Event::Created {
            id: slot.id,
            class: self.classes[class].class.clone(),
            took,
        });
        self.arrived(index, resource, now, fx);
        if !matches!(self.slots[index].state, SlotState::Closing(_)) {
            self.retire_replaced(class, now, fx);
        }
        self.pump(now, fx);
    }

    /// A life begins when the resource is ready: one that took longer to make than it may live
    /// would go before it was ever leased, and be made again at once.
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
        let took = now.saturating_duration_since(self.slots[slot.index].since);
        self.counters.create_failed += 1;
        self.remove(slot.index, fx);
        let breaker = &mut self.classes[class].breaker;
        let retry_after = breaker.failed(now, error.clone(), &self.config, &mut self.rng);
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
        slot: SlotRef,
        resource: R,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = slot.index;
        match result {
            Ok(()) => {
                self.counters.recycled += 1;
                let took = now.saturating_duration_since(self.slots[index].since);
                self.slots[index].proven_at = now;
                self.slots[index].used_at = now;
                self.emit(fx, || {
                    let class = self.classes[self.slots[index].class].class.clone();
                    Event::Recycled { id: slot.id, class, took }
                });
                self.arrived(index, resource, now, fx);
            }
            Err(error) => {
                self.counters.recycle_failed += 1;
                let reason = CloseReason::RecycleFailed(error);
                let reason = self.slots[index].doomed.clone().unwrap_or(reason);
                self.close(index, resource, reason, now, fx);
            }
        }
        self.pump(now, fx);
    }

    pub(crate) fn checked(
        &mut self,
        slot: SlotRef,
        resource: R,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = slot.index;
        let class = self.slots[index].class;
        self.counters.checks += 1;
        match result {
            Ok(()) => {
                let took = now.saturating_duration_since(self.slots[index].since);
                self.slots[index].proven_at = now;
                self.slots[index].last_check = Some((now, took));
                self.classes[class].breaker.proved();
                self.emit(fx, || {
                    let class = self.classes[self.slots[index].class].class.clone();
                    Event::Checked { id: slot.id, class, took }
                });
                self.arrived(index, resource, now, fx);
            }
            Err(error) => {
                self.counters.checks_failed += 1;
                let reason = CloseReason::CheckFailed(error);
                let reason = self.slots[index].doomed.clone().unwrap_or(reason);
                self.close(index, resource, reason, now, fx);
            }
        }
        // A waiter may have counted on this one: it is the next one's turn to be checked.
        self.serve(class, now, fx);
        self.pump(now, fx);
    }

    /// A close or a revocation has ended: the place is free.
    pub(crate) fn closed(&mut self, slot: SlotRef, now: Instant, fx: &mut Effects<R>) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = now.saturating_duration_since(self.slots[index].since);
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
        self.forget(class, now);
    }

    /// A job died with its resource (its driver panicked, or the runtime shut down).
    pub(crate) fn lost(
        &mut self,
        slot: SlotRef,
        error: SharedError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let Some(held) = self.slot(slot) else { return };
        match held.state.kind() {
            ResourceState::Creating => return self.create_failed(slot, error, now, fx),
            ResourceState::Closing => {}
            kind => {
                let reason = match kind {
                    ResourceState::Checking => {
                        self.counters.checks += 1;
                        self.counters.checks_failed += 1;
                        CloseReason::CheckFailed(error)
                    }
                    _ => {
                        self.counters.recycle_failed += 1;
                        CloseReason::RecycleFailed(error)
                    }
                };
                self.closing(slot.index, &reason, now, fx);
                self.set_state(slot.index, SlotState::Closing(reason), now);
                self.serve(self.slots[slot.index].class, now, fx);
            }
        }
        self.closed(slot, now, fx);
    }

    /// A resource is in the pool's hands again, in good order.
    pub(super) fn arrived(&mut self, index: usize, resource: R, now: Instant, fx: &mut Effects<R>) {
        match self.end_of(index, now) {
            Some(reason) => self.close(index, resource, reason, now, fx),
            None => self.offer(index, resource, now, fx),
        }
    }

    /// Puts a good resource to use: the best waiter of its class, or idle, or, where another
    /// class has waited much longer and there is no other room, closed for its sake.
    fn offer(&mut self, index: usize, resource: R, now: Instant, fx: &mut Effects<R>) {
        let class = self.slots[index].class;
        if self.must_yield(class) {
            return self.close(index, resource, CloseReason::Evicted, now, fx);
        }
        if self.classes[class].waiters.is_empty() {
            self.make_idle(index, resource, now);
        } else {
            self.set_state(index, SlotState::Idle(resource), now);
            self.grant(index, now, fx);
        }
        self.refresh(class);
    }

    /// Lays a resource by until somebody wants it or its time comes.
    #[inline]
    pub(super) fn make_idle(&mut self, index: usize, resource: R, now: Instant) {
        self.set_state(index, SlotState::Idle(resource), now);
        self.shelve(index);
        if let Some(limit) = self.config.max_idle_time {
            self.arm(self.slots[index].used_at + limit);
        }
        if let Some(interval) = self.config.health_check_interval {
            self.arm(self.slots[index].proven_at + interval);
        }
    }

    /// Puts an idle resource into its class's list, least recently used first: at the end, unless
    /// it comes from a check or from a caller that went away.
    #[inline]
    fn shelve(&mut self, index: usize) {
        let used_at = self.slots[index].used_at;
        let idle = &mut self.classes[self.slots[index].class].idle;
        let later = idle.iter().rev().take_while(|held| self.slots[**held].used_at > used_at);
        let at = idle.len() - later.count();
        idle.insert(at, index);
    }

    /// Why a resource that is in the pool's hands must go now, if it must. An old one that serves
    /// until its replacement comes is not ended by a check in between.
    #[inline]
    pub(super) fn end_of(&self, index: usize, now: Instant) -> Option<CloseReason> {
        let slot = &self.slots[index];
        if let Some(reason) = &slot.doomed {
            return Some(reason.clone());
        }
        if self.is_draining() {
            return Some(CloseReason::Drained);
        }
        if self.config.max_use_count.is_some_and(|max| slot.uses >= max) {
            return Some(CloseReason::MaxUses);
        }
        let kept = slot.retiring && matches!(slot.state, SlotState::Checking);
        if slot.expires_at.is_some_and(|at| at <= now) && !kept {
            return Some(CloseReason::Lifetime);
        }
        let class = &self.classes[slot.class];
        if self.counts.live() > self.config.max_size || class.counts.live() > class.max {
            return Some(CloseReason::Surplus);
        }
        None
    }

    /// Starts to close a resource that is in the engine's hands.
    pub(super) fn close(
        &mut self,
        index: usize,
        resource: R,
        reason: CloseReason,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.closing(index, &reason, now, fx);
        self.set_state(index, SlotState::Closing(reason.clone()), now);
        let meta = self.meta(index);
        let slot = SlotRef { index, id: meta.id };
        fx.jobs.push(Job::Close { slot, meta, resource, reason });
        self.refresh(self.slots[index].class);
    }

    /// Starts to close an idle resource.
    pub(super) fn close_idle(
        &mut self,
        index: usize,
        reason: CloseReason,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let class = self.slots[index].class;
        let idle = &mut self.classes[class].idle;
        let at = idle.iter().position(|held| *held == index).expect("it is listed as idle");
        idle.remove(at);
        self.closing(index, &reason, now, fx);
        let closing = SlotState::Closing(reason.clone());
        let SlotState::Idle(resource) = self.set_state(index, closing, now) else {
            unreachable!("only idle resources are listed as idle")
        };
        let meta = self.meta(index);
        let slot = SlotRef { index, id: meta.id };
        fx.jobs.push(Job::Close { slot, meta, resource, reason });
        self.refresh(class);
    }

    /// Tells why a resource goes. One that breaks before its first lease counts as a failed
    /// creation: a driver whose resources die young must not be asked for more at full speed.
    pub(super) fn closing(
        &mut self,
        index: usize,
        reason: &CloseReason,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.emit(fx, || {
            let slot = &self.slots[index];
            let class = self.classes[slot.class].class.clone();
            Event::Closing { id: slot.id, class, reason: reason.clone() }
        });
        let slot = &self.slots[index];
        let class = &mut self.classes[slot.class];
        let error = match reason {
            CloseReason::Broken(why) => SharedError::from(BoxError::from(why.as_str())),
            CloseReason::CheckFailed(error) => error.clone(),
            _ => return,
        };
        if slot.uses == 0 && slot.last_check.is_none() {
            let retry_after = class.breaker.failed(now, error, &self.config, &mut self.rng);
            self.arm(now + retry_after);
        }
    }

    fn remove(&mut self, index: usize, fx: &mut Effects<R>) {
        let slot = self.slots.remove(index);
        let class = &mut self.classes[slot.class];
        let kind = slot.state.kind();
        self.counts.remove(kind);
        class.counts.remove(kind);
        if slot.retiring {
            class.retiring -= 1;
        }
        fx.drained |= self.is_draining() && self.slots.is_empty();
    }

    /// Closes one idle resource that was only kept until a replacement came.
    fn retire_replaced(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        let mut idle = self.classes[class].idle.iter().copied();
        if let Some(index) = idle.find(|index| self.slots[*index].retiring) {
            self.close_idle(index, CloseReason::Lifetime, now, fx);
        }
    }
}

/// How long ago something was, never negative.
pub(super) fn since(now: Instant, then: Instant) -> Duration {
    now.saturating_duration_since(then)
}
