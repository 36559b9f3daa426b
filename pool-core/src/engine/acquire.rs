use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::group::GroupState;
use super::line::GroupId;
use super::queue::{Links, Rank, Waiter, WaiterId};
use super::sync::Arc;
use super::ticket::{Outcome, Ticket};
use super::{Effects, Pooled, State, since};
use crate::{AcquireError, Class, Event, Group, Labels, Limits, Refusal, ResourceState};

/// A request as the engine sees it, after the policies had their say.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) class: &'a Class,
    /// Limits that the policies give the class; set only when the class is new.
    pub(crate) limits: Option<Option<Limits>>,
    pub(crate) handicap: Duration,
    pub(crate) group: Option<&'a std::sync::Arc<Group>>,
    pub(crate) labels: &'a Labels,
    /// Time that it had waited before it came here.
    pub(crate) waited: Duration,
    /// A resource may be created for it.
    pub(crate) creates: bool,
    pub(crate) priority: Option<u8>,
    /// Do not wait for anything but a check of an idle resource.
    pub(crate) nowait: bool,
    /// When the pool gives up; `None` where the caller keeps the time.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) acquired_at: &'static Location<'static>,
}

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
    /// Answers a request at once or puts it into the queue.
    ///
    /// The ticket is made before the lock is taken, since that clones a waker, which is foreign
    /// code; its caller keeps it, so that no waker is dropped here.
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

    /// Answers a request of a group that is known, or of none.
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
        // Until it gives something back, what is idle is not for it.
        let over = state.is_some_and(GroupState::is_full);
        let full = self.waiters.len() >= self.config.max_waiting
            || state.is_some_and(GroupState::is_crowded);
        let class = match (self.class_id(asked.class), asked.limits) {
            (Some(class), _) => class,
            // It would only be forgotten again: nothing of a new class is idle.
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
        // Who finds something idle waits only for its check, and takes nobody's place in the queue.
        if full && (over || self.classes[class].idle.is_empty()) {
            return self.refuse_full(asked, group, fx);
        }
        let Some(ticket) = ticket else {
            // A class that is new by this very call may have something to keep.
            self.pump(now, fx);
            return Acquired::NeedsTicket;
        };
        let waiter = self.enqueue(class, group, asked, Arc::clone(ticket), now);
        if let Some(at) = asked.expires_at {
            self.arm(at);
        }
        self.serve(class, now, fx);
        if asked.nowait && self.is_unserved(waiter) {
            // Before it leaves, since its group may go with it.
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

    /// The caller's time is up: it gets its answer if there is one by now, else it leaves.
    pub(crate) fn expire(
        &mut self,
        waiter: WaiterId,
        ticket: &Ticket<R>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Outcome<R> {
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

    /// The caller went away: it leaves the queue, and a grant it had got goes to the next. An
    /// error that it had got comes back, since dropping it is foreign code.
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
            _ => self.leave(waiter, Refusal::Cancelled, now, fx),
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
        // Callers read the clock before they got the lock: among them, the lock decides who came
        // first.
        self.latest = self.latest.max(now);
        let at = self.latest + asked.handicap;
        let rank =
            Rank { at: at.checked_sub(asked.waited).unwrap_or(at), sequence: self.next_sequence };
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

    /// A caller leaves without an answer.
    fn leave(&mut self, waiter: WaiterId, outcome: Refusal, now: Instant, fx: &mut Effects<R>) {
        let Waiter { class, ticket, .. } = self.dequeue(waiter);
        self.refresh(class);
        self.tell_refused(class, outcome, &ticket, now, fx);
        // What it leaves behind may be the room that another class waits for.
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
