//! Tenants: who asks is told by the token, what each may have and do, and what it sees.

mod gateway_support;

use std::time::Duration;

use gateway_support::{Answer, Client, Hooks, Running, ask, closed, request, start};
use pool_cli::config::{Config, LeaseKind, Scope, Secret, TenantConfig};
use pool_cli::gateway::Settings;
use serde_json::Value;

const OPERATOR: &str = "operator-token";

/// A tenant whose token is its name with `-token` behind it.
fn tenant(config: &mut Config, name: &str, change: impl FnOnce(&mut TenantConfig)) {
    let token = Some(Secret::new(format!("{name}-token")));
    let mut tenant = TenantConfig { token, ..TenantConfig::default() };
    change(&mut tenant);
    config.gateway.token = Some(Secret::new(OPERATOR));
    config.tenants.insert(name.to_owned(), tenant);
}

async fn two(size: usize) -> Running {
    start(|config| {
        config.pool.max_size = size;
        tenant(config, "ada", |ada| ada.max_leases = Some(1));
        tenant(config, "ben", |_| ());
    })
    .await
}

async fn get(pool: &Running, token: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    request(pool.address(), "GET", path, &[("authorization", &bearer)], "").await
}

async fn post(pool: &Running, token: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    request(pool.address(), "POST", path, &headers, body).await
}

/// The leases that are seen with a token.
async fn sessions(pool: &Running, token: &str) -> Vec<Value> {
    get(pool, token, "/sessions").await.json().as_array().expect("a list").clone()
}

async fn connect(pool: &Running, token: &str, query: &str) -> Client {
    pool.connect(&format!("/?token={token}{query}")).await
}

#[tokio::test]
async fn the_token_says_who_asks_and_the_query_may_not() {
    let pool = two(4).await;
    let _ada = connect(&pool, "ada-token", "").await;
    let _operators = connect(&pool, OPERATOR, "").await;
    let tenants: Vec<_> =
        sessions(&pool, OPERATOR).await.iter().map(|session| session["tenant"].clone()).collect();
    assert_eq!(tenants, [Value::from("ada"), Value::Null]);
    for token in ["ada-token", OPERATOR] {
        let (status, problem) = pool.refused(&format!("/?tenant=ben&token={token}")).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("bad_parameter")));
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("token")));
    }
    let body = r#"{"tenant":"ben"}"#;
    assert_eq!(post(&pool, "ben-token", "/browser_pools/default/acquire", body).await.status, 400);
    assert_eq!(pool.refused("/").await.0, 401);
    assert_eq!(pool.refused("/?token=ada").await.0, 401);
}

#[tokio::test]
async fn without_tenants_a_client_may_say_on_whose_behalf_it_asks() {
    let pool = start(|_| ()).await;
    let _client = pool.connect("/?tenant=anybody").await;
    assert_eq!(pool.get("/sessions").await.json()[0]["tenant"], "anybody");
    let metrics = pool.get("/metrics").await.body;
    assert!(!metrics.contains("anybody"), "{metrics}");
    assert_eq!(pool.get("/api/usage").await.json()["tenants"][0]["tenant"], Value::Null);
}

