use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::{BoxError, Class, Driver, Event, Meta, Rejection, Request, Stats};

/// A plugin that decides: who may wait and how urgently, what a resource is like, when it goes.
///
/// Every hook has a default that changes nothing, so a policy implements only what it is about.
/// Policies stack: the one that was added first decides first. Decisions are synchronous, quick and
/// pure; they are made by the task that acquires or releases, **never under the pool's lock**. A
/// panic in a hook is caught and reported as [`Event::PolicyPanicked`], and the hook's default is
/// used instead; the pool and the other policies go on.
///
/// | hook | called | when several policies answer |
/// |---|---|---|
/// | [`admit`](Self::admit) | at acquire, by the asking task | each sees what the former filled in; the first refusal ends it |
/// | [`classify`](Self::classify) | after all have admitted | each adds its part to the class |
/// | [`rank`](Self::rank) | after classify | the first that answers |
/// | [`limit`](Self::limit) | when a class is seen for the first time | for each limit, the first that names it |
/// | [`configure`](Self::configure) | before each creation, by the creating task | each edits the same spec; the first error fails the creation |
/// | [`prepare`](Self::prepare) | after each creation, before the first lease | all, in order; the first error fails the creation |
/// | [`released`](Self::released) | at release, by the releasing task | the most severe verdict |
/// | [`tick`](Self::tick) | every [`tick_interval`](crate::Config::tick_interval) | all, applied in order |
/// | [`event`](Self::event) | after each transition | all |
///
/// # Examples
///
/// A policy in ten lines:
///
/// ```
/// use pool_core::{Driver, Meta, Policy, Verdict, async_trait};
///
/// pub struct MaxUses(pub u64);
///
/// #[async_trait]
/// impl<D: Driver> Policy<D> for MaxUses {
///     fn released(&self, meta: &Meta) -> Verdict {
///         if meta.uses >= self.0 { Verdict::Discard } else { Verdict::Keep }
///     }
/// }
/// ```
#[async_trait]
pub trait Policy<D: Driver>: Send + Sync + 'static {
    /// Returns a short name for events, logs and refusals. Default: the type's name.
    fn name(&self) -> &str {
        short_type_name::<Self>()
    }

    /// Refuses a request, or fills in what it leaves open (priority, labels, timeout, group).
    ///
    /// # Errors
    ///
    /// The [`Rejection`] is handed to the caller as
    /// [`AcquireError::Rejected`](crate::AcquireError::Rejected).
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let _ = request;
        Ok(())
    }

    /// Adds this policy's part to the class of a request: what must differ between resources
    /// that are not interchangeable.
    fn classify(&self, request: &Request, class: &mut Class) {
        let _ = (request, class);
    }

    /// Returns the handicap added to a request's arrival time when waiters are ranked.
    ///
    /// Waiters are served by `enqueued_at + handicap`. All waiters age at the same speed, so this
    /// one key, fixed at enqueue, gives priority, ageing (nobody starves) and first come first
    /// served among equals. `None` leaves the decision to the next policy; if nobody answers, the
    /// handicap is zero.
    fn rank(&self, request: &Request) -> Option<Duration> {
        let _ = request;
        None
    }

    /// Returns the limits of a class. Default: no limits but the pool's own.
    fn limit(&self, class: &Class) -> Option<Limits> {
        let _ = class;
        None
    }

    /// Edits the spec of a resource that is about to be created for `class`.
    ///
    /// # Errors
    ///
    /// An error fails this creation as if the driver had failed; everything that was put into the
    /// spec is dropped with it, so guards in a spec give back what they hold.
    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        let _ = (class, spec);
        Ok(())
    }

    /// Prepares a new resource before its first lease, within
    /// [`create_timeout`](crate::Config::create_timeout) together with the creation.
    ///
    /// # Errors
    ///
    /// An error counts as a failed creation: the resource is closed.
    ///
    /// # Cancel safety
    ///
    /// The pool drops the future when the time is up or the pool drains, and closes the resource.
    async fn prepare(&self, resource: &mut D::Resource, meta: &Meta) -> Result<(), BoxError> {
        let _ = (resource, meta);
        Ok(())
    }

    /// Judges a resource that comes back. Default: keep it.
    fn released(&self, meta: &Meta) -> Verdict {
        let _ = meta;
        Verdict::Keep
    }

    /// Looks at the pool at regular intervals and changes its size.
    fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
        let _ = stats;
        Vec::new()
    }

    /// Returns `true` if this policy uses [`event`](Self::event); called once, when the pool is
    /// built.
    ///
    /// A pool in which nobody watches does not even make the events of its hot path. Default:
    /// `true`.
    fn watches(&self) -> bool {
        true
    }

    /// Receives every transition, with its reason, in the order of
    /// [`Pool::events`](crate::Pool::events).
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

fn short_type_name<T: ?Sized>() -> &'static str {
    let full = std::any::type_name::<T>();
    let path = full.split('<').next().unwrap_or(full);
    path.rsplit("::").next().unwrap_or(path)
}

/// A policy's judgement of a released resource. Later variants are more severe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes back into the pool, recycled first if its driver says so.
    #[default]
    Keep,
    /// It is recycled, whatever its driver says.
    Recycle,
    /// It is closed.
    Discard,
}

/// Minimum and maximum number of resources of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Minimum in any state. `None`: the pool's `min_size` for the default class, otherwise 0.
    pub min: Option<usize>,
    /// Maximum in any state. `None`: only the pool's `max_size`.
    pub max: Option<usize>,
    /// Minimum that is idle and ready, as far as `max` allows. `None`: 0.
    pub warm: Option<usize>,
}

