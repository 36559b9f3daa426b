use std::time::Duration;

use pool_core::testing::{Behaviour, FakeError, Outcome, Step, settle};
use pool_core::{AcquireError, Event, Request};

use crate::support::*;

fn is_told_to_fail(error: &pool_core::SharedError) -> bool {
    error.get().downcast_ref::<FakeError>().is_some_and(|error| error.step == Step::Create)
}

#[tokio::test(start_paused = true)]
async fn a_failed_creation_is_tried_again_later_and_later() {
    let (pool, control) = build(|builder| builder.max_size(1).breaker_threshold(10));
    let mut events = pool.events();
    control.set(Step::Create, Behaviour::Fail);
    let waiter = ask(&pool).await;
    tokio::time::sleep(5 * SECOND).await;
    let pauses: Vec<Duration> = all(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::CreateFailed { retry_after, .. } => Some(retry_after),
            _ => None,
        })
        .collect();
    assert!(pauses.len() >= 4);
    for (n, pause) in pauses.iter().enumerate() {
        let least = Duration::from_millis(250) * 2_u32.pow(n as u32);
        assert!(*pause >= least && *pause <= least.mul_f64(1.1), "{n}: {pause:?}");
    }
    control.set(Step::Create, Behaviour::Pass);
    drop(waiter.await.expect("no panic").expect("it heals by itself"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn past_the_threshold_waiters_fail_at_once_and_newcomers_too() {
    let (pool, control) = build(|builder| builder.max_size(1).breaker_threshold(3));
    control.set(Step::Create, Behaviour::Fail);
    let waiter = ask(&pool).await;
    tokio::time::sleep(2 * SECOND).await;
    let error = answer(waiter).await.expect_err("three creations failed");
    let AcquireError::Unavailable { last, retry_after } = error else { panic!("{error}") };
    assert!(is_told_to_fail(&last));
    assert!(retry_after > 10 * SECOND && retry_after <= 17 * SECOND);
    let before = tokio::time::Instant::now();
    let error = pool.acquire().await.expect_err("it fails fast");
    assert!(matches!(error, AcquireError::Unavailable { .. }));
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(control.begun(Step::Create), 3);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_driver_is_tried_at_most_eight_times_a_minute() {
    let (pool, control) = build(|builder| builder.min_size(2).max_size(4));
    control.set(Step::Create, Behaviour::Fail);
    let mut before = 0;
    for minute in 0..10 {
        for _ in 0..60 {
            // Somebody always asks.
            drop(ask(&pool).await);
            tokio::time::sleep(SECOND).await;
        }
        let tries = control.begun(Step::Create) - before;
        assert!((1..=8).contains(&tries), "{tries} tries in minute {minute}");
        before += tries;
    }
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_resources_die_young_is_tried_at_most_eight_times_a_minute() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(4));
    let mut tries = 0;
    for _ in 0..60 {
        for _ in 0..100 {
            for id in control.existing() {
                control.reporter(id).expect("it was made").broken("it died at once");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tries = control.begun(Step::Create);
    }
    assert!((2..=8).contains(&tries), "{tries} tries in a minute");
    // One that lives ends it.
    tokio::time::sleep(MINUTE).await;
    drop(lease(&pool).await);
    settle().await;
    assert_eq!(pool.load().idle, 1);
    assert!(!pool.stats().classes[0].failing);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn it_heals_by_itself_within_the_breaker_interval() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(1));
    control.set(Step::Create, Behaviour::Fail);
    tokio::time::sleep(MINUTE).await;
    assert!(pool.stats().classes[0].failing);
    control.set(Step::Create, Behaviour::Pass);
    tokio::time::sleep(17 * SECOND).await;
    assert_eq!(pool.load().idle, 1);
    assert!(!pool.stats().classes[0].failing);
    drop(lease(&pool).await);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn waiters_that_a_living_resource_can_serve_do_not_fail() {
    let (pool, control) = build(|builder| builder.max_size(2).breaker_threshold(1));
    let held = lease(&pool).await;
    control.set(Step::Create, Behaviour::Fail);
    let waiter = ask(&pool).await;
    tokio::time::sleep(SECOND).await;
    assert!(pool.stats().classes[0].failing);
    assert!(!waiter.is_finished(), "the held one will come back");
    drop(held);
    drop(answer(waiter).await.expect("it did"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_last_living_resource_goes_its_waiters_fail_instead_of_waiting() {
    let (pool, control) = build(|builder| builder.max_size(2).breaker_threshold(1));
    let held = lease(&pool).await;
    control.set(Step::Create, Behaviour::Fail);
    let waiter = ask(&pool).await;
    settle().await;
    held.discard();
    let error = answer(waiter).await.expect_err("nothing is left to wait for");
    assert!(matches!(error, AcquireError::Unavailable { .. }));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn one_class_that_fails_does_not_keep_another_from_its_resources() {
    let (pool, control) = build(|builder| builder.max_size(2).policy(Sorted::default()));
    control.set(Step::Create, Behaviour::Fail);
    let failing = ask_with(&pool, class("a")).await;
    control.set(Step::Create, Behaviour::Pass);
    drop(lease_with(&pool, class("b")).await);
    drop(failing.await.expect("no panic").expect("it is tried again"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_creations_go_one_at_a_time_until_one_succeeds() {
    let (pool, control) = build(|builder| builder.min_size(4).max_size(4).max_creating(4));
    control.set(Step::Create, Behaviour::Hold);
    settle().await;
    assert_eq!(control.held(Step::Create), 4);
    while control.release_as(Step::Create, Behaviour::Fail) {}
    tokio::time::sleep(17 * SECOND).await;
    assert_eq!(control.held(Step::Create), 1);
    control.release(Step::Create);
    settle().await;
    assert_eq!(control.held(Step::Create), 3);
    control.open(Step::Create);
    settle().await;
    assert_eq!(pool.load().idle, 4);
    assert_eq!(control.count(Step::Create, Outcome::Failed), 4);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn names_from_outside_do_not_pile_up_even_when_their_creations_fail() {
    let (pool, control) = build(|builder| {
        builder.max_size(2).policy(Sorted::default()).acquire_timeout(Some(SECOND))
    });
    control.set(Step::Create, Behaviour::Fail);
    for name in 0..200 {
        drop(ask_with(&pool, class(&name.to_string())).await);
        start_and_drop(pool.acquire_with(class(&format!("left {name}"))));
        let nowait = Request::new().label("class", format!("now {name}")).timeout(Duration::ZERO);
        drop(pool.acquire_with(nowait).await.expect_err("there is none"));
    }
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(pool.stats().classes.len(), 1, "only the default class is left");
    ends_clean(pool, control).await;
}
