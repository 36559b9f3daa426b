use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pool_core::testing::settle;
use pool_core::{AcquireError, Pool, Request};
use pool_policies::{PolicyError, Priority, Tenant, Tenants};
use tokio::time::{Instant, sleep};

use crate::support::{Browsers, refusal};

const LEASE: Duration = Duration::from_millis(100);

fn pool(size: usize, tenants: impl IntoIterator<Item = Tenant>) -> Pool<Browsers> {
    Pool::builder(Browsers::default())
        .policy(Tenants::new(tenants).unwrap())
        .policy(Priority::new())
        .max_size(size)
        .max_creating(size)
        .max_waiting(100_000)
        .acquire_timeout(None)
        .build()
        .unwrap()
}

fn of(tenant: &str) -> Request {
    Request::new().label("tenant", tenant)
}

/// Leases so far, by tenant, and how long each waited, in milliseconds.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<BTreeMap<String, Vec<u64>>>>);

impl Served {
    fn add(&self, tenant: &str, waited: Duration) {
        let waited = waited.as_millis() as u64;
        self.0.lock().unwrap().entry(tenant.to_owned()).or_default().push(waited);
    }

    fn count(&self, tenant: &str) -> usize {
        self.0.lock().unwrap().get(tenant).map_or(0, Vec::len)
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }

    fn p99(&self, tenant: &str) -> u64 {
        let mut waits = self.0.lock().unwrap()[tenant].clone();
        waits.sort_unstable();
        waits[waits.len() * 99 / 100]
    }
}

