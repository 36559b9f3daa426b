//! Waiting for a browser, and being refused one.

mod gateway_support;

use std::time::Duration;

use gateway_support::{ask, start};

/// Longer than any test is patient: a client that has an answer did not get it by waiting this long.
const VERY_LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_waiting_client_that_goes_away_leaves_the_queue_at_once() {
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.pool.acquire_timeout = VERY_LONG;
    })
    .await;
    let holder = pool.connect("/").await;
    // What is not done first is dropped, and its socket closed.
    tokio::select! {
        _ = pool.try_connect("/", &[]) => panic!("it has to wait"),
        () = pool.until("it waits", |load| load.waiting == 1) => {}
    }
    pool.until("the queue is empty", |load| load.waiting == 0).await;
    pool.until_metric(r#"browserpool_acquires_total{pool="default",outcome="cancelled"} 1"#).await;
    drop(holder);
    let mut next = pool.connect("/").await;
    assert_eq!(ask(&mut next, "hello").await, "hello");
}

#[tokio::test]
async fn a_client_that_waited_gets_the_browser_of_the_one_before() {
    let pool = start(|config| config.pool.max_size = 1).await;
    let mut holder = pool.connect("/").await;
    let next = async {
        let mut client = pool.connect("/").await;
        ask(&mut client, "hello").await
    };
    let release = async {
        pool.until("one waits", |load| load.waiting == 1).await;
        holder.close(None).await.expect("it was open");
    };
    let (answer, ()) = tokio::join!(next, release);
    assert_eq!(answer, "hello");
}

#[tokio::test]
async fn a_wait_ends_with_408_and_what_to_do() {
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.pool.acquire_timeout = VERY_LONG;
    })
    .await;
    let _holder = pool.connect("/").await;
    for query in ["acquire_timeout=150", "nowait", "acquire_timeout=0"] {
        let (status, problem) = pool.refused(&format!("/?{query}")).await;
        assert_eq!((status, problem["code"].as_str()), (408, Some("acquire_timeout")), "{query}");
        assert!(problem["retry_after"].as_u64().is_some());
        assert!(problem["queue_position"].as_u64().is_some());
    }
}

#[tokio::test]
async fn past_the_limit_of_the_queue_clients_are_refused_at_once() {
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.pool.max_waiting = 1;
        config.pool.acquire_timeout = VERY_LONG;
    })
    .await;
    let _holder = pool.connect("/").await;
    let waiting = pool.try_connect("/", &[]);
    let refused = async {
        pool.until("one waits", |load| load.waiting == 1).await;
        let (status, problem) = pool.refused("/").await;
        assert_eq!((status, problem["code"].as_str()), (429, Some("queue_full")));
        assert_eq!(problem["queue_position"], 2);
        let pressure = pool.get("/pressure").await.json();
        assert_eq!(pressure["pressure"]["isAvailable"], false);
        assert_eq!(pressure["pressure"]["reason"], "full");
    };
    tokio::select! {
        answer = waiting => panic!("it still waits: {:?}", answer.map(|(_, answer)| answer)),
        () = refused => {}
    }
}

#[tokio::test]
async fn when_no_browser_can_be_launched_clients_are_told_why() {
    let pool = start(|_| ()).await;
    pool.browsers.break_launches();
    let (status, problem) = pool.refused("/?acquire_timeout=5000").await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("browser_unavailable")));
    assert!(problem["detail"].as_str().unwrap().contains("no chromium here"), "{problem}");
    assert!(problem["retry_after"].as_u64().is_some());
    assert_eq!(pool.get("/livez").await.status, 200);
    assert_eq!(pool.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn a_mistake_in_the_query_is_a_400_that_names_it() {
    let pool = start(|_| ()).await;
    for (query, name) in [
        ("headless=false", "headless"),
        ("launch=%7B%22args%22%3A%5B%22--no-sandbox%22%5D%7D", "launch"),
        ("priority=high", "priority"),
        ("lease=shared", "exclusive"),
    ] {
        let (status, problem) = pool.refused(&format!("/?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(problem["detail"].as_str().unwrap().contains(name), "{query}: {problem}");
    }
    assert_eq!(pool.gateway.pool().load().total(), 0, "nothing was launched for them");
}
