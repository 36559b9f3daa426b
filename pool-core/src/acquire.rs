use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::bounded;
use crate::engine::{self, Acquired, Answer, Asked, State, Ticket};
use crate::shell::{Shell, sleep};
use crate::{AcquireError, Class, Driver, Event, Labels, Lease, Refusal, Rejection, Request};

/// Longest age that counts; anything more would only serve to overflow the clock.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest time that a request that does not wait spends on the check of a resource.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The future of a lease, from [`Pool::acquire`](crate::Pool::acquire).
///
/// It does nothing until it is first polled; then it stands in the queue.
///
/// # Cancel safety
///
/// Dropping it at any moment is safe: it leaves the queue in O(log n), and a resource that had just
/// been granted to it goes to the next waiter. A creation that it started continues and serves the
/// next request.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a, D: Driver> {
    caller: Caller<'a, D>,
    stage: Stage<D>,
}

enum Stage<D: Driver> {
    Asking(Request),
    Waiting(Waiting<D::Resource>),
    Done,
}

impl<D: Driver> Stage<D> {
    /// Returns the labels of the request, as the policies have left them.
    fn labels(&self) -> &Labels {
        match self {
            Self::Asking(request) => &request.labels,
            Self::Waiting(waiting) => &waiting.ticket.labels,
            Self::Done => panic!("an acquire was polled after it was done"),
        }
    }
}

/// A place in the queue.
struct Waiting<R> {
    waiter: usize,
    ticket: engine::Arc<Ticket<R>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<'a, D: Driver> Acquire<'a, D> {
    pub(crate) fn new(
        shell: &'a Arc<Shell<D>>,
        request: Request,
        acquired_at: &'static Location<'static>,
    ) -> Self {
        Self { caller: Caller { shell, acquired_at }, stage: Stage::Asking(request) }
    }

    /// Runs the policies on another request, without asking the engine.
    pub(crate) fn decide(
        &self,
        request: &mut Request,
    ) -> Result<(Class, Duration), Box<AcquireError>> {
        self.caller.decide(request)
    }
}

/// The caller: the pool that it asks, and its call site.
struct Caller<'a, D: Driver> {
    shell: &'a Arc<Shell<D>>,
    acquired_at: &'static Location<'static>,
}

