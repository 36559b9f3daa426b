//! Requests that end without a resource.

use std::time::Duration;

use tokio::time::Instant;

use super::class::ClassId;
use super::waiter::{WaiterId, WaiterState};
use super::{Acquired, Effects, State};
use crate::{AcquireError, Class, Event, Refusal};

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
        while let Some(waiter) = self.classes[class].waiters.pop(&mut self.waiters) {
            self.waiting -= 1;
            self.counters.errors += 1;
            self.tell_refused(class, Refusal::Error, self.waiters[waiter].enqueued_at, now, fx);
            self.answer(waiter, WaiterState::Failed(error.clone().into()), fx);
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
            self.dequeue(waiter);
            self.counters.timeouts += 1;
            let error = self.timed_out(waiter, now);
            self.tell_refused(class, Refusal::Timeout, self.waiters[waiter].enqueued_at, now, fx);
            self.answer(waiter, WaiterState::Failed(error.into()), fx);
        }
        self.refresh(class);
    }

    pub(super) fn refuse(
        &mut self,
        class: &Class,
        error: AcquireError,
        fx: &mut Effects<R>,
    ) -> Acquired<R> {
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

    pub(super) fn refuse_full(&mut self, class: &Class, fx: &mut Effects<R>) -> Acquired<R> {
        let error = AcquireError::QueueFull { load: self.load() };
        self.refuse(class, error, fx)
    }

    pub(super) fn tell_refused(
        &self,
        class: ClassId,
        outcome: Refusal,
        enqueued_at: Instant,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let waited = now.saturating_duration_since(enqueued_at);
        let class = &self.classes[class].class;
        self.emit(fx, || Event::Refused { class: class.clone(), outcome, waited });
    }

    pub(super) fn timed_out(&self, waiter: WaiterId, now: Instant) -> AcquireError {
        let waiter = &self.waiters[waiter];
        AcquireError::Timeout {
            waited: now.saturating_duration_since(waiter.enqueued_at),
            load: self.load(),
            last: self.classes[waiter.class].breaker.last().cloned(),
        }
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
