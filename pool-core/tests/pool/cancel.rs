use pool_core::testing::{Behaviour, Step, settle};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_acquire_does_nothing_until_it_is_polled() {
    let (pool, control) = pool_of(1);
    drop(pool.acquire());
    settle().await;
    assert_eq!(control.begun(Step::Create), 0);
    assert_eq!(pool.stats().counters, Default::default());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaves_the_queue() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    start_and_drop(pool.acquire());
    assert_eq!(pool.load().waiting, 0);
    assert_eq!(pool.stats().counters.cancelled, 1);
    drop(held);
    settle().await;
    assert_eq!(pool.load().idle, 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_grant_goes_to_the_next_waiter() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut first = Box::pin(pool.acquire());
    assert!(poll_once(first.as_mut()).is_pending());
    let second = ask(&pool).await;
    drop(held);
    // Granted to the first, which never comes to fetch it.
    assert_eq!((pool.load().leased, pool.load().waiting), (1, 1));
    drop(first);
    let second = answer(second).await.expect("the grant was passed on");
    assert_eq!(second.meta().uses, 2, "the grant that nobody fetched was no use");
    drop(second);
    assert_eq!(pool.stats().counters.cancelled, 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_grant_without_a_next_waiter_is_idle_again() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    drop(held);
    drop(waiter);
    assert_eq!(pool.load().idle, 1);
    assert_eq!(control.begun(Step::Recycle), 0, "nobody has touched it");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_grant_makes_room_for_another_class() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    control.set_needs_recycle(false);
    let held = lease_with(&pool, class("a")).await;
    let mut same = Box::pin(pool.acquire_with(class("a")));
    assert!(poll_once(same.as_mut()).is_pending());
    let other = ask_with(&pool, class("b")).await;
    drop(held);
    drop(same);
    let other = answer(other).await.expect("the idle one of the other class makes room");
    assert_eq!(other.meta().class, class_named("b"));
    drop(other);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_whose_asker_left_goes_to_the_next_asker() {
    let (pool, control) = pool_of(1);
    control.set(Step::Create, Behaviour::Hold);
    start_and_drop(pool.acquire());
    settle().await;
    assert_eq!(pool.load().creating, 1, "the creation belongs to the pool");
    let next = ask(&pool).await;
    control.open(Step::Create);
    drop(answer(next).await.expect("it gets what the other had asked for"));
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_whose_asker_left_becomes_idle() {
    let (pool, control) = pool_of(1);
    control.set(Step::Create, Behaviour::Hold);
    start_and_drop(pool.acquire());
    settle().await;
    control.open(Step::Create);
    settle().await;
    assert_eq!(pool.load().idle, 1);
    assert_eq!(lease(&pool).await.id().get(), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_in_the_middle_of_the_queue_keeps_the_others_in_order() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let first = ask(&pool).await;
    let mut second = Box::pin(pool.acquire());
    assert!(poll_once(second.as_mut()).is_pending());
    let third = ask(&pool).await;
    drop(second);
    drop(held);
    let first = answer(first).await.expect("the first is served");
    assert!(!third.is_finished());
    drop(first);
    drop(answer(third).await.expect("then the third"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_acquire_that_is_checked_for_leaves_the_check_to_the_next() {
    let (pool, control) = build(|builder| builder.max_size(1).check_after_idle(Some(SECOND)));
    drop(lease(&pool).await);
    tokio::time::sleep(2 * SECOND).await;
    control.set(Step::Check, Behaviour::Hold);
    start_and_drop(pool.acquire());
    settle().await;
    assert_eq!(pool.load().checking, 1);
    let next = ask(&pool).await;
    assert_eq!(control.held(Step::Check), 1, "one resource is checked once");
    control.open(Step::Check);
    drop(answer(next).await.expect("the check serves the next"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_gives_its_lease_back() {
    let (pool, control) = pool_of(1);
    let holder = tokio::spawn({
        let pool = pool.clone();
        async move {
            let _held = pool.acquire().await.expect("it is free");
            std::future::pending::<()>().await;
        }
    });
    settle().await;
    assert_eq!(pool.load().leased, 1);
    holder.abort();
    settle().await;
    assert_eq!(pool.load().idle, 1);
    ends_clean(pool, control).await;
}
