use std::time::Duration;

use super::bench::Bench;
use crate::{Driver, Lease, Pool};

pub(super) async fn run<D: Driver>(bench: &Bench<D>) {
    goes_round(bench).await;
    drains_with_a_holder(bench).await;
}

fn pool<D: Driver>(bench: &Bench<D>) -> Pool<D> {
    let (driver, policy) = bench.another();
    let pool = Pool::builder(driver).policy(policy).max_size(2).build();
    pool.expect("the suite's settings are valid and a runtime is here")
}

async fn lease<D: Driver>(bench: &Bench<D>, pool: &Pool<D>, rule: &str) -> Lease<D> {
    let leased = bench.in_time(rule, "acquire", pool.acquire()).await;
    leased.unwrap_or_else(|error| panic!("{rule}: acquire failed: {error}"))
}

async fn goes_round<D: Driver>(bench: &Bench<D>) {
    const RULE: &str = "in a pool, resources go round, are discarded and made anew";
    let pool = pool(bench);
    for _ in 0..3 {
        let first = lease(bench, &pool, RULE).await;
        let second = lease(bench, &pool, RULE).await;
        drop(first);
        let third = lease(bench, &pool, RULE).await;
        second.discard();
        drop(third);
    }
    let counters = pool.stats().counters;
    let report = bench.in_time(RULE, "drain", pool.drain(Duration::from_secs(30))).await;
    assert!(report.complete, "{RULE}: the drain left resources behind");
    assert_eq!(counters.create_failed, 0, "{RULE}: a creation failed");
    assert_eq!(counters.recycle_failed, 0, "{RULE}: a recycling failed");
    bench.nothing_is_left(RULE, pool.driver()).await;
}

async fn drains_with_a_holder<D: Driver>(bench: &Bench<D>) {
    const RULE: &str = "in a pool, a drain ends what a holder keeps";
    let pool = pool(bench);
    let held = lease(bench, &pool, RULE).await;
    let report = bench.in_time(RULE, "close", pool.close()).await;
    assert!(report.complete, "{RULE}: the drain left resources behind");
    assert_eq!(report.revoked, 1, "{RULE}: the lease was not revoked");
    drop(held);
    bench.nothing_is_left(RULE, pool.driver()).await;
}
