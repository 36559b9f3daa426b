use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pool_core::testing::{FakeControl, FakeDriver, settle};
use pool_core::{
    AcquireError, BoxError, Class, Event, EventStream, Lease, Limits, Policy, Pool, PoolBuilder,
    Request, async_trait,
};
use tokio::task::JoinHandle;

pub(crate) type FakePool = Pool<FakeDriver>;
pub(crate) type FakeLease = Lease<FakeDriver>;
pub(crate) type Asked = JoinHandle<Result<FakeLease, AcquireError>>;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A pool without chance in it: lifetimes are not jittered, backoff is seeded.
pub(crate) fn build(
    configure: impl FnOnce(PoolBuilder<FakeDriver>) -> PoolBuilder<FakeDriver>,
) -> (FakePool, FakeControl) {
    let driver = FakeDriver::new();
    let control = driver.control();
    let builder = Pool::builder(driver).seed(Some(1)).lifetime_jitter(0.0);
    (configure(builder).build().expect("the test's settings are valid"), control)
}

/// A pool of at most `max_size` that recycles at once.
pub(crate) fn pool_of(max_size: usize) -> (FakePool, FakeControl) {
    build(|builder| builder.max_size(max_size))
}

/// Asks in a task of its own, and stands in the queue when this returns.
pub(crate) async fn ask(pool: &FakePool) -> Asked {
    ask_with(pool, Request::new()).await
}

pub(crate) async fn ask_with(pool: &FakePool, request: Request) -> Asked {
    let pool = pool.clone();
    let asked = tokio::spawn(async move { pool.acquire_with(request).await });
    settle().await;
    asked
}

/// Leases what can be had without time passing.
pub(crate) async fn lease(pool: &FakePool) -> FakeLease {
    lease_with(pool, Request::new()).await
}

pub(crate) async fn lease_with(pool: &FakePool, request: Request) -> FakeLease {
    pool.acquire_with(request).await.expect("a lease was to be had")
}

/// A request for a class of [`Sorted`].
pub(crate) fn class(name: &str) -> Request {
    Request::new().label("class", name)
}

pub(crate) fn class_named(name: &str) -> Class {
    let mut class = Class::default();
    class.insert("class", name);
    class
}

/// Polls a future once, without anyone to wake.
pub(crate) fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Starts a future and drops it at its first await.
pub(crate) fn start_and_drop(future: impl Future) {
    assert!(poll_once(pin!(future)).is_pending());
}

/// The answer, which must be there already.
pub(crate) async fn answer(asked: Asked) -> Result<FakeLease, AcquireError> {
    settle().await;
    assert!(asked.is_finished(), "no answer yet");
    asked.await.expect("the task did not panic")
}

/// Drains the pool, and finds that nothing is left and every count adds up.
#[track_caller]
pub(crate) fn ends_clean(pool: FakePool, control: FakeControl) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let report = pool.drain(Duration::from_secs(1)).await;
        assert!(report.complete, "{caller}: something is left after the drain");
        let stats = pool.stats();
        assert_eq!(stats.load.total(), 0, "{caller}: {:?}", stats.load);
        assert_eq!(stats.load.waiting, 0, "{caller}: {:?}", stats.load);
        let counters = stats.counters;
        assert_eq!(counters.created, counters.closed, "{caller}: {counters:?}");
        assert_eq!(counters.acquired, counters.released, "{caller}: {counters:?}");
        assert!(control.existing().is_empty(), "{caller}: {:?}", control.existing());
        control.assert_sound();
    }
}

/// Everything that is in the stream by now.
pub(crate) fn all(events: &mut EventStream) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}

/// The names of events, the shortest way to write down what happened.
pub(crate) fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(name).collect()
}

pub(crate) fn name(event: &Event) -> &'static str {
    match event {
        Event::Creating { .. } => "creating",
        Event::Created { .. } => "created",
        Event::CreateFailed { .. } => "create failed",
        Event::Leased { .. } => "leased",
        Event::Released { .. } => "released",
        Event::Recycled { .. } => "recycled",
        Event::Checked { .. } => "checked",
        Event::Overdue { .. } => "overdue",
        Event::Closing { .. } => "closing",
        Event::Closed { .. } => "closed",
        Event::Enqueued { .. } => "enqueued",
        Event::Refused { .. } => "refused",
        Event::Resized { .. } => "resized",
        Event::Draining => "draining",
        Event::PolicyPanicked { .. } => "policy panicked",
        _ => "unknown",
    }
}

/// The reasons of all closes so far, as their codes.
pub(crate) fn close_reasons(events: &[Event]) -> Vec<&'static str> {
    let codes = events.iter().filter_map(|event| match event {
        Event::Closing { reason, .. } => Some(reason.code()),
        _ => None,
    });
    codes.collect()
}

/// Sorts requests into classes by their label `class`, and ranks them by priority, a level worth
/// ten seconds.
#[derive(Default)]
pub(crate) struct Sorted {
    limits: BTreeMap<String, Limits>,
}

impl Sorted {
    pub(crate) fn limit(mut self, class: &str, limits: Limits) -> Self {
        self.limits.insert(class.to_string(), limits);
        self
    }
}

#[async_trait]
impl Policy<FakeDriver> for Sorted {
    fn classify(&self, request: &Request, class: &mut Class) {
        if let Some(name) = request.get("class") {
            class.insert("class", name);
        }
    }

    fn rank(&self, request: &Request) -> Option<Duration> {
        let priority = request.priority.unwrap_or(5);
        Some(Duration::from_secs(10) * u32::from(priority))
    }

    fn limit(&self, class: &Class) -> Option<Limits> {
        self.limits.get(class.get("class").unwrap_or("default")).copied()
    }

    fn configure(
        &self,
        class: &Class,
        spec: &mut <FakeDriver as pool_core::Driver>::Spec,
    ) -> Result<(), BoxError> {
        if let Some(name) = class.get("class") {
            spec.labels.insert("class".into(), name.into());
        }
        Ok(())
    }
}
