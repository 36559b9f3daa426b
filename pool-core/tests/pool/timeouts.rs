use std::time::Duration;

use pool_core::testing::{Behaviour, FakeError, Outcome, Step, settle};
use pool_core::{AcquireError, Request, TimedOut};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_timeout_with_the_facts() {
    let (pool, control) = build(|builder| builder.max_size(1).acquire_timeout(Some(5 * SECOND)));
    let held = lease(&pool).await;
    let before = tokio::time::Instant::now();
    let error = pool.acquire().await.expect_err("it is held");
    assert!(before.elapsed() <= 5 * SECOND + Duration::from_millis(100));
    let AcquireError::Timeout { waited, load, last } = error else { panic!("{error}") };
    assert!(waited >= 5 * SECOND && waited <= 5 * SECOND + Duration::from_millis(100));
    assert_eq!((load.leased, load.max_size), (1, 1));
    assert!(last.is_none());
    assert_eq!(pool.stats().counters.timeouts, 1);
    assert_eq!(pool.load().waiting, 0);
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_requests_own_timeout_comes_before_the_pools() {
    let (pool, control) = build(|builder| builder.max_size(1).acquire_timeout(Some(MINUTE)));
    let held = lease(&pool).await;
    let before = tokio::time::Instant::now();
    let request = Request::new().timeout(2 * SECOND);
    assert!(matches!(pool.acquire_with(request).await, Err(AcquireError::Timeout { .. })));
    assert!(before.elapsed() < 3 * SECOND);
    let longer = ask_with(&pool, Request::new().timeout(3 * MINUTE)).await;
    tokio::time::sleep(2 * MINUTE).await;
    assert!(!longer.is_finished());
    drop(held);
    drop(answer(longer).await.expect("it was patient"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_timeout_a_request_waits_for_ever() {
    let (pool, control) = build(|builder| builder.max_size(1).acquire_timeout(None));
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert!(!waiter.is_finished());
    drop(held);
    drop(answer(waiter).await.expect("at last"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_are_for_ever_and_no_overflow() {
    let for_ever = Some(Duration::MAX);
    let (pool, control) = build(|builder| {
        builder
            .max_size(1)
            .acquire_timeout(for_ever)
            .create_timeout(Duration::MAX)
            .recycle_timeout(Duration::MAX)
            .check_timeout(Duration::MAX)
            .close_timeout(Duration::MAX)
            .max_idle_time(for_ever)
            .max_lifetime(for_ever)
            .lifetime_jitter(0.5)
            .hold_limit(for_ever)
            .health_check_interval(for_ever)
            .check_after_idle(for_ever)
            .eviction_patience(Duration::MAX)
            .backoff(Duration::MAX)
            .breaker_interval(Duration::MAX)
            .policy(Sorted::default())
    });
    control.next(Step::Create, Behaviour::Fail);
    drop(ask(&pool).await);
    control.next(Step::Create, Behaviour::Pass);
    drop(lease_with(&pool, class("b").timeout(Duration::MAX)).await);
    let held = lease_with(&pool, class("b")).await;
    let waiter = ask_with(&pool, class("b").timeout(Duration::MAX)).await;
    drop(held);
    drop(answer(waiter).await.expect("it is served"));
    settle().await;
    assert!(pool.drain(Duration::MAX).await.complete);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn the_timeout_carries_the_creation_error_that_caused_it() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).acquire_timeout(Some(2 * SECOND)).breaker_threshold(100)
    });
    control.set(Step::Create, Behaviour::Fail);
    let error = pool.acquire().await.expect_err("nothing can be made");
    let AcquireError::Timeout { last: Some(last), .. } = &error else { panic!("{error}") };
    assert!(last.get().downcast_ref::<FakeError>().is_some());
    assert!(error.to_string().contains("told to fail"), "{error}");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_given_up_at_its_timeout() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).create_timeout(3 * SECOND).acquire_timeout(Some(4 * SECOND))
    });
    control.next(Step::Create, Behaviour::Hang);
    control.set(Step::Create, Behaviour::Hang);
    let error = pool.acquire().await.expect_err("it never gets ready");
    let AcquireError::Timeout { last: Some(last), .. } = error else { panic!("{error}") };
    let timed_out = last.get().downcast_ref::<TimedOut>().expect("that is why");
    assert_eq!(*timed_out, TimedOut { step: "create", limit: 3 * SECOND });
    assert_eq!(control.count(Step::Create, Outcome::Dropped), 1);
    control.open(Step::Create);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_takes_exactly_as_long_as_its_asker_waits_is_kept() {
    let (pool, control) = build(|builder| builder.max_size(1).acquire_timeout(Some(5 * SECOND)));
    control.set(Step::Create, Behaviour::Take(5 * SECOND));
    let asked = pool.acquire().await;
    settle().await;
    match asked {
        Ok(lease) => drop(lease),
        Err(error) => assert!(matches!(error, AcquireError::Timeout { .. })),
    }
    settle().await;
    assert_eq!(pool.load().idle, 1, "whoever was first, the resource is kept");
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_comes_with_the_timeout_is_taken() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let waiter = ask_with(&pool, Request::new().timeout(5 * SECOND)).await;
    tokio::time::advance(5 * SECOND).await;
    drop(held);
    settle().await;
    match answer(waiter).await {
        Ok(lease) => drop(lease),
        Err(error) => assert!(matches!(error, AcquireError::Timeout { .. })),
    }
    settle().await;
    assert_eq!((pool.load().idle, pool.load().leased), (1, 0));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn without_waiting_only_an_idle_resource_is_leased() {
    let (pool, control) = pool_of(1);
    let now = || Request::new().timeout(Duration::ZERO);
    let error = pool.acquire_with(now()).await.expect_err("there is none");
    let AcquireError::Timeout { waited: Duration::ZERO, .. } = error else { panic!("{error}") };
    settle().await;
    assert_eq!(control.begun(Step::Create), 0, "it does not even start a creation");
    drop(lease(&pool).await);
    settle().await;
    let held = pool.acquire_with(now()).await.expect("one is idle");
    assert!(pool.acquire_with(now()).await.is_err());
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn without_waiting_a_check_at_hand_out_is_waited_for_and_no_longer() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).check_after_idle(Some(SECOND)).check_timeout(2 * SECOND)
    });
    let now = || Request::new().timeout(Duration::ZERO);
    drop(lease(&pool).await);
    tokio::time::sleep(2 * SECOND).await;
    drop(pool.acquire_with(now()).await.expect("its check passed"));
    tokio::time::sleep(2 * SECOND).await;
    control.next(Step::Check, Behaviour::Fail);
    control.set(Step::Create, Behaviour::Hang);
    let before = tokio::time::Instant::now();
    let error = pool.acquire_with(now()).await.expect_err("its check failed");
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert!(before.elapsed() <= 2 * SECOND + Duration::from_millis(100));
    assert_eq!(pool.load().waiting, 0);
    control.open(Step::Create);
    tokio::time::sleep(MINUTE).await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_try_takes_what_is_idle_and_never_waits() {
    let (pool, control) = pool_of(1);
    assert!(pool.try_acquire().is_none());
    drop(lease(&pool).await);
    settle().await;
    let held = pool.try_acquire().expect("one is idle");
    assert!(pool.try_acquire().is_none());
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn past_the_queue_limit_a_request_is_refused_at_once() {
    let (pool, control) = build(|builder| builder.max_size(1).max_waiting(2));
    let held = lease(&pool).await;
    let waiters = [ask(&pool).await, ask(&pool).await];
    let before = tokio::time::Instant::now();
    let error = pool.acquire().await.expect_err("the queue is full");
    assert_eq!(before.elapsed(), Duration::ZERO);
    let AcquireError::QueueFull { load } = error else { panic!("{error}") };
    assert_eq!(load.waiting, 2);
    assert_eq!(pool.stats().counters.rejected, 1);
    drop(held);
    for waiter in waiters {
        drop(answer(waiter).await.expect("those in the queue are served"));
    }
    drop(lease(&pool).await);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_queue_of_none_only_idle_resources_are_leased() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(1).max_waiting(0));
    settle().await;
    let held = lease(&pool).await;
    assert!(matches!(pool.acquire().await, Err(AcquireError::QueueFull { .. })));
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_shut_out_who_only_waits_for_a_check() {
    let (pool, control) = build(|builder| {
        builder
            .min_size(1)
            .max_size(1)
            .max_waiting(0)
            .health_check_interval(None)
            .check_after_idle(Some(SECOND))
    });
    settle().await;
    tokio::time::sleep(MINUTE).await;
    drop(lease(&pool).await);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_may_be_as_long_as_there_are_numbers() {
    let (pool, control) = build(|builder| builder.max_size(1).max_waiting(usize::MAX));
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    drop(held);
    drop(answer(waiter).await.expect("it waited its turn"));
    ends_clean(pool, control).await;
}
