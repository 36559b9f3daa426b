//! Webhooks hear what goes wrong, once an interval, and nobody waits for them.

mod gateway_support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::SinkExt;
use gateway_support::{Hooks, Service, ask, start};
use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Message;

/// Short, so that nothing here waits for it.
const INTERVAL: Duration = Duration::from_millis(10);

#[tokio::test]
async fn each_kind_of_alert_has_a_webhook_of_its_own() {
    let mut hooks = Hooks::start(&[]).await;
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.pool.max_waiting = 1;
        config.pool.health_check_interval = Some(Duration::from_millis(20));
        config.alerts.interval = INTERVAL;
        config.alerts.queue_url = hooks.url("queue");
        config.alerts.reject_url = hooks.url("reject");
        config.alerts.timeout_url = hooks.url("timeout");
        config.alerts.error_url = hooks.url("error");
        config.alerts.failed_health_url = hooks.url("failed_health");
    })
    .await;
    // There is no browser yet, so that the first client waits for its launch.
    let mut client = pool.connect("/").await;
    let call = hooks.next().await;
    assert_eq!(call.path, "/queue");
    assert_eq!(call.headers["content-type"], "application/json; charset=utf-8");
    assert!(call.headers["user-agent"].to_str().unwrap().starts_with("browser-pool/"));
    assert!(call.body["since_ms"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000));
    assert_eq!(
        (&call.body["alert"], &call.body["pool"], &call.body["count"], &call.body["text"]),
        (
            &json!("queue"),
            &json!("default"),
            &json!(1),
            &json!("browser pool \"default\": 1 client had to wait for a browser")
        )
    );
    assert_eq!(pool.refused("/?nowait").await.0, 408);
    let waiting = pool.try_connect("/", &[]);
    let refused = async {
        pool.until("one waits", |load| load.waiting == 1).await;
        assert_eq!(pool.refused("/").await.0, 429);
        client.send(Message::text("crash")).await.expect("it is open");
    };
    let (next, ()) = tokio::join!(waiting, refused);
    let mut next = next.expect("it gets the next browser").0;
    pool.browsers.fail_checks();
    next.close(None).await.expect("it was open");

    let wanted = ["/timeout", "/reject", "/error", "/failed_health"];
    let mut missing = BTreeSet::from(wanted);
    while !missing.is_empty() {
        let call = hooks.next().await;
        let reason = call.body["reason"].as_str().unwrap_or_default();
        match &*call.path {
            "/error" => assert!(reason.contains("told to"), "{call:?}"),
            "/failed_health" => assert!(reason.contains("no page opens"), "{call:?}"),
            _ => {}
        }
        assert_eq!(call.path, format!("/{}", call.body["alert"].as_str().unwrap()));
        missing.remove(&*call.path);
    }
}

#[tokio::test]
async fn what_happens_before_the_next_call_is_counted_in_it() {
    let mut hooks = Hooks::start(&[]).await;
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.alerts.interval = INTERVAL;
        config.alerts.timeout_url = hooks.url("timeout");
    })
    .await;
    let _holder = pool.connect("/").await;
    hooks.shut();
    pool.refused("/?nowait").await;
    assert_eq!(hooks.next().await.body["count"], 1);
    for _ in 0..5 {
        pool.refused("/?nowait").await;
    }
    assert_eq!(hooks.unread(), 0, "the first is not answered yet");
    hooks.open();
    assert_eq!(hooks.next().await.body["count"], 5);
}

#[tokio::test]
async fn a_webhook_that_never_answers_holds_up_neither_clients_nor_other_webhooks() {
    let mut hooks = Hooks::start(&[]).await;
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.alerts.interval = INTERVAL;
        config.alerts.queue_url = hooks.url("queue");
        config.alerts.timeout_url = hooks.url("timeout");
    })
    .await;
    hooks.shut();
    for _ in 0..20 {
        let mut client = pool.connect("/").await;
        assert_eq!(ask(&mut client, "hello").await, "hello");
        assert_eq!(pool.refused("/?nowait").await.0, 408);
        client.close(None).await.expect("it was open");
    }
    let paths = [hooks.next().await.path, hooks.next().await.path];
    assert_eq!(BTreeSet::from(paths), BTreeSet::from(["/queue".into(), "/timeout".into()]));
}

#[tokio::test]
async fn a_call_is_made_again_where_that_may_help_and_only_there() {
    let mut hooks = Hooks::start(&[500, 200, 404]).await;
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.alerts.interval = INTERVAL;
        config.alerts.timeout_url = hooks.url("timeout");
    })
    .await;
    let _holder = pool.connect("/").await;
    pool.refused("/?nowait").await;
    let (first, again) = (hooks.next().await.body, hooks.next().await.body);
    assert_eq!(first, again, "the same message");
    hooks.shut();
    pool.refused("/?nowait").await;
    assert_eq!(hooks.next().await.body["count"], 1);
    for _ in 0..2 {
        pool.refused("/?nowait").await;
    }
    // Who is not there (404) will not be there in a second: the next call is about what came since.
    hooks.open();
    assert_eq!(hooks.next().await.body["count"], 2);
}

#[tokio::test]
async fn a_call_is_given_up_after_as_many_attempts_as_it_may_have() {
    let mut hooks = Hooks::start(&[503, 503]).await;
    let pool = start(|config| {
        config.pool.max_size = 1;
        config.alerts.interval = INTERVAL;
        config.alerts.attempts = 2;
        config.alerts.timeout_url = hooks.url("timeout");
    })
    .await;
    let _holder = pool.connect("/").await;
    pool.refused("/?nowait").await;
    let first = hooks.next().await.body;
    hooks.shut();
    assert_eq!(hooks.next().await.body, first, "the second attempt");
    for _ in 0..2 {
        pool.refused("/?nowait").await;
    }
    hooks.open();
    assert_eq!(hooks.next().await.body["count"], 2);
}

#[tokio::test]
async fn an_address_is_in_no_log_and_a_reload_takes_a_new_one() {
    let mut hooks = Hooks::start(&[302]).await;
    let config = |url: &str| {
        format!(
            "[pool]\nmin_size = 0\nmax_size = 1\n[warming]\nmin_idle = 0\n\
             [alerts]\ninterval = \"10ms\"\nattempts = 1\nqueue_url = \"{url}\"\n"
        )
    };
    let here = hooks.url("s3cret").expect("it has one").expose().to_owned();
    let service = Service::start(&config(&here));
    drop(service.connect("/").await);
    assert_eq!(hooks.next().await.path, "/s3cret");
    service.until_logged("webhook not called: it answered with status 302");

    service.configure(&config(&here.replace("s3cret", "n3w")));
    service.signal(Signal::HUP);
    service.until_logged("configuration reloaded");
    assert!(service.log().contains("alerts.queue_url"), "{}", service.log());
    let _holder = service.connect("/").await;
    let waiting = service.connect("/?acquire_timeout=60000");
    let path = tokio::select! {
        _ = waiting => panic!("there is one browser"),
        call = hooks.next() => call.path,
    };
    assert_eq!(path, "/n3w");
    let log = service.log();
    assert!(!log.contains("s3cret") && !log.contains("n3w"), "{log}");
}
