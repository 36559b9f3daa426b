use std::time::Duration;

use tokio::time::timeout;

use super::bench::Bench;
use crate::Driver;

pub(super) async fn run<D: Driver>(bench: &mut Bench<D>) {
    under_its_holder(bench).await;
    leaves_others_alone(bench).await;
    of_the_unknown(bench).await;
    dropped_half_way(bench).await;
}

async fn under_its_holder<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revoked resource may be dropped by its holder later, anywhere";
    let made = bench.create(RULE).await;
    bench.revoke(RULE, &made.meta).await;
    let resource = made.resource;
    let dropped = std::thread::spawn(move || drop(resource)).join();
    assert!(dropped.is_ok(), "{RULE}: the drop panicked");
    bench.ends_well(RULE).await;
}

async fn leaves_others_alone<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revocation ends one resource and no other";
    let revoked = bench.create(RULE).await;
    let mut other = bench.create(RULE).await;
    bench.revoke(RULE, &revoked.meta).await;
    bench.check(RULE, &mut other).await;
    drop(revoked);
    bench.check(RULE, &mut other).await;
    bench.close(RULE, other).await;
    bench.ends_well(RULE).await;
}

async fn of_the_unknown<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "revoking what is gone, or never was, does nothing";
    let made = bench.create(RULE).await;
    let gone = made.meta.clone();
    bench.close(RULE, made).await;
    bench.revoke(RULE, &gone).await;
    let never = bench.meta();
    bench.revoke(RULE, &never).await;
    bench.ends_well(RULE).await;
}

async fn dropped_half_way<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revocation may be dropped half-way";
    let made = bench.create(RULE).await;
    drop(timeout(Duration::ZERO, bench.driver.revoke(&made.meta)).await);
    drop(made);
    bench.ends_well(RULE).await;
}
