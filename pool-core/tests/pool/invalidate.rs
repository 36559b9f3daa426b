use pool_core::testing::{Behaviour, Step, settle};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn what_a_predicate_picks_is_closed_idle_at_once_and_leased_when_it_comes_back() {
    let (pool, control) = pool_of(3);
    let mut events = pool.events();
    let (kept, picked) = (lease(&pool).await, lease(&pool).await);
    drop(lease(&pool).await);
    settle().await;
    let keep = kept.id();
    assert_eq!(pool.invalidate(|meta| meta.id != keep), 2);
    settle().await;
    let load = pool.load();
    assert_eq!((load.leased, load.idle), (2, 0));
    drop(picked);
    drop(kept);
    settle().await;
    let left: Vec<_> = pool.resources().into_iter().map(|info| info.id).collect();
    assert_eq!(left, [keep]);
    assert_eq!(close_reasons(&all(&mut events)), ["invalidated", "invalidated"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_predicate_may_use_the_pool() {
    let (pool, control) = pool_of(2);
    drop(lease(&pool).await);
    settle().await;
    assert_eq!(pool.invalidate(|_| pool.load().idle == 1 && pool.try_acquire().is_some()), 1);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_was_made_so_far_is_invalidated_and_nothing_that_comes_later() {
    let (pool, control) = build(|builder| builder.min_size(2).max_size(4));
    settle().await;
    assert_eq!(pool.invalidate_all(), 2);
    settle().await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [3, 4], "the minimum is made anew");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn one_resource_is_retired_by_its_id() {
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    let id = held.id();
    assert!(pool.retire(id));
    drop(held);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    assert!(!pool.retire(id), "it is gone");
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_retired_in_creation_recycling_or_check_is_closed_when_that_ends() {
    for step in [Step::Create, Step::Recycle, Step::Check] {
        let (pool, control) = build(|builder| {
            builder.max_size(1).check_after_idle(Some(SECOND)).health_check_interval(None)
        });
        control.set(step, Behaviour::Hold);
        let mut waiter = Box::pin(pool.acquire());
        if let std::task::Poll::Ready(held) = poll_once(waiter.as_mut()) {
            drop(held);
        }
        settle().await;
        if step != Step::Create {
            drop(waiter.await);
            settle().await;
            sleep(2 * SECOND).await;
            waiter = Box::pin(pool.acquire());
            assert!(poll_once(waiter.as_mut()).is_pending());
            settle().await;
        }
        assert_eq!(control.held(step), 1, "{step}");
        let id = control.held_ids(step)[0];
        assert!(pool.retire(id));
        control.open(step);
        let next = waiter.await.expect("it gets another");
        assert_ne!(next.id(), id, "{step}");
        drop(next);
        settle().await;
        ends_clean(pool, control).await;
    }
}

#[tokio::test(start_paused = true)]
async fn flushing_closes_what_is_idle_and_nothing_else() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(4));
    let held = lease(&pool).await;
    drop((lease(&pool).await, lease(&pool).await));
    settle().await;
    assert_eq!(pool.flush_idle(), 2);
    settle().await;
    assert_eq!((pool.load().leased, pool.load().idle), (1, 0));
    drop(held);
    assert_eq!(pool.flush_idle(), 0, "it is being recycled");
    settle().await;
    assert_eq!(pool.flush_idle(), 1);
    settle().await;
    assert_eq!(pool.load().idle, 1, "the minimum is made anew");
    ends_clean(pool, control).await;
}
