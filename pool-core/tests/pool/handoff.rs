use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake};

use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{Event, Request};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_released_resource_goes_to_the_waiter_that_came_first() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let first = ask(&pool).await;
    let second = ask(&pool).await;
    drop(held);
    let first = answer(first).await.expect("the first is served");
    assert!(!second.is_finished());
    drop(first);
    drop(answer(second).await.expect("the second is served"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn without_recycling_the_release_itself_grants_to_the_waiter() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    drop(held);
    // No task has run since: the resource is the waiter's already.
    assert_eq!((pool.load().leased, pool.load().waiting), (1, 0));
    drop(answer(waiter).await);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_can_barge_in_on_a_grant_that_has_not_been_fetched() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    drop(held);
    assert!(pool.try_acquire().is_none());
    let late = ask(&pool).await;
    drop(answer(waiter).await.expect("it was granted before the late one came"));
    drop(answer(late).await);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_where_it_was_polled_last() {
    #[derive(Default)]
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut waiting = Box::pin(pool.acquire());
    let tasks = [(); 3].map(|()| Arc::new(Woken::default()));
    for task in &tasks {
        let waker = Arc::clone(task).into();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    assert_eq!(tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)), [false, false, true]);
    drop(waiting.as_mut().await.expect("it was granted"));
    drop(waiting);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_resource_used_last_is_leased_first() {
    let (pool, control) = pool_of(3);
    let (a, b, c) = (lease(&pool).await, lease(&pool).await, lease(&pool).await);
    let last = b.id();
    drop(a);
    settle().await;
    drop(c);
    settle().await;
    drop(b);
    settle().await;
    assert_eq!(lease(&pool).await.id(), last);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_served_only_after_the_recycling() {
    let (pool, control) = pool_of(1);
    control.set(Step::Recycle, Behaviour::Hold);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    drop(held);
    settle().await;
    assert_eq!((pool.load().recycling, pool.load().waiting), (1, 1));
    assert!(!waiter.is_finished());
    control.open(Step::Recycle);
    drop(answer(waiter).await.expect("it is clean now"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_recycling_closes_the_resource_and_the_waiter_gets_a_new_one() {
    let (pool, control) = pool_of(1);
    let mut events = pool.events();
    control.next(Step::Recycle, Behaviour::Fail);
    let held = lease(&pool).await;
    let old = held.id();
    let waiter = ask(&pool).await;
    drop(held);
    let new = answer(waiter).await.expect("a new one is made");
    assert_ne!(new.id(), old);
    drop(new);
    assert_eq!(close_reasons(&all(&mut events)), ["recycle_failed"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_recycling_that_takes_too_long_is_given_up_and_the_resource_closed() {
    let (pool, control) = build(|builder| builder.max_size(1).recycle_timeout(3 * SECOND));
    control.next(Step::Recycle, Behaviour::Hang);
    drop(lease(&pool).await);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(pool.load().recycling, 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(pool.load().total(), 0);
    assert_eq!(pool.stats().counters.recycle_failed, 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_discarded_resource_is_never_leased_again() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let old = held.id();
    held.discard();
    assert_eq!(pool.load().closing, 1);
    assert_ne!(lease(&pool).await.id(), old);
    settle().await;
    assert_eq!(control.begun(Step::Recycle), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_knows_how_long_it_waited() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    assert_eq!(held.waited(), std::time::Duration::ZERO);
    let waiter = ask(&pool).await;
    tokio::time::sleep(3 * SECOND).await;
    drop(held);
    let second = answer(waiter).await.expect("it is served");
    assert_eq!(second.waited(), 3 * SECOND);
    assert_eq!(second.meta().uses, 2);
    drop(second);
    assert_eq!(pool.stats().counters.waited, 3 * SECOND);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_better_priority_overtakes_and_equals_keep_their_order() {
    let (pool, control) = build(|builder| builder.max_size(1).policy(Sorted::default()));
    let mut events = pool.events();
    let held = lease(&pool).await;
    let mut waiters = Vec::new();
    for priority in [9, 5, 9, 1, 5] {
        waiters.push((priority, ask_with(&pool, Request::new().priority(priority)).await));
    }
    let queue: Vec<_> = pool.waiters().into_iter().filter_map(|waiter| waiter.priority).collect();
    assert_eq!(queue, [1, 5, 5, 9, 9]);
    drop(held);
    let mut served = Vec::new();
    while !waiters.is_empty() {
        settle().await;
        let ready: Vec<_> =
            waiters.iter().positions(|(_, asked)| asked.is_finished()).into_iter().collect();
        assert_eq!(ready.len(), 1, "one resource serves one at a time");
        let (priority, asked) = waiters.remove(ready[0]);
        served.push((priority, ready[0]));
        drop(answer(asked).await);
    }
    let order: Vec<_> = served.iter().map(|(priority, _)| *priority).collect();
    assert_eq!(order, [1, 5, 5, 9, 9]);
    let leased = all(&mut events).into_iter().filter(|event| matches!(event, Event::Leased { .. }));
    assert_eq!(leased.count(), 6);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_low_priority_ages_until_it_is_served_before_newer_high_ones() {
    let (pool, control) =
        build(|builder| builder.max_size(1).acquire_timeout(None).policy(Sorted::default()));
    let held = lease(&pool).await;
    let low = ask_with(&pool, Request::new().priority(9)).await;
    // Eight levels of ten seconds: after that, no newcomer comes before it.
    tokio::time::sleep(81 * SECOND).await;
    let high = ask_with(&pool, Request::new().priority(1)).await;
    drop(held);
    drop(answer(low).await.expect("it has waited long enough"));
    drop(answer(high).await.expect("it is next"));
    ends_clean(pool, control).await;
}

trait Positions: Iterator {
    fn positions(self, wanted: impl Fn(&Self::Item) -> bool) -> Vec<usize>;
}

impl<I: Iterator> Positions for I {
    fn positions(self, wanted: impl Fn(&Self::Item) -> bool) -> Vec<usize> {
        self.enumerate().filter(|(_, item)| wanted(item)).map(|(at, _)| at).collect()
    }
}
