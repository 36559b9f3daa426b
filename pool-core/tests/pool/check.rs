use std::time::Duration;

use pool_core::testing::{Behaviour, Outcome, Step, settle};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn idle_resources_are_checked_one_at_a_time() {
    let (pool, control) =
        build(|builder| builder.min_size(4).max_size(4).health_check_interval(Some(30 * SECOND)));
    settle().await;
    control.set(Step::Check, Behaviour::Take(SECOND));
    for _ in 0..400 {
        sleep(Duration::from_millis(100)).await;
        assert!(pool.load().checking <= 1);
        assert!(pool.load().idle >= 3, "the others can be leased meanwhile");
    }
    assert!(control.begun(Step::Check) >= 4);
    let checked: std::collections::BTreeSet<_> = control
        .log()
        .into_iter()
        .filter(|call| call.step == Step::Check)
        .map(|call| call.id)
        .collect();
    assert_eq!(checked.len(), 4, "each had its turn");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_in_use_is_not_checked() {
    let (pool, control) =
        build(|builder| builder.max_size(1).health_check_interval(Some(10 * SECOND)));
    let held = lease(&pool).await;
    sleep(2 * MINUTE).await;
    assert_eq!(control.begun(Step::Check), 0);
    drop(held);
    sleep(11 * SECOND).await;
    assert_eq!(control.begun(Step::Check), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_closes_the_resource_and_refills_the_pool() {
    let (pool, control) =
        build(|builder| builder.min_size(2).max_size(2).health_check_interval(Some(30 * SECOND)));
    let mut events = pool.events();
    settle().await;
    control.next(Step::Check, Behaviour::Fail);
    sleep(31 * SECOND).await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&3), "a new one is there: {ids:?}");
    assert_eq!(close_reasons(&all(&mut events)), ["check_failed"]);
    assert_eq!(pool.stats().counters.checks_failed, 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_given_up_and_the_resource_closed() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).health_check_interval(Some(30 * SECOND)).check_timeout(2 * SECOND)
    });
    drop(lease(&pool).await);
    control.next(Step::Check, Behaviour::Hang);
    sleep(31 * SECOND).await;
    assert_eq!(pool.load().checking, 1);
    sleep(2 * SECOND).await;
    assert_eq!(pool.load().total(), 0);
    assert_eq!(control.count(Step::Check, Outcome::Dropped), 1);
    assert_eq!(control.count(Step::Close, Outcome::Done), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_idled_long_is_checked_at_hand_out() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).health_check_interval(None).check_after_idle(Some(30 * SECOND))
    });
    drop(lease(&pool).await);
    sleep(29 * SECOND).await;
    drop(lease(&pool).await);
    assert_eq!(control.begun(Step::Check), 0, "it was used lately");
    settle().await;
    sleep(31 * SECOND).await;
    drop(lease(&pool).await);
    assert_eq!(control.begun(Step::Check), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_its_check_at_hand_out_is_never_leased() {
    let (pool, control) = build(|builder| {
        builder.max_size(3).health_check_interval(None).check_after_idle(Some(SECOND))
    });
    let held = [lease(&pool).await, lease(&pool).await, lease(&pool).await];
    drop(held);
    sleep(MINUTE).await;
    // Two of the three have died meanwhile: the waiter gets the third without a creation.
    control.next(Step::Check, Behaviour::Fail);
    control.next(Step::Check, Behaviour::Fail);
    let good = lease(&pool).await;
    assert_eq!(control.begun(Step::Check), 3);
    assert_eq!(control.begun(Step::Create), 3, "an idle one was left to try");
    drop(good);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_check_at_hand_out_leaves_the_others_to_the_waiter() {
    let (pool, control) = build(|builder| {
        builder.max_size(2).health_check_interval(None).check_after_idle(Some(SECOND))
    });
    drop([lease(&pool).await, lease(&pool).await]);
    sleep(MINUTE).await;
    control.next(Step::Check, Behaviour::Panic);
    drop(lease(&pool).await);
    assert_eq!(control.begun(Step::Create), 2);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn each_waiter_starts_at_most_one_check() {
    let (pool, control) = build(|builder| {
        builder.max_size(3).health_check_interval(None).check_after_idle(Some(Duration::ZERO))
    });
    drop([lease(&pool).await, lease(&pool).await, lease(&pool).await]);
    settle().await;
    control.set(Step::Check, Behaviour::Hold);
    let first = ask(&pool).await;
    assert_eq!((pool.load().checking, pool.load().idle), (1, 2));
    let second = ask(&pool).await;
    assert_eq!((pool.load().checking, pool.load().idle), (2, 1));
    control.open(Step::Check);
    drop((answer(first).await, answer(second).await));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_keeps_the_order_of_use() {
    let (pool, control) = build(|builder| {
        builder.max_size(2).health_check_interval(Some(30 * SECOND)).check_after_idle(None)
    });
    let (older, newer) = (lease(&pool).await, lease(&pool).await);
    let last_used = newer.id();
    drop(older);
    sleep(SECOND).await;
    drop(newer);
    // The older one is checked first, and would be the last in the list if that counted.
    sleep(30 * SECOND).await;
    assert_eq!(control.begun(Step::Check), 1);
    assert_eq!(lease(&pool).await.id(), last_used);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_list_of_resources_tells_of_the_last_check() {
    let (pool, control) =
        build(|builder| builder.min_size(1).health_check_interval(Some(30 * SECOND)));
    settle().await;
    assert_eq!(pool.resources()[0].last_check, None);
    control.set(Step::Check, Behaviour::Take(Duration::from_millis(300)));
    sleep(31 * SECOND).await;
    let (at, took) = pool.resources()[0].last_check.expect("it was checked");
    assert!(at.elapsed() < SECOND);
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(310));
    ends_clean(pool, control).await;
}
