//! Requests: how each is answered, with a resource or without.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::group::GroupState;
use super::queue::{Links, Rank, Waiter, WaiterId};
use super::slot::{Answer, Arc, Asked, ClassId, GroupId, Pooled, Ticket};
use super::{Effects, State, since};
use crate::{AcquireError, Class, Config, Event, Refusal, ResourceState};

/// The engine's answer to a request.
#[derive(Debug)]
pub(crate) enum Acquired<R> {
    Granted(Box<Pooled<R>>),
    Queued(WaiterId),
    Refused(Box<AcquireError>),
    /// The class is new: ask the policies for its limits, then ask again.
    UnknownClass,
    /// It would have to wait: ask again with a ticket.
    NeedsTicket,
}

impl<R> State<R> {
    /// Leases an idle resource of the class if nothing else has to be decided: one is idle, nobody
    /// waits anywhere, and no class is short of anything.
    ///
    /// Such a lease concerns nobody else. It has no effects, and makes no class hungry or short
    /// that was not so before, so this and [`release_quietly`](Self::release_quietly) skip both,
    /// which is most of the cost of an uncontended acquire and release. Anything less simple is
    /// left to [`acquire`](Self::acquire) and [`release`](Self::release).
    ///
    /// `now` is `None` if nobody needs the time of this lease: see
    /// [`needs_clock`](Self::needs_clock).
    #[inline]
    pub(crate) fn lease_quietly(
        &mut self,
        class: &Class,
        acquired_at: &'static Location<'static>,
        now: Option<Instant>,
    ) -> Option<Box<Pooled<R>>> {
        let id = self.class_id(class)?;
        let class = &self.classes[id];
        let index = *class.idle.back()?;
        // The last use of a resource calls for a replacement, and so does a lease from a class that
        // keeps some warm.
        let plain = class.warm == 0 && self.config.max_use_count.is_none();
        if !plain || !self.is_quiet() || now.is_some_and(|now| self.is_stale(index, now)) {
            return None;
        }
        let class = &mut self.classes[id];
        class.idle.pop_back();
        class.leases.granted += 1;
        Some(self.lease_idle(index, acquired_at, now))
    }

    /// Returns `true` if a lease must know when it begins: a check may be due first, or the lease
    /// has a time limit.
    ///
    /// Reading the clock twice is a third of what an uncontended lease costs.
    pub(crate) fn needs_clock(config: &Config) -> bool {
        config.check_after_idle.is_some() || config.hold_limit.is_some()
    }

    /// Returns `true` if nobody waits, no class is short of anything, and the pool is running.
    pub(super) fn is_quiet(&self) -> bool {
        self.waiters.is_empty()
            && self.hungry.is_empty()
            && self.short.is_empty()
            && !self.is_draining()
    }

    /// Answers a request at once or puts it into the queue.
    ///
    /// The ticket is made before the lock is taken, since making it clones a waker, which is
    /// foreign code; the caller keeps it, so that no waker is dropped here.
    pub(crate) fn acquire(
        &mut self,
        asked: &Asked<'_>,
        ticket: Option<&Arc<Ticket<R>>>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        if self.is_draining() {
            return self.refuse(asked, AcquireError::Closed, fx);
        }
        let Some(group) = asked.group else {
            return self.acquire_in(None, asked, ticket, now, fx);
        };
        let group = self.join_group(group, now, fx);
        let answer = self.acquire_in(Some(group), asked, ticket, now, fx);
        self.forget_group(group);
        answer
    }

