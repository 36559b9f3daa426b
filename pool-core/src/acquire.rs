use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::bounded;
use crate::engine::{self, Acquired, Asked, Outcome, State, Ticket};
use crate::shared::Shared;
use crate::wait::sleep;
use crate::{AcquireError, Class, Driver, Event, Lease, Refusal, Rejection, Request};

/// The future of a lease, from [`Pool::acquire`](crate::Pool::acquire).
///
/// It does nothing until it is first polled; then it stands in the queue.
///
/// # Cancel safety
///
/// Dropping it at any moment is safe: it leaves the queue in O(log n), and a resource that had
/// just been granted to it goes to the next waiter. A creation that it caused goes on and serves
/// the next request.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a, D: Driver> {
    shared: &'a Arc<Shared<D>>,
    stage: Stage<D>,
    acquired_at: &'static Location<'static>,
}

enum Stage<D: Driver> {
    Asking(Request),
    Waiting(Waiting<D::Resource>),
    Done,
}

/// A place in the queue.
struct Waiting<R> {
    waiter: usize,
    ticket: engine::Arc<Ticket<R>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<'a, D: Driver> Acquire<'a, D> {
    pub(crate) fn new(
        shared: &'a Arc<Shared<D>>,
        request: Request,
        acquired_at: &'static Location<'static>,
    ) -> Self {
        Self { shared, stage: Stage::Asking(request), acquired_at }
    }

    /// Asks the policies, outside of the lock.
    fn decide(&self, request: &mut Request) -> Result<(Class, Duration), AcquireError> {
        if self.shared.policies.is_empty() {
            return Ok(Default::default());
        }
        let (decided, panics) = self.shared.policies.decide(request);
        self.shared.report_panics(panics);
        decided.map_err(|rejection| self.rejected(rejection))
    }

    /// Asks the engine, and stands in its queue if there is nothing to be had.
    #[inline(never)]
    fn ask(
        &self,
        request: &Request,
        (class, handicap): (Class, Duration),
        now: Instant,
        cx: &Context<'_>,
    ) -> Reply<D::Resource> {
        let shared = self.shared;
        let mut asked = Asked {
            class: &class,
            limits: None,
            handicap,
            priority: request.priority,
            nowait: request.timeout.is_some_and(|timeout| timeout.is_zero()),
            expires_at: match request.timeout {
                Some(_) => None,
                None => shared.settings.acquire_timeout.map(|limit| now + limit),
            },
            acquired_at: self.acquired_at,
        };
        let ticket =
            |asked: &Asked<'_>| engine::Arc::new(Ticket::new(asked, now, cx.waker().clone()));
        let mut held = shared.is_crowded().then(|| ticket(&asked));
        loop {
            match shared.apply(|state, fx| state.acquire(&asked, held.as_ref(), now, fx)) {
                Acquired::UnknownClass => {
                    let (limits, panics) = shared.policies.limit(&class);
                    shared.report_panics(panics);
                    asked.limits = Some(limits);
                }
                Acquired::NeedsTicket => held = Some(ticket(&asked)),
                Acquired::Queued(waiter) => {
                    shared.set_crowded(true);
                    let ticket = held.expect("nobody is queued without one");
                    return Reply::Queued(Waiting { waiter, ticket, deadline: None });
                }
                Acquired::Granted(grant) => {
                    shared.set_crowded(false);
                    return Reply::Answer(Ok(grant));
                }
                Acquired::Refused(error) => {
                    shared.set_crowded(false);
                    return Reply::Answer(Err(error));
                }
            }
        }
    }

    /// How long this request itself keeps the time; the pool's own timeout is kept by the pool.
    fn own_limit(&self, request: &Request) -> Option<Duration> {
        request.timeout.map(|limit| match limit {
            // What does not wait has queued for a check, which is to be its only wait.
            Duration::ZERO => self.shared.settings.check_timeout,
            limit => bounded(limit),
        })
    }

    fn rejected(&self, rejection: Rejection) -> AcquireError {
        self.shared.apply(|state, _| state.count_rejection());
        let (class, outcome, waited) = (Class::default(), Refusal::Rejected, Duration::ZERO);
        self.shared.tell(Event::Refused { class, outcome, waited });
        rejection.into()
    }
}

/// What the engine says to a request.
enum Reply<R> {
    Answer(Outcome<R>),
    Queued(Waiting<R>),
}

impl<D: Driver> Future for Acquire<'_, D> {
    type Output = Result<Lease<D>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = match &mut this.stage {
            Stage::Asking(request) => {
                let mut request = std::mem::take(request);
                this.stage = Stage::Done;
                let mut decided = this.decide(&mut request)?;
                let mut now = this.shared.needs_clock().then(Instant::now);
                if !this.shared.is_crowded() {
                    let (class, at) = (std::mem::take(&mut decided.0), this.acquired_at);
                    let quiet = |state: &mut State<_>| state.lease_quietly(class, at, now);
                    match this.shared.apply_quietly(quiet) {
                        Ok(grant) => return Poll::Ready(Ok(Lease::new(this.shared, grant))),
                        Err(class) => decided.0 = class,
                    }
                }
                let now = *now.get_or_insert_with(Instant::now);
                match this.ask(&request, decided, now, cx) {
                    Reply::Answer(answer) => Some(answer),
                    Reply::Queued(waiting) => {
                        // Before the timer, which panics where a runtime has ended: the waiter
                        // must leave the queue then too.
                        this.stage = Stage::Waiting(waiting);
                        let limit = this.own_limit(&request);
                        if let (Some(limit), Stage::Waiting(waiting)) = (limit, &mut this.stage) {
                            let sleep = sleep(now + limit, &this.shared.runtime);
                            waiting.deadline = Some(Box::pin(sleep));
                        }
                        None
                    }
                }
            }
            Stage::Waiting(waiting) => waiting.ticket.poll(cx.waker()),
            Stage::Done => panic!("an acquire was polled after it was done"),
        };
        let answer = match (answer, &mut this.stage) {
            (Some(answer), _) => answer,
            (None, Stage::Waiting(Waiting { waiter, ticket, deadline: Some(deadline) })) => {
                if deadline.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                this.shared.apply(|state, fx| state.expire(*waiter, ticket, now, fx))
            }
            (None, _) => return Poll::Pending,
        };
        this.stage = Stage::Done;
        Poll::Ready(answer.map(|grant| Lease::new(this.shared, grant)))
    }
}

impl<D: Driver> Drop for Acquire<'_, D> {
    fn drop(&mut self) {
        if let Stage::Waiting(Waiting { waiter, ticket, .. }) = &self.stage {
            let now = Instant::now();
            // An error that it had got is dropped here, outside of the lock.
            drop(self.shared.apply(|state, fx| state.cancel(*waiter, ticket, now, fx)));
        }
    }
}

impl<D: Driver> std::fmt::Debug for Acquire<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire").field("acquired_at", &self.acquired_at).finish_non_exhaustive()
    }
}
