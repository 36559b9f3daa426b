use std::time::Duration;

use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{AcquireError, DrainReport};
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

fn drain(pool: &FakePool, grace: Duration) -> tokio::task::JoinHandle<DrainReport> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.drain(grace).await })
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_newcomers_fails_waiters_and_closes_what_is_idle() {
    let (pool, control) = pool_of(2);
    let mut events = pool.events();
    let held = lease(&pool).await;
    drop(lease(&pool).await);
    settle().await;
    let other = lease(&pool).await;
    let waiter = ask(&pool).await;
    let draining = drain(&pool, MINUTE);
    assert!(matches!(answer(waiter).await, Err(AcquireError::Closed)));
    assert!(matches!(pool.acquire().await, Err(AcquireError::Closed)));
    assert!(pool.try_acquire().is_none());
    assert!(pool.stats().draining);
    assert!(!draining.is_finished());
    drop((held, other));
    let report = draining.await.expect("no panic");
    assert_eq!((report.revoked, report.complete), (0, true));
    assert!(names(&all(&mut events)).contains(&"draining"));
    assert_eq!(control.begun(Step::Recycle), 1, "what goes anyway is not cleaned");
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_is_drained_at_once() {
    let (pool, _) = pool_of(2);
    let before = Instant::now();
    assert!(pool.drain(MINUTE).await.complete);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_leases_are_revoked() {
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    let before = Instant::now();
    let report = pool.drain(10 * SECOND).await;
    assert_eq!((report.revoked, report.complete), (1, true));
    assert!((10 * SECOND..11 * SECOND).contains(&before.elapsed()));
    assert_eq!(control.begun(Step::Revoke), 1);
    drop(held);
    settle().await;
    assert_eq!(control.begun(Step::Close), 0, "it was ended by the revocation");
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn closing_revokes_at_once() {
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    let before = Instant::now();
    let report = pool.close().await;
    assert_eq!((report.revoked, report.complete), (1, true));
    assert!(before.elapsed() < SECOND);
    drop(held);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_second_drain_may_shorten_the_grace() {
    let (pool, _control) = pool_of(2);
    let held = lease(&pool).await;
    let first = drain(&pool, 10 * MINUTE);
    settle().await;
    let before = Instant::now();
    let second = pool.drain(SECOND).await;
    assert_eq!((second.revoked, second.complete), (1, true));
    assert!(before.elapsed() < 2 * SECOND);
    assert!(first.await.expect("no panic").complete);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_second_drain_cannot_lengthen_the_grace() {
    let (pool, _control) = pool_of(2);
    let held = lease(&pool).await;
    let first = drain(&pool, SECOND);
    settle().await;
    let before = Instant::now();
    assert!(pool.drain(10 * MINUTE).await.complete);
    assert!(before.elapsed() < 2 * SECOND);
    assert!(first.await.expect("no panic").complete);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_can_be_drained_again() {
    let (pool, _control) = pool_of(2);
    drop(lease(&pool).await);
    assert!(pool.drain(SECOND).await.complete);
    let again = timeout(SECOND, pool.drain(SECOND)).await.expect("it answers at once");
    assert_eq!((again.revoked, again.complete), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_when_nobody_waits_for_it() {
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    start_and_drop(pool.drain(5 * SECOND));
    sleep(6 * SECOND).await;
    assert_eq!(control.begun(Step::Revoke), 1);
    assert_eq!(pool.load().total(), 0);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_being_recycled_checked_and_closed() {
    for step in [Step::Recycle, Step::Close] {
        let (pool, control) = pool_of(1);
        control.set(step, Behaviour::Hold);
        drop(lease(&pool).await);
        settle().await;
        let draining = drain(&pool, MINUTE);
        settle().await;
        assert!(!draining.is_finished(), "{step}");
        control.open(step);
        assert!(draining.await.expect("no panic").complete, "{step}");
        assert!(control.existing().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_creations_that_nobody_can_have_any_more() {
    let (pool, control) = build(|builder| builder.max_size(2).create_timeout(10 * MINUTE));
    control.set(Step::Create, Behaviour::Hang);
    let waiter = ask(&pool).await;
    let before = Instant::now();
    assert!(pool.drain(MINUTE).await.complete);
    assert!(before.elapsed() < SECOND, "it took {:?}", before.elapsed());
    assert!(matches!(answer(waiter).await, Err(AcquireError::Closed)));
    assert!(control.existing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_cannot_be_completed_says_so() {
    let (pool, control) = build(|builder| builder.max_size(1).close_timeout(MINUTE));
    control.set(Step::Close, Behaviour::Hang);
    drop(lease(&pool).await);
    settle().await;
    // A close that hangs is given up in time, so even this ends well.
    assert!(pool.drain(SECOND).await.complete);
}

#[tokio::test(start_paused = true)]
async fn without_a_drain_the_last_handle_closes_what_is_idle() {
    let (pool, control) = build(|builder| builder.min_size(2).max_size(2));
    settle().await;
    let other = pool.clone();
    drop(pool);
    settle().await;
    assert_eq!(control.existing().len(), 2, "a handle is left");
    drop(other);
    settle().await;
    assert!(control.existing().is_empty());
    assert!(control.dropped_unclosed().is_empty());
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_lease_outlives_the_last_handle_and_is_closed_when_it_comes_back() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    drop(pool);
    sleep(10 * MINUTE).await;
    assert_eq!(control.existing().len(), 1);
    assert_eq!(held.id().get(), 1);
    drop(held);
    settle().await;
    assert!(control.existing().is_empty());
    assert!(control.dropped_unclosed().is_empty());
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn the_hold_limit_counts_after_the_last_handle_too() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(MINUTE)));
    let held = lease(&pool).await;
    drop(pool);
    sleep(2 * MINUTE).await;
    assert_eq!(control.begun(Step::Revoke), 1);
    drop(held);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_meets_the_drain_is_taken_back() {
    let (pool, control) = pool_of(1);
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut waiter = Box::pin(pool.acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    drop(held);
    assert!(pool.close().await.complete);
    assert!(matches!(waiter.await, Err(AcquireError::Closed)));
    assert_eq!((control.begun(Step::Close), control.begun(Step::Revoke)), (1, 0));
    control.assert_sound();
}