    /// Answers a request whose group is known, or that has none.
    #[inline]
    fn acquire_in(
        &mut self,
        group: Option<GroupId>,
        asked: &Asked<'_>,
        ticket: Option<&Arc<Ticket<R>>>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        let state = group.map(|id| &self.groups[id]);
        // Idle resources are not for this group until it gives something back.
        let over = state.is_some_and(GroupState::is_full);
        let full = self.waiters.len() >= self.config.max_waiting
            || state.is_some_and(GroupState::is_crowded);
        let class = match (self.class_id(asked.class), asked.limits) {
            (Some(class), _) => class,
            // Interning the class would be in vain: nothing of a new class is idle, so the request
            // is refused and the class forgotten.
            (None, _) if full => return self.refuse_full(asked, group, fx),
            (None, Some(_)) if ticket.is_none() => return Acquired::NeedsTicket,
            (None, Some(limits)) => self.intern(asked.class, limits),
            (None, None) => return Acquired::UnknownClass,
        };
        // A write that changes nothing would still take the line away from the other cores.
        if self.recent != class {
            self.recent = class;
        }
        if !over
            && self.classes[class].waiters.ready() == 0
            && let Some(&index) = self.classes[class].idle.back()
            && !self.is_stale(index, now)
        {
            self.classes[class].idle.pop_back();
            self.classes[class].leases.granted += 1;
            let mut pooled = self.lease_idle(index, asked.acquired_at, Some(now));
            pooled.waited = asked.waited;
            self.classes[class].leases.waited += asked.waited;
            if let Some(group) = group {
                self.hold(index, group);
            }
            self.refresh(class);
            self.pump(now, fx);
            return Acquired::Granted(pooled);
        }
        if self.classes[class].is_hopeless() {
            let error = self.unavailable(class, now);
            return self.refuse(asked, error, fx);
        }
        // A request that finds something idle waits only for its check, and takes no place in the
        // queue.
        if full && (over || self.classes[class].idle.is_empty()) {
            return self.refuse_full(asked, group, fx);
        }
        let Some(ticket) = ticket else {
            // This very call may have created the class, and the class may have a minimum to keep.
            self.pump(now, fx);
            return Acquired::NeedsTicket;
        };
        let waiter = self.enqueue(class, group, asked, Arc::clone(ticket), now);
        if let Some(at) = asked.expires_at {
            self.arm(at);
        }
        self.serve(class, now, fx);
        if asked.nowait && self.is_unserved(waiter) {
            // Before the waiter leaves, since its group may be forgotten with it.
            let error = self.timed_out(class, group, Duration::ZERO);
            self.dequeue(waiter);
            self.refresh(class);
            self.forget(class, now, fx);
            return self.refuse(asked, error, fx);
        }
        self.emit(fx, || Event::Enqueued {
            class: asked.class.clone(),
            labels: asked.labels.clone(),
        });
        self.pump(now, fx);
        Acquired::Queued(waiter)
    }

