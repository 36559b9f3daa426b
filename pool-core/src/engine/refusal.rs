//! Requests that end without a resource.

use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::line::GroupId;
use super::ticket::Ticket;
use super::{Acquired, Asked, Effects, State, since};
use crate::{AcquireError, Event, Refusal};

impl<R> State<R> {
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
        for (_, waiter) in self.classes[class].waiters.sorted(&self.waiters) {
            let ticket = self.dequeue(waiter).ticket;
            self.counters.errors += 1;
            self.tell_refused(class, Refusal::Error, &ticket, now, fx);
            fx.wake.add(ticket.fail(error.clone()));
        }
        self.refresh(class);
    }

    /// Tells the waiters whose time is up.
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

    /// Returns the error of a request that has run out of time; what kept it waiting may have been
    /// its own group's limit.
    pub(super) fn timed_out(
        &self,
        class: ClassId,
        group: Option<GroupId>,
        waited: Duration,
    ) -> AcquireError {
        let full = group.map(|id| &self.groups[id]).filter(|state| state.is_full());
        if let Some(state) = full {
            let mut group = state.stats();
            // It is still in the queue.
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
