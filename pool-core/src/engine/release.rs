//! Resources that come back, and those that go.

use tokio::time::Instant;

use super::class::Counts;
use super::slot::{ClassId, Pooled, SlotRef, SlotState};
use super::{Effects, Job, State};
use crate::{BoxError, CloseReason, Event, ResourceState, SharedError, Verdict};

/// The way in which a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// By the verdict of the policies; a plain `Keep` means that recycling is skipped.
    Judged(Verdict),
    /// Its holder discarded it.
    Discarded,
    /// Its holder has not touched it.
    Untouched,
}

impl<R> State<R> {
    /// Makes a good resource idle again if nothing else has to be decided; otherwise gives it back
    /// to the caller.
    #[inline]
    pub(crate) fn release_quietly(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        now: Instant,
    ) -> Result<(), Box<Pooled<R>>> {
        let index = pooled.slot.index;
        let held = self.slot(pooled.slot);
        let held = held.filter(|held| matches!(held.state, SlotState::Leased { .. }));
        let Some(held) = held else { return Err(pooled) };
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

    /// Takes back a resource from its holder.
    pub(crate) fn release(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        how: Return,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let held = self.slot(pooled.slot).map(|held| (held.class, &mut held.state));
        let Some((class, SlotState::Leased { ticket, .. })) = held else {
            // It was revoked: its place is being freed by the revocation, or is free already.
            self.gone.released += 1;
            fx.drop = Some(pooled);
            return;
        };
        fx.spent = ticket.take();
        let index = pooled.slot.index;
        self.classes[class].leases.released += 1;
        // First, so that the group itself may get what it gives back.
        self.let_go(index);
        let reason = match how {
            Return::Discarded => Some(CloseReason::Discarded),
            Return::Judged(Verdict::Discard) => Some(CloseReason::Policy),
            Return::Judged(_) | Return::Untouched => None,
        };
        match how {
            // A resource that nobody used has not proved that it works.
            Return::Untouched => self.unuse(&mut pooled),
            Return::Discarded => pooled.served(now),
            Return::Judged(_) => {
                pooled.served(now);
                self.classes[class].breaker.proved();
            }
        }
        if let Some(reason) = reason.or_else(|| self.end_of(index, now)) {
            self.close(pooled, reason, now, fx);
        } else if how == Return::Judged(Verdict::Recycle) {
            self.set_state(index, SlotState::Recycling, now);
            fx.jobs.push(Job::Recycle(pooled));
            self.refresh(self.slots[index].class);
        } else {
            self.offer(pooled, now, fx);
        }
        self.pump(now, fx);
    }

    /// Takes in a resource that has come back to the pool in good order.
    pub(super) fn arrived(&mut self, pooled: Box<Pooled<R>>, now: Instant, fx: &mut Effects<R>) {
        match self.end_of(pooled.slot.index, now) {
            Some(reason) => self.close(pooled, reason, now, fx),
            None => self.offer(pooled, now, fx),
        }
    }

    /// Puts a good resource to use: it goes to the best waiter of its class, or becomes idle, or is
    /// closed if another class has waited much longer and there is no other room.
    #[inline]
    fn offer(&mut self, pooled: Box<Pooled<R>>, now: Instant, fx: &mut Effects<R>) {
        let class = self.slots[pooled.slot.index].class;
        if self.must_yield(class) {
            return self.close(pooled, CloseReason::Evicted, now, fx);
        }
        if self.classes[class].waiters.ready() == 0 {
            self.make_idle(pooled, now);
        } else {
            self.grant(pooled.slot.index, Some(pooled), now, fx);
        }
        self.refresh(class);
    }

    /// Keeps a resource idle until somebody asks for it or its time comes.
    #[inline]
    pub(super) fn make_idle(&mut self, pooled: Box<Pooled<R>>, now: Instant) {
        let Pooled { slot: SlotRef { index, .. }, used_at, proven_at, .. } = *pooled;
        *self.enter(index, ResourceState::Idle, now) = SlotState::Idle(pooled);
        self.shelve(index, used_at, now);
        if let Some(limit) = self.config.max_idle_time {
            self.arm(used_at + limit);
        }
        if let Some(interval) = self.config.health_check_interval {
            self.arm(proven_at + interval);
        }
    }

    /// Puts an idle resource into its class's list, least recently used first: at the end, unless
    /// it comes from a check or from a caller that went away.
    #[inline]
    fn shelve(&mut self, index: usize, used_at: Instant, now: Instant) {
        let class = self.slots[index].class;
        if used_at == now {
            return self.classes[class].idle.push_back(index);
        }
        let idle = &self.classes[class].idle;
        let later = idle.iter().rev().take_while(|held| self.idle(**held).used_at > used_at);
        let at = idle.len() - later.count();
        self.classes[class].idle.insert(at, index);
    }
}

/// Closing of resources.
impl<R> State<R> {
    /// Returns the reason to close a resource that is in the pool's hands, if there is one. An old
    /// one that serves until its replacement comes is not closed because of a check in between.
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
        // Each count is at most the number of slots, so the sums are seldom needed.
        let slots = self.slots.len();
        let is_surplus = |max: usize, counts: &Counts| slots > max && counts.live() > max;
        if is_surplus(self.config.max_size, &self.counts) || is_surplus(class.max, &class.counts) {
            return Some(CloseReason::Surplus);
        }
        None
    }

    /// Starts to close a resource that is in the engine's hands.
    pub(super) fn close(
        &mut self,
        pooled: Box<Pooled<R>>,
        reason: CloseReason,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = pooled.slot.index;
        self.closing(index, &reason, now, fx);
        self.set_state(index, SlotState::Closing(reason.clone()), now);
        fx.jobs.push(Job::Close(pooled, reason));
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
        let pooled = self.take_idle(index, SlotState::Closing(reason.clone()), now);
        fx.jobs.push(Job::Close(pooled, reason));
        self.refresh(class);
    }

    /// Publishes why a resource is closed. One that breaks before its first lease counts as a
    /// failed creation: a driver whose resources die young must not be asked for more at full
    /// speed.
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
            CloseReason::IdleTimeout
            | CloseReason::Lifetime
            | CloseReason::MaxUses
            | CloseReason::RecycleFailed(_)
            | CloseReason::Discarded
            | CloseReason::Policy
            | CloseReason::Overdue
            | CloseReason::Evicted
            | CloseReason::Surplus
            | CloseReason::Invalidated
            | CloseReason::Drained => return,
        };
        if slot.uses == 0 && slot.last_check.is_none() {
            let (retry_after, before) =
                class.breaker.failed(now, error, &self.config, &mut self.rng);
            fx.errors.extend(before);
            self.arm(now + retry_after);
        }
    }

    pub(super) fn remove(&mut self, index: usize, fx: &mut Effects<R>) {
        let slot = self.slots.remove(index);
        let class = &mut self.classes[slot.class];
        let kind = slot.state.kind();
        self.counts.remove(kind);
        class.counts.remove(kind);
        if slot.retiring {
            class.retiring -= 1;
        }
        if let SlotState::Closing(reason) = slot.state {
            fx.errors.extend(reason.into_error());
        }
        fx.drained |= self.is_draining() && self.slots.is_empty();
    }

    /// Closes one idle resource that was only kept until its replacement came.
    pub(super) fn retire_replaced(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        let mut idle = self.classes[class].idle.iter().copied();
        if let Some(index) = idle.find(|index| self.slots[*index].retiring) {
            self.close_idle(index, CloseReason::Lifetime, now, fx);
        }
    }
}
