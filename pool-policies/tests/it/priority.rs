use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_core::testing::settle;
use pool_core::{Policy, Pool, Request};
use pool_policies::{PolicyError, Priority};
use tokio::time::sleep;

use crate::support::{Browsers, pool, refusal};

/// A pool of one, and the names of those it served, in order.
struct Queue {
    pool: Pool<Browsers>,
    served: Arc<Mutex<Vec<String>>>,
}

impl Queue {
    fn new(priority: Priority) -> Self {
        let pool = Pool::builder(Browsers::default())
            .policy(priority)
            .max_size(1)
            .acquire_timeout(None)
            .build()
            .unwrap();
        Self { pool, served: Arc::default() }
    }

    async fn join(&self, name: impl ToString, request: Request) {
        let (pool, served, name) = (self.pool.clone(), self.served.clone(), name.to_string());
        tokio::spawn(async move {
            let lease = pool.acquire_with(request).await.unwrap();
            served.lock().unwrap().push(name);
            sleep(Duration::from_millis(1)).await;
            drop(lease);
        });
        settle().await;
    }

    async fn served(&self, count: usize) -> Vec<String> {
        pool_core::testing::until("all are served", || self.served.lock().unwrap().len() >= count)
            .await;
        self.served.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_more_urgent_is_served_first_and_equals_in_order() {
    let queue = Queue::new(Priority::new());
    let held = queue.pool.acquire().await.unwrap();
    for (name, priority) in [("low", 9), ("a", 5), ("high", 1), ("b", 5)] {
        queue.join(name, Request::new().priority(priority)).await;
    }
    drop(held);
    assert_eq!(queue.served(4).await, ["high", "a", "b", "low"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_priority_passes_thirty_ninths_which_are_all_served_in_order() {
    let queue = Queue::new(Priority::new());
    let held = queue.pool.acquire().await.unwrap();
    for n in 0..30 {
        queue.join(n, Request::new().priority(9)).await;
    }
    queue.join("urgent", Request::new().priority(1)).await;
    drop(held);
    let served = queue.served(31).await;
    assert_eq!(served[0], "urgent");
    assert!(served[1..].iter().map(|name| name.parse::<usize>().unwrap()).eq(0..30));
}

#[tokio::test(start_paused = true)]
async fn one_level_is_worth_one_step_of_waiting() {
    for (waited, order) in [(39, ["first", "ninth"]), (41, ["ninth", "first"])] {
        let queue = Queue::new(Priority::new().step(Duration::from_secs(5)));
        let held = queue.pool.acquire().await.unwrap();
        queue.join("ninth", Request::new().priority(9)).await;
        sleep(Duration::from_secs(waited)).await;
        queue.join("first", Request::new().priority(1)).await;
        drop(held);
        assert_eq!(queue.served(2).await, order);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_starves_under_a_stream_of_more_urgent_ones() {
    let queue = Queue::new(Priority::new().step(Duration::from_millis(10)));
    let held = queue.pool.acquire().await.unwrap();
    queue.join("patient", Request::new().priority(10)).await;
    drop(held);
    for n in 0..500 {
        queue.join(n, Request::new().priority(1)).await;
        sleep(Duration::from_micros(500)).await;
    }
    let place = queue.served(200).await.iter().position(|name| name == "patient");
    assert!(place.is_some_and(|place| place < 200), "{place:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_priority_counts_as_the_fifth() {
    for (priority, default) in
        [(Priority::new(), 5), (Priority::new().default_priority(2).unwrap(), 2)]
    {
        let rank = |request: &Request| Policy::<Browsers>::rank(&priority, request).unwrap();
        assert_eq!(rank(&Request::new()), rank(&Request::new().priority(default)));
        let mut request = Request::new();
        Policy::<Browsers>::admit(&priority, &mut request).unwrap();
        assert_eq!(request.priority, Some(default));
    }
}

#[tokio::test(start_paused = true)]
async fn a_priority_out_of_range_is_refused() {
    let pool = pool(Priority::new());
    for priority in [0, 11, 255] {
        let result = pool.acquire_with(Request::new().priority(priority)).await;
        assert_eq!(refusal(result), "invalid_priority");
    }
    for priority in [1, 10] {
        assert!(pool.acquire_with(Request::new().priority(priority)).await.is_ok());
    }
    let error = Priority::new().default_priority(11).unwrap_err();
    assert!(matches!(error, PolicyError::Setting { setting: "default_priority", .. }));
}

#[test]
fn a_step_of_any_length_overflows_nothing() {
    let priority = Priority::new().step(Duration::MAX);
    let rank = Policy::<Browsers>::rank(&priority, &Request::new().priority(10));
    assert_eq!(rank, Some(Duration::MAX));
}
