use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{Class, Limits};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_old_idle_resource_stays_until_its_replacement_is_there() {
    let (pool, control) = build(|builder| {
        builder
            .min_size(1)
            .max_size(2)
            .max_creating(1)
            .max_lifetime(Some(MINUTE))
            .health_check_interval(Some(SECOND))
    });
    settle().await;
    control.set(Step::Create, Behaviour::Hold);
    sleep(MINUTE + SECOND).await;
    let load = pool.load();
    assert_eq!((load.idle, load.creating), (1, 1), "the old one still serves");
    // Whatever makes the pool look again meanwhile.
    sleep(5 * SECOND).await;
    assert_eq!((pool.load().idle, pool.load().creating), (1, 1));
    control.open(Step::Create);
    settle().await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [2]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_idle_resource_can_be_leased_while_its_replacement_is_made() {
    let (pool, control) =
        build(|builder| builder.min_size(1).max_size(2).max_lifetime(Some(MINUTE)));
    settle().await;
    control.set(Step::Create, Behaviour::Hold);
    sleep(MINUTE + SECOND).await;
    let held = lease(&pool).await;
    assert_eq!(held.id().get(), 1);
    control.open(Step::Create);
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    drop(held);
    settle().await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [2]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_cannot_be_made_does_not_keep_the_old_one_for_ever() {
    let (pool, control) = build(|builder| {
        builder.min_size(1).max_size(2).max_lifetime(Some(MINUTE)).create_timeout(30 * SECOND)
    });
    settle().await;
    control.set(Step::Create, Behaviour::Fail);
    sleep(MINUTE + 20 * SECOND).await;
    assert_eq!(pool.load().idle, 1);
    sleep(20 * SECOND).await;
    assert_eq!(pool.load().idle, 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_full_pool_the_old_one_goes_first() {
    let (pool, control) =
        build(|builder| builder.min_size(1).max_size(1).max_lifetime(Some(MINUTE)));
    settle().await;
    sleep(MINUTE + SECOND).await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [2]);
    assert_eq!(control.peak(), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_replacement_for_a_last_use_is_made_during_it() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(2).max_use_count(Some(1)));
    settle().await;
    let held = lease(&pool).await;
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    drop(held);
    settle().await;
    assert_eq!(pool.load().total(), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_last_use_is_not_the_last() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(1).max_use_count(Some(2)));
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    drop(held);
    drop(waiter);
    settle().await;
    assert_eq!((pool.load().idle, control.begun(Step::Create)), (1, 1));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_doomed_resource_in_use_is_replaced_before_it_comes_back() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(2));
    let held = lease(&pool).await;
    assert!(pool.retire(held.id()));
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    drop(held);
    settle().await;
    assert_eq!(pool.load().total(), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn as_many_as_wanted_are_kept_warm_beside_those_in_use() {
    let (pool, control) = pool_of(4);
    pool.set_limits(&Class::default(), Limits { warm: Some(1), ..Limits::default() });
    settle().await;
    assert_eq!(pool.load().idle, 1);
    let first = lease(&pool).await;
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 1));
    let others = (lease(&pool).await, lease(&pool).await, lease(&pool).await);
    settle().await;
    assert_eq!(pool.load().total(), 4, "as far as the maximum allows");
    drop((first, others));
    settle().await;
    sleep(10 * MINUTE).await;
    assert_eq!(pool.load().idle, 1, "what is more idles out");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_no_good_does_not_retire_the_old_one() {
    let (pool, control) =
        build(|builder| builder.min_size(1).max_size(2).max_lifetime(Some(MINUTE)));
    settle().await;
    control.set(Step::Create, Behaviour::Hold);
    sleep(MINUTE + SECOND).await;
    let replacement = control.held_ids(Step::Create)[0];
    control.reporter(replacement).expect("it was begun").broken("it crashed");
    control.release(Step::Create);
    settle().await;
    let idle = |info: &pool_core::ResourceInfo| info.state == pool_core::ResourceState::Idle;
    assert!(pool.resources().iter().any(|info| info.id.get() == 1 && idle(info)));
    control.open(Step::Create);
    sleep(SECOND).await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [3]);
    ends_clean(pool, control).await;
}
