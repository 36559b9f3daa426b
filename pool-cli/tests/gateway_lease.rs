//! A WebSocket is a lease: how it begins and in how many ways it ends.

mod gateway_support;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_support::{ask, closed, start};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};

fn ended(reason: &str, count: usize) -> String {
    format!(r#"browserpool_leases_ended_total{{pool="default",reason="{reason}"}} {count}"#)
}

#[tokio::test]
async fn a_websocket_is_a_lease_and_its_close_gives_it_back() {
    let pool = start(|_| ()).await;
    for path in ["/", "/?priority=1&trackingId=x", "/chromium"] {
        let mut client = pool.connect(path).await;
        assert_eq!(ask(&mut client, "hello").await, "hello");
        assert_eq!(pool.gateway.pool().load().leased, 1, "{path}");
        client.close(None).await.expect("it was open");
        pool.until("given back", |load| load.leased == 0).await;
    }
    pool.until_metric(&ended("released", 3)).await;
}

#[tokio::test]
async fn a_lease_begins_with_a_page_unless_the_client_asks_for_none() {
    let pool = start(|_| ()).await;
    for path in ["/", "/?pages=1", "/?pages=0"] {
        pool.connect(path).await.close(None).await.expect("it was open");
        pool.until("given back", |load| load.leased == 0).await;
    }
    for body in [r#"{"pages":0}"#, "{}"] {
        let acquired = pool.post("/browser_pools/default/acquire", body).await;
        assert_eq!(acquired.status, 200, "{acquired:?}");
    }
    let terms = pool.browsers.terms();
    let first_pages: Vec<bool> = terms.into_iter().map(|terms| terms.first_page).collect();
    assert_eq!(first_pages, [true, true, false, false, true]);
    for path in ["/?pages=2", "/?pages=x", "/?pages="] {
        let (status, problem) = pool.refused(path).await;
        assert_eq!(status, 400, "{path}: {problem}");
        assert!(problem["detail"].to_string().contains("pages"), "{path}: {problem}");
    }
    let refused = pool.post("/browser_pools/default/acquire", r#"{"pages":2}"#).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_off_gives_the_lease_back() {
    let pool = start(|_| ()).await;
    let client = pool.connect("/").await;
    let dropped = Instant::now();
    drop(client);
    pool.until("given back", |load| load.leased == 0).await;
    assert!(dropped.elapsed() < Duration::from_secs(1));
    pool.until_metric(&ended("client_gone", 1)).await;
}

#[tokio::test]
async fn browser_close_is_answered_and_then_ends_the_lease() {
    let pool = start(|_| ()).await;
    let mut client = pool.connect("/").await;
    assert_eq!(ask(&mut client, "close").await, "close");
    assert_eq!(closed(&mut client).await.0, 1000);
    pool.until("given back", |load| load.leased == 0).await;
    pool.until_metric(&ended("released", 1)).await;
}

#[tokio::test]
async fn the_death_of_the_browser_is_told_at_once() {
    let pool = start(|_| ()).await;
    let ways = [
        ("crash", "browser_crashed"),
        ("hang", "browser_hung"),
        ("starve", "browser_out_of_memory"),
    ];
    for (word, told) in ways {
        let mut client = pool.connect("/").await;
        let killed = Instant::now();
        client.send(Message::text(word)).await.expect("it is open");
        let (code, reason) = closed(&mut client).await;
        assert!(killed.elapsed() < Duration::from_secs(1));
        assert_eq!(code, 4500);
        assert!(reason.starts_with(told), "{reason}");
    }
    pool.until_metric(&ended("browser_crashed", 1)).await;
    pool.until_metric(&ended("browser_hung", 1)).await;
    pool.until_metric(&ended("browser_out_of_memory", 1)).await;
}

#[tokio::test]
async fn a_browser_that_dies_before_its_first_command_is_replaced_unseen() {
    let pool = start(|_| ()).await;
    pool.browsers.kill_next(2);
    let mut client = pool.connect("/").await;
    assert_eq!(ask(&mut client, "hello").await, "hello");
}

#[tokio::test]
async fn a_silent_client_is_closed_with_4408_and_one_that_talks_is_not() {
    let idle = Duration::from_secs(1);
    let pool = start(|config| config.pool.lease_idle_timeout = Some(idle)).await;
    let mut silent = pool.connect("/").await;
    let mut busy = pool.connect("/").await;
    let began = Instant::now();
    let talk = async {
        while began.elapsed() < idle * 2 {
            assert_eq!(ask(&mut busy, "still here").await, "still here");
            // Much less, so that a process that does not get its turn for a while is not silent.
            tokio::time::sleep(idle / 20).await;
        }
    };
    let ((code, _), ()) = tokio::join!(closed(&mut silent), talk);
    assert_eq!(code, 4408);
    assert_eq!(pool.gateway.pool().load().leased, 1);
}

#[tokio::test]
async fn a_lease_that_lasts_too_long_is_closed_with_4410() {
    let pool = start(|config| config.pool.lease_timeout = Some(Duration::from_secs(60))).await;
    let mut client = pool.connect("/?timeout=200").await;
    assert_eq!(closed(&mut client).await.0, 4410);
    let (status, problem) = pool.refused("/?timeout=60001").await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("bad_parameter")));
    assert!(problem["detail"].as_str().unwrap().contains("60000"));
}

