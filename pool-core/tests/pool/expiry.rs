use std::time::Duration;

use pool_core::testing::{Step, settle};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_idle_resource_is_closed_after_the_maximum_idle_time() {
    let (pool, control) = build(|builder| builder.max_idle_time(Some(MINUTE)));
    let mut events = pool.events();
    drop(lease(&pool).await);
    sleep(59 * SECOND).await;
    assert_eq!(pool.load().idle, 1);
    sleep(2 * SECOND).await;
    assert_eq!(pool.load().total(), 0);
    assert_eq!(close_reasons(&all(&mut events)), ["idle_timeout"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn being_checked_is_no_use_and_does_not_keep_a_resource_from_idling_out() {
    let (pool, control) = build(|builder| {
        builder.max_idle_time(Some(5 * MINUTE)).health_check_interval(Some(30 * SECOND))
    });
    drop(lease(&pool).await);
    sleep(5 * MINUTE + SECOND).await;
    assert!(control.begun(Step::Check) >= 9);
    assert_eq!(pool.load().total(), 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_starts_the_idle_time_anew() {
    let (pool, control) = build(|builder| builder.max_idle_time(Some(MINUTE)));
    for _ in 0..5 {
        drop(lease(&pool).await);
        sleep(50 * SECOND).await;
    }
    assert_eq!(pool.load().idle, 1);
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_minimum_does_not_idle_out() {
    let (pool, control) = build(|builder| {
        builder.min_size(1).max_size(3).max_idle_time(Some(MINUTE)).max_lifetime(None)
    });
    let held = (lease(&pool).await, lease(&pool).await, lease(&pool).await);
    drop(held);
    sleep(10 * MINUTE).await;
    assert_eq!(pool.load().idle, 1);
    assert_eq!(control.begun(Step::Create), 3, "nothing is closed only to be made again");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_idles_out_first() {
    let (pool, control) = build(|builder| builder.max_idle_time(Some(MINUTE)));
    let (first, second) = (lease(&pool).await, lease(&pool).await);
    let kept = second.id();
    drop(first);
    settle().await;
    sleep(30 * SECOND).await;
    drop(second);
    sleep(40 * SECOND).await;
    let left: Vec<_> = pool.resources().into_iter().map(|info| info.id).collect();
    assert_eq!(left, [kept]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_resource_is_closed_when_it_comes_back() {
    let (pool, control) = build(|builder| builder.max_lifetime(Some(MINUTE)));
    let mut events = pool.events();
    let held = lease(&pool).await;
    sleep(2 * MINUTE).await;
    assert_eq!(pool.load().leased, 1, "its holder keeps it");
    drop(held);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    assert_eq!(close_reasons(&all(&mut events)), ["lifetime"]);
    assert_eq!(control.begun(Step::Recycle), 0, "what goes anyway is not cleaned");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_resource_is_closed_while_idle() {
    let (pool, control) = build(|builder| builder.max_lifetime(Some(MINUTE)));
    drop(lease(&pool).await);
    sleep(MINUTE + SECOND).await;
    assert_eq!(pool.load().total(), 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn resources_made_together_do_not_die_together() {
    let (pool, control) = build(|builder| {
        builder
            .min_size(8)
            .max_creating(8)
            .max_lifetime(Some(Duration::from_secs(1000)))
            .lifetime_jitter(0.5)
    });
    settle().await;
    let mut at_once = Vec::new();
    for _ in 0..600 {
        let before = control.begun(Step::Create);
        sleep(SECOND).await;
        at_once.push(control.begun(Step::Create) - before);
    }
    assert_eq!(at_once[..499].iter().sum::<usize>(), 0, "none lives shorter than half");
    assert!(at_once.iter().sum::<usize>() > 0, "some are replaced early");
    assert!(at_once.iter().all(|replaced| *replaced <= 2), "{at_once:?}");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_leased_exactly_as_often_as_allowed() {
    let (pool, control) = build(|builder| builder.max_size(1).max_use_count(Some(3)));
    let mut events = pool.events();
    let mut ids = Vec::new();
    for use_number in [1, 2, 3, 1] {
        let held = lease(&pool).await;
        assert_eq!(held.meta().uses, use_number);
        ids.push(held.id().get());
        drop(held);
        settle().await;
    }
    assert_eq!(ids, [1, 1, 1, 2]);
    assert_eq!(close_reasons(&all(&mut events)), ["max_uses"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_fetched_is_no_use() {
    let (pool, control) = build(|builder| builder.max_size(1).max_use_count(Some(2)));
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    for _ in 0..5 {
        let mut waiter = Box::pin(pool.acquire());
        assert!(poll_once(waiter.as_mut()).is_pending());
    }
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    drop(held);
    drop(waiter);
    let second = lease(&pool).await;
    assert_eq!((second.id().get(), second.meta().uses), (1, 2));
    drop(second);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_takes_longer_to_make_than_it_may_live_is_still_leased() {
    let (pool, control) = build(|builder| builder.max_size(1).max_lifetime(Some(2 * SECOND)));
    control.set(Step::Create, pool_core::testing::Behaviour::Take(5 * SECOND));
    drop(lease(&pool).await);
    settle().await;
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}
