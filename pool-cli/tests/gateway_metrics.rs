//! The metrics are all there from the start, true, and no more with every client.

mod gateway_support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gateway_support::{ask, request, start};
use pool_cli::config::{ProfileConfig, RegionConfig};

/// Names and labels, without the values.
fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.rsplit_once(' ').expect("a sample").0.to_owned()).collect()
}

#[tokio::test]
async fn every_series_is_there_from_the_start() {
    let pool = start(|_| ()).await;
    let text = pool.get("/metrics").await.body;
    for name in [
        r#"browsers{pool="default",state="idle"} 0"#,
        r#"browsers_max{pool="default"} 2"#,
        r#"browsers_idle_min{pool="default"} 0"#,
        r#"pending_requests{pool="default"} 0"#,
        r#"oldest_pending_request_age_seconds{pool="default"} 0"#,
        r#"acquire_wait_seconds_count{pool="default"} 0"#,
        r#"lease_duration_seconds_count{pool="default"} 0"#,
        r#"browser_launch_duration_seconds_count{pool="default"} 0"#,
        r#"browser_reset_duration_seconds_count{pool="default"} 0"#,
        r#"acquires_total{pool="default",outcome="granted"} 0"#,
        r#"acquires_total{pool="default",outcome="timeout"} 0"#,
        r#"acquires_total{pool="default",outcome="rejected"} 0"#,
        r#"acquires_total{pool="default",outcome="cancelled"} 0"#,
        r#"acquires_total{pool="default",outcome="error"} 0"#,
        r#"leases_ended_total{pool="default",reason="client_gone"} 0"#,
        r#"browser_launches_total{pool="default",outcome="ok"} 0"#,
        r#"browser_exits_total{pool="default",reason="broken"} 0"#,
        r#"health_checks_total{pool="default",outcome="ok"} 0"#,
        r#"browser_memory_bytes{pool="default"} 0"#,
        r#"gateway_connections{pool="default"} 0"#,
        r#"gateway_messages_total{pool="default",direction="in"} 0"#,
        r#"gateway_bytes_total{pool="default",direction="out"} 0"#,
        r#"draining{pool="default"} 0"#,
    ] {
        let line = format!("browserpool_{name}");
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(text.contains("browserpool_build_info{"));
}

#[tokio::test]
async fn a_fleet_has_its_series_from_the_start_and_no_other_pool_has_them() {
    let pool = start(|_| ()).await;
    assert!(!pool.get("/metrics").await.body.contains("browserpool_fleet_"));
    pool.gateway.observer().metrics().join_fleet();
    let text = pool.get("/metrics").await.body;
    for name in [
        r#"nodes{pool="default",phase="running"} 0"#,
        r#"nodes{pool="default",phase="draining"} 0"#,
        r#"connected{pool="default"} 0"#,
        r#"asks_total{pool="default"} 0"#,
        r#"offers_total{pool="default",outcome="unanswered"} 0"#,
        r#"grants_total{pool="default",where="local"} 0"#,
        r#"grants_total{pool="default",where="remote"} 0"#,
        r#"relayed_connections{pool="default"} 0"#,
        r#"grant_seconds_count{pool="default",where="remote"} 0"#,
        r#"profile_transfers_total{pool="default",direction="in",outcome="cancelled"} 0"#,
        r#"profile_transfers_total{pool="default",direction="out",outcome="error"} 0"#,
        r#"profile_transfer_seconds_count{pool="default",direction="out"} 0"#,
        r#"profile_transfer_bytes_total{pool="default",direction="in"} 0"#,
    ] {
        let line = format!("browserpool_fleet_{name}");
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn clients_add_no_series_whatever_they_send() {
    let pool = start(|_| ()).await;
    let before = series(&pool.get("/metrics").await.body);
    for index in 0..50 {
        let path = format!("/?trackingId=t{index}&tenant=x{index}&priority={}", index % 10 + 1);
        let mut client = pool.connect(&path).await;
        ask(&mut client, "hello").await;
        let _ = pool.refused(&format!("/?unknown{index}=1")).await;
        let _ = pool.get(&format!("/nothing/{index}")).await;
    }
    assert_eq!(series(&pool.get("/metrics").await.body), before);
}

/// One value in three is right, the others are whatever a client may make up.
fn made_up(random: &mut fastrand::Rng, right: &[&str]) -> String {
    match random.usize(..3) {
        0 => right[random.usize(..right.len())].to_owned(),
        1 => random.u64(..).to_string(),
        _ => (0..random.usize(1..40)).map(|_| random.alphanumeric()).collect(),
    }
}

fn random_path(random: &mut fastrand::Rng) -> String {
    const PATHS: [&str; 10] = [
        "/",
        "/",
        "/",
        "/chromium",
        "/json/version",
        "/pressure",
        "/sessions",
        "/browser_pools/default/acquire",
        "/kill/",
        "/devtools/browser/",
    ];
    let mut path = PATHS[random.usize(..PATHS.len())].to_owned();
    if path.len() > 1 && path.ends_with('/') || random.usize(..10) == 0 {
        path.push_str(&made_up(random, &["all", "metrics"]));
    }
    path.push_str("?acquire_timeout=1");
    for (name, right) in [
        ("priority", ["1", "5", "10"]),
        ("profile", ["work", "home", "none"]),
        ("region", ["eu-west", "us-east", "none"]),
        ("tenant", ["a", "b", "c"]),
        ("trackingId", ["job-1", "job-2", "job-3"]),
        ("lease", ["exclusive", "shared", "none"]),
        ("timeout", ["5", "20", "0"]),
    ] {
        if random.usize(..4) == 0 {
            path.push_str(&format!("&{name}={}", made_up(random, &right)));
        }
    }
    if random.usize(..20) == 0 {
        path.push_str(&format!("&{}=1", made_up(random, &["label"])));
    }
    path
}

/// Each series stays for as long as the pool runs, so one that a client can make is a leak, and
/// Prometheus pays for it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_with_random_parameters_add_no_series() {
    const REQUESTS: usize = 10_000;
    const CLIENTS: usize = 8;
    let pool = Arc::new(
        start(|config| {
            config.pool.max_waiting = 4;
            // A lease that `acquire` gives lasts until it is released, which nobody does here.
            config.pool.acquire_timeout = Duration::from_millis(5);
            config.pool.lease_timeout = Some(Duration::from_millis(20));
            config.profiles.named.insert("work".to_owned(), ProfileConfig::default());
            config.regions.insert("eu-west".to_owned(), RegionConfig::default());
        })
        .await,
    );
    let before = series(&pool.get("/metrics").await.body);
    let clients = (0..CLIENTS as u64).map(|seed| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut granted = 0;
            for _ in 0..REQUESTS / CLIENTS {
                let path = random_path(&mut random);
                let tenant = made_up(&mut random, &["a"]);
                if random.bool() {
                    let headers = [("x-tenant", &*tenant), ("user-agent", &*tenant)];
                    granted += usize::from(pool.try_connect(&path, &headers).await.is_ok());
                } else {
                    let method = ["GET", "POST", "DELETE", "BREW"][random.usize(..4)];
                    request(pool.address(), method, &path, &[("x-tenant", &tenant)], "").await;
                }
            }
            granted
        })
    });
    let mut granted = 0;
    for client in clients.collect::<Vec<_>>() {
        granted += client.await.expect("it does not panic");
    }
    // Of the requests that are no leases too many would say nothing.
    assert!(granted > REQUESTS / 100, "only {granted} leases");
    assert_eq!(series(&pool.get("/metrics").await.body), before);
}

