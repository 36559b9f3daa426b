//! F05, F08, F09, F10: browsers and their renderers die.

use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{
    Case, Cdp, Home, LeaseKind, Setup, case, case_alone, eventually, for_both_kinds, rounds, within,
};
use futures_util::StreamExt;
use futures_util::stream::iter;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{kill_idle, until_full, until_released, works};

for_both_kinds!(
    f05_zombies,
    f08_crash_litter,
    f09_browser_killed_during_a_lease,
    f09_browser_crashed_by_its_client,
    f10_renderer_dies,
);

async fn f05_zombies(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let leases = iter(0..rounds(60, 200)).map(|_| async {
            let client = case.service.connect("/").await;
            works(&client).await.expect("a fresh lease works");
            client.close().await;
        });
        leases.buffer_unordered(4).collect::<()>().await;
        for _ in 0..rounds(5, 25) {
            // One that dies before its first lease counts as a launch that failed, which is to be
            // tried more slowly.
            drop(lease_all(case).await);
            until_full(&case.service).await;
            kill_idle(case).await;
            until_full(&case.service).await;
        }
    })
    .await;
}

async fn f08_crash_litter(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        for _ in 0..rounds(3, 20) {
            let client = case.service.connect("/").await;
            client.page(&case.site.at("/download/slow")).await;
            client.page(&case.site.at("/storage.html")).await.eval("write('x')").await;
            case.service.browser_of(&client).await.signal(Signal::KILL);
            assert_eq!(client.closed(Duration::from_secs(5)).await.code, 4500);
            until_full(&case.service).await;
        }
    })
    .await;
}

/// Leases all there are, each with the process behind it.
async fn lease_all(case: &Case) -> Vec<(Cdp, ProcessId)> {
    let mut leases = Vec::new();
    for _ in 0..case.service.state().await["load"]["max_size"].as_u64().unwrap_or_default() {
        let client = case.service.connect("/").await;
        client.page("about:blank").await;
        let browser = case.service.browser_of(&client).await;
        leases.push((client, browser));
    }
    leases
}

async fn f09_browser_killed_during_a_lease(kind: LeaseKind) {
    case_alone(Home::new(), Setup::new().kind(kind), async |case| {
        let leases = lease_all(case).await;
        let victim = leases[0].1;
        let (hit, spared): (Vec<_>, Vec<_>) =
            leases.iter().partition(|(_, browser)| *browser == victim);
        assert!(!spared.is_empty(), "all leases are in one Chromium");
        let killed = Instant::now();
        victim.signal(Signal::KILL);
        for (client, _) in &hit {
            let closed = client.closed(Duration::from_secs(10)).await;
            let told = closed.at - killed;
            assert_eq!(closed.code, 4500, "{closed:?}");
            assert!(closed.reason.starts_with("browser_crashed"), "{closed:?}");
            assert!(told <= Duration::from_secs(1), "told after {told:?}");
        }
        for (client, _) in &spared {
            works(client).await.expect("another Chromium's death is not theirs");
        }
        case.service.until_ended("browser_crashed", |crashed| crashed == hit.len() as f64).await;
        drop(leases);
        until_full(&case.service).await;
    })
    .await;
}

async fn f09_browser_crashed_by_its_client(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let leases = lease_all(case).await;
        let culprit = leases[0].1;
        for method in ["Browser.crash", "Browser.crashGpuProcess"] {
            // Refused or obeyed: others must not notice.
            let answer = leases[0].0.begin(None, method, json!({})).await;
            if let Ok(answer) = answer {
                let _ = tokio::time::timeout(Duration::from_secs(2), answer).await;
            }
        }
        for (client, browser) in &leases[1..] {
            let shared = *browser == culprit;
            works(client).await.unwrap_or_else(|error| panic!("shared: {shared}: {error}"));
        }
        drop(leases);
        until_full(&case.service).await;
    })
    .await;
}

async fn f10_renderer_dies(kind: LeaseKind) {
    // Places of others in the same Chromium are given up at their next check.
    let setup = Setup::new().kind(kind).set("pool.health_check_interval", "1s");
    case(setup, async |case| {
        let client = case.service.connect("/").await;
        let browser = case.service.browser_of(&client).await;
        let page = client.page(&case.site.at("/title.html")).await;
        page.call("Inspector.enable", json!({})).await.expect("the page answers");
        let mut events = client.events();
        match kind {
            LeaseKind::Exclusive => {
                for renderer in case.oracle.ours.helpers(browser, "renderer") {
                    renderer.id.signal(Signal::KILL);
                }
            }
            // In a Chromium of others only its own.
            LeaseKind::Shared => page.crash().await,
        }
        let limit = Duration::from_secs(10);
        let crash = page.wait(&mut events, "Inspector.targetCrashed", limit);
        crash.await.expect("the client is told of its crashed page");
        works(&client).await.expect("the lease is usable still");
        within("goodbye", limit, client.close()).await;
        until_released(&case.service, limit).await;
        eventually("the Chromium is replaced", Duration::from_secs(20), async || {
            if browser.is_alive() { Err(browser) } else { Ok(()) }
        })
        .await;
    })
    .await;
}
