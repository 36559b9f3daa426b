use tokio::time::Instant;

use super::{Effects, Job, Pooled, SlotRef, SlotState, State};
use crate::{CloseReason, ResourceState, Verdict};

/// The way in which a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// By the verdict of the policies; a plain `Keep` skips the recycling.
    Judged(Verdict),
    /// Its holder says that it is no good.
    Discarded,
    /// Its holder has not touched it.
    Untouched,
}

impl<R> State<R> {
    /// A holder gives a resource back.
    pub(crate) fn release(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        how: Return,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let held = self.slot(pooled.slot).map(|held| (held.class, &mut held.state));
        let Some((class, SlotState::Leased { ticket, .. })) = held else {
            // It was revoked: its place is being freed by that, or is free.
            self.gone.released += 1;
            fx.drop = Some(pooled);
            return;
        };
        fx.spent = ticket.take();
        let index = pooled.slot.index;
        self.classes[class].leases.released += 1;
        // First, so that its own group may have what it gives back.
        self.let_go(index);
        let reason = match how {
            Return::Discarded => Some(CloseReason::Discarded),
            Return::Judged(Verdict::Discard) => Some(CloseReason::Policy),
            Return::Judged(_) | Return::Untouched => None,
        };
        match how {
            // What nobody has used has shown nothing.
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

    /// A resource is in the pool's hands again, in good order.
    pub(super) fn arrived(&mut self, pooled: Box<Pooled<R>>, now: Instant, fx: &mut Effects<R>) {
        match self.end_of(pooled.slot.index, now) {
            Some(reason) => self.close(pooled, reason, now, fx),
            None => self.offer(pooled, now, fx),
        }
    }

    /// Puts a good resource to use: the best waiter of its class, or idle, or, where another
    /// class has waited much longer and there is no other room, closed for its sake.
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

    /// Lays a resource by until somebody wants it or its time comes.
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
