use super::bench::Bench;
use crate::Driver;

pub(super) async fn run<D: Driver>(bench: &mut Bench<D>) {
    works_when_new(bench).await;
    works_after_recycling(bench).await;
    lives_beside_others(bench).await;
    cleans_up_when_dropped(bench).await;
}

async fn works_when_new<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a new resource passes its check";
    let mut made = bench.create(RULE).await;
    bench.check(RULE, &mut made).await;
    bench.check(RULE, &mut made).await;
    let reports = made.reports.broken();
    assert!(reports.is_empty(), "{RULE}: it reported {reports:?}");
    bench.close(RULE, made).await;
    bench.ends_well(RULE).await;
}

async fn works_after_recycling<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a recycled resource passes its check, every time";
    let mut made = bench.create(RULE).await;
    for _ in 0..3 {
        bench.recycle(RULE, &mut made).await;
        bench.check(RULE, &mut made).await;
    }
    let reports = made.reports.broken();
    assert!(reports.is_empty(), "{RULE}: it reported {reports:?}");
    bench.close(RULE, made).await;
    bench.ends_well(RULE).await;
}

async fn lives_beside_others<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "the end of one resource does not touch another";
    let first = bench.create(RULE).await;
    let mut second = bench.create(RULE).await;
    bench.close(RULE, first).await;
    bench.check(RULE, &mut second).await;
    let third = bench.create(RULE).await;
    drop(third);
    bench.check(RULE, &mut second).await;
    bench.recycle(RULE, &mut second).await;
    bench.close(RULE, second).await;
    bench.ends_well(RULE).await;
}

async fn cleans_up_when_dropped<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a resource may be dropped without a close, on a thread without a runtime";
    let made = bench.create(RULE).await;
    let resource = made.resource;
    let dropped = std::thread::spawn(move || drop(resource)).join();
    assert!(dropped.is_ok(), "{RULE}: the drop panicked");
    bench.ends_well(RULE).await;
}
