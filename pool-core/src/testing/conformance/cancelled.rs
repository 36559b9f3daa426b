use std::time::Duration;

use tokio::time::timeout;

use super::bench::Bench;
use crate::Driver;
use crate::testing::reporter;

pub(super) async fn run<D: Driver>(bench: &mut Bench<D>) {
    let took = bench.took;
    for part in [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0] {
        create(bench, took.mul_f64(part)).await;
    }
    // A recycling, a check and a close take some part of a creation, so they are cut off early.
    for part in [0.0, 0.02, 0.1, 0.3] {
        let after = took.mul_f64(part);
        check(bench, after).await;
        recycle(bench, after).await;
        close(bench, after).await;
    }
}

async fn create<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a creation may be dropped half-way, here after {after:?}");
    let (meta, spec) = (bench.meta(), bench.spec());
    let (reporter, _reports) = reporter(&meta);
    if let Ok(Ok(resource)) = timeout(after, bench.driver.create(&spec, &meta, reporter)).await {
        bench.in_time(&rule, "close", bench.driver.close(resource, &meta)).await;
    }
    bench.ends_well(&rule).await;
}

async fn check<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a check may be dropped half-way, here after {after:?}");
    let mut made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.check(&mut made.resource, &made.meta)).await);
    // The pool closes what it could not check in time.
    bench.close(&rule, made).await;
    bench.ends_well(&rule).await;
}

async fn recycle<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a recycling may be dropped half-way, here after {after:?}");
    let mut made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.recycle(&mut made.resource, &made.meta)).await);
    // The pool closes what it could not recycle in time.
    bench.close(&rule, made).await;
    bench.ends_well(&rule).await;
}

async fn close<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a close may be dropped half-way, here after {after:?}");
    let made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.close(made.resource, &made.meta)).await);
    bench.ends_well(&rule).await;
}
