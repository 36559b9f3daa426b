//! How policies stack, and what becomes of one that panics, blocks or answers nonsense.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_core::testing::{Behaviour, FakeDriver, FakeResource, FakeSpec, Step, settle};
use pool_core::{
    AcquireError, Adjustment, BoxError, Class, Event, Limits, Meta, Policy, Pool, Rejection,
    Request, Stats, Verdict, async_trait,
};
use tokio::time::sleep;

use crate::support::*;

/// Panics in one hook and answers the others with the default.
struct Panics(&'static str);

impl Panics {
    fn here(&self, hook: &str) {
        assert_ne!(self.0, hook, "told to");
    }
}

#[async_trait]
impl Policy<FakeDriver> for Panics {
    fn name(&self) -> &str {
        self.here("name");
        "panics"
    }

    fn admit(&self, _: &mut Request) -> Result<(), Rejection> {
        self.here("admit");
        Ok(())
    }

    fn classify(&self, _: &Request, _: &mut Class) {
        self.here("classify");
    }

    fn rank(&self, _: &Request) -> Option<Duration> {
        self.here("rank");
        None
    }

    fn limit(&self, _: &Class) -> Option<Limits> {
        self.here("limit");
        None
    }

    fn configure(&self, _: &Class, _: &mut FakeSpec) -> Result<(), BoxError> {
        self.here("configure");
        Ok(())
    }

    async fn prepare(&self, _: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
        self.here("prepare");
        tokio::task::yield_now().await;
        self.here("prepare after a while");
        Ok(())
    }

    fn released(&self, _: &Meta) -> Verdict {
        self.here("released");
        Verdict::Keep
    }

    fn tick(&self, _: &Stats) -> Vec<Adjustment> {
        self.here("tick");
        Vec::new()
    }

    fn event(&self, _: &Event) {
        self.here("event");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_hook_is_reported_answered_with_the_default_and_harms_nobody() {
    let hooks = [
        "admit",
        "classify",
        "rank",
        "limit",
        "configure",
        "prepare",
        "prepare after a while",
        "released",
        "tick",
        "event",
    ];
    for hook in hooks {
        let (pool, control) = build(|builder| {
            builder
                .max_size(1)
                .event_capacity(10_000)
                .policy(Panics(hook))
                .policy(Sorted::default())
        });
        let mut events = pool.events();
        for _ in 0..3 {
            let held = lease_with(&pool, class("a")).await;
            assert_eq!(held.meta().class, class_named("a"), "the other policy goes on");
            let waiter = ask_with(&pool, class("a")).await;
            drop(held);
            drop(answer(waiter).await.expect("the pool goes on"));
            settle().await;
        }
        sleep(3 * SECOND).await;
        let counted = pool.stats().counters.policy_panics;
        let told: Vec<_> = all(&mut events)
            .into_iter()
            .filter_map(|event| match event {
                Event::PolicyPanicked { policy, hook, message } => Some((policy, hook, message)),
                _ => None,
            })
            .collect();
        assert!(!told.is_empty(), "{hook}");
        // A hook that panicked while the pool was built was told to nobody.
        assert!(counted >= told.len() as u64, "{hook}: {counted} counted, {} told", told.len());
        for (policy, at, message) in told {
            assert_eq!(policy, "panics");
            assert!(hook.starts_with(at), "{hook}: {at}");
            assert!(message.contains("told to"), "{message}");
        }
        ends_clean(pool, control).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_whose_name_panics_too_is_reported_without_it() {
    struct Nameless;
    #[async_trait]
    impl Policy<FakeDriver> for Nameless {
        fn name(&self) -> &str {
            panic!("no name")
        }
        fn released(&self, _: &Meta) -> Verdict {
            std::panic::panic_any(42)
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Nameless));
    let mut events = pool.events();
    drop(lease(&pool).await);
    settle().await;
    let told = all(&mut events).into_iter().any(|event| {
        matches!(event, Event::PolicyPanicked { policy, message, .. }
            if policy == "unknown" && message == "a panic without a message")
    });
    assert!(told);
    assert_eq!(pool.load().idle, 1, "the default verdict is to keep it");
    ends_clean(pool, control).await;
}

/// Writes down who was asked what.
struct Notes(&'static str, Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, hook: &str) {
        self.1.lock().expect("no test panics with it").push(format!("{} {hook}", self.0));
    }
}

#[async_trait]
impl Policy<FakeDriver> for Notes {
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        self.note(&format!("admit {:?}", request.get("from")));
        request.set("from", self.0);
        Ok(())
    }

    fn rank(&self, _: &Request) -> Option<Duration> {
        self.note("rank");
        Some(Duration::ZERO)
    }

    fn configure(&self, _: &Class, spec: &mut FakeSpec) -> Result<(), BoxError> {
        self.note(&format!("configure {:?}", spec.labels.get("from")));
        spec.labels.insert("from".into(), self.0.into());
        Ok(())
    }

    async fn prepare(&self, resource: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
        self.note(&format!("prepare {:?}", resource.label("from")));
        Ok(())
    }

    fn released(&self, _: &Meta) -> Verdict {
        self.note("released");
        if self.0 == "second" { Verdict::Discard } else { Verdict::Recycle }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_decide_in_the_order_they_were_added() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (pool, control) = build(|builder| {
        builder
            .max_size(1)
            .policy(Notes("first", Arc::clone(&notes)))
            .policy(Notes("second", Arc::clone(&notes)))
    });
    drop(lease(&pool).await);
    settle().await;
    let expected = [
        "first admit None",
        "second admit Some(\"first\")",
        "first rank",
        "first configure None",
        "second configure Some(\"first\")",
        "first prepare Some(\"second\")",
        "second prepare Some(\"second\")",
        "first released",
        "second released",
    ];
    assert_eq!(*notes.lock().expect("no test panics with it"), expected);
    assert_eq!(pool.load().total(), 0, "the most severe verdict wins");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_request_with_its_code() {
    struct Refuses;
    #[async_trait]
    impl Policy<FakeDriver> for Refuses {
        fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
            request.require("tenant").map(|_| ())
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Refuses));
    let error = pool.acquire().await.expect_err("it names no tenant");
    let AcquireError::Rejected(rejection) = error else { panic!("{error}") };
    assert_eq!(rejection.code, "missing_label");
    assert_eq!(pool.stats().counters.rejected, 1);
    drop(lease_with(&pool, Request::new().label("tenant", "t")).await);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_preparation_is_a_failed_creation_and_the_resource_is_closed() {
    struct Fails(AtomicBool);
    #[async_trait]
    impl Policy<FakeDriver> for Fails {
        async fn prepare(&self, _: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
            if self.0.swap(false, Ordering::Relaxed) { Err("cold".into()) } else { Ok(()) }
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Fails(AtomicBool::new(true))));
    let held = pool.acquire().await.expect("the second is prepared well");
    assert_eq!(held.id().get(), 2);
    let counters = pool.stats().counters;
    assert_eq!((counters.created, counters.create_failed), (1, 1));
    assert_eq!(control.begun(Step::Close), 1);
    drop(held);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_takes_too_long_is_given_up_and_the_resource_closed() {
    struct Hangs(AtomicBool);
    #[async_trait]
    impl Policy<FakeDriver> for Hangs {
        async fn prepare(&self, _: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
            if self.0.swap(false, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    }
    let (pool, control) = build(|builder| {
        builder.max_size(1).create_timeout(3 * SECOND).policy(Hangs(AtomicBool::new(true)))
    });
    control.set(Step::Close, Behaviour::Take(SECOND));
    drop(pool.acquire().await.expect("the second is prepared in time"));
    assert!(control.dropped_unclosed().is_empty(), "what was made is closed, not only dropped");
    assert_eq!(control.peak(), 1, "and counts until it is gone");
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_configure_fails_the_creation_without_asking_the_driver() {
    struct Fails(AtomicBool);
    #[async_trait]
    impl Policy<FakeDriver> for Fails {
        fn configure(&self, _: &Class, _: &mut FakeSpec) -> Result<(), BoxError> {
            if self.0.swap(false, Ordering::Relaxed) { Err("no proxy".into()) } else { Ok(()) }
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Fails(AtomicBool::new(true))));
    drop(pool.acquire().await.expect("the second is configured well"));
    assert_eq!((pool.stats().counters.create_failed, control.begun(Step::Create)), (1, 1));
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_fed_with_real_figures_and_resizes_the_pool() {
    struct Sizes(Arc<AtomicUsize>);
    #[async_trait]
    impl Policy<FakeDriver> for Sizes {
        fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
            self.0.fetch_max(stats.load.waiting, Ordering::Relaxed);
            if stats.load.waiting > 0 {
                vec![Adjustment::MaxSize(stats.load.max_size + 1), Adjustment::MaxSize(0)]
            } else {
                Vec::new()
            }
        }
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let (pool, control) = build(|builder| {
        builder.max_size(1).tick_interval(5 * SECOND).policy(Sizes(Arc::clone(&seen)))
    });
    settle().await;
    let held = lease(&pool).await;
    let waiters = [ask(&pool).await, ask(&pool).await];
    sleep(11 * SECOND).await;
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    assert_eq!(pool.load().max_size, 3, "it has grown twice, and a maximum of zero is ignored");
    for waiter in waiters {
        drop(answer(waiter).await.expect("there is room for all"));
    }
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_call_the_pool_from_any_decision() {
    /// Asks the pool for its load in each hook, which would deadlock under its lock.
    #[derive(Default)]
    struct Asks(Arc<Mutex<Option<Pool<FakeDriver>>>>);
    impl Asks {
        fn ask(&self) {
            if let Some(pool) = self.0.lock().expect("no test panics with it").as_ref() {
                assert!(pool.load().total() <= 1);
            }
        }
    }
    #[async_trait]
    impl Policy<FakeDriver> for Asks {
        fn admit(&self, _: &mut Request) -> Result<(), Rejection> {
            self.ask();
            Ok(())
        }
        fn limit(&self, _: &Class) -> Option<Limits> {
            self.ask();
            None
        }
        fn released(&self, _: &Meta) -> Verdict {
            self.ask();
            Verdict::Keep
        }
        fn event(&self, _: &Event) {
            self.ask();
        }
    }
    let cell = Arc::new(Mutex::new(None));
    let (pool, control) = build(|builder| builder.max_size(1).policy(Asks(Arc::clone(&cell))));
    *cell.lock().expect("no test panics with it") = Some(pool.clone());
    drop(lease(&pool).await);
    settle().await;
    assert_eq!(pool.stats().counters.policy_panics, 0);
    *cell.lock().expect("no test panics with it") = None;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_asks_for_recycling_where_the_driver_does_not() {
    struct Recycles;
    #[async_trait]
    impl Policy<FakeDriver> for Recycles {
        fn released(&self, meta: &Meta) -> Verdict {
            if meta.uses == 2 { Verdict::Recycle } else { Verdict::Keep }
        }
    }
    let (pool, control) = build(|builder| builder.max_size(1).policy(Recycles));
    control.set_needs_recycle(false);
    for _ in 0..3 {
        drop(lease(&pool).await);
        settle().await;
    }
    assert_eq!(control.begun(Step::Recycle), 1);
    ends_clean(pool, control).await;
}
