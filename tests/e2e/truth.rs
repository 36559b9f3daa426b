//! Many leases, and browsers that crash in the middle of some: what the counters, the log, the API
//! and `/proc` tell of it is the same.

use std::time::Duration;

use browser_pool_tests::{Case, LeaseKind, Setup, case, for_both_kinds, rounds};
use futures_util::StreamExt;
use futures_util::stream::iter;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Every so many leases the Chromium of one is killed.
const CRASH_EVERY: usize = 25;

for_both_kinds!(everything_tells_the_same);

async fn everything_tells_the_same(kind: LeaseKind) {
    let setup = Setup::new().kind(kind).size(4).set("pool.acquire_timeout", "5m");
    case(setup, async |case| {
        let case: &Case = case;
        iter(1..=rounds(150, 1_000))
            .for_each_concurrent(8, async |number| {
                let client = case.service.connect("/").await;
                if number % CRASH_EVERY == 0 {
                    case.service.browser_of(&client).await.signal(Signal::KILL);
                    client.closed(Duration::from_secs(30)).await;
                } else {
                    // With a shared lease it may be in the Chromium that is killed.
                    let _ =
                        client.call("Target.createTarget", json!({ "url": "about:blank" })).await;
                    client.close().await;
                }
            })
            .await;
        // The processes are compared with the API here, and at the end of every case.
        case.oracle.at_rest(&case.service).await;

        let state = case.service.state().await;
        let counted = |name: &str| state["counters"][name].as_u64().expect("a counter");
        let log: Vec<Value> = case
            .home
            .log()
            .lines()
            .map(|line| serde_json::from_str(line).expect("the log is JSON"))
            .collect();
        let logged = |message: &str| log.iter().filter(|line| line["message"] == message).count();
        let metrics = case.service.get("/metrics").await.text();
        let sum = |name: &str, label: &str| -> f64 {
            let series =
                metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let alike = [
            (
                "leases",
                counted("acquired"),
                logged("lease over"),
                sum("browserpool_acquires_total", "\"granted\""),
            ),
            (
                "ends",
                counted("released"),
                logged("lease over"),
                sum("browserpool_leases_ended_total", ""),
            ),
            (
                "launches",
                counted("created"),
                logged("browser ready"),
                sum("browserpool_browser_launches_total", "\"ok\""),
            ),
            (
                "failures",
                counted("create_failed"),
                logged("browser could not be launched"),
                sum("browserpool_browser_launches_total", "\"error\""),
            ),
            (
                "exits",
                counted("closed"),
                logged("closing a browser"),
                sum("browserpool_browser_exits_total", ""),
            ),
        ];
        for (what, counter, lines, metric) in alike {
            assert_eq!(
                (counter, counter as f64),
                (lines as u64, metric),
                "{what}: the API, then the log and the metric"
            );
        }
        let live = state["load"]["total"].as_u64().expect("a number");
        assert_eq!(
            counted("created") - counted("closed"),
            live,
            "what was made and is not gone is there"
        );
        assert!(counted("closed") > 0, "nothing has crashed");
    })
    .await;
}
