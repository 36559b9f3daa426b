use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::{Acquired, Asked};
use crate::shared::Shared;
use crate::{AcquireError, Driver, Event, Lease, Refusal, Request};

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
    stage: Stage,
    acquired_at: &'static Location<'static>,
}

enum Stage {
    Asking(Request),
    Waiting { waiter: usize, deadline: Option<Pin<Box<Sleep>>> },
    Done,
}

impl<'a, D: Driver> Acquire<'a, D> {
    pub(crate) fn new(
        shared: &'a Arc<Shared<D>>,
        request: Request,
        acquired_at: &'static Location<'static>,
    ) -> Self {
        Self { shared, stage: Stage::Asking(request), acquired_at }
    }

    fn ask(
        &self,
        request: &mut Request,
        now: Instant,
    ) -> Result<Acquired<D::Resource>, AcquireError> {
        let shared = self.shared;
        let (class, handicap) = if shared.policies.is_empty() {
            Default::default()
        } else {
            let (decided, panics) = shared.policies.decide(request);
            shared.report_panics(panics);
            match decided {
                Ok(decided) => decided,
                Err(rejection) => {
                    shared.apply(|state, _| state.count_rejection());
                    let waited = Duration::ZERO;
                    let class = crate::Class::default();
                    shared.tell(Event::Refused { class, outcome: Refusal::Rejected, waited });
                    return Err(rejection.into());
                }
            }
        };
        let mut asked = Asked {
            class: &class,
            limits: None,
            handicap,
            priority: request.priority,
            nowait: request.timeout.is_some_and(|timeout| timeout.is_zero()),
            acquired_at: self.acquired_at,
        };
        match shared.apply(|state, fx| state.acquire(&asked, now, fx)) {
            Acquired::UnknownClass => {
                let (limits, panics) = shared.policies.limit(&class);
                shared.report_panics(panics);
                asked.limits = Some(limits);
                Ok(shared.apply(|state, fx| state.acquire(&asked, now, fx)))
            }
            answer => Ok(answer),
        }
    }
}

impl<D: Driver> Future for Acquire<'_, D> {
    type Output = Result<Lease<D>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Stage::Asking(request) = &mut this.stage {
            let mut request = std::mem::take(request);
            this.stage = Stage::Done;
            let now = Instant::now();
            match this.ask(&mut request, now)? {
                Acquired::Granted(grant) => return Poll::Ready(Ok(Lease::new(this.shared, grant))),
                Acquired::Refused(error) => return Poll::Ready(Err(error)),
                Acquired::Queued(waiter) => {
                    let limit = match request.timeout {
                        // Only a check is waited for, and that is bounded by itself.
                        Some(Duration::ZERO) => None,
                        Some(limit) => Some(limit),
                        None => this.shared.settings.acquire_timeout,
                    };
                    let deadline = limit.map(|limit| now + limit);
                    this.stage = Stage::Waiting {
                        waiter,
                        deadline: deadline.map(|at| Box::pin(sleep_until(at))),
                    };
                }
                Acquired::UnknownClass => unreachable!("its limits were given"),
            }
        }
        let Stage::Waiting { waiter, deadline } = &mut this.stage else {
            panic!("an acquire was polled after it was done");
        };
        let waiter = *waiter;
        // Cloned before the lock is taken: a waker is foreign code.
        let waker = cx.waker().clone();
        let (answer, unused) = this.shared.apply(|state, _| state.poll(waiter, waker));
        drop(unused);
        let answer = match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                let Some(deadline) = deadline else { return Poll::Pending };
                if deadline.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                this.shared.apply(|state, fx| state.expire(waiter, now, fx))
            }
        };
        this.stage = Stage::Done;
        Poll::Ready(answer.map(|grant| Lease::new(this.shared, grant)))
    }
}

impl<D: Driver> Drop for Acquire<'_, D> {
    fn drop(&mut self) {
        if let Stage::Waiting { waiter, .. } = self.stage {
            let now = Instant::now();
            self.shared.apply(|state, fx| state.cancel(waiter, now, fx));
        }
    }
}

impl<D: Driver> std::fmt::Debug for Acquire<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire").field("acquired_at", &self.acquired_at).finish_non_exhaustive()
    }
}
