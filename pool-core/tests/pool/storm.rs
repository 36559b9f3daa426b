//! Many at once.

use std::time::Duration;

use pool_core::AcquireError;
use pool_core::testing::{Step, settle};

use crate::support::*;

/// A generator that repeats, so that a failure does too.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[tokio::test(start_paused = true)]
async fn a_million_acquires_dropped_at_random_polls_leave_the_pool_as_it_was() {
    const ACQUIRES: u64 = 1_000_000;
    let (pool, control) = build(|builder| {
        builder.max_size(3).acquire_timeout(None).max_lifetime(None).max_use_count(Some(1_000))
    });
    control.set_needs_recycle(false);
    let mut dice = Dice(1);
    let mut waiting = Vec::new();
    let mut held = Vec::new();
    let mut asked = 0;
    while asked < ACQUIRES {
        match dice.roll(8) {
            0..4 => {
                // Dropped right after its first poll, or kept to be polled again.
                asked += 1;
                let mut acquire = Box::pin(pool.acquire());
                match poll_once(acquire.as_mut()) {
                    std::task::Poll::Ready(lease) => held.push(lease.expect("it was idle")),
                    std::task::Poll::Pending if dice.roll(2) == 0 => waiting.push(acquire),
                    std::task::Poll::Pending => drop(acquire),
                }
            }
            4 if !waiting.is_empty() => {
                // Dropped at a later poll, perhaps with a grant that it has not fetched.
                drop(waiting.swap_remove(dice.roll(waiting.len() as u64) as usize));
            }
            5 if !waiting.is_empty() => {
                let at = dice.roll(waiting.len() as u64) as usize;
                if let std::task::Poll::Ready(lease) = poll_once(waiting[at].as_mut()) {
                    drop(waiting.swap_remove(at));
                    held.push(lease.expect("it was granted"));
                }
            }
            6 | 7 if !held.is_empty() => {
                drop(held.swap_remove(dice.roll(held.len() as u64) as usize));
            }
            _ if dice.roll(64) == 0 => tokio::task::yield_now().await,
            _ => {}
        }
        // So that what is granted to sleepers comes back in the end.
        if waiting.len() > 8 {
            waiting.clear();
        }
    }
    drop(waiting);
    drop(held);
    settle().await;
    let load = pool.load();
    assert_eq!((load.waiting, load.leased, load.idle), (0, 0, load.total()));
    let counters = pool.stats().counters;
    assert_eq!(counters.acquired + counters.cancelled, ACQUIRES, "{counters:?}");
    assert!(counters.cancelled > ACQUIRES / 4, "{counters:?}");
    assert!(control.peak() <= 3);
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_waiters_of_all_priorities_and_classes_half_of_them_cancelled() {
    const WAITERS: u64 = 10_000;
    let (pool, control) = build(|builder| {
        builder
            .max_size(8)
            .max_creating(8)
            .max_waiting(WAITERS as usize)
            .acquire_timeout(None)
            .policy(Sorted::default())
    });
    let mut dice = Dice(2);
    let mut asked = Vec::new();
    let mut first = Vec::new();
    for number in 0..WAITERS {
        let priority = 1 + dice.roll(10) as u8;
        let name = format!("{}", dice.roll(20));
        let request = class(&name).priority(priority);
        let mut acquire = Box::pin(pool.acquire_with(request));
        match poll_once(acquire.as_mut()) {
            std::task::Poll::Ready(lease) => first.push(lease.expect("there was room")),
            std::task::Poll::Pending => asked.push((number, name, priority, acquire)),
        }
    }
    assert_eq!(pool.load().waiting, asked.len());
    let queue: Vec<_> = pool.waiters().into_iter().map(|waiter| waiter.priority).collect();
    assert!(queue.is_sorted(), "all came at one moment, so the priority alone decides");
    // Every other one goes away.
    let mut number = 0;
    asked.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    assert_eq!(pool.load().waiting, asked.len());
    let mut served = Vec::new();
    first.clear();
    while !asked.is_empty() {
        settle().await;
        let mut batch = Vec::new();
        asked.retain_mut(|(number, name, priority, acquire)| match poll_once(acquire.as_mut()) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(lease) => {
                let lease = lease.expect("nobody is refused");
                assert_eq!(lease.meta().class, class_named(name));
                batch.push((name.clone(), *priority, *number));
                false
            }
        });
        if batch.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Nobody knows in which order those were granted that were polled in one go.
        batch.sort();
        served.extend(batch);
    }
    // Within a class: by priority, then in the order in which they came.
    for name in 0..20 {
        let order: Vec<_> = served
            .iter()
            .filter(|(class, ..)| *class == name.to_string())
            .map(|(_, priority, number)| (*priority, *number))
            .collect();
        assert!(order.is_sorted(), "class {name}: {order:?}");
    }
    assert!(control.peak() <= 8);
    drop(asked);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_twenty_thousand_are_refused_at_once_and_cost_nothing() {
    let (pool, control) = build(|builder| builder.max_size(1).max_waiting(1_000));
    let held = lease(&pool).await;
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let mut acquire = Box::pin(pool.acquire());
        assert!(poll_once(acquire.as_mut()).is_pending());
        waiting.push(acquire);
    }
    for _ in 0..20_000 {
        let mut acquire = Box::pin(pool.acquire());
        let std::task::Poll::Ready(Err(error)) = poll_once(acquire.as_mut()) else {
            panic!("the queue is full")
        };
        assert!(matches!(error, AcquireError::QueueFull { .. }));
    }
    assert_eq!((pool.load().waiting, pool.stats().counters.rejected), (1_000, 20_000));
    drop(waiting);
    assert_eq!(pool.load().waiting, 0);
    assert_eq!(control.begun(Step::Create), 1);
    drop(held);
    ends_clean(pool, control).await;
}
