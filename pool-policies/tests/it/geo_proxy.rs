use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pool_core::{BoxError, Class, Policy, Pool, Request};
use pool_policies::{
    ConnectProbe, GeoProxy, GeoProxyBuilder, PolicyError, Proxy, ProxyAssignment, Region,
};
use tokio::time::sleep;

use crate::support::{Browsers, Spec, cause, pool, refusal, region};

const SECOND: Duration = Duration::from_secs(1);

/// A region of this many proxies, called after it.
fn of(name: &str, proxies: usize) -> Region {
    (1..=proxies).fold(Region::new(), |region, n| {
        region.proxy(Proxy::parse(&format!("http://{name}-{n}.example:8080")).unwrap())
    })
}

fn eu(proxies: usize) -> GeoProxyBuilder {
    GeoProxy::builder().region("eu", of("eu", proxies)).backoff(SECOND)
}

/// What a new resource of the region would be given.
fn assign(policy: &GeoProxy, region: &str) -> Result<ProxyAssignment, BoxError> {
    let (mut class, mut spec) = (Class::default(), Spec::default());
    class.insert("region", region);
    Policy::<Browsers>::configure(policy, &class, &mut spec)?;
    Ok(spec.proxy.expect("a region has a proxy"))
}

/// A pool that gives up at the first failure, so that this one is the last.
fn breaks_at_once(policy: GeoProxy) -> Pool<Browsers> {
    Pool::builder(Browsers::default()).policy(policy).breaker_threshold(1).build().unwrap()
}

fn host(assignment: &ProxyAssignment) -> &str {
    assignment.proxy().host()
}

