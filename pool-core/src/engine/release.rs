use tokio::time::Instant;

use super::{Effects, Job, Pooled, SlotState, State};
use crate::{CloseReason, Verdict};

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
        pooled: Box<Pooled<R>>,
        how: Return,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.counters.released += 1;
        let Some(held) = self.slot(pooled.slot) else {
            fx.drop = Some(pooled);
            return;
        };
        let SlotState::Leased { ticket, .. } = &mut held.state else {
            // It was revoked: its place is being freed by that.
            fx.drop = Some(pooled);
            return;
        };
        fx.spent = ticket.take();
        held.proven_at = now;
        held.used_at = now;
        let index = pooled.slot.index;
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
    fn offer(&mut self, pooled: Box<Pooled<R>>, now: Instant, fx: &mut Effects<R>) {
        let class = self.slots[pooled.slot.index].class;
        if self.must_yield(class) {
            return self.close(pooled, CloseReason::Evicted, now, fx);
        }
        if self.classes[class].waiters.is_empty() {
            self.make_idle(pooled, now);
        } else {
            self.grant(pooled.slot.index, Some(pooled), now, fx);
        }
        self.refresh(class);
    }

    /// Lays a resource by until somebody wants it or its time comes.
    #[inline]
    pub(super) fn make_idle(&mut self, pooled: Box<Pooled<R>>, now: Instant) {
        let index = pooled.slot.index;
        self.set_state(index, SlotState::Idle(pooled), now);
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
}
