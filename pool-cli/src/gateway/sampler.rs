//! Once a second: a point of the history, and a snapshot for those who watch.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Gateway;
use super::history::Point;
use super::machine::Meter;
use super::who::Who;
use crate::metrics::Metrics;

/// Interval at which the plots move.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which the memory of the browsers is read: it takes a while in `/proc`.
const MEMORY_INTERVAL: u32 = 10;

/// Seconds between the times at which what tenants use is written down.
const USAGE_INTERVAL: u32 = 30;

/// Runs until the gateway is gone.
pub(super) async fn run(gateway: Weak<Gateway>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut meter = Meter::default();
    let mut second = 0_u32;
    loop {
        ticks.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let stats = gateway.fleet().stats();
        let wait = gateway.observer().waits().summary();
        let point = Point {
            at_ms: super::views::unix_ms(),
            active: stats.load.leased,
            idle: stats.load.idle,
            total: stats.load.total(),
            waiting: stats.load.waiting,
            avg_wait_ms: wait.avg_ms,
            p95_wait_ms: wait.p95_ms,
            utilization: stats.load.utilization(),
            rejected: stats.counters.rejected,
            released: stats.counters.released,
        };
        gateway.history.add(point, meter.read());
        if u64::from(second).is_multiple_of(Metrics::UPKEEP_INTERVAL.as_secs()) {
            gateway.observer().metrics().upkeep();
        }
        if second % USAGE_INTERVAL == USAGE_INTERVAL - 1 {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { gateway.write_usage().await });
        }
        if second.is_multiple_of(MEMORY_INTERVAL) {
            // It may take a while, and the next second does not wait for it.
            let fleet = Arc::clone(gateway.fleet());
            tokio::spawn(async move { fleet.measure().await });
        }
        gateway.watchers.publish(|| snapshot(&gateway));
        second = second.wrapping_add(1);
    }
}

fn snapshot(gateway: &Gateway) -> Arc<str> {
    let snapshot = gateway.snapshot(&Who::Operator);
    serde_json::to_string(&snapshot).expect("a snapshot is plain data").into()
}
