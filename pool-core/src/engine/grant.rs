//! Resources on their way to those who wait.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::slot::Unfetched;
use super::waiter::{WaiterId, WaiterState};
use super::{Effects, Grant, Job, SlotRef, SlotState, State};
use crate::{AcquireError, Refusal, ResourceState};

impl<R> State<R> {
    /// Grants idle resources of a class to its waiters, best first; those that have idled long
    /// are checked first, one per waiter.
    pub(super) fn serve(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        loop {
            let state = &self.classes[class];
            let (Some(&index), false) = (state.idle.back(), state.waiters.is_empty()) else {
                break;
            };
            if self.is_stale(index, now) {
                if state.counts.of(ResourceState::Checking) >= state.waiters.len() {
                    break;
                }
                self.classes[class].idle.pop_back();
                self.start_check(index, now, fx);
            } else {
                self.classes[class].idle.pop_back();
                self.grant(index, now, fx);
            }
        }
        self.refresh(class);
    }

    /// Hands the slot's resource, which is in the engine's hands, to the best waiter of its class.
    pub(super) fn grant(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) {
        let class = self.slots[index].class;
        let waiter =
            self.classes[class].waiters.pop(&mut self.waiters).expect("the class has a waiter");
        self.waiting -= 1;
        let resource = self.lease(index, self.waiters[waiter].acquired_at, now);
        if let SlotState::Leased { unfetched, .. } = &mut self.slots[index].state {
            *unfetched = Some(Unfetched { waiter, resource });
        }
        self.answer(waiter, WaiterState::Granted(index), fx);
    }

    /// Leases an idle resource.
    #[inline]
    pub(super) fn lease(
        &mut self,
        index: usize,
        acquired_at: &'static Location<'static>,
        now: Instant,
    ) -> R {
        let overdue_at = self.config.hold_limit.map(|limit| now + limit);
        if let Some(at) = overdue_at {
            self.arm(at);
        }
        let state = SlotState::Leased { overdue_at, acquired_at, unfetched: None };
        let SlotState::Idle(resource) = self.set_state(index, state, now) else {
            unreachable!("only an idle resource is leased")
        };
        self.slots[index].uses += 1;
        let last_use = self.config.max_use_count.is_some_and(|max| self.slots[index].uses >= max);
        if last_use {
            // Its replacement can be made while it is out.
            self.mark_retiring(index);
        }
        resource
    }

    /// What the holder of a leased resource gets.
    #[inline]
    pub(super) fn granted(
        &self,
        index: usize,
        resource: R,
        leased_at: Option<Instant>,
        waited: Duration,
    ) -> Grant<R> {
        let meta = self.meta(index);
        Grant { slot: SlotRef { index, id: meta.id }, meta, resource, leased_at, waited }
    }

    /// Takes a resource back that was granted, but never fetched: its waiter, if there is one,
    /// has slept for too long and gets an error when it wakes. Says whether there was one.
    pub(super) fn take_back(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) -> bool {
        let SlotState::Leased { unfetched: Some(Unfetched { waiter, .. }), .. } =
            self.slots[index].state
        else {
            return false;
        };
        let (error, outcome) = if self.is_draining() {
            self.counters.errors += 1;
            (AcquireError::Closed, Refusal::Error)
        } else {
            self.counters.timeouts += 1;
            (self.timed_out(waiter, now), Refusal::Timeout)
        };
        let held = &mut self.waiters[waiter];
        let (class, enqueued_at) = (held.class, held.enqueued_at);
        held.state = WaiterState::Failed(error.into());
        self.tell_refused(class, outcome, enqueued_at, now, fx);
        self.give_back(index, now, fx);
        true
    }

    /// Takes back a grant that nobody has touched: it is as idle as it was.
    pub(super) fn give_back(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) {
        let slot = &mut self.slots[index];
        let resource = slot.fetch().expect("what is granted is kept until it is fetched");
        slot.uses -= 1;
        if slot.retiring && slot.doomed.is_none() {
            slot.retiring = false;
            let class = slot.class;
            self.classes[class].retiring -= 1;
        }
        self.arrived(index, resource, now, fx);
    }

    pub(super) fn answer(&mut self, waiter: WaiterId, answer: WaiterState, fx: &mut Effects<R>) {
        let state = &mut self.waiters[waiter].state;
        if let WaiterState::Waiting(Some(waker)) = std::mem::replace(state, answer) {
            fx.wake.push(waker);
        }
    }

    #[inline]
    pub(super) fn is_stale(&self, index: usize, now: Instant) -> bool {
        self.config.check_after_idle.is_some_and(|limit| {
            let idled = now.saturating_duration_since(self.slots[index].proven_at);
            if limit.is_zero() { true } else { idled > limit }
        })
    }

    pub(super) fn start_check(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) {
        let SlotState::Idle(resource) = self.set_state(index, SlotState::Checking, now) else {
            unreachable!("only an idle resource is checked")
        };
        let meta = self.meta(index);
        fx.jobs.push(Job::Check { slot: SlotRef { index, id: meta.id }, meta, resource });
    }
}
