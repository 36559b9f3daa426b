//! Leases that go on without a connection, and names under which their clients find them again.

mod gateway_support;

use std::time::Duration;

use gateway_support::{Client, PATIENCE, Running, ask, closed, start};
use pool_cli::config::Config;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::http::HeaderMap;

/// Connects, and returns the headers of the 101.
async fn connect(pool: &Running, path: &str) -> (Client, HeaderMap) {
    let (client, answer) = pool.try_connect(path, &[]).await.expect("the gateway gives a lease");
    (client, answer.headers().clone())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("it is text"))
}

async fn sessions(pool: &Running) -> Vec<Value> {
    pool.get("/sessions").await.json().as_array().expect("a list").clone()
}

/// The lease of this id.
async fn session(pool: &Running, id: &str) -> Value {
    let all = sessions(pool).await;
    all.into_iter().find(|session| session["id"] == id).expect("it is held")
}

/// Waits until a lease has no connection, and returns it.
async fn until_waiting(pool: &Running, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = session(pool, id).await;
        if listed["state"] == "waiting" {
            return listed;
        }
        assert!(Instant::now() < deadline, "its client has left: {listed}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a metric counts so many leases that ended like this.
async fn ended(pool: &Running, reason: &str, count: usize) {
    let line =
        format!(r#"browserpool_leases_ended_total{{pool="default",reason="{reason}"}} {count}"#);
    pool.until_metric(&line).await;
}

fn one_browser(config: &mut Config) {
    config.pool.max_size = 1;
}

#[tokio::test]
async fn a_kept_lease_waits_for_its_client_and_then_goes_back() {
    const KEPT: Duration = Duration::from_secs(2);
    let comes_back_once = async |parameter: &str| {
        let pool = start(|_| ()).await;
        let (client, headers) = connect(&pool, &format!("/?{parameter}=2000")).await;
        let id = header(&headers, "lease-id").expect("the 101 tells it");
        assert_eq!(header(&headers, "browser-pool-lease"), Some(id));
        let url = format!("ws://{}/devtools/browser/{id}", pool.address());
        assert_eq!(header(&headers, "lease-url"), Some(&*url));
        assert_eq!(sessions(&pool).await[0]["state"], "connected");
        drop(client);
        let listed = until_waiting(&pool, id).await;
        assert_eq!(listed["keepMs"], 2000, "{listed}");
        assert!(listed["keptForMs"].as_u64().is_some_and(|ms| ms <= 2000), "{listed}");

        let mut back = pool.connect(&format!("/devtools/browser/{id}")).await;
        assert_eq!(ask(&mut back, "hello").await, "hello");
        sleep(KEPT * 5 / 4).await;
        assert_eq!(ask(&mut back, "still here").await, "still here");
        assert_eq!(pool.gateway.pool().load().leased, 1);
        let left = Instant::now();
        back.close(None).await.expect("it was open");
        pool.until("given back", |load| load.leased == 0).await;
        assert!(left.elapsed() >= KEPT, "{:?}", left.elapsed());
        let (status, problem) = pool.refused(&format!("/devtools/browser/{id}")).await;
        assert_eq!((status, problem["code"].as_str()), (410, Some("lease_over")));
        assert!(problem["detail"].as_str().unwrap().contains("keep_over"), "{problem}");
        ended(&pool, "keep_over", 1).await;
    };
    tokio::join!(comes_back_once("keep"), comes_back_once("keepAlive"));
}

#[tokio::test]
async fn what_is_not_kept_ends_with_its_connection() {
    let pool = start(|_| ()).await;
    for path in ["/", "/?keep=0", "/?session=mine&keep=0"] {
        drop(connect(&pool, path).await);
        pool.until("given back", |load| load.leased == 0).await;
    }
    ended(&pool, "client_gone", 3).await;
}

#[tokio::test]
async fn browser_close_ends_a_kept_lease_at_once() {
    let pool = start(|_| ()).await;
    let (mut client, _) = connect(&pool, "/?session=mine&keep=60000").await;
    ask(&mut client, "close").await;
    assert_eq!(closed(&mut client).await.0, 1000);
    pool.until("given back", |load| load.leased == 0).await;
    ended(&pool, "released", 1).await;
}

#[tokio::test]
async fn keep_and_idle_timeout_have_their_limits() {
    let pool = start(|config| {
        config.pool.keep_limit = Duration::from_secs(30);
        config.pool.lease_timeout = Some(Duration::from_secs(600));
    })
    .await;
    let held = connect(&pool, "/?session=held").await;
    for (path, limit, key) in [
        ("/?keep=30001", "30000", "keep_limit"),
        ("/?session=new&keep=30001", "30000", "keep_limit"),
        ("/?session=held&keep=30001", "30000", "keep_limit"),
        ("/?idle_timeout=600001", "600000", "lease_timeout"),
    ] {
        let (status, problem) = pool.refused(path).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("bad_parameter")), "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(limit) && detail.contains(key), "{detail}");
    }
    assert_eq!(sessions(&pool).await[0]["keepMs"], 30_000, "no more than the limit");
    drop(held);
}

#[tokio::test]
async fn a_name_finds_its_lease_again() {
    let pool = start(|_| ()).await;
    let (first, headers) = connect(&pool, "/?session=mine").await;
    let id = header(&headers, "lease-id").expect("an id").to_owned();
    assert_eq!(header(&headers, "lease-renewed"), None);
    let (mut second, headers) = connect(&pool, "/?session=mine").await;
    assert_eq!(header(&headers, "lease-id"), Some(&*id), "at the same time");
    let (_theirs, headers) = connect(&pool, "/?session=mine&tenant=other").await;
    assert_ne!(header(&headers, "lease-id"), Some(&*id), "tenants have names of their own");
    drop(first);
    assert_eq!(ask(&mut second, "hello").await, "hello");
    drop(second);
    until_waiting(&pool, &id).await;
    let (_third, headers) = connect(&pool, "/?session=mine&keep=90000").await;
    assert_eq!(header(&headers, "lease-id"), Some(&*id), "after a while without anybody");
    let listed = session(&pool, &id).await;
    assert_eq!((&listed["session"], &listed["keepMs"]), (&"mine".into(), &90_000.into()));
    assert!(listed["renewed"].is_null(), "{listed}");
}

#[tokio::test]
async fn a_new_lease_says_how_the_last_one_of_its_name_has_ended() {
    let pool = start(|_| ()).await;
    let (mut client, headers) = connect(&pool, "/?session=mine&idle_timeout=300").await;
    assert_eq!(header(&headers, "lease-renewed"), None);
    assert_eq!(closed(&mut client).await.0, 4408);
    let (_again, headers) = connect(&pool, "/?session=mine").await;
    assert_eq!(header(&headers, "lease-renewed"), Some("idle_timeout"));
    assert_eq!(sessions(&pool).await[0]["renewed"], "idle_timeout");
    let events = pool.get("/api/state").await.json()["events"].to_string();
    assert!(events.contains("session_renewed") && events.contains("mine: "), "{events}");
    let (_joined, headers) = connect(&pool, "/?session=mine").await;
    assert_eq!(header(&headers, "lease-renewed"), None, "it is not new any more");
    let (_other, headers) = connect(&pool, "/?session=other").await;
    assert_eq!(header(&headers, "lease-renewed"), None);
}

#[tokio::test]
async fn clients_that_race_for_a_name_get_one_lease() {
    let pool = start(one_browser).await;
    let (blocking, _) = connect(&pool, "/").await;
    let (a, b, c, ()) = tokio::join!(
        connect(&pool, "/?session=mine"),
        connect(&pool, "/?session=mine"),
        connect(&pool, "/?session=mine"),
        async {
            pool.until("one waits", |load| load.waiting == 1).await;
            let (status, problem) = pool.refused("/?session=mine&region=eu").await;
            assert_eq!((status, problem["code"].as_str()), (409, Some("session_differs")));
            let (status, problem) = pool.refused("/?session=mine&nowait").await;
            assert_eq!((status, problem["code"].as_str()), (408, Some("acquire_timeout")));
            assert_eq!(pool.gateway.pool().load().waiting, 1, "the others wait for it");
            drop(blocking);
        }
    );
    let id = header(&a.1, "lease-id").expect("an id");
    assert!([&b, &c].iter().all(|it| header(&it.1, "lease-id") == Some(id)));
    assert_eq!(sessions(&pool).await[0]["connections"], 3);
}

#[tokio::test]
async fn when_the_first_of_a_race_gives_up_the_next_one_acquires() {
    let pool = start(one_browser).await;
    let (blocking, _) = connect(&pool, "/").await;
    let gives_up = async {
        let (status, _) = pool.refused("/?session=mine&acquire_timeout=300").await;
        assert_eq!(status, 408);
        drop(blocking);
    };
    let waits = async {
        sleep(Duration::from_millis(100)).await;
        connect(&pool, "/?session=mine&acquire_timeout=5000").await
    };
    let ((), (mut client, _)) = tokio::join!(gives_up, waits);
    assert_eq!(ask(&mut client, "hello").await, "hello");
}

#[tokio::test]
async fn another_lease_than_the_one_of_the_name_is_refused() {
    let pool = start(|config| config.pool.lease_choice = true).await;
    let (_held, _) = connect(&pool, "/?session=mine&lease=exclusive").await;
    for (other, what) in
        [("lease=shared", "lease"), ("region=eu", "region"), ("profile=a", "profile")]
    {
        let (status, problem) = pool.refused(&format!("/?session=mine&{other}")).await;
        assert_eq!((status, problem["code"].as_str()), (409, Some("session_differs")), "{other}");
        assert!(problem["detail"].as_str().unwrap().contains(what), "{problem}");
    }
    connect(&pool, "/?session=mine&lease=exclusive").await;
    connect(&pool, "/?session=mine").await;
}

#[tokio::test]
async fn browserless_reconnect_keeps_the_lease_it_is_asked_of() {
    let pool = start(|config| config.pool.keep_limit = Duration::from_secs(20)).await;
    let (mut client, headers) = connect(&pool, "/").await;
    let url = header(&headers, "lease-url").expect("the 101 tells it").to_owned();
    let answer = ask(&mut client, r#"Browserless.reconnect {"timeout":10000}"#).await;
    assert!(answer.starts_with("Some(Ok(") && answer.contains(&url), "{answer}");
    for (params, sentence) in [
        (r#"{"timeout":20001}"#, "timeout may be at most 20000 ms, the pool's keep_limit"),
        (r#"{"timeout":-1}"#, "timeout must be a number of milliseconds"),
        (r#"{"timeout":"1"}"#, "timeout must be a number of milliseconds"),
    ] {
        let answer = ask(&mut client, &format!("Browserless.reconnect {params}")).await;
        assert_eq!(answer, format!("Some(Err({sentence:?}))"));
    }
    assert_eq!(ask(&mut client, "Browserless.other {}").await, "None");
    drop(client);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(sessions(&pool).await[0]["keepMs"], 10_000);
    let path = url.split_once("/devtools").expect("a path").1;
    let mut back = pool.connect(&format!("/devtools{path}")).await;
    ask(&mut back, "Browserless.reconnect {}").await;
    assert_eq!(sessions(&pool).await[0]["keepMs"], 20_000, "60 s, but for the limit");
}

#[tokio::test]
async fn a_client_that_waits_is_not_idle_and_while_nobody_is_there_the_keep_counts() {
    let idle = Duration::from_millis(400);
    let pool = start(|config| config.pool.lease_idle_timeout = Some(idle)).await;
    let (mut client, _) = connect(&pool, "/?keep=5000").await;
    ask(&mut client, "work").await;
    sleep(idle * 3).await;
    let asked = Instant::now();
    ask(&mut client, "rest").await;
    assert_eq!(closed(&mut client).await.0, 4408);
    assert!(asked.elapsed() >= idle, "it is idle from its last answer on");

    let (client, headers) = connect(&pool, "/?keep=5000").await;
    let id = header(&headers, "lease-id").expect("an id").to_owned();
    drop(client);
    sleep(idle * 2).await;
    let mut back = pool.connect(&format!("/devtools/browser/{id}")).await;
    assert_eq!(ask(&mut back, "hello").await, "hello");
}

#[tokio::test]
async fn one_lease_may_be_silent_for_longer_or_less_long_than_the_others() {
    let pool = start(|config| {
        config.pool.lease_idle_timeout = Some(Duration::from_secs(2));
        config.pool.max_size = 3;
    })
    .await;
    let (mut long, _) = connect(&pool, "/?idle_timeout=60000").await;
    let (mut usual, _) = connect(&pool, "/").await;
    let (mut short, _) = connect(&pool, "/?idle_timeout=100").await;
    let first = tokio::select! {
        biased;
        _ = closed(&mut usual) => "usual",
        (code, _) = closed(&mut short) => {
            assert_eq!(code, 4408);
            "short"
        }
    };
    assert_eq!(first, "short");
    assert_eq!(closed(&mut usual).await.0, 4408);
    assert_eq!(ask(&mut long, "hello").await, "hello");
}

#[tokio::test]
async fn a_drain_lets_kept_leases_be_finished_until_its_grace_is_over() {
    let pool = start(|_| ()).await;
    drop(connect(&pool, "/?session=comes-back&keep=60000").await);
    drop(connect(&pool, "/?session=stays-away&keep=60000").await);
    let gateway = pool.gateway.clone();
    let drain = tokio::spawn(async move { gateway.drain(Duration::from_millis(1500)).await });
    pool.gateway.drain_asked().await;
    let (status, problem) = pool.refused("/?session=new").await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("draining")));
    let (mut back, _) = connect(&pool, "/?session=comes-back").await;
    assert_eq!(ask(&mut back, "close").await, "close");
    assert_eq!(drain.await.expect("it does not panic"), 1);
    assert_eq!(pool.gateway.pool().load().total(), 0);
}

#[tokio::test]
async fn a_lease_by_rest_has_a_name_and_a_keep_as_well() {
    let pool = start(one_browser).await;
    let acquire = "/browser_pools/default/acquire";
    let first = pool.post(acquire, r#"{"session":"mine"}"#).await.json();
    let again = pool.post(acquire, r#"{"session":"mine"}"#).await.json();
    assert_eq!(first["session_id"], again["session_id"]);
    let (client, headers) = connect(&pool, "/?session=mine").await;
    assert_eq!(header(&headers, "lease-id"), first["session_id"].as_str());
    drop(client);
    let release = serde_json::json!({ "session_id": first["session_id"] }).to_string();
    assert_eq!(pool.post("/browser_pools/default/release", &release).await.status, 204);
    let kept = pool.post(acquire, r#"{"session":"mine","keep":200}"#).await.json();
    assert_ne!(first["session_id"], kept["session_id"]);
    pool.until("nobody came in time", |load| load.leased == 0).await;
    ended(&pool, "keep_over", 1).await;
}