impl<D: Driver> Caller<'_, D> {
    /// Asks the policies, then the engine, and stands in its queue if there is nothing to be had.
    #[inline]
    fn ask(&self, request: &mut Request, cx: &Context<'_>) -> Reply<D::Resource> {
        let shell = self.shell;
        let (class, handicap) = match self.decide(request) {
            Ok(decided) => decided,
            Err(error) => return Reply::Answer(Err(error)),
        };
        let now = shell.needs_clock().then(Instant::now);
        if !shell.is_crowded() && request.waited.is_zero() && request.group.is_none() {
            let quiet = |state: &mut State<_>| state.lease_quietly(&class, self.acquired_at, now);
            if let Some(pooled) = shell.apply_quietly(quiet) {
                return Reply::Answer(Ok(pooled));
            }
        }
        self.ask_aloud(request, &class, handicap, now.unwrap_or_else(Instant::now), cx)
    }

    /// Asks the policies, outside of the lock.
    #[inline]
    fn decide(&self, request: &mut Request) -> Result<(Class, Duration), Box<AcquireError>> {
        if self.shell.policies.is_empty() {
            return Ok(Default::default());
        }
        let decided = self.shell.policies.decide(request, &|panic| self.shell.report(panic));
        decided.map_err(|rejection| self.rejected(rejection, &request.labels))
    }

    /// Asks the engine, for the cases where more than the one lease has to be decided.
    #[inline(never)]
    fn ask_aloud(
        &self,
        request: &Request,
        class: &Class,
        handicap: Duration,
        now: Instant,
        cx: &Context<'_>,
    ) -> Reply<D::Resource> {
        let shell = self.shell;
        let mut asked = Asked {
            class,
            limits: None,
            handicap,
            group: request.group.as_ref(),
            labels: &request.labels,
            waited: request.waited.min(MAX_AGE),
            creates: request.creates,
            priority: request.priority,
            nowait: request.timeout.is_some_and(|timeout| timeout.is_zero()),
            expires_at: match request.timeout {
                Some(_) => None,
                None => shell.settings.acquire_timeout.map(|limit| now + limit),
            },
            acquired_at: self.acquired_at,
        };
        let ticket =
            |asked: &Asked<'_>| engine::Arc::new(Ticket::new(asked, now, cx.waker().clone()));
        let mut held = shell.is_crowded().then(|| ticket(&asked));
        loop {
            match shell.apply(|state, fx| state.acquire(&asked, held.as_ref(), now, fx)) {
                Acquired::UnknownClass => {
                    asked.limits = Some(shell.policies.limit(class, &|panic| shell.report(panic)));
                }
                Acquired::NeedsTicket => held = Some(ticket(&asked)),
                Acquired::Queued(waiter) => {
                    shell.set_crowded(true);
                    let ticket = held.expect("nobody is queued without one");
                    let ends_at = self.own_limit(request).map(|limit| now + limit);
                    return Reply::Queued { waiter, ticket, ends_at };
                }
                Acquired::Granted(pooled) => {
                    shell.set_crowded(false);
                    return Reply::Answer(Ok(pooled));
                }
                Acquired::Refused(error) => {
                    shell.set_crowded(false);
                    return Reply::Answer(Err(error));
                }
            }
        }
    }

    /// Returns the timeout that the request keeps itself; the pool keeps the others.
    fn own_limit(&self, request: &Request) -> Option<Duration> {
        request.timeout.map(|limit| match limit {
            // A request that does not wait was queued for a check, which is all that it may wait
            // for.
            Duration::ZERO => self.shell.settings.check_timeout.min(AT_ONCE),
            limit => bounded(limit),
        })
    }

    fn rejected(&self, rejection: Rejection, labels: &Labels) -> Box<AcquireError> {
        self.shell.apply(|state, _| state.count_rejection());
        let (class, outcome, waited) = (Class::default(), Refusal::Rejected, Duration::ZERO);
        self.shell.tell(Event::Refused { class, outcome, waited, labels: labels.clone() });
        Box::new(rejection.into())
    }
}

/// The engine's answer to a request.
enum Reply<R> {
    Answer(Answer<R>),
    Queued { waiter: usize, ticket: engine::Arc<Ticket<R>>, ends_at: Option<Instant> },
}

impl<D: Driver> Future for Acquire<'_, D> {
    type Output = Result<Lease<D>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let shell = this.caller.shell;
        let answer = match &mut this.stage {
            Stage::Asking(request) => match this.caller.ask(request, cx) {
                Reply::Answer(answer) => Some(answer),
                Reply::Queued { waiter, ticket, ends_at } => {
                    // Before the timer, which panics if the runtime has ended: the waiter must
                    // leave the queue in that case too.
                    this.stage = Stage::Waiting(Waiting { waiter, ticket, deadline: None });
                    if let (Some(at), Stage::Waiting(waiting)) = (ends_at, &mut this.stage) {
                        waiting.deadline = Some(Box::pin(sleep(at, &shell.runtime)));
                    }
                    None
                }
            },
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
                shell.apply(|state, fx| state.expire(*waiter, ticket, now, fx))
            }
            (None, _) => return Poll::Pending,
        };
        let lease = match answer {
            Ok(pooled) => Ok(Lease::new(shell, pooled, this.stage.labels())),
            Err(error) => Err(*error),
        };
        this.stage = Stage::Done;
        Poll::Ready(lease)
    }
}

impl<D: Driver> Drop for Acquire<'_, D> {
    fn drop(&mut self) {
        if let Stage::Waiting(Waiting { waiter, ticket, .. }) = &self.stage {
            let now = Instant::now();
            // If it had received an error, that is dropped here, outside of the lock.
            drop(self.caller.shell.apply(|state, fx| state.cancel(*waiter, ticket, now, fx)));
        }
    }
}

impl<D: Driver> std::fmt::Debug for Acquire<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire")
            .field("acquired_at", &self.caller.acquired_at)
            .finish_non_exhaustive()
    }
}
