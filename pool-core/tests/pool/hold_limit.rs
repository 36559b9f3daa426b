use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{AcquireError, CloseReason, Event};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_lease_held_too_long_is_reported_with_its_call_site_and_revoked() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(MINUTE)));
    let mut events = pool.events();
    let line = line!() + 1;
    let held = pool.acquire().await.expect("it is free");
    sleep(MINUTE + SECOND).await;
    let overdue = all(&mut events).into_iter().find_map(|event| match event {
        Event::Overdue { id, held, acquired_at, .. } => Some((id, held, acquired_at)),
        _ => None,
    });
    let (id, age, at) = overdue.expect("it is reported");
    assert_eq!(id, held.id());
    assert!(age >= MINUTE && age < MINUTE + SECOND);
    assert!(at.file().ends_with("hold_limit.rs"), "{at}");
    assert_eq!(at.line(), line);
    assert_eq!(control.begun(Step::Revoke), 1);
    assert_eq!(pool.stats().counters.revoked, 1);
    drop(held);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_revoked_lease_serves_the_next_waiter() {
    let (pool, control) =
        build(|builder| builder.max_size(1).hold_limit(Some(10 * SECOND)).acquire_timeout(None));
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    sleep(11 * SECOND).await;
    let next = answer(waiter).await.expect("there is room again");
    assert_ne!(next.id(), held.id());
    // The late release of the first touches nothing of the second.
    drop(held);
    settle().await;
    assert_eq!(pool.load().leased, 1);
    drop(next);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_while_it_is_revoked_is_only_dropped() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(10 * SECOND)));
    let mut events = pool.events();
    control.set(Step::Revoke, Behaviour::Hold);
    let held = lease(&pool).await;
    sleep(11 * SECOND).await;
    assert_eq!(pool.load().closing, 1);
    drop(held);
    settle().await;
    assert_eq!(pool.load().closing, 1, "until the driver has ended it");
    assert_eq!((control.begun(Step::Recycle), control.begun(Step::Close)), (0, 0));
    control.open(Step::Revoke);
    settle().await;
    assert_eq!(pool.load().total(), 0);
    let closed = all(&mut events)
        .into_iter()
        .any(|event| matches!(event, Event::Closed { reason: CloseReason::Overdue, .. }));
    assert!(closed);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_hangs_frees_the_place_after_the_close_timeout() {
    let (pool, control) = build(|builder| {
        builder.max_size(1).hold_limit(Some(10 * SECOND)).close_timeout(3 * SECOND)
    });
    control.set(Step::Revoke, Behaviour::Hang);
    let held = lease(&pool).await;
    sleep(12 * SECOND).await;
    assert_eq!(pool.load().closing, 1);
    sleep(2 * SECOND).await;
    assert_eq!(pool.load().total(), 0);
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_in_time_is_not_reported() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(10 * SECOND)));
    let mut events = pool.events();
    for _ in 0..3 {
        let held = lease(&pool).await;
        sleep(9 * SECOND).await;
        drop(held);
        settle().await;
    }
    assert!(!names(&all(&mut events)).contains(&"overdue"));
    assert_eq!(pool.stats().counters.revoked, 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_comes_for_goes_to_the_next_waiter_at_the_hold_limit() {
    let (pool, control) =
        build(|builder| builder.max_size(1).hold_limit(Some(10 * SECOND)).acquire_timeout(None));
    control.set_needs_recycle(false);
    let held = lease(&pool).await;
    let mut asleep = Box::pin(pool.acquire());
    assert!(poll_once(asleep.as_mut()).is_pending());
    let next = ask(&pool).await;
    drop(held);
    sleep(11 * SECOND).await;
    let next = answer(next).await.expect("the sleeper has lost its turn");
    assert_eq!(next.id().get(), 1, "nobody has touched it");
    let error = asleep.await.expect_err("it is told so");
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert_eq!((control.begun(Step::Revoke), pool.stats().counters.timeouts), (0, 1));
    drop(next);
    settle().await;
    ends_clean(pool, control).await;
}
