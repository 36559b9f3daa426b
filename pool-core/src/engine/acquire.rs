use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::queue::{Links, Rank};
use super::waiter::{Waiter, WaiterId, WaiterState};
use super::{Effects, Grant, State};
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
    /// When the pool gives up; `None` where the caller keeps the time.
    pub(crate) expires_at: Option<Instant>,
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
    /// It would have to wait: ask again with a waker.
    NeedsWaker,
}

/// The answer, if there is one, and a waker to drop.
pub(crate) type Watched<R> = (Option<Result<Grant<R>, AcquireError>>, Option<Waker>);

impl<R> State<R> {
    /// Answers a request at once or puts it into the queue.
    ///
    /// The waker is a clone made before the lock was taken, since cloning it is foreign code; it
    /// is taken only if the request must wait.
    pub(crate) fn acquire(
        &mut self,
        asked: &Asked<'_>,
        waker: &mut Option<Waker>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
        if self.is_draining() {
            return self.refuse(asked.class, AcquireError::Closed, fx);
        }
        let full = self.waiting >= self.config.max_waiting;
        let class = match (self.class_id(asked.class), asked.limits) {
            (Some(class), _) => class,
            // It would only be forgotten again: nothing of a new class is idle.
            (None, _) if full => return self.refuse_full(asked.class, fx),
            (None, Some(_)) if waker.is_none() => return Acquired::NeedsWaker,
            (None, Some(limits)) => self.intern(asked.class, limits),
            (None, None) => return Acquired::UnknownClass,
        };
        // A write that changes nothing would still take the line away from the other cores.
        if self.recent != class {
            self.recent = class;
        }
        if self.classes[class].waiters.is_empty()
            && let Some(&index) = self.classes[class].idle.back()
            && !self.is_stale(index, now)
        {
            self.classes[class].idle.pop_back();
            let resource = self.lease(index, asked.acquired_at, now);
            let grant = self.granted(index, resource, Some(now), Duration::ZERO);
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
        // Who finds something idle waits only for its check, and takes nobody's place in the queue.
        if full && self.classes[class].idle.is_empty() {
            return self.refuse_full(asked.class, fx);
        }
        if waker.is_none() {
            // A class that is new by this very call may have something to keep.
            self.pump(now, fx);
            return Acquired::NeedsWaker;
        }
        let waiter = self.enqueue(class, asked, waker, now);
        if let Some(at) = asked.expires_at {
            self.arm(at);
        }
        self.serve(class, now, fx);
        if asked.nowait && self.waiters.contains(waiter) && self.is_unserved(waiter) {
            self.dequeue(waiter);
            self.refresh(class);
            if let WaiterState::Waiting(held) = self.take_waiter(waiter).state {
                *waker = held;
            }
            let error = AcquireError::Timeout {
                waited: Duration::ZERO,
                load: self.load(),
                last: self.classes[class].breaker.last().cloned(),
            };
            self.forget(class, now);
            return self.refuse(asked.class, error, fx);
        }
        self.emit(fx, || Event::Enqueued { class: asked.class.clone() });
        self.pump(now, fx);
        Acquired::Queued(waiter)
    }

    /// Fetches the answer of a waiter, or leaves a waker to be told of it. Whichever waker is not
    /// needed comes back, since dropping it is foreign code.
    pub(crate) fn watch(&mut self, waiter: WaiterId, waker: Waker) -> Watched<R> {
        match &mut self.waiters[waiter].state {
            WaiterState::Waiting(held) => (None, held.replace(waker)),
            _ => (self.fetch(waiter), Some(waker)),
        }
    }

    /// The answer of a waiter, which is then forgotten; `None` if it still waits.
    pub(crate) fn fetch(&mut self, waiter: WaiterId) -> Option<Result<Grant<R>, AcquireError>> {
        if matches!(self.waiters[waiter].state, WaiterState::Waiting(_)) {
            return None;
        }
        let held = self.take_waiter(waiter);
        Some(match held.state {
            WaiterState::Granted(index) => {
                let slot = &mut self.slots[index];
                let leased_at = slot.since;
                let resource = slot.fetch().expect("what is granted is kept until it is fetched");
                let waited = leased_at.saturating_duration_since(held.enqueued_at);
                self.counters.acquired += 1;
                self.counters.waited += waited;
                let class = &mut self.classes[held.class];
                class.granted += 1;
                class.waited += waited;
                Ok(self.granted(index, resource, Some(leased_at), waited))
            }
            WaiterState::Failed(error) => {
                // An older time than now only means that it is remembered for longer.
                self.forget(held.class, self.latest);
                Err(*error)
            }
            WaiterState::Waiting(_) => unreachable!("asked above"),
        })
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
        let error = self.timed_out(waiter, now);
        let class = self.leave(waiter, Refusal::Timeout, now, fx);
        self.counters.timeouts += 1;
        self.pump(now, fx);
        self.forget(class, now);
        Err(error)
    }

    /// The caller went away: it leaves the queue, and a grant it had got goes to the next.
    pub(crate) fn cancel(&mut self, waiter: WaiterId, now: Instant, fx: &mut Effects<R>) {
        let class = self.waiters[waiter].class;
        if matches!(self.waiters[waiter].state, WaiterState::Waiting(_)) {
            self.leave(waiter, Refusal::Cancelled, now, fx);
            self.counters.cancelled += 1;
        } else {
            let held = self.take_waiter(waiter);
            if let WaiterState::Granted(index) = held.state {
                self.counters.cancelled += 1;
                self.tell_refused(class, Refusal::Cancelled, held.enqueued_at, now, fx);
                self.give_back(index, now, fx);
            }
        }
        // What it leaves behind may be the room that another class waits for.
        self.pump(now, fx);
        self.forget(class, now);
    }

    fn enqueue(
        &mut self,
        class: ClassId,
        asked: &Asked<'_>,
        waker: &mut Option<Waker>,
        now: Instant,
    ) -> WaiterId {
        // Callers read the clock before they got the lock: among them, the lock decides who came
        // first.
        self.latest = self.latest.max(now);
        let rank = Rank { at: self.latest + asked.handicap, sequence: self.next_sequence };
        self.next_sequence += 1;
        let waiter = self.waiters.insert(Waiter {
            class,
            rank,
            links: Links::default(),
            priority: asked.priority,
            enqueued_at: now,
            expires_at: asked.expires_at,
            acquired_at: asked.acquired_at,
            state: WaiterState::Waiting(waker.take()),
        });
        self.classes[class].waiters.push(&mut self.waiters, waiter, asked.handicap);
        self.classes[class].asking += 1;
        self.waiting += 1;
        waiter
    }

    pub(super) fn dequeue(&mut self, waiter: WaiterId) {
        let class = self.waiters[waiter].class;
        self.classes[class].waiters.remove(&mut self.waiters, waiter);
        self.waiting -= 1;
    }

    fn leave(
        &mut self,
        waiter: WaiterId,
        outcome: Refusal,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> ClassId {
        self.dequeue(waiter);
        let held = self.take_waiter(waiter);
        self.refresh(held.class);
        self.tell_refused(held.class, outcome, held.enqueued_at, now, fx);
        if let WaiterState::Waiting(Some(waker)) = held.state {
            // Waking a caller that leaves is harmless; dropping its waker here would not be.
            fx.wake.push(waker);
        }
        held.class
    }

    /// The only way a request is forgotten.
    fn take_waiter(&mut self, waiter: WaiterId) -> Waiter {
        let held = self.waiters.remove(waiter);
        self.classes[held.class].asking -= 1;
        held
    }

    /// Whether a waiter still waits and no check that is under way is meant for it.
    fn is_unserved(&self, waiter: WaiterId) -> bool {
        let held = &self.waiters[waiter];
        let class = &self.classes[held.class];
        matches!(held.state, WaiterState::Waiting(_))
            && class.counts.of(ResourceState::Checking) < class.waiters.len()
    }
}