/// A change of size that a policy asks for in its tick.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjustment {
    /// Sets the limits of a class; fields that are `None` stay as they are.
    Class(Class, Limits),
    /// Sets the maximum number of resources of the whole pool.
    MaxSize(usize),
    /// Sets the minimum number of resources of the default class.
    MinSize(usize),
}

/// The policies of one pool, in the order in which they were added, with every panic contained.
///
/// Each method takes a callback for the panics that it meets on the way.
pub(crate) struct Policies<D: Driver> {
    policies: Box<[Box<dyn Policy<D>>]>,
    /// At least one of them watches events.
    watch: bool,
}

/// Receives a panic, as an event.
type OnPanic<'a> = &'a (dyn Fn(Event) + Send + Sync);

impl<D: Driver> Policies<D> {
    pub(crate) fn new(policies: Vec<Box<dyn Policy<D>>>) -> Self {
        let watch = policies.iter().any(|policy| {
            // If the question itself panics, the answer is the default.
            catch_unwind(AssertUnwindSafe(|| policy.watches())).unwrap_or(true)
        });
        Self { policies: policies.into(), watch }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    pub(crate) fn watch(&self) -> bool {
        self.watch
    }

    /// Runs the hooks of an acquire that happen before the lock is taken.
    pub(crate) fn decide(
        &self,
        request: &mut Request,
        on_panic: OnPanic<'_>,
    ) -> Result<(Class, Duration), Rejection> {
        for policy in &*self.policies {
            let admitted = contain(&**policy, "admit", on_panic, || policy.admit(request));
            if let Some(Err(rejection)) = admitted {
                return Err(rejection);
            }
        }
        let mut class = Class::default();
        let mut handicap = None;
        for policy in &*self.policies {
            contain(&**policy, "classify", on_panic, || policy.classify(request, &mut class));
            if handicap.is_none() {
                handicap = contain(&**policy, "rank", on_panic, || policy.rank(request)).flatten();
            }
        }
        Ok((class, handicap.unwrap_or_default().min(MAX_HANDICAP)))
    }

    pub(crate) fn limit(&self, class: &Class, on_panic: OnPanic<'_>) -> Option<Limits> {
        let mut all: Option<Limits> = None;
        for policy in &*self.policies {
            let answer = contain(&**policy, "limit", on_panic, || policy.limit(class));
            if let Some(limits) = answer.flatten() {
                let all = all.get_or_insert_default();
                all.min = all.min.or(limits.min);
                all.max = all.max.or(limits.max);
                all.warm = all.warm.or(limits.warm);
            }
        }
        all
    }

    pub(crate) fn configure(
        &self,
        class: &Class,
        spec: &mut D::Spec,
        on_panic: OnPanic<'_>,
    ) -> Result<(), BoxError> {
        for policy in &*self.policies {
            let done = contain(&**policy, "configure", on_panic, || policy.configure(class, spec));
            if let Some(Err(error)) = done {
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) async fn prepare(
        &self,
        resource: &mut D::Resource,
        meta: &Meta,
        on_panic: OnPanic<'_>,
    ) -> Result<(), BoxError> {
        for policy in &*self.policies {
            let started =
                contain(&**policy, "prepare", on_panic, || policy.prepare(resource, meta));
            let Some(work) = started else { continue };
            match (Contained { work }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(payload) => on_panic(panicked(&**policy, "prepare", &*payload)),
            }
        }
        Ok(())
    }

    pub(crate) fn released(&self, meta: &Meta, on_panic: OnPanic<'_>) -> Verdict {
        let mut verdict = Verdict::Keep;
        for policy in &*self.policies {
            let judged = contain(&**policy, "released", on_panic, || policy.released(meta));
            verdict = verdict.max(judged.unwrap_or_default());
        }
        verdict
    }

    pub(crate) fn tick(&self, stats: &Stats, on_panic: OnPanic<'_>) -> Vec<Adjustment> {
        let mut all = Vec::new();
        for policy in &*self.policies {
            all.extend(
                contain(&**policy, "tick", on_panic, || policy.tick(stats)).unwrap_or_default(),
            );
        }
        all
    }

    pub(crate) fn event(&self, event: &Event, on_panic: OnPanic<'_>) {
        for policy in &*self.policies {
            contain(&**policy, "event", on_panic, || policy.event(event));
        }
    }
}

/// Longest handicap that counts; anything more would only serve to overflow the clock.
const MAX_HANDICAP: Duration = Duration::from_secs(24 * 60 * 60);

fn contain<D: Driver, T>(
    policy: &dyn Policy<D>,
    hook: &'static str,
    on_panic: OnPanic<'_>,
    call: impl FnOnce() -> T,
) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => Some(answer),
        Err(payload) => {
            on_panic(panicked(policy, hook, &*payload));
            None
        }
    }
}

fn panicked<D: Driver>(
    policy: &dyn Policy<D>,
    hook: &'static str,
    payload: &(dyn Any + Send),
) -> Event {
    let message = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string());
    // The name comes from user code as well.
    let name = catch_unwind(AssertUnwindSafe(|| policy.name().to_string()));
    Event::PolicyPanicked { policy: name.unwrap_or_else(|_| "unknown".to_string()), hook, message }
}

/// Polls foreign work and turns a panic into an error.
pub(crate) struct Contained<'a, T> {
    work: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
}

impl<'a, T> Contained<'a, T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'a) -> Self {
        Self { work: Box::pin(work) }
    }
}

impl<T> Future for Contained<'_, T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    }
}
