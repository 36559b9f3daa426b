//! Grants: resources on their way to waiters.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::Waiter;
use super::slot::{Arc, ClassId, Pooled, SlotState, Ticket};
use super::{Effects, Job, State, since};
use crate::{AcquireError, Refusal, ResourceState};

impl<R> State<R> {
    /// Grants idle resources of a class to its waiters, best first; resources that have been idle
    /// for long are checked first, one per waiter.
    pub(super) fn serve(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        loop {
            let state = &self.classes[class];
            let (Some(&index), 1..) = (state.idle.back(), state.waiters.ready()) else {
                break;
            };
            if self.is_stale(index, now) {
                if state.counts.of(ResourceState::Checking) >= state.waiters.ready() {
                    break;
                }
                self.classes[class].idle.pop_back();
                self.start_check(index, now, fx);
            } else {
                self.classes[class].idle.pop_back();
                self.grant(index, None, now, fx);
            }
        }
        self.refresh(class);
    }

    /// Hands a resource, either idle or just returned to the engine, to the best waiter of its
    /// class.
    pub(super) fn grant(
        &mut self,
        index: usize,
        arrived: Option<Box<Pooled<R>>>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let id = self.slots[index].class;
        let class = &mut self.classes[id];
        let (waiter, handicap) =
            class.waiters.pop(&mut self.waiters).expect("the class has a waiter");
        let Waiter { ticket, rank, group, .. } = self.waiters.remove(waiter);
        // The ticket has it too, but it is with its caller, perhaps in the cache of another core.
        let came_at = handicap.map_or_else(|| ticket.enqueued_at, |handicap| rank.at - handicap);
        let waited = since(now, came_at);
        class.leases.granted += 1;
        class.leases.waited += waited;
        let held = self.lease(index, None, Some(ticket), now);
        let ((Some(mut pooled), _) | (None, SlotState::Idle(mut pooled))) = (arrived, held) else {
            unreachable!("only an idle resource is granted, or one that has arrived")
        };
        let slot = &self.slots[index];
        pooled.lease(slot.uses, Some(now), waited);
        if let SlotState::Leased { ticket: Some(ticket), .. } = &slot.state {
            fx.wake.add(ticket.grant(pooled));
        }
        if let Some(group) = group {
            self.groups[group].waiting -= 1;
            self.hold(index, group);
        }
    }

    /// Leases an idle resource; `now` is `None` if nobody needs to know when.
    #[inline]
    pub(super) fn lease_idle(
        &mut self,
        index: usize,
        acquired_at: &'static Location<'static>,
        now: Option<Instant>,
    ) -> Box<Pooled<R>> {
        let since = now.unwrap_or(self.slots[index].since);
        let SlotState::Idle(mut pooled) = self.lease(index, Some(acquired_at), None, since) else {
            unreachable!("only an idle resource is leased")
        };
        pooled.lease(self.slots[index].uses, now, Duration::ZERO);
        pooled
    }

    /// Puts a slot into the leased state; returns its previous state.
    #[inline]
    fn lease(
        &mut self,
        index: usize,
        acquired_at: Option<&'static Location<'static>>,
        ticket: Option<Arc<Ticket<R>>>,
        now: Instant,
    ) -> SlotState<R> {
        let overdue_at = self.config.hold_limit.map(|limit| now + limit);
        if let Some(at) = overdue_at {
            self.arm(at);
        }
        let state = self.enter(index, ResourceState::Leased, now);
        let before =
            std::mem::replace(state, SlotState::Leased { overdue_at, acquired_at, ticket });
        self.slots[index].uses += 1;
        let last_use = self.config.max_use_count.is_some_and(|max| self.slots[index].uses >= max);
        if last_use {
            // Its replacement can be made while it is leased.
            self.mark_retiring(index);
        }
        before
    }

    /// Takes back a resource that was granted but not fetched: its waiter has slept for too long,
    /// and gets an error when it wakes. Returns `false` if there was no such grant.
    pub(super) fn take_back(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) -> bool {
        let slot = &self.slots[index];
        let SlotState::Leased { ticket: Some(ticket), .. } = &slot.state else { return false };
        let (class, ticket) = (slot.class, Arc::clone(ticket));
        let (error, outcome, counter) = if self.is_draining() {
            (AcquireError::Closed, Refusal::Error, &mut self.counters.errors)
        } else {
            let error = self.timed_out(class, None, since(now, ticket.enqueued_at));
            (error, Refusal::Timeout, &mut self.counters.timeouts)
        };
        let Some(pooled) = ticket.take_back(error) else { return false };
        *counter += 1;
        self.tell_refused(class, outcome, &ticket, now, fx);
        self.give_back(pooled, now, fx);
        true
    }

    /// Takes back a grant that nobody has touched; the resource is as idle as before.
    pub(super) fn give_back(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.unuse(&mut pooled);
        let leases = &mut self.classes[self.slots[pooled.slot.index].class].leases;
        leases.granted -= 1;
        leases.waited -= pooled.waited;
        self.let_go(pooled.slot.index);
        self.arrived(pooled, now, fx);
    }

    /// Undoes the use that a lease has counted.
    pub(super) fn unuse(&mut self, pooled: &mut Pooled<R>) {
        let slot = &mut self.slots[pooled.slot.index];
        slot.uses -= 1;
        pooled.meta.uses = slot.uses;
        if slot.retiring && slot.doomed.is_none() {
            slot.retiring = false;
            self.classes[slot.class].retiring -= 1;
        }
    }

    #[inline]
    pub(super) fn is_stale(&self, index: usize, now: Instant) -> bool {
        self.config.check_after_idle.is_some_and(|limit| {
            let idled = now.saturating_duration_since(self.idle(index).proven_at);
            if limit.is_zero() { true } else { idled > limit }
        })
    }

    pub(super) fn start_check(&mut self, index: usize, now: Instant, fx: &mut Effects<R>) {
        let pooled = self.take_idle(index, SlotState::Checking, now);
        fx.jobs.push(Job::Check(pooled));
    }
}
