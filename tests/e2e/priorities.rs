//! Who is served next when all wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use browser_pool_tests::{Case, Setup, case, eventually};
use futures_util::future::join_all;
use tokio::sync::Notify;

/// Asks for a lease at this priority, notes that it was served, and gives it back.
async fn wait_for(case: &Case, asked: &str, name: usize, served: &Mutex<Vec<usize>>) {
    let client = case.service.connect(asked).await;
    served.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    client.close().await;
}

/// Waits until so many stand in the queue.
async fn until_waiting(case: &Case, wanted: usize) {
    eventually("they stand in the queue", Duration::from_secs(30), async || {
        let waiting = case.service.state().await["load"]["waiting"].clone();
        if waiting == wanted { Ok(()) } else { Err(waiting) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_request_is_served_before_thirty_that_came_first() {
    const WAITERS: usize = 30;
    const URGENT: usize = 99;
    let setup = Setup::new().size(1).set("pool.acquire_timeout", "2m");
    case(setup, async |case| {
        let case: &Case = case;
        let holder = case.service.connect("/").await;
        let served = Mutex::default();
        // Each stands in the queue before the next one comes.
        let turns: Vec<Notify> = (0..=WAITERS).map(|_| Notify::new()).collect();
        turns[0].notify_one();
        let patient = (0..WAITERS).map(|name| {
            let (turns, served) = (&turns, &served);
            async move {
                turns[name].notified().await;
                let next = async {
                    until_waiting(case, name + 1).await;
                    turns[name + 1].notify_one();
                };
                tokio::join!(wait_for(case, "/?priority=9", name, served), next);
            }
        });
        let urgent = async {
            turns[WAITERS].notified().await;
            let release = async {
                until_waiting(case, WAITERS + 1).await;
                holder.close().await;
            };
            tokio::join!(wait_for(case, "/?priority=1", URGENT, &served), release);
        };
        tokio::join!(join_all(patient), urgent);
        let order = served.into_inner().unwrap_or_else(PoisonError::into_inner);
        let expected: Vec<usize> = std::iter::once(URGENT).chain(0..WAITERS).collect();
        assert_eq!(order, expected);
    })
    .await;
}