    /// Ends the wait of a caller whose time is up: it gets its answer if there is one by now,
    /// otherwise it leaves the queue.
    pub(crate) fn expire(
        &mut self,
        waiter: WaiterId,
        ticket: &Ticket<R>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Answer<R> {
        if let Some(answer) = ticket.fetch() {
            return answer;
        }
        let Waiter { class, group, .. } = self.waiters[waiter];
        let waited = since(now, ticket.enqueued_at);
        let error = self.timed_out(class, group, waited);
        self.counters.timeouts += 1;
        self.leave(waiter, Refusal::Timeout, now, fx);
        Err(error.into())
    }

    /// Takes a caller that went away out of the queue; if it had been granted something, that goes
    /// to the next waiter. If it had got an error, that is returned, since dropping it is foreign
    /// code.
    pub(crate) fn cancel(
        &mut self,
        waiter: WaiterId,
        ticket: &Ticket<R>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Option<Box<AcquireError>> {
        let answer = ticket.fetch();
        if let Some(Err(error)) = answer {
            return Some(error);
        }
        self.counters.cancelled += 1;
        match answer {
            Some(Ok(pooled)) => {
                let class = self.slots[pooled.slot.index].class;
                self.tell_refused(class, Refusal::Cancelled, ticket, now, fx);
                self.give_back(pooled, now, fx);
                self.pump(now, fx);
            }
            Some(Err(_)) | None => self.leave(waiter, Refusal::Cancelled, now, fx),
        }
        None
    }

    #[inline]
    fn enqueue(
        &mut self,
        class: ClassId,
        group: Option<GroupId>,
        asked: &Asked<'_>,
        ticket: Arc<Ticket<R>>,
        now: Instant,
    ) -> WaiterId {
        // Callers read the clock before they take the lock; among them, the order of taking the
        // lock decides who came first.
        self.latest = self.latest.max(now);
        let at = asked.backdate(self.latest + asked.handicap);
        let rank = Rank { at, sequence: self.next_sequence };
        self.next_sequence += 1;
        let (creates, links) = (asked.creates, Links::default());
        let waiter = self.waiters.insert(Waiter { ticket, class, rank, links, group, creates });
        let handicap = asked.waited.is_zero().then_some(asked.handicap);
        let share = group.map(|id| {
            let state = &mut self.groups[id];
            state.waiting += 1;
            state.classes.insert(class);
            state.share()
        });
        self.classes[class].waiters.push(&mut self.waiters, waiter, handicap, share);
        waiter
    }

    /// Takes a waiter out of the queue, wherever it stands.
    pub(super) fn dequeue(&mut self, waiter: WaiterId) -> Waiter<R> {
        let Waiter { class, group, .. } = self.waiters[waiter];
        self.classes[class].waiters.remove(&mut self.waiters, waiter);
        if let Some(group) = group {
            self.groups[group].waiting -= 1;
        }
        self.waiters.remove(waiter)
    }

    /// Takes a caller out of the queue without an answer.
    fn leave(&mut self, waiter: WaiterId, outcome: Refusal, now: Instant, fx: &mut Effects<R>) {
        let Waiter { class, ticket, .. } = self.dequeue(waiter);
        self.refresh(class);
        self.tell_refused(class, outcome, &ticket, now, fx);
        // Its departure may free the room that another class waits for.
        self.pump(now, fx);
        self.forget(class, now, fx);
    }

    /// Returns `true` if the waiter still waits and no running check is meant for it.
    fn is_unserved(&self, waiter: WaiterId) -> bool {
        self.waiters.get(waiter).is_some_and(|held| {
            let class = &self.classes[held.class];
            let over = held
                .group
                .is_some_and(|id| class.waiters.len_of(id) > self.groups[id].share().room);
            over || class.counts.of(ResourceState::Checking) < class.waiters.ready()
        })
    }
}

/// Requests that end without a resource.
impl<R> State<R> {
    /// Fails every waiter of a class if nothing can serve them.
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
        for (_, waiter) in self.classes[class].waiters.sorted(&self.waiters) {
            let ticket = self.dequeue(waiter).ticket;
            self.counters.errors += 1;
            self.tell_refused(class, Refusal::Error, &ticket, now, fx);
            fx.wake.add(ticket.fail(error.clone()));
        }
        self.refresh(class);
    }

    /// Fails the waiters whose time is up.
    pub(super) fn expire_waiters(&mut self, class: ClassId, now: Instant, fx: &mut Effects<R>) {
        while let Some((_, waiter)) = self.classes[class]
            .waiters
            .first_timed(&self.waiters)
            .into_iter()
            .find(|(expires_at, _)| *expires_at <= now)
        {
            let group = self.waiters[waiter].group;
            let waited = since(now, self.waiters[waiter].ticket.enqueued_at);
            let error = self.timed_out(class, group, waited);
            let ticket = self.dequeue(waiter).ticket;
            self.counters.timeouts += 1;
            self.tell_refused(class, Refusal::Timeout, &ticket, now, fx);
            fx.wake.add(ticket.fail(error));
        }
        self.refresh(class);
    }

    pub(super) fn refuse(
        &mut self,
        asked: &Asked<'_>,
        error: AcquireError,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        let (outcome, counter) = match &error {
            AcquireError::Timeout { .. } | AcquireError::GroupFull { .. } => {
                (Refusal::Timeout, &mut self.counters.timeouts)
            }
            AcquireError::QueueFull { .. } | AcquireError::GroupQueueFull { .. } => {
                (Refusal::Rejected, &mut self.counters.rejected)
            }
            AcquireError::Unavailable { .. } | AcquireError::Rejected(_) | AcquireError::Closed => {
                (Refusal::Error, &mut self.counters.errors)
            }
        };
        *counter += 1;
        let waited = Duration::ZERO;
        self.emit(fx, || Event::Refused {
            class: asked.class.clone(),
            outcome,
            waited,
            labels: asked.labels.clone(),
        });
        Acquired::Refused(error.into())
    }

    pub(super) fn refuse_full(
        &mut self,
        asked: &Asked<'_>,
        group: Option<GroupId>,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        let crowded = group.map(|id| &self.groups[id]).filter(|state| state.is_crowded());
        let error = match crowded {
            Some(state) => AcquireError::GroupQueueFull { group: state.stats().into() },
            None => AcquireError::QueueFull { load: self.load() },
        };
        self.refuse(asked, error, fx)
    }

    pub(super) fn tell_refused(
        &self,
        class: ClassId,
        outcome: Refusal,
        ticket: &Ticket<R>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        self.emit(fx, || Event::Refused {
            class: self.classes[class].class.clone(),
            outcome,
            waited: since(now, ticket.enqueued_at),
            labels: ticket.labels.clone(),
        });
    }

    /// Returns the error for a request that has run out of time; it may have been its own group's
    /// limit that kept it waiting.
    pub(super) fn timed_out(
        &self,
        class: ClassId,
        group: Option<GroupId>,
        waited: Duration,
    ) -> AcquireError {
        let full = group.map(|id| &self.groups[id]).filter(|state| state.is_full());
        if let Some(state) = full {
            let mut group = state.stats();
            // The waiter is still in the queue.
            group.waiting -= 1;
            return AcquireError::GroupFull { waited, group: group.into() };
        }
        let last = self.classes[class].breaker.last().cloned();
        AcquireError::Timeout { waited, load: self.load(), last }
    }

    pub(super) fn unavailable(&self, class: ClassId, now: Instant) -> AcquireError {
        let breaker = &self.classes[class].breaker;
        AcquireError::Unavailable {
            last: breaker.last().cloned().expect("an open breaker has an error"),
            retry_after: breaker
                .retry_at()
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
        }
    }
}