#[tokio::test]
async fn the_counts_are_those_of_what_happened() {
    let pool = start(|_| ()).await;
    for _ in 0..3 {
        let mut client = pool.connect("/").await;
        assert_eq!(ask(&mut client, "12345").await, "12345");
        client.close(None).await.expect("it was open");
        pool.until("given back", |load| load.leased == 0).await;
    }
    for line in [
        r#"browserpool_acquires_total{pool="default",outcome="granted"} 3"#,
        r#"browserpool_leases_ended_total{pool="default",reason="released"} 3"#,
        r#"browserpool_gateway_messages_total{pool="default",direction="in"} 3"#,
        r#"browserpool_gateway_messages_total{pool="default",direction="out"} 3"#,
        r#"browserpool_gateway_bytes_total{pool="default",direction="in"} 15"#,
        r#"browserpool_gateway_bytes_total{pool="default",direction="out"} 15"#,
        r#"browserpool_gateway_connections{pool="default"} 0"#,
        r#"browserpool_acquire_wait_seconds_count{pool="default"} 3"#,
        r#"browserpool_lease_duration_seconds_count{pool="default"} 3"#,
    ] {
        pool.until_metric(line).await;
    }
    let state = pool.get("/api/state").await.json();
    assert_eq!(state["counters"]["acquired"], 3);
    assert_eq!(state["counters"]["released"], 3);
}