#[tokio::test]
async fn what_is_not_text_or_too_malformed_ends_the_connection() {
    let pool = start(|_| ()).await;
    let mut client = pool.connect("/").await;
    client.send(Message::binary(vec![1, 2, 3])).await.expect("it is open");
    assert_eq!(closed(&mut client).await.0, 1003);
    pool.until("given back", |load| load.leased == 0).await;
    pool.until_metric(&ended("protocol_error", 1)).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_its_neighbour_does_not_notice() {
    let pool = start(|_| ()).await;
    let mut flooded = pool.connect("/").await;
    let mut neighbour = pool.connect("/").await;
    flooded.send(Message::text("flood")).await.expect("it is open");
    for _ in 0..50 {
        let asked = Instant::now();
        assert_eq!(ask(&mut neighbour, "hello").await, "hello");
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    // It ends when the client's socket does, however much waits for it.
    drop(flooded);
    pool.until("given back", |load| load.leased == 1).await;
}

#[tokio::test]
async fn large_messages_pass_in_both_directions() {
    let pool = start(|_| ()).await;
    let mut client = pool.connect("/").await;
    let large = "x".repeat(20 << 20);
    assert_eq!(ask(&mut client, &large).await.len(), large.len());
}

#[tokio::test]
async fn compression_is_declined() {
    let pool = start(|_| ()).await;
    let offer = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
    let (_client, answer) = pool.try_connect("/", &offer).await.expect("a lease");
    assert!(!answer.headers().contains_key("sec-websocket-extensions"));
}

#[tokio::test]
async fn a_held_lease_has_an_address_of_its_own_until_it_is_over() {
    let pool =
        start(|config| config.gateway.token = Some(pool_cli::config::Secret::new("t"))).await;
    let (mut first, answer) = pool.try_connect("/?token=t", &[]).await.expect("a lease");
    let lease = answer.headers()["browser-pool-lease"].to_str().unwrap().to_owned();
    let path = format!("/devtools/browser/{lease}");
    let mut second = pool.connect(&path).await;
    assert_eq!(ask(&mut second, "hello").await, "hello");
    assert_eq!(pool.gateway.pool().load().leased, 1, "both are one lease");

    first.close(None).await.expect("it was open");
    while let Some(Ok(_)) = first.next().await {}
    assert_eq!(ask(&mut second, "still").await, "still");

    let done = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    second.close(Some(done)).await.expect("it was open");
    pool.until("given back", |load| load.leased == 0).await;
    assert_eq!(pool.refused(&path).await.0, 401, "the address means nothing any more");
    let (status, problem) = pool.refused(&format!("{path}?token=t")).await;
    assert_eq!((status, problem["code"].as_str()), (410, Some("lease_over")));
    let never = format!("/devtools/browser/{}?token=t", "0".repeat(32));
    assert_eq!(pool.refused(&never).await.0, 404);
}

#[tokio::test]
async fn a_drain_lets_leases_finish_then_ends_them_with_1001() {
    let pool = start(|_| ()).await;
    let mut quick = pool.connect("/").await;
    let mut slow = pool.connect("/").await;
    let gateway = pool.gateway.clone();
    let drain = tokio::spawn(async move { gateway.drain(Duration::from_secs(2)).await });
    pool.gateway.drain_asked().await;
    let (status, problem) = pool.refused("/").await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("draining")));
    assert!(problem["retry_after"].as_u64().is_some());
    assert_eq!(ask(&mut quick, "last words").await, "last words");
    quick.close(None).await.expect("it was open");
    assert_eq!(closed(&mut slow).await.0, 1001);
    assert_eq!(drain.await.expect("it does not panic"), 1);
    assert_eq!(pool.gateway.pool().load().total(), 0);
}
