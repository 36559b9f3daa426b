use std::time::Duration;

use pool_core::testing::{Behaviour, FakeDriver, Step, settle};
use pool_core::{Pool, PoolBuilder};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn an_acquire_of_an_empty_pool_creates_at_once() {
    let (pool, control) = pool_of(2);
    let before = tokio::time::Instant::now();
    let held = lease(&pool).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(held.meta().uses, 1);
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_made_without_being_asked_for() {
    let (pool, control) = build(|builder| builder.min_size(3).max_size(5));
    settle().await;
    assert_eq!(pool.load().idle, 3);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_creations_run_at_once_than_allowed() {
    let (pool, control) = build(|builder| builder.max_size(8).max_creating(2));
    control.set(Step::Create, Behaviour::Hold);
    let mut asked = Vec::new();
    for _ in 0..8 {
        asked.push(ask(&pool).await);
    }
    for done in 0..8 {
        assert_eq!(control.held(Step::Create), (8 - done).min(2));
        assert!(control.release(Step::Create));
        settle().await;
    }
    for asked in asked {
        drop(answer(asked).await.expect("all are served in the end"));
    }
    assert_eq!(control.peak(), 8);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_cold_herd_creates_no_more_than_the_pool_may_have() {
    let (pool, control) = build(|builder| builder.max_size(8).acquire_timeout(None));
    control.set(Step::Create, Behaviour::Take(SECOND));
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let held = pool.acquire().await.expect("all end well");
                let _used = held.touch();
                tokio::time::sleep(SECOND).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    assert_eq!((control.begun(Step::Create), control.peak()), (8, 8));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_not_started_for_a_waiter_that_one_under_way_will_serve() {
    let (pool, control) = pool_of(4);
    control.set(Step::Create, Behaviour::Hold);
    let first = ask(&pool).await;
    let second = ask(&pool).await;
    let third = ask(&pool).await;
    assert_eq!(control.held(Step::Create), 2, "max_creating is 2");
    control.release(Step::Create);
    drop(answer(first).await);
    settle().await;
    // The one that came back serves the third, so no third creation is needed... but it had
    // begun when the first ended, and is kept.
    control.open(Step::Create);
    drop((answer(second).await, answer(third).await));
    assert_eq!(pool.load().waiting, 0);
    assert!(control.begun(Step::Create) <= 3);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_released_resource_serves_a_waiter_before_its_slow_creation_does() {
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    control.set(Step::Create, Behaviour::Hold);
    let waiter = ask(&pool).await;
    assert_eq!(control.held(Step::Create), 1);
    drop(held);
    drop(answer(waiter).await.expect("whichever is ready first"));
    control.open(Step::Create);
    settle().await;
    assert_eq!(pool.load().idle, 2);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn everything_that_exists_counts_towards_the_maximum_even_what_is_closing() {
    let (pool, control) = pool_of(1);
    control.set(Step::Close, Behaviour::Hold);
    lease(&pool).await.discard();
    let waiter = ask(&pool).await;
    assert_eq!((pool.load().closing, pool.load().creating), (1, 0));
    control.open(Step::Close);
    drop(answer(waiter).await.expect("now there is room"));
    assert_eq!(control.peak(), 1);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_frees_its_place_after_the_timeout() {
    let (pool, control) = build(|builder| builder.max_size(1).close_timeout(4 * SECOND));
    control.next(Step::Close, Behaviour::Hang);
    lease(&pool).await.discard();
    let before = tokio::time::Instant::now();
    drop(lease(&pool).await);
    assert!((4 * SECOND..5 * SECOND).contains(&before.elapsed()));
    ends_clean(pool, control).await;
}

#[test]
fn a_pool_needs_a_runtime_and_says_so() {
    let refused = Pool::builder(FakeDriver::new()).build();
    assert!(matches!(refused, Err(pool_core::BuildError::NoRuntime)));
}

#[tokio::test(start_paused = true)]
async fn settings_that_contradict_each_other_are_refused() {
    use pool_core::BuildError::{MinAboveMax, Zero};
    type Builder = PoolBuilder<FakeDriver>;
    let refused = |configure: fn(Builder) -> Builder| {
        configure(Pool::builder(FakeDriver::new())).build().expect_err("it must be refused")
    };
    let zero = |setting| Zero { setting };
    assert_eq!(refused(|it| it.min_size(3).max_size(2)), MinAboveMax { min: 3, max: 2 });
    assert_eq!(refused(|it| it.max_creating(0)), zero("max_creating"));
    assert_eq!(refused(|it| it.close_timeout(Duration::ZERO)), zero("close_timeout"));
    // With either of these the pool would do nothing but check, or create and close.
    assert_eq!(
        refused(|it| it.health_check_interval(Some(Duration::ZERO))),
        zero("health_check_interval")
    );
    assert_eq!(refused(|it| it.max_lifetime(Some(Duration::ZERO))), zero("max_lifetime"));
}
