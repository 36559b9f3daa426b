use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{
    Adjustment, BoxError, Class, Driver, Event, Limits, Meta, Policy, Rejection, Request, Stats,
    Verdict,
};

/// The policies of one pool, in the order they were added, with every panic contained.
///
/// Each method is given whom to tell of the panics that it meets on the way.
pub(crate) struct Stack<D: Driver> {
    policies: Box<[Box<dyn Policy<D>>]>,
    /// At least one of them watches events.
    watch: bool,
}

/// Takes a panic, as an event.
type Report<'a> = &'a (dyn Fn(Event) + Send + Sync);

impl<D: Driver> Stack<D> {
    pub(crate) fn new(policies: Vec<Box<dyn Policy<D>>>) -> Self {
        let watch = policies.iter().any(|policy| {
            // An answer that panics is answered with the default.
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

    /// Runs the hooks of an acquire that need no lock.
    pub(crate) fn decide(
        &self,
        request: &mut Request,
        report: Report<'_>,
    ) -> Result<(Class, Duration), Rejection> {
        for policy in &*self.policies {
            let admitted = contain(&**policy, "admit", report, || policy.admit(request));
            if let Some(Err(rejection)) = admitted {
                return Err(rejection);
            }
        }
        let mut class = Class::default();
        let mut handicap = None;
        for policy in &*self.policies {
            contain(&**policy, "classify", report, || policy.classify(request, &mut class));
            if handicap.is_none() {
                handicap = contain(&**policy, "rank", report, || policy.rank(request)).flatten();
            }
        }
        Ok((class, handicap.unwrap_or_default().min(MAX_HANDICAP)))
    }

    pub(crate) fn limit(&self, class: &Class, report: Report<'_>) -> Option<Limits> {
        let mut all: Option<Limits> = None;
        for policy in &*self.policies {
            let answer = contain(&**policy, "limit", report, || policy.limit(class));
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
        report: Report<'_>,
    ) -> Result<(), BoxError> {
        for policy in &*self.policies {
            let done = contain(&**policy, "configure", report, || policy.configure(class, spec));
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
        report: Report<'_>,
    ) -> Result<(), BoxError> {
        for policy in &*self.policies {
            let started = contain(&**policy, "prepare", report, || policy.prepare(resource, meta));
            let Some(work) = started else { continue };
            match (Contained { work }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(payload) => report(panicked(&**policy, "prepare", &*payload)),
            }
        }
        Ok(())
    }

    pub(crate) fn released(&self, meta: &Meta, report: Report<'_>) -> Verdict {
        let mut verdict = Verdict::Keep;
        for policy in &*self.policies {
            let judged = contain(&**policy, "released", report, || policy.released(meta));
            verdict = verdict.max(judged.unwrap_or_default());
        }
        verdict
    }

    pub(crate) fn tick(&self, stats: &Stats, report: Report<'_>) -> Vec<Adjustment> {
        let mut all = Vec::new();
        for policy in &*self.policies {
            all.extend(
                contain(&**policy, "tick", report, || policy.tick(stats)).unwrap_or_default(),
            );
        }
        all
    }

    pub(crate) fn event(&self, event: &Event, report: Report<'_>) {
        for policy in &*self.policies {
            contain(&**policy, "event", report, || policy.event(event));
        }
    }
}

/// A handicap beyond a day would only serve to overflow the clock.
const MAX_HANDICAP: Duration = Duration::from_secs(24 * 60 * 60);

fn contain<D: Driver, T>(
    policy: &dyn Policy<D>,
    hook: &'static str,
    report: Report<'_>,
    call: impl FnOnce() -> T,
) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => Some(answer),
        Err(payload) => {
            report(panicked(policy, hook, &*payload));
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
    // The name is user code as well.
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
