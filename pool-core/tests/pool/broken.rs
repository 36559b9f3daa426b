use pool_core::testing::{Behaviour, Step, settle};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_idle_resource_that_breaks_is_closed_and_replaced_at_once() {
    let (pool, control) = build(|builder| builder.min_size(1).max_size(2));
    let mut events = pool.events();
    drop(lease(&pool).await);
    settle().await;
    let id = pool.resources()[0].id;
    control.reporter(id).expect("it was made").broken("the process has gone");
    settle().await;
    let ids: Vec<_> = pool.resources().into_iter().map(|info| info.id.get()).collect();
    assert_eq!(ids, [2]);
    assert_eq!(close_reasons(&all(&mut events)), ["broken"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_leased_resource_that_breaks_is_closed_when_it_comes_back() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    control.reporter(held.id()).expect("it was made").broken("it crashed");
    settle().await;
    assert_eq!(pool.load().leased, 1);
    let old = held.id();
    drop(held);
    let new = answer(waiter).await.expect("a new one is made");
    assert_ne!(new.id(), old);
    assert_eq!(control.begun(Step::Recycle), 0);
    drop(new);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_while_created_recycled_or_checked_is_never_leased() {
    for step in [Step::Create, Step::Recycle, Step::Check] {
        let (pool, control) = build(|builder| {
            builder.max_size(1).check_after_idle(Some(SECOND)).health_check_interval(None)
        });
        if step != Step::Create {
            drop(lease(&pool).await);
            settle().await;
            sleep(2 * SECOND).await;
        }
        control.set(step, Behaviour::Hold);
        let waiter = ask(&pool).await;
        let mut waiter = waiter;
        if step == Step::Recycle {
            drop(answer(waiter).await.expect("it was idle"));
            waiter = ask(&pool).await;
        }
        let id = control.held_ids(step)[0];
        control.reporter(id).expect("it was begun").broken("it crashed");
        control.open(step);
        let next = waiter.await.expect("no panic").expect("another is made");
        assert_ne!(next.id(), id, "{step}");
        drop(next);
        sleep(SECOND).await;
        ends_clean(pool, control).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_while_it_is_closed_is_closed_once() {
    let (pool, control) = pool_of(1);
    control.set(Step::Close, Behaviour::Hold);
    let held = lease(&pool).await;
    let reporter = control.reporter(held.id()).expect("it was made");
    held.discard();
    settle().await;
    reporter.broken("of course");
    settle().await;
    control.open(Step::Close);
    settle().await;
    reporter.broken("and again");
    assert_eq!(control.begun(Step::Close), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_after_the_pool_has_gone_does_nothing() {
    let (pool, control) = pool_of(1);
    drop(lease(&pool).await);
    settle().await;
    let reporter = control.reporter(pool.resources()[0].id).expect("it was made");
    drop(pool);
    settle().await;
    reporter.broken("nobody is left to tell");
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_report_that_comes_from_within_a_creation_that_fails_does_nothing() {
    let (pool, control) = pool_of(1);
    control.set(Step::Create, Behaviour::Hold);
    let waiter = ask(&pool).await;
    let id = control.held_ids(Step::Create)[0];
    control.reporter(id).expect("it was begun").broken("it exits");
    control.release_as(Step::Create, Behaviour::Fail);
    control.open(Step::Create);
    drop(waiter.await.expect("no panic").expect("the next try is good"));
    assert_eq!(pool.stats().counters.create_failed, 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_breaks_before_its_grant_is_fetched_is_not_leased() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let id = held.id();
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    drop(held);
    control.reporter(id).expect("it was made").broken("it crashed");
    drop(waiter);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    ends_clean(pool, control).await;
}