#[tokio::test]
async fn a_tenant_neither_sees_nor_ends_anothers_leases() {
    let pool = two(4).await;
    let mut ada = connect(&pool, "ada-token", "&trackingId=job&session=mine").await;
    let mut ben = connect(&pool, "ben-token", "&trackingId=job&session=mine").await;
    let adas = sessions(&pool, "ada-token").await;
    assert_eq!((adas.len(), adas[0]["tenant"].as_str()), (1, Some("ada")));
    assert_eq!(sessions(&pool, OPERATOR).await.len(), 2);
    let (id, browser) = (adas[0]["id"].as_str().expect("an id"), &adas[0]["browserId"]);

    let state = get(&pool, "ben-token", "/api/state").await.json();
    let text = state.to_string();
    assert!(!text.contains(id) && !text.contains("ada"), "{text}");
    assert_eq!(state["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(state["browsers"].as_array().map(Vec::len), Some(1));
    assert_eq!(state["tenants"][0]["name"], "ben");
    assert_eq!(state["tenants"][0]["leased"], 1);
    assert_eq!((&state["events"], &state["classes"]), (&Value::from([0; 0]), &Value::from([0; 0])));
    for path in ["page", "screenshot"] {
        let path = format!("/api/browsers/{browser}/{path}");
        assert_eq!(get(&pool, "ben-token", &path).await.code(), "not_leased", "{path}");
        assert_eq!(get(&pool, "ada-token", &path).await.status, 200, "{path}");
    }

    let release = format!(r#"{{"session_id":"{id}"}}"#);
    for (path, body) in [
        (format!("/kill/{id}"), "{}"),
        (format!("/api/leases/{id}/kill"), "{}"),
        ("/browser_pools/default/release".to_owned(), release.as_str()),
    ] {
        let answer = post(&pool, "ben-token", &path, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_lease"), "{path}");
    }
    assert_eq!(post(&pool, "ben-token", "/kill/job", "{}").await.json()["killed"], 1);
    assert!(closed(&mut ben).await.1.starts_with("killed"));
    assert_eq!(post(&pool, "ben-token", "/kill/all", "{}").await.json()["killed"], 0);
    assert_eq!(ask(&mut ada, "hello").await, "hello", "its lease goes on");
    assert_eq!(post(&pool, OPERATOR, "/kill/all", "{}").await.json()["killed"], 1);
}

#[tokio::test]
async fn the_stream_of_a_tenant_shows_what_is_its_own() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pool = two(4).await;
    let _ada = connect(&pool, "ada-token", "&trackingId=secret-job").await;
    let _ben = connect(&pool, "ben-token", "&trackingId=own-job").await;
    let mut stream = tokio::net::TcpStream::connect(pool.address()).await.expect("it listens");
    let head = format!(
        "GET /api/stream?token=ben-token HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        pool.address()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    let mut buffer = [0; 65536];
    // The first, and one that is made for all who watch.
    while text.matches("own-job").count() < 4 {
        let read = tokio::time::timeout(gateway_support::PATIENCE, stream.read(&mut buffer)).await;
        let read = read.expect("an event each second").expect("it is open");
        assert!(read > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(!text.contains("secret-job"), "{text}");
}

#[tokio::test]
async fn a_tenant_that_is_full_is_refused_with_the_numbers_and_others_pass() {
    let pool = start(|config| {
        config.pool.max_size = 4;
        tenant(config, "ada", |ada| {
            ada.max_leases = Some(1);
            ada.max_waiting = Some(1);
        });
        tenant(config, "ben", |_| ());
    })
    .await;
    let held = connect(&pool, "ada-token", "").await;
    let (status, problem) = pool.refused("/?nowait&token=ada-token").await;
    assert_eq!((status, problem["code"].as_str()), (429, Some("tenant_full")), "{problem}");
    let numbers = ["held", "limit", "queue_position", "queue_limit"].map(|name| &problem[name]);
    assert_eq!(numbers, [1, 1, 1, 1].map(Value::from).each_ref());
    assert!(problem["retry_after"].as_u64().is_some_and(|seconds| seconds > 0));
    let waiting = pool.try_connect("/?token=ada-token", &[]);
    let others = async {
        pool.until("one waits", |load| load.waiting == 1).await;
        let (status, problem) = pool.refused("/?token=ada-token").await;
        assert_eq!((status, problem["code"].as_str()), (429, Some("tenant_queue_full")));
        assert_eq!((&problem["queue_position"], &problem["held"]), (&2.into(), &1.into()));
        for _ in 0..3 {
            // They do not wait behind it.
            let _ben = connect(&pool, "ben-token", "&acquire_timeout=5000").await;
        }
        drop(held);
    };
    let (waited, ()) = tokio::join!(waiting, others);
    waited.expect("its turn came with the end of the first");
}

#[tokio::test]
async fn each_may_do_what_its_scopes_say_and_no_more() {
    let pool = start(|config| {
        tenant(config, "viewer", |viewer| viewer.allow = vec![Scope::View]);
        tenant(config, "worker", |worker| worker.allow = vec![Scope::Lease]);
        tenant(config, "admin", |admin| admin.allow = vec![Scope::Metrics, Scope::Operate]);
    })
    .await;
    let paths = ["/sessions", "/metrics", "/json/version", "/meta"];
    for (name, allowed) in [
        ("viewer", [200, 403, 403, 200]),
        ("worker", [403, 403, 200, 200]),
        ("admin", [403, 200, 403, 200]),
    ] {
        let token = format!("{name}-token");
        for (path, status) in paths.into_iter().zip(allowed) {
            let answer = get(&pool, &token, path).await;
            assert_eq!(answer.status, status, "{name} {path}: {answer:?}");
            assert!(status != 403 || answer.code() == "not_allowed");
        }
        let flushed = post(&pool, &token, "/api/flush", "{}").await.status;
        assert_eq!(flushed, if name == "admin" { 200 } else { 403 }, "{name}");
    }
    let (status, problem) = pool.refused("/?token=viewer-token").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("not_allowed")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("lease")));
}

#[tokio::test]
async fn kinds_profiles_and_regions_are_asked_for_within_what_is_allowed() {
    let pool = start(|config| {
        config.pool.lease_choice = true;
        tenant(config, "ada", |ada| {
            ada.leases = Some(vec![LeaseKind::Shared]);
            ada.profiles = Some(vec!["crm-*".to_owned()]);
            ada.regions = Some(Vec::new());
        });
    })
    .await;
    let _shared = connect(&pool, "ada-token", "").await;
    assert_eq!(sessions(&pool, "ada-token").await[0]["kind"], "shared");
    for (query, code) in
        [("lease=exclusive", "lease_not_allowed"), ("region=eu", "region_not_allowed")]
    {
        let (status, problem) = pool.refused(&format!("/?token=ada-token&{query}")).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some(code)), "{query}");
    }
}

#[tokio::test]
async fn a_reload_changes_tokens_and_touches_no_lease() {
    let mut config = Config::default();
    let pool = start(|with| {
        tenant(with, "ada", |ada| ada.tokens = vec![Secret::new("ada-next")]);
        config = with.clone();
    })
    .await;
    let mut client = connect(&pool, "ada-token", "").await;
    let mut ada = config.tenants["ada"].clone();
    ada.token = None;
    config.tenants.insert("ada".to_owned(), ada);
    pool.gateway.set_settings(Settings::new(&config).expect("it is right"));
    assert_eq!(pool.refused("/?token=ada-token").await.0, 401, "the old token is no good");
    let _more = connect(&pool, "ada-next", "").await;
    assert_eq!(sessions(&pool, "ada-next").await.len(), 2, "both are of the same tenant");
    assert_eq!(ask(&mut client, "hello").await, "hello");
}

#[tokio::test]
async fn usage_is_by_tenant_and_kept_over_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let pool = two(4).await;
    pool.gateway.keep_usage_in(directory.path()).expect("it can be made");
    let client = connect(&pool, "ada-token", "").await;
    let _ben = connect(&pool, "ben-token", "").await;
    assert_eq!(pool.refused("/?token=ada-token&nowait").await.0, 429);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    drop(client);
    pool.until("it is over", |load| load.leased == 1).await;
    let rows = get(&pool, OPERATOR, "/api/usage?by=tenant").await.json()["tenants"].clone();
    assert_eq!(rows[0]["tenant"], "ada");
    assert_eq!((&rows[0]["leases"], &rows[0]["failures"]), (&1.into(), &1.into()));
    let seconds = rows[0]["browser_seconds"].as_f64().expect("a number");
    assert!((1.0..10.0).contains(&seconds), "{seconds}");
    assert!(rows[1]["browser_seconds"].as_f64().expect("a number") > 1.0, "it is still held");
    let own = get(&pool, "ben-token", "/api/usage?format=csv").await;
    assert!(own.head.contains("text/csv"), "{}", own.head);
    assert!(own.body.contains("\nben,1,") && !own.body.contains("ada"), "{}", own.body);
    let text = get(&pool, OPERATOR, "/metrics").await.body;
    for line in [
        r#"browserpool_tenant_leases{pool="default",tenant="ben"} 1"#,
        r#"browserpool_tenant_leases{pool="default",tenant="ada"} 0"#,
        r#"browserpool_tenant_leases_max{pool="default",tenant="ada"} 1"#,
        r#"browserpool_tenant_failures_total{pool="default",tenant="ada"} 1"#,
        r#"browserpool_tenant_acquires_total{pool="default",tenant="ada"} 1"#,
        r#"browserpool_tenant_share{pool="default",tenant="ben"} 1"#,
        r#"browserpool_tenant_refused_total{pool="default",tenant="ada",reason="tenant_full"} 1"#,
        r#"browserpool_tenant_refused_total{pool="default",tenant="ben",reason="tenant_full"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    pool.gateway.drain(Duration::ZERO).await;

    let next = two(4).await;
    next.gateway.keep_usage_in(directory.path()).expect("it is there");
    let rows = get(&next, OPERATOR, "/api/usage").await.json()["tenants"].clone();
    assert_eq!((&rows[0]["leases"], &rows[1]["leases"]), (&1.into(), &1.into()), "{rows}");
}

#[tokio::test]
async fn alerts_name_the_tenants_of_the_configuration() {
    let mut hooks = Hooks::start(&[]).await;
    let pool = start(|config| {
        config.alerts.reject_url = hooks.url("reject");
        config.alerts.timeout_url = hooks.url("timeout");
        tenant(config, "ada", |ada| ada.regions = Some(Vec::new()));
    })
    .await;
    assert_eq!(pool.refused("/?token=ada-token&region=eu").await.0, 403);
    let call = hooks.next().await;
    assert_eq!((call.path.as_str(), &call.body["tenants"]["ada"]), ("/reject", &1.into()));
}

#[tokio::test]
async fn a_tenant_that_was_removed_waits_for_nothing_in_the_metrics() {
    let mut config = Config::default();
    let pool = start(|with| {
        with.pool.max_size = 1;
        tenant(with, "ada", |_| ());
        tenant(with, "ben", |_| ());
        config = with.clone();
    })
    .await;
    let _held = connect(&pool, "ada-token", "").await;
    let numbers = async |line: &str| {
        let text = get(&pool, OPERATOR, "/metrics").await.body;
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    };
    numbers(r#"browserpool_tenant_leases{pool="default",tenant="ada"} 1"#).await;
    config.tenants.remove("ada");
    pool.gateway.set_settings(Settings::new(&config).expect("it is right"));
    numbers(r#"browserpool_tenant_leases{pool="default",tenant="ada"} 0"#).await;
    numbers(r#"browserpool_tenant_share{pool="default",tenant="ada"} 0"#).await;
    numbers(r#"browserpool_tenant_share{pool="default",tenant="ben"} 1"#).await;
}

#[tokio::test]
async fn kernels_acquire_says_429_at_the_tenants_own_limit_and_204_where_the_pool_is_full() {
    let pool = two(2).await;
    let acquire = "/browser_pools/default/acquire";
    let soon = r#"{"acquire_timeout_seconds":0.1}"#;
    let _adas = post(&pool, "ada-token", acquire, "{}").await.json();
    let full = post(&pool, "ada-token", acquire, soon).await;
    assert_eq!((full.status, full.code().as_str()), (429, "tenant_full"), "{}", full.body);
    assert!(full.head.to_ascii_lowercase().contains("retry-after: "), "{}", full.head);
    let problem = full.json();
    assert_eq!((&problem["held"], &problem["limit"]), (&1.into(), &1.into()), "{problem}");
    let _bens = post(&pool, "ben-token", acquire, "{}").await.json();
    assert_eq!(post(&pool, "ben-token", acquire, soon).await.status, 204, "nothing is free");
}

#[tokio::test]
async fn kernels_browsers_are_those_of_the_tenant() {
    let pool = two(4).await;
    let acquire = "/browser_pools/default/acquire";
    let named = r#"{"name":"mine"}"#;
    let adas = post(&pool, "ada-token", acquire, named).await.json();
    let bens = post(&pool, "ben-token", acquire, named).await.json();
    assert_ne!(adas["session_id"], bens["session_id"], "each tenant has names of its own");
    let listed = get(&pool, "ada-token", "/browsers").await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(
        get(&pool, "ada-token", "/browsers/mine").await.json()["session_id"],
        adas["session_id"]
    );
    let theirs = format!("/browsers/{}", bens["session_id"].as_str().expect("an id"));
    assert_eq!(get(&pool, "ada-token", &theirs).await.code(), "unknown_lease");
    let bearer = [("authorization", "Bearer ada-token")];
    let deleted = request(pool.address(), "DELETE", &theirs, &bearer, "").await;
    assert_eq!(deleted.code(), "unknown_lease");
    assert_eq!(sessions(&pool, OPERATOR).await.len(), 2);
    let resize = [bearer[0], ("content-type", "application/json")];
    let resized =
        request(pool.address(), "PATCH", "/browser_pools/default", &resize, r#"{"size":1}"#).await;
    assert_eq!((resized.status, resized.code().as_str()), (403, "not_allowed"));
}
