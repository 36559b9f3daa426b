//! Requests that wait in several pools at once: they bring an age along, and may be served
//! elsewhere first.

use std::time::Duration;

use pool_core::testing::{FakeDriver, Outcome, Step, settle};
use pool_core::{AcquireError, Class, Policy, Pool, Rejection, RejectionKind, Request};
use tokio::time::advance;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_request_that_brings_its_age_along_is_ranked_by_it() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let here = ask(&pool).await;
    advance(SECOND).await;
    let younger = ask_with(&pool, Request::new().waited(SECOND / 2)).await;
    let older = ask_with(&pool, Request::new().waited(SECOND * 5)).await;
    let waits: Vec<_> = pool.waiters().into_iter().map(|waiter| waiter.waited).collect();
    assert_eq!(waits, [SECOND * 5, SECOND, SECOND / 2]);
    drop(held);
    let first = answer(older).await.expect("it has waited longest, if not here");
    assert_eq!(first.waited(), SECOND * 5);
    drop(first);
    drop(answer(here).await.expect("it is next"));
    drop(answer(younger).await.expect("it is last"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_age_counts_as_waited_where_nothing_has_to_be_waited_for() {
    let (pool, control) = pool_of(1);
    drop(lease(&pool).await);
    settle().await;
    let held = lease_with(&pool, Request::new().waited(SECOND * 3)).await;
    assert_eq!((held.waited(), pool.stats().counters.waited), (SECOND * 3, SECOND * 3));
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn an_age_does_not_shorten_the_timeout() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let aged = ask_with(&pool, Request::new().waited(MINUTE).timeout(SECOND)).await;
    advance(SECOND / 2).await;
    settle().await;
    assert!(!aged.is_finished());
    advance(SECOND / 2 + Duration::from_millis(1)).await;
    match answer(aged).await {
        Err(AcquireError::Timeout { waited, .. }) => assert!(waited >= MINUTE + SECOND),
        other => panic!("it had a second: {other:?}"),
    }
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_for_a_request_that_forbids_it() {
    let (pool, control) = pool_of(1);
    let waiting = ask_with(&pool, Request::new().without_creating()).await;
    settle().await;
    assert_eq!((pool.load().total(), pool.load().waiting), (0, 1));
    // Another one creates, and whoever is first gets what comes.
    let creating = ask(&pool).await;
    let first = answer(waiting).await.expect("it came first");
    assert_eq!(control.begun(Step::Create), 1);
    drop(first);
    drop(answer(creating).await.expect("it is served by what comes back"));
    assert_eq!(control.begun(Step::Create), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_makes_room_for_a_request_that_may_not_create() {
    let (pool, control) = build(|builder| builder.policy(Sorted::default()).max_size(1));
    drop(lease_with(&pool, class("red")).await);
    settle().await;
    let other = ask_with(&pool, class("blue").without_creating()).await;
    settle().await;
    assert_eq!((pool.load().idle, control.begun(Step::Close)), (1, 0));
    other.abort();
    let _ = other.await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_returned_untouched_is_not_recycled_and_counts_as_no_use() {
    let (pool, control) = build(|builder| builder.max_size(1).max_use_count(Some(2)));
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    held.return_untouched();
    let next = answer(waiter).await.expect("it goes to the next waiter at once");
    assert_eq!((next.meta().uses, control.begun(Step::Recycle)), (1, 0));
    drop(next);
    settle().await;
    assert_eq!((pool.load().idle, control.count(Step::Recycle, Outcome::Done)), (1, 1));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_returned_untouched_goes_if_its_time_has_come() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    assert!(pool.retire(held.meta().id));
    held.return_untouched();
    settle().await;
    assert_eq!((pool.load().total(), control.begun(Step::Close)), (0, 1));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_may_have_nothing_lets_requests_wait_until_it_is_resized() {
    let pool = Pool::builder(FakeDriver::new()).max_size(0).build().unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.map(drop) }
    });
    settle().await;
    assert_eq!((pool.load().waiting, pool.load().max_size), (1, 0));
    assert_eq!(pool.stats().counters.created, 0);
    pool.resize(0, 1).unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_that_of_an_acquire_and_takes_nothing() {
    struct ByLabel;

    impl Policy<FakeDriver> for ByLabel {
        fn name(&self) -> &str {
            "by label"
        }

        fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
            match request.get("class") {
                Some("none") => Err(Rejection::new(RejectionKind::Unknown, "no_class", "no")),
                _ => Ok(()),
            }
        }

        fn classify(&self, request: &Request, class: &mut Class) {
            if let Some(wanted) = request.get("class") {
                class.insert("class", wanted);
            }
        }

        fn rank(&self, _: &Request) -> Option<Duration> {
            Some(Duration::from_secs(3))
        }
    }

    let pool = Pool::builder(FakeDriver::new()).policy(ByLabel).build().unwrap();
    let mut request = Request::new().label("class", "red");
    let (class, handicap) = pool.decide(&mut request).unwrap();
    assert_eq!((class.get("class"), handicap), (Some("red"), Duration::from_secs(3)));
    let refused = pool.decide(&mut Request::new().label("class", "none")).unwrap_err();
    assert!(matches!(refused, AcquireError::Rejected(rejection) if rejection.code == "no_class"));
    let stats = pool.stats();
    assert_eq!((stats.load.total(), stats.load.waiting, stats.counters.rejected), (0, 0, 1));
}
