//! The ends of resources.

use tokio::time::Instant;

use super::class::ClassId;
use super::{Effects, Job, Pooled, SlotState, State};
use crate::{BoxError, CloseReason, Event, SharedError};

impl<R> State<R> {
    /// Returns the reason to close a resource that is in the pool's hands, if there is one. An old
    /// one that serves until its replacement comes is not ended by a check in between.
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

    /// Closes one idle resource that was only kept until a replacement came.
    pub(super) fn retire_replaced(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        let mut idle = self.classes[class].idle.iter().copied();
        if let Some(index) = idle.find(|index| self.slots[*index].retiring) {
            self.close_idle(index, CloseReason::Lifetime, now, fx);
        }
    }
}
