//! Two tenants on one pool of real browsers: shares, a limit, and what each sees.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use browser_pool_tests::{Case, Cdp, LeaseKind, Setup, case, request};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// What the operator shows.
const OPERATOR: &str = "operator-s3cret";

fn setup(kind: LeaseKind) -> Setup {
    let token = |name: &str| vec![toml::Value::from(format!("{name}-s3cret"))];
    Setup::new()
        .kind(kind)
        .size(2)
        .tokened(OPERATOR)
        .set("gateway.token", OPERATOR)
        .set("pool.acquire_timeout", "2m")
        .set("tenants.small.tokens", token("small"))
        .set("tenants.large.tokens", token("large"))
        .set("tenants.large.share", 3.0)
        .set("tenants.capped.tokens", token("capped"))
        .set("tenants.capped.max_leases", 1)
}

async fn lease(case: &Case, tenant: &str, query: &str) -> Cdp {
    let path = format!("/?token={tenant}-s3cret{query}");
    let opened = Cdp::open(&case.service.address, &path, &[]).await;
    opened.unwrap_or_else(|refused| panic!("{tenant}: {refused:?}"))
}

async fn get(case: &Case, tenant: &str, path: &str) -> Value {
    let bearer = format!("Bearer {tenant}-s3cret");
    let headers = [("authorization", bearer.as_str())];
    let answer = request(&case.service.address, "GET", path, &headers, "").await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}")).json()
}

async fn tenants_share_a_pool_and_do_not_see_each_other(kind: LeaseKind) {
    const LEASES: usize = 48;
    case(setup(kind), async |case| {
        let case: &Case = case;
        let served: Mutex<BTreeMap<&str, usize>> = Mutex::default();
        let total =
            || served.lock().unwrap_or_else(PoisonError::into_inner).values().sum::<usize>();
        let client = |tenant: &'static str| {
            let (served, total) = (&served, &total);
            async move {
                while total() < LEASES {
                    let client = lease(case, tenant, "").await;
                    *served
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(tenant)
                        .or_default() += 1;
                    assert_eq!(client.page("about:blank").await.eval("6 * 7").await, 42);
                    // As long for each, whatever else the machine does.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    client.close().await;
                }
            }
        };
        let clients = ["small", "large"].into_iter().flat_map(|tenant| vec![tenant; 6]);
        join_all(clients.map(client)).await;
        let counts = served.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The last twelve come when the others wait no more.
        let ratio = counts["large"] as f64 / counts["small"] as f64;
        assert!((1.8..=4.2).contains(&ratio), "{counts:?}");

        let held = lease(case, "capped", "&trackingId=mine").await;
        let refused = Cdp::open(&case.service.address, "/?nowait&token=capped-s3cret", &[]).await;
        let refused = refused.map(drop).expect_err("it may have one");
        assert_eq!((refused.status, refused.code()), (429, "tenant_full"), "{refused:?}");
        assert_eq!((&refused.body["held"], &refused.body["limit"]), (&json!(1), &json!(1)));
        let other = lease(case, "small", "").await;
        assert_eq!(get(case, "small", "/sessions").await.as_array().map(Vec::len), Some(1));
        let state = get(case, "small", "/api/state").await.to_string();
        assert!(!state.contains("mine") && !state.contains("capped"), "{state}");
        assert_eq!(case.service.sessions().await.len(), 2, "the operator sees both");

        let reloaded =
            setup(kind).set("tenants.capped.max_leases", 2).set("tenants.small.share", 2.0);
        let dir = case.home.state_dir().to_string_lossy().into_owned();
        let reloaded = reloaded.set("pool.state_dir", dir);
        std::fs::write(case.home.config(), reloaded.toml()).expect("the home is ours");
        let answer = case.service.post("/api/reload", &json!({})).await.json();
        let changed = json!(["tenants.capped.max_leases", "tenants.small.share"]);
        assert_eq!(answer["changed"], changed, "{answer}");
        assert_eq!(held.page("about:blank").await.eval("1 + 1").await, 2, "it goes on");
        other.close().await;
        let second = lease(case, "capped", "").await;
        second.close().await;
        held.close().await;

        let usage = case.service.get("/api/usage").await.json();
        let rows = usage["tenants"].as_array().cloned().unwrap_or_default();
        let large = rows.iter().find(|row| row["tenant"] == "large").expect("it has leased");
        assert_eq!(large["leases"], counts["large"]);
        assert!(large["browser_seconds"].as_f64().is_some_and(|seconds| seconds > 1.0), "{large}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_exclusive_leases() {
    tenants_share_a_pool_and_do_not_see_each_other(LeaseKind::Exclusive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_shared_leases() {
    tenants_share_a_pool_and_do_not_see_each_other(LeaseKind::Shared).await;
}
