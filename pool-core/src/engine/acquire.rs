use std::cmp::Reverse;
use std::panic::Location;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::class::{ClassId, Rank};
use super::waiter::{Waiter, WaiterId, WaiterState};
use super::{Effects, Grant, Job, SlotRef, SlotState, State};
use crate::{AcquireError, Class, Event, Limits, Refusal, ResourceState};

/// A request as the engine sees it, after the policies had their say.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) class: &'a Class,
    /// What the policies allow the class; asked for only when the class is new.
    pub(crate) limits: Option<Option<Limits>>,
    pub(crate) handicap: Duration,
    pub(crate) priority: Option<u8>,
    /// Do not wait for anything but a check of an idle resource.
    pub(crate) nowait: bool,
    pub(crate) acquired_at: &'static Location<'static>,
}

/// The engine's answer to a request.
#[derive(Debug)]
pub(crate) enum Acquired<R> {
    Granted(Grant<R>),
    Queued(WaiterId),
    Refused(AcquireError),
    /// The class is new: ask the policies for its limits, then ask again.
    UnknownClass,
}

impl<R> State<R> {
    pub(crate) fn acquire(
        &mut self,
        asked: &Asked<'_>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        if self.is_draining() {
            return self.refuse(asked.class, AcquireError::Closed, fx);
        }
        let class = match (self.class_id(asked.class), asked.limits) {
            (Some(class), _) => class,
            (None, Some(limits)) => self.intern(asked.class, limits),
            (None, None) => return Acquired::UnknownClass,
        };
        if self.classes[class].waiters.is_empty()
            && let Some(&index) = self.classes[class].idle.back()
            && !self.is_stale(index, now)
        {
            self.classes[class].idle.pop_back();
            let grant = self.lease(index, asked.acquired_at, Duration::ZERO, now, fx);
            self.counters.acquired += 1;
            self.classes[class].granted += 1;
            self.refresh(class);
            self.pump(now, fx);
            return Acquired::Granted(grant);
        }
        if self.classes[class].is_hopeless() {
            let error = self.unavailable(class, now);
            return self.refuse(asked.class, error, fx);
        }
        if self.waiting >= self.config.max_waiting {
            let error = AcquireError::QueueFull { load: self.load() };
            return self.refuse(asked.class, error, fx);
        }
        let waiter = self.enqueue(class, asked, now);
        self.serve(class, now, fx);
        if asked.nowait && self.waiters.contains(waiter) && self.is_unserved(waiter) {
            self.dequeue(waiter);
            self.refresh(class);
            self.waiters.remove(waiter);
            let error = AcquireError::Timeout {
                waited: Duration::ZERO,
                load: self.load(),
                last: self.classes[class].breaker.last().cloned(),
            };
            return self.refuse(asked.class, error, fx);
        }
        self.emit(fx, || Event::Enqueued { class: asked.class.clone() });
        self.pump(now, fx);
        Acquired::Queued(waiter)
    }

    /// Fetches the answer of a waiter, or leaves a waker to be told of it.
    ///
    /// A waker that is replaced is pushed to the caller, since dropping it runs foreign code.
    pub(crate) fn poll(
        &mut self,
        waiter: WaiterId,
        waker: Waker,
    ) -> (Poll<Result<Grant<R>, AcquireError>>, Option<Waker>) {
        if let WaiterState::Waiting(held) = &mut self.waiters[waiter].state {
            return (Poll::Pending, held.replace(waker));
        }
        (Poll::Ready(self.fetch(waiter).expect("the waiter was answered")), Some(waker))
    }

    /// The caller's time is up: it gets its answer if there is one by now, else it leaves.
    pub(crate) fn expire(
        &mut self,
        waiter: WaiterId,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Result<Grant<R>, AcquireError> {
        if let Some(answer) = self.fetch(waiter) {
            return answer;
        }
        let class = self.waiters[waiter].class;
        let error = AcquireError::Timeout {
            waited: now.saturating_duration_since(self.waiters[waiter].enqueued_at),
            load: self.load(),
            last: self.classes[class].breaker.last().cloned(),
        };
        self.leave(waiter, Refusal::Timeout, now, fx);
        self.counters.timeouts += 1;
        Err(error)
    }

    /// The caller went away: it leaves the queue, and a grant it had got goes to the next.
    pub(crate) fn cancel(&mut self, waiter: WaiterId, now: Instant, fx: &mut Effects<R>) {
        if !matches!(self.waiters[waiter].state, WaiterState::Waiting(_)) {
            let waiter = self.waiters.remove(waiter);
            if let WaiterState::Granted(grant) = waiter.state {
                self.counters.cancelled += 1;
                self.emit(fx, || Event::Refused {
                    class: grant.meta.class.clone(),
                    outcome: Refusal::Cancelled,
                    waited: grant.waited,
                });
                self.give_back(grant, now, fx);
            }
            return;
        }
        self.leave(waiter, Refusal::Cancelled, now, fx);
        self.counters.cancelled += 1;
    }

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
        let (waiter, _) = self.classes[class].waiters.pop().expect("the class has a waiter");
        self.waiting -= 1;
        let held = &self.waiters[waiter];
        let (acquired_at, waited) =
            (held.acquired_at, now.saturating_duration_since(held.enqueued_at));
        let grant = self.lease(index, acquired_at, waited, now, fx);
        self.answer(waiter, WaiterState::Granted(grant), fx);
    }

    /// Fails every waiter of a class that nothing can serve.
    pub(super) fn fail_hopeless(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        if !self.classes[class].is_hopeless() {
            return;
        }
        let error = self.unavailable(class, now);
        self.fail_waiters(class, &error, now, fx);
    }

    pub(super) fn fail_waiters(
        &mut self,
        class: ClassId,
        error: &AcquireError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        while let Some((waiter, _)) = self.classes[class].waiters.pop() {
            self.waiting -= 1;
            self.counters.errors += 1;
            let waited = now.saturating_duration_since(self.waiters[waiter].enqueued_at);
            self.emit(fx, || Event::Refused {
                class: self.classes[class].class.clone(),
                outcome: Refusal::Error,
                waited,
            });
            self.answer(waiter, WaiterState::Failed(error.clone()), fx);
        }
        self.refresh(class);
    }

    fn answer(&mut self, waiter: WaiterId, answer: WaiterState<R>, fx: &mut Effects<R>) {
        let state = &mut self.waiters[waiter].state;
        if let WaiterState::Waiting(Some(waker)) = std::mem::replace(state, answer) {
            fx.wake.push(waker);
        }
    }

    fn fetch(&mut self, waiter: WaiterId) -> Option<Result<Grant<R>, AcquireError>> {
        if matches!(self.waiters[waiter].state, WaiterState::Waiting(_)) {
            return None;
        }
        let held = self.waiters.remove(waiter);
        Some(match held.state {
            WaiterState::Granted(grant) => {
                self.counters.acquired += 1;
                self.counters.waited += grant.waited;
                let class = &mut self.classes[held.class];
                class.granted += 1;
                class.waited += grant.waited;
                Ok(grant)
            }
            WaiterState::Failed(error) => Err(error),
            WaiterState::Waiting(_) => unreachable!("asked above"),
        })
    }

    fn lease(
        &mut self,
        index: usize,
        acquired_at: &'static Location<'static>,
        waited: Duration,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Grant<R> {
        let overdue_at = self.config.hold_limit.map(|limit| now + limit);
        if let Some(at) = overdue_at {
            self.arm(at, fx);
        }
        let state = SlotState::Leased { overdue_at, acquired_at };
        let SlotState::Idle(resource) = self.set_state(index, state, now) else {
            unreachable!("only an idle resource is leased")
        };
        self.slots[index].uses += 1;
        let last_use = self.config.max_use_count.is_some_and(|max| self.slots[index].uses >= max);
        if last_use {
            // Its replacement can be made while it is out.
            self.mark_retiring(index);
        }
        let meta = self.meta(index);
        Grant { slot: SlotRef { index, id: meta.id }, meta, resource, leased_at: now, waited }
    }

    /// Takes back a grant that nobody has touched: it is as idle as it was.
    fn give_back(&mut self, grant: Grant<R>, now: Instant, fx: &mut Effects<R>) {
        let Some(slot) = self.slot(grant.slot) else {
            fx.drop = Some(grant.resource);
            return;
        };
        if !matches!(slot.state, SlotState::Leased { .. }) {
            fx.drop = Some(grant.resource);
            return;
        }
        slot.uses -= 1;
        if slot.retiring && slot.doomed.is_none() {
            slot.retiring = false;
            let class = slot.class;
            self.classes[class].retiring -= 1;
        }
        self.offer(grant.slot.index, grant.resource, now, fx);
    }

    fn enqueue(&mut self, class: ClassId, asked: &Asked<'_>, now: Instant) -> WaiterId {
        let rank = Rank { at: now + asked.handicap, sequence: self.next_sequence };
        self.next_sequence += 1;
        let waiter = self.waiters.insert(Waiter {
            class,
            priority: asked.priority,
            enqueued_at: now,
            acquired_at: asked.acquired_at,
            state: WaiterState::Waiting(None),
        });
        self.classes[class].waiters.push(waiter, Reverse(rank));
        self.waiting += 1;
        waiter
    }

    fn dequeue(&mut self, waiter: WaiterId) {
        let class = self.waiters[waiter].class;
        let found = self.classes[class].waiters.remove(&waiter);
        debug_assert!(found.is_some(), "a waiting waiter stands in its class's queue");
        self.waiting -= 1;
    }

    fn leave(&mut self, waiter: WaiterId, outcome: Refusal, now: Instant, fx: &mut Effects<R>) {
        self.dequeue(waiter);
        let held = self.waiters.remove(waiter);
        self.refresh(held.class);
        self.emit(fx, || Event::Refused {
            class: self.classes[held.class].class.clone(),
            outcome,
            waited: now.saturating_duration_since(held.enqueued_at),
        });
        if let WaiterState::Waiting(Some(waker)) = held.state {
            // Waking a caller that leaves is harmless; dropping its waker here would not be.
            fx.wake.push(waker);
        }
    }

    /// Whether a waiter still waits and no check that is under way is meant for it.
    fn is_unserved(&self, waiter: WaiterId) -> bool {
        let held = &self.waiters[waiter];
        let class = &self.classes[held.class];
        matches!(held.state, WaiterState::Waiting(_))
            && class.counts.of(ResourceState::Checking) < class.waiters.len()
    }

    fn refuse(&mut self, class: &Class, error: AcquireError, fx: &mut Effects<R>) -> Acquired<R> {
        let (outcome, counter) = match &error {
            AcquireError::Timeout { .. } => (Refusal::Timeout, &mut self.counters.timeouts),
            AcquireError::QueueFull { .. } => (Refusal::Rejected, &mut self.counters.rejected),
            _ => (Refusal::Error, &mut self.counters.errors),
        };
        *counter += 1;
        let waited = Duration::ZERO;
        self.emit(fx, || Event::Refused { class: class.clone(), outcome, waited });
        Acquired::Refused(error)
    }

    fn unavailable(&self, class: ClassId, now: Instant) -> AcquireError {
        let breaker = &self.classes[class].breaker;
        AcquireError::Unavailable {
            last: breaker.last().cloned().expect("an open breaker has an error"),
            retry_after: breaker
                .retry_at()
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
        }
    }

    fn is_stale(&self, index: usize, now: Instant) -> bool {
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
