use pool_core::testing::{Step, settle};
use pool_core::{BuildError, Class, Limits};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_larger_maximum_serves_those_who_wait() {
    let (pool, control) = pool_of(1);
    let held = lease(&pool).await;
    let waiter = ask(&pool).await;
    pool.resize(0, 2).expect("it is valid");
    drop(answer(waiter).await.expect("there is room now"));
    drop(held);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_larger_minimum_is_made_at_once() {
    let (pool, control) = pool_of(4);
    pool.resize(3, 4).expect("it is valid");
    settle().await;
    assert_eq!(pool.load().idle, 3);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_smaller_maximum_closes_idle_ones_at_once_and_leased_ones_when_they_come_back() {
    let (pool, control) = pool_of(4);
    let mut events = pool.events();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(lease(&pool).await);
    }
    drop(held.pop());
    settle().await;
    pool.resize(0, 2).expect("it is valid");
    settle().await;
    let load = pool.load();
    assert_eq!((load.leased, load.idle, load.max_size), (3, 0, 2), "leased ones are kept");
    drop(held.pop());
    settle().await;
    assert_eq!(pool.load().total(), 2);
    drop(held);
    settle().await;
    assert_eq!(pool.load().idle, 2, "these are within the maximum");
    assert_eq!(close_reasons(&all(&mut events)), ["surplus", "surplus"]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_ends_after_a_shrink_is_closed() {
    use pool_core::testing::Behaviour;
    let (pool, control) = pool_of(2);
    let held = lease(&pool).await;
    control.set(Step::Create, Behaviour::Hold);
    let waiter = ask(&pool).await;
    pool.resize(0, 1).expect("it is valid");
    control.open(Step::Create);
    settle().await;
    assert!(!waiter.is_finished());
    assert_eq!(pool.load().total(), 1);
    drop(held);
    drop(answer(waiter).await.expect("the one that is left serves it"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn sizes_that_make_no_sense_are_refused_and_change_nothing() {
    let (pool, control) = pool_of(2);
    assert_eq!(pool.resize(0, 0), Err(BuildError::Zero { setting: "max_size" }));
    assert_eq!(pool.resize(3, 2), Err(BuildError::MinAboveMax { min: 3, max: 2 }));
    assert_eq!(pool.load().max_size, 2);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn resizing_up_and_down_under_load_keeps_every_lease_and_follows() {
    let (pool, control) = build(|builder| builder.max_size(4).acquire_timeout(None));
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..40_u64 {
                    let held = pool.acquire().await.expect("all are served");
                    let _used = held.touch();
                    let pause = 5 + (worker * 7 + round * 3) % 11;
                    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                }
            })
        })
        .collect();
    for round in 0..100_usize {
        let max = 1 + (round * 5) % 9;
        pool.resize(round % 2, max).expect("it is valid");
        tokio::time::sleep(std::time::Duration::from_millis(13)).await;
        // Everybody has come back at least once since: no lease is longer than this.
        let load = pool.load();
        assert!(load.total() <= max, "{load:?} with a maximum of {max}");
    }
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    assert_eq!(pool.stats().counters.revoked, 0);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_has_a_minimum_and_a_maximum_of_its_own() {
    let (pool, control) = build(|builder| builder.max_size(4).policy(Sorted::default()));
    let limits = Limits { min: Some(1), max: Some(2), warm: None };
    pool.set_limits(&class_named("a"), limits);
    settle().await;
    assert_eq!(pool.load().idle, 1);
    let held = [lease_with(&pool, class("a")).await, lease_with(&pool, class("a")).await];
    let third = ask_with(&pool, class("a")).await;
    assert!(!third.is_finished(), "though the pool has room for two more");
    drop(lease_with(&pool, class("b")).await);
    drop(held);
    drop(answer(third).await.expect("one came back"));
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_left_out_stay_as_they_are() {
    let (pool, control) = pool_of(4);
    let all = Limits { min: Some(1), max: Some(3), warm: Some(1) };
    pool.set_limits(&Class::default(), all);
    pool.set_limits(&Class::default(), Limits { max: Some(2), ..Limits::default() });
    let stats = pool.stats();
    let default = &stats.classes[0];
    assert_eq!((default.min, default.load.max_size, default.warm), (1, 2, 1));
    ends_clean(pool, control).await;
}