#[tokio::test(start_paused = true)]
async fn a_region_goes_through_its_proxy_and_no_region_through_none() {
    let pool = pool(eu(1).region("us", of("us", 1)).build().unwrap());
    for (request, expected) in [
        (region("eu"), Some("eu-1.example")),
        (region("us"), Some("us-1.example")),
        (Request::new(), None),
    ] {
        let lease = pool.acquire_with(request).await.unwrap();
        assert_eq!(lease.proxy.as_ref().map(host), expected);
    }
    assert_eq!(pool.driver().control.created(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_region_is_refused() {
    let pool = pool(eu(1).build().unwrap());
    for name in ["mars", "", "EU", "eu ", "../eu"] {
        assert_eq!(refusal(pool.acquire_with(region(name)).await), "unknown_region", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_region_is_for_requests_that_name_none() {
    let pool = pool(eu(1).default_region("eu").build().unwrap());
    assert_eq!(pool.acquire().await.unwrap().proxy.as_ref().map(host), Some("eu-1.example"));
}

#[tokio::test(start_paused = true)]
async fn load_is_spread_and_the_least_used_proxy_is_next() {
    let policy = eu(3).build().unwrap();
    let mut held: Vec<_> = (0..9).map(|_| assign(&policy, "eu").unwrap()).collect();
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    for assignment in &held {
        *load.entry(host(assignment)).or_default() += 1;
    }
    assert!(load.values().all(|count| *count == 3), "{load:?}");
    held.retain(|assignment| host(assignment) != "eu-2.example");
    for _ in 0..3 {
        held.push(assign(&policy, "eu").unwrap());
        assert_eq!(held.last().map(host), Some("eu-2.example"));
    }
    let clone = held[0].clone();
    drop(held);
    assert_eq!(policy.status().iter().map(|status| status.in_use).sum::<usize>(), 1);
    drop(clone);
    assert!(policy.status().iter().all(|status| status.in_use == 0));
}

#[tokio::test(start_paused = true)]
async fn proxies_that_nobody_uses_take_turns() {
    let policy = eu(3).build().unwrap();
    let hosts: Vec<_> = (0..6).map(|_| host(&assign(&policy, "eu").unwrap()).to_owned()).collect();
    assert_eq!(hosts[..3], hosts[3..]);
    assert_eq!(hosts.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failed_proxy_is_out_then_tried_by_one_then_back() {
    let policy = eu(2).build().unwrap();
    let failed = assign(&policy, "eu").unwrap();
    let name = host(&failed).to_owned();
    failed.report_failure();
    drop(failed);
    let is_it = |assignment: &ProxyAssignment| host(assignment) == name;
    let others: Vec<_> = (0..4).map(|_| assign(&policy, "eu").unwrap()).collect();
    assert!(!others.iter().any(is_it));

    sleep(SECOND).await;
    let trial = assign(&policy, "eu").unwrap();
    assert!(is_it(&trial), "it is let back in, and has the least load");
    let others: Vec<_> = (0..4).map(|_| assign(&policy, "eu").unwrap()).collect();
    assert!(!others.iter().any(is_it), "but only one tries it");

    trial.report_success();
    let others: Vec<_> = (0..4).map(|_| assign(&policy, "eu").unwrap()).collect();
    assert!(others.iter().all(is_it));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_keeps_failing_is_tried_more_and_more_rarely() {
    let policy = eu(1).max_backoff(60 * SECOND).build().unwrap();
    let (mut tries, start) = (0, tokio::time::Instant::now());
    while start.elapsed() < 600 * SECOND {
        if let Ok(assignment) = assign(&policy, "eu") {
            assignment.report_failure();
            tries += 1;
        }
        sleep(SECOND / 10).await;
    }
    assert!((10..20).contains(&tries), "{tries} tries in ten minutes");
    sleep(60 * SECOND).await;
    assign(&policy, "eu").unwrap().report_success();
    assert!(policy.status()[0].is_serving);
}

#[tokio::test(start_paused = true)]
async fn with_every_proxy_down_the_error_names_the_region_and_nothing_goes_direct() {
    let policy = eu(2).region("us", of("us", 1)).build().unwrap();
    for _ in 0..2 {
        assign(&policy, "eu").unwrap().report_failure();
    }
    let pool = pool(policy);
    let error = pool.acquire_with(region("eu")).await.err().unwrap();
    assert!(matches!(
        cause(&error),
        PolicyError::ProxiesDown { region, retry_after } if region == "eu" && *retry_after <= SECOND
    ));
    assert_eq!(pool.driver().control.created(), 0);
    assert!(pool.acquire_with(region("us")).await.is_ok(), "other regions are not affected");
}

#[tokio::test(start_paused = true)]
async fn fallback_regions_are_taken_in_order_and_only_when_all_else_is_down() {
    let policy = GeoProxy::builder()
        .region("eu", of("eu", 1).fallback("us").fallback("asia"))
        .region("us", of("us", 1).fallback("africa"))
        .region("asia", of("asia", 1))
        .region("africa", of("africa", 1))
        .build()
        .unwrap();
    for expected in ["eu", "us", "asia"] {
        let assignment = assign(&policy, "eu").unwrap();
        assert_eq!((assignment.region(), assignment.asked_region()), (expected, "eu"));
        assert_eq!(assignment.is_fallback(), expected != "eu");
        assignment.report_failure();
    }
    let error = assign(&policy, "eu").unwrap_err();
    let error = error.downcast::<PolicyError>().unwrap();
    assert!(matches!(*error, PolicyError::ProxiesDown { region, .. } if region == "eu"));
    assert_eq!(assign(&policy, "africa").unwrap().region(), "africa");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_overlooks_the_proxy_gets_no_lease() {
    let pool = pool(eu(1).build().unwrap());
    pool.driver().control.overlook_proxies();
    let error = pool.acquire_with(region("eu")).await.err().unwrap();
    assert!(matches!(cause(&error), PolicyError::ProxyNotUsed { region } if region == "eu"));
    assert!(pool.acquire().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_fails_its_probe_is_not_used_and_another_is() {
    let probe = |proxy: ProxyAssignment| async move {
        if host(&proxy) == "eu-1.example" { Err("refused".into()) } else { Ok(()) }
    };
    let policy = eu(2).probe(probe).build().unwrap();
    let pool = pool(policy.clone());
    let lease = pool.acquire_with(region("eu")).await.unwrap();
    assert_eq!(lease.proxy.as_ref().map(host), Some("eu-2.example"));
    let status = policy.status();
    assert!(!status[0].is_serving && status[1].is_serving);
    assert_eq!(status[0].in_use, 0, "the failed resource has given it back");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_answers_has_failed() {
    let limit = 2 * SECOND;
    let probe = |_| std::future::pending::<Result<(), BoxError>>();
    let pool = breaks_at_once(eu(1).probe(probe).probe_timeout(limit).build().unwrap());
    let error = pool.acquire_with(region("eu").timeout(3 * SECOND)).await.err().unwrap();
    let error = cause(&error);
    let PolicyError::ProbeFailed { region, proxy, source } = error else { panic!("{error}") };
    assert_eq!((region.as_str(), proxy.as_str()), ("eu", "http://eu-1.example:8080"));
    assert!(source.to_string().contains("took longer"), "{source}");
    assert!(error.source().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_region_heals_by_itself_when_its_proxy_does() {
    let is_up = Arc::new(AtomicBool::new(false));
    let probe = {
        let is_up = is_up.clone();
        move |_| {
            let is_up = is_up.load(Ordering::Relaxed);
            async move { if is_up { Ok(()) } else { Err("down".into()) } }
        }
    };
    let pool = pool(eu(1).probe(probe).max_backoff(30 * SECOND).build().unwrap());
    assert!(pool.acquire_with(region("eu")).await.is_err());
    sleep(600 * SECOND).await;
    is_up.store(true, Ordering::Relaxed);
    sleep(60 * SECOND).await;
    let leases = [
        pool.acquire_with(region("eu")).await.unwrap(),
        pool.acquire_with(region("eu")).await.unwrap(),
    ];
    assert_eq!(leases.len(), 2);
}

#[tokio::test]
async fn the_connect_probe_tells_a_listener_from_a_closed_port() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = |port| {
        let proxy = Proxy::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let region = Region::new().proxy(proxy);
        GeoProxy::builder().region("here", region).probe(ConnectProbe).build().unwrap()
    };
    let here = || region("here").timeout(10 * SECOND);
    let open = connect(listener.local_addr().unwrap().port());
    assert!(pool(open).acquire_with(here()).await.is_ok());
    // Nobody listens there. The port of above may be another program's as soon as it is free.
    let error = breaks_at_once(connect(1)).acquire_with(here()).await.err().unwrap();
    assert!(matches!(cause(&error), PolicyError::ProbeFailed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_region_keeps_its_minimum_and_its_maximum() {
    let policy =
        GeoProxy::builder().region("eu", of("eu", 2).min_size(2).max_size(3)).build().unwrap();
    let pool = pool(policy);
    crate::support::until("the minimum is there", || pool.load().idle == 2).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.acquire_with(region("eu")).await.unwrap());
    }
    assert!(pool.acquire_with(region("eu").timeout(SECOND)).await.is_err());
    assert!(pool.acquire().await.is_ok());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let build = |name: &str, region| GeoProxy::builder().region(name, region).build();
    assert!(matches!(build("a/b", of("x", 1)), Err(PolicyError::Name { kind: "region", .. })));
    assert!(matches!(build("x", of("x", 0)), Err(PolicyError::NoProxies { .. })));
    assert!(matches!(build("x", of("x", 1).fallback("y")), Err(PolicyError::Unknown { .. })));
    assert!(matches!(build("x", of("x", 1).max_size(0)), Err(PolicyError::Setting { .. })));
    assert!(matches!(
        build("x", of("x", 1).min_size(2).max_size(1)),
        Err(PolicyError::MinAboveMax { kind: "region", .. })
    ));
    assert!(matches!(eu(1).default_region("us").build(), Err(PolicyError::Unknown { .. })));
    for builder in [
        eu(1).backoff(Duration::ZERO),
        eu(1).backoff(2 * SECOND).max_backoff(SECOND),
        eu(1).failure_threshold(0),
        eu(1).probe_timeout(Duration::ZERO),
    ] {
        assert!(matches!(builder.build(), Err(PolicyError::Setting { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_shown_nowhere() {
    let canary = "kanarienvogel";
    let proxy = Proxy::parse("http://eu.example:1").unwrap().credentials("user", canary);
    let builder = GeoProxy::builder().region("eu", Region::new().proxy(proxy));
    let mut texts = vec![format!("{builder:?}")];
    let probe = |_| async { Err("no".into()) };
    let policy = builder.probe(probe).build().unwrap();
    let assignment = assign(&policy, "eu").unwrap();
    texts.push(format!("{policy:?} {:?} {assignment:?}", policy.status()));
    drop(assignment);
    let pool = pool(policy);
    let error = pool.acquire_with(region("eu").timeout(10 * SECOND)).await.err().unwrap();
    texts.push(format!("{error} {error:?} {:?} {:?}", pool.stats(), pool.resources()));
    assert!(texts.iter().all(|text| !text.contains(canary)), "{texts:?}");
}