/// Keeps `depth` requests of a tenant waiting, and holds each lease for [`LEASE`].
fn flood(pool: &Pool<Browsers>, served: &Served, tenant: &'static str, depth: usize) {
    for _ in 0..depth {
        let (pool, served) = (pool.clone(), served.clone());
        tokio::spawn(async move {
            loop {
                let Ok(lease) = pool.acquire_with(of(tenant)).await else { return };
                served.add(tenant, lease.waited());
                sleep(LEASE).await;
                drop(lease);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn three_that_flood_get_leases_by_their_shares() {
    let shares = [("one", 1.0), ("two", 2.0), ("four", 4.0)];
    let pool = pool(8, shares.map(|(name, share)| Tenant::new(name).share(share)));
    let served = Served::default();
    for (name, _) in shares {
        flood(&pool, &served, name, 60);
    }
    while served.total() < 10_000 {
        sleep(LEASE).await;
    }
    let total = served.total() as f64;
    for (name, share) in shares {
        let due = total * share / 7.0;
        let got = served.count(name) as f64;
        assert!((got / due - 1.0).abs() < 0.05, "{name} got {got} of {total}, {due} were due");
    }
    pool.drain(Duration::ZERO).await;
}

/// The wait of a tenant that asks now and then for one of two browsers, in its 99th percentile.
async fn p99_beside(others: usize) -> u64 {
    let pool = pool(2, [Tenant::new("calm"), Tenant::new("flood")]);
    let served = Served::default();
    flood(&pool, &served, "flood", others);
    for _ in 0..400 {
        let asked = tokio::spawn({
            let (pool, served) = (pool.clone(), served.clone());
            async move {
                let lease = pool.acquire_with(of("calm")).await.unwrap();
                served.add("calm", lease.waited());
                sleep(LEASE).await;
            }
        });
        sleep(LEASE * 4 + Duration::from_millis(7)).await;
        asked.await.unwrap();
    }
    pool.drain(Duration::ZERO).await;
    served.p99("calm")
}

#[tokio::test(start_paused = true)]
async fn one_that_floods_moves_anothers_wait_by_one_lease_at_most() {
    let alone = p99_beside(0).await;
    for others in [10, 500] {
        let beside = p99_beside(others).await;
        let more = Duration::from_millis(beside - alone);
        assert!(more <= LEASE, "{beside} ms beside {others}, {alone} ms alone");
    }
}

#[tokio::test(start_paused = true)]
async fn within_a_tenant_priority_and_age_decide_and_it_is_no_matter_between_them() {
    let pool = pool(1, ["a", "b"].map(Tenant::new));
    let held = pool.acquire_with(of("a")).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for (tenant, priority, name) in
        [("a", 9, "a9"), ("a", 5, "a5"), ("a", 1, "a1"), ("b", 10, "b10"), ("b", 2, "b2")]
    {
        let (pool, order) = (pool.clone(), order.clone());
        tokio::spawn(async move {
            let lease = pool.acquire_with(of(tenant).priority(priority)).await.unwrap();
            order.lock().unwrap().push(name);
            sleep(LEASE).await;
            drop(lease);
        });
        settle().await;
    }
    drop(held);
    sleep(LEASE * 10).await;
    let order = order.lock().unwrap().clone();
    let of_one = |tenant: &str| -> Vec<_> {
        order.iter().copied().filter(|name| name.starts_with(tenant)).collect()
    };
    assert_eq!(of_one("a"), ["a1", "a5", "a9"]);
    assert_eq!(of_one("b"), ["b2", "b10"]);
    assert!(order[..2].iter().any(|name| name.starts_with('a')), "{order:?}");
    assert!(order[..2].iter().any(|name| name.starts_with('b')), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn priorities_are_clamped_and_given() {
    let tenants = [
        Tenant::new("clamped").highest_priority(3).unwrap(),
        Tenant::new("given").default_priority(8).unwrap(),
    ];
    let policy = Tenants::new(tenants).unwrap();
    let admitted = |tenant: &str, priority: Option<u8>| {
        let mut request = of(tenant);
        request.priority = priority;
        pool_core::Policy::<Browsers>::admit(&policy, &mut request).unwrap();
        request.priority
    };
    assert_eq!(admitted("clamped", Some(1)), Some(3));
    assert_eq!(admitted("clamped", Some(7)), Some(7));
    assert_eq!(admitted("clamped", None), None);
    assert_eq!(admitted("given", None), Some(8));
    assert_eq!(admitted("given", Some(1)), Some(1));
    assert_eq!(admitted("clamped", Some(0)), Some(0), "a mistake is for Priority to refuse");
}

#[tokio::test(start_paused = true)]
async fn what_a_tenant_may_not_ask_for_is_refused() {
    let tenants = [Tenant::new("crm").profiles(["crm-*"]).regions(["eu-west"]).max_leases(1)];
    let pool = pool(4, tenants);
    for (request, code) in [
        (of("crm").label("profile", "bank"), "profile_not_allowed"),
        (of("crm").label("region", "us-east"), "region_not_allowed"),
        (of("nobody"), "unknown_tenant"),
        (of(""), "unknown_tenant"),
    ] {
        assert_eq!(refusal(pool.acquire_with(request).await), code);
    }
    let fine = of("crm").label("profile", "crm-7").label("region", "eu-west");
    let held = pool.acquire_with(fine).await.unwrap();
    let more = pool.acquire_with(of("crm").timeout(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(more, AcquireError::GroupFull { .. }), "{more}");
    let nobodys = pool.acquire().await.unwrap();
    drop((held, nobodys));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let error = |tenant| Tenants::new([tenant]).unwrap_err();
    for tenant in [Tenant::new(""), Tenant::new("../x"), Tenant::new("a b")] {
        assert!(matches!(error(tenant), PolicyError::Name { kind: "tenant", .. }));
    }
    for share in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = error(Tenant::new("a").share(share));
        assert!(matches!(error, PolicyError::Setting { setting: "share", .. }), "{share}");
    }
    let error = error(Tenant::new("a").max_leases(0));
    assert!(matches!(error, PolicyError::Setting { setting: "max_leases", .. }));
    assert!(Tenant::new("a").highest_priority(0).is_err());
    assert!(Tenant::new("a").default_priority(11).is_err());
    let twice = Tenants::new([Tenant::new("a"), Tenant::new("a")]).unwrap_err();
    assert!(matches!(twice, PolicyError::Name { .. }), "{twice}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_idle_tenants_cost_nothing() {
    let tenants = (0..10_000).map(|n| Tenant::new(n.to_string()).max_leases(2));
    let policy = Tenants::new(tenants).unwrap();
    assert_eq!(policy.groups().count(), 10_000);
    let pool = Pool::builder(Browsers::default()).policy(policy).max_size(4).build().unwrap();
    assert_eq!(pool.stats().groups.len(), 0, "none is known before it asks");
    for n in 0..10_000 {
        drop(pool.acquire_with(of(&n.to_string())).await.unwrap());
    }
    settle().await;
    assert_eq!(pool.stats().groups.len(), 0, "none is remembered");
    let until = Instant::now();
    pool.drain(Duration::ZERO).await;
    assert!(until.elapsed() < Duration::from_secs(1));
}
