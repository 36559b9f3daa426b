use pool_core::testing::{Behaviour, Step, settle};
use pool_core::{Event, Refusal, Request};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_life_is_told_in_order() {
    let (pool, control) = build(|builder| {
        builder
            .max_size(1)
            .max_use_count(Some(2))
            .check_after_idle(Some(SECOND))
            .policy(Sorted::default())
    });
    let mut events = pool.events();
    drop(lease(&pool).await);
    settle().await;
    sleep(2 * SECOND).await;
    drop(lease(&pool).await);
    settle().await;
    assert_eq!(
        names(&all(&mut events)),
        [
            "enqueued", "creating", "created", "leased", "released", "recycled", "enqueued",
            "checked", "leased", "released", "closing", "closed",
        ]
    );
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn every_refusal_is_told_with_its_outcome() {
    let (pool, control) = build(|builder| builder.max_size(1).max_waiting(1));
    let held = lease(&pool).await;
    let mut events = pool.events();
    start_and_drop(pool.acquire());
    let late = ask_with(&pool, Request::new().timeout(SECOND)).await;
    drop(pool.acquire().await.expect_err("the queue is full"));
    sleep(2 * SECOND).await;
    drop(late.await);
    let last = ask(&pool).await;
    drop(held);
    drop(answer(last).await);
    assert!(pool.drain(SECOND).await.complete);
    drop(pool.acquire().await.expect_err("it is closed"));
    let outcomes: Vec<_> = all(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::Refused { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert_eq!(outcomes, [Refusal::Cancelled, Refusal::Rejected, Refusal::Timeout, Refusal::Error]);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_failed_creation_is_told_with_its_error() {
    let (pool, control) = pool_of(1);
    let mut events = pool.events();
    control.next(Step::Create, Behaviour::Fail);
    drop(ask(&pool).await);
    settle().await;
    let failed = all(&mut events).into_iter().find_map(|event| match event {
        Event::CreateFailed { error, consecutive, .. } => Some((error, consecutive)),
        _ => None,
    });
    let (error, consecutive) = failed.expect("it is told");
    assert_eq!(error.to_string(), "create of resource 1 was told to fail");
    assert_eq!(consecutive, 1);
    sleep(SECOND).await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_size_is_told() {
    let (pool, control) = pool_of(2);
    let mut events = pool.events();
    pool.resize(1, 3).expect("valid");
    pool.resize(1, 3).expect("valid, and nothing new");
    let told: Vec<_> = all(&mut events)
        .into_iter()
        .filter_map(|event| match event {
            Event::Resized { class: None, min, max, .. } => Some((min, max)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, 3)]);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_knows_how_much_it_has_missed() {
    let (pool, control) = build(|builder| builder.max_size(1).event_capacity(4));
    let mut events = pool.events();
    for _ in 0..10 {
        drop(lease(&pool).await);
        settle().await;
    }
    let seen = all(&mut events).len() as u64;
    assert!(seen > 0 && events.missed() > 0);
    // creating, enqueued, created, and three for each of ten leases
    assert_eq!(seen + events.missed(), 33);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_pool() {
    let (pool, control) = pool_of(1);
    let mut events = pool.events();
    drop(lease(&pool).await);
    drop(pool);
    let mut count = 0;
    while events.next().await.is_some() {
        count += 1;
    }
    assert!(count > 4);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn the_events_add_up_to_the_counters() {
    let (pool, control) = build(|builder| builder.max_size(3).event_capacity(100_000));
    let mut events = pool.events();
    let workers: Vec<_> = (0..20)
        .map(|worker: u64| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let patience = std::time::Duration::from_millis(1 + (worker * round) % 40);
                    if let Ok(held) = pool.acquire_with(Request::new().timeout(patience)).await {
                        sleep(std::time::Duration::from_millis(worker % 7)).await;
                        if round % 5 == 4 {
                            held.discard();
                        } else {
                            drop(held);
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    ends_clean(pool.clone(), control).await;
    let (events, counters) = (all(&mut events), pool.stats().counters);
    let count = |wanted: &str| events.iter().filter(|event| name(event) == wanted).count() as u64;
    assert_eq!(count("created"), counters.created);
    assert_eq!(count("closed"), counters.closed);
    assert_eq!(count("closing"), counters.closed);
    assert_eq!(count("leased"), counters.acquired);
    assert_eq!(count("released"), counters.released);
    assert_eq!(count("recycled"), counters.recycled);
    assert_eq!(count("refused"), counters.timeouts + counters.cancelled + counters.errors);
}
