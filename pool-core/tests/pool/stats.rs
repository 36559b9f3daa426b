use std::time::Duration;

use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{Counters, Limits, Request, ResourceState};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_counter_counts_exactly_what_happened() {
    let (pool, control) = build(|builder| {
        builder
            .max_size(1)
            .max_waiting(2)
            .check_after_idle(Some(SECOND))
            .health_check_interval(None)
            .policy(Sorted::default())
    });
    // One creation that fails, then one that is good; its waiter has waited for both.
    control.next(Step::Create, Behaviour::Fail);
    let waiter = ask(&pool).await;
    sleep(SECOND).await;
    let held = answer(waiter).await.expect("the second try is good");
    let waited = held.waited();
    assert!(waited >= Duration::from_millis(250));
    // While it is held: one waiter too many, one that goes away, one that runs out of time.
    let kept = ask(&pool).await;
    let gone = ask_with(&pool, Request::new().timeout(SECOND)).await;
    drop(pool.acquire().await.expect_err("the queue is full"));
    sleep(2 * SECOND).await;
    drop(gone.await.expect("no panic").expect_err("it ran out of time"));
    start_and_drop(pool.acquire());
    drop(held);
    let held = answer(kept).await.expect("it is next");
    let waited = waited + held.waited();
    drop(held);
    settle().await;
    // Checked at hand-out: once well, once not, and made anew.
    sleep(2 * SECOND).await;
    drop(lease(&pool).await);
    settle().await;
    sleep(2 * SECOND).await;
    control.next(Step::Check, Behaviour::Fail);
    control.next(Step::Recycle, Behaviour::Fail);
    drop(lease(&pool).await);
    settle().await;
    let mut expected = Counters::default();
    expected.created = 2;
    expected.create_failed = 1;
    expected.closed = 2;
    expected.acquired = 4;
    expected.released = 4;
    expected.recycled = 3;
    expected.recycle_failed = 1;
    expected.checks = 2;
    expected.checks_failed = 1;
    expected.timeouts = 1;
    expected.rejected = 1;
    expected.cancelled = 1;
    expected.waited = waited;
    assert_eq!(pool.stats().counters, expected);
    assert_eq!(pool.stats().classes[0].granted, 4);
    assert_eq!(pool.stats().classes[0].waited, waited);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_counts_as_a_lease_when_it_is_fetched() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    sleep(SECOND).await;
    drop(held);
    let told = || {
        let stats = pool.stats();
        let (class, counters) = (&stats.classes[0], stats.counters);
        assert_eq!((class.granted, class.waited), (counters.acquired, counters.waited));
        (counters.acquired, counters.waited)
    };
    assert_eq!((pool.load().leased, told()), (1, (1, Duration::ZERO)));
    drop(answer(waiter).await);
    assert_eq!(told(), (2, SECOND));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_load_tells_each_state() {
    let (pool, control) = build(|builder| {
        builder
            .max_size(6)
            .max_creating(6)
            .health_check_interval(Some(SECOND))
            .check_timeout(MINUTE)
            .recycle_timeout(MINUTE)
            .close_timeout(MINUTE)
    });
    for step in [Step::Check, Step::Recycle, Step::Close] {
        control.set(step, Behaviour::Hold);
    }
    let (checked, recycled, closed) = (lease(&pool).await, lease(&pool).await, lease(&pool).await);
    let (held, idle) = (lease(&pool).await, lease(&pool).await);
    control.set_needs_recycle(false);
    drop(checked);
    sleep(2 * SECOND).await;
    drop(idle);
    control.set_needs_recycle(true);
    drop(recycled);
    closed.discard();
    control.set(Step::Create, Behaviour::Hold);
    // The idle one goes to the first of these, the other two must wait.
    let waiters = [ask(&pool).await, ask(&pool).await, ask(&pool).await, ask(&pool).await];
    let served = waiters.iter().filter(|waiter| waiter.is_finished()).count();
    let load = pool.load();
    assert_eq!(served, 1);
    assert_eq!((load.checking, load.recycling, load.closing), (1, 1, 1), "{load:?}");
    assert_eq!((load.leased, load.idle, load.creating, load.waiting), (2, 0, 1, 3), "{load:?}");
    assert_eq!(load.total(), 6);
    assert!((load.utilization() - 0.5).abs() < 1e-9, "two of four that could be leased");
    for waiter in waiters {
        waiter.abort();
    }
    control.open(Step::Create);
    for step in [Step::Check, Step::Recycle, Step::Close] {
        control.open(step);
    }
    settle().await;
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn resources_and_waiters_are_listed_with_what_is_known_of_them() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    let held = lease_with(&pool, class("a")).await;
    sleep(3 * SECOND).await;
    let waiters = [
        ask_with(&pool, class("a").priority(7)).await,
        ask_with(&pool, class("b").priority(2)).await,
    ];
    sleep(SECOND).await;
    let resources = pool.resources();
    assert_eq!(resources.len(), 1);
    let info = &resources[0];
    assert_eq!((info.id, info.state, info.uses), (held.id(), ResourceState::Leased, 1));
    assert_eq!(info.since.elapsed(), 4 * SECOND);
    assert_eq!(info.class, class_named("a"));
    let listed = pool.waiters();
    assert_eq!(listed[0].class, class_named("b"), "the next one to be served comes first");
    assert_eq!((listed[0].priority, listed[1].priority), (Some(2), Some(7)));
    assert_eq!(listed[0].waited, SECOND);
    assert_eq!(pool.stats().oldest_wait, Some(SECOND));
    drop(held);
    for waiter in waiters.into_iter().rev() {
        drop(waiter.await.expect("no panic").expect("both are served"));
    }
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn each_class_is_listed_with_its_own_load_and_limits() {
    let (pool, control) = build(|builder| builder.max_size(5).policy(Sorted::default()));
    pool.set_limits(&class_named("a"), Limits { min: Some(1), max: Some(3), warm: Some(1) });
    let held = lease_with(&pool, class("a")).await;
    settle().await;
    let stats = pool.stats();
    assert!(stats.classes[0].class.is_default(), "the default class comes first");
    let a = &stats.classes[1];
    assert_eq!((a.min, a.load.max_size, a.warm), (1, 3, 1));
    assert_eq!((a.load.leased, a.load.idle, a.granted), (1, 1, 1));
    assert!(!a.failing);
    drop(held);
    ends_clean(pool, control).await;
}
