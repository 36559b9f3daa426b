//! F11, F12, F13: browsers that live and do not answer.

use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{
    Case, LeaseKind, Setup, case, eventually, for_both_kinds, rounds, within,
};
use futures_util::StreamExt;
use futures_util::stream::iter;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::support::{until_full, works};

for_both_kinds!(
    f11_idle_browser_hangs,
    f12_leased_browser_hangs,
    f12_leased_browser_comes_back_in_time,
    f13_no_page_can_be_made,
);

/// Checked every second, so that a test need not wait for half a minute.
fn checked(kind: LeaseKind) -> Setup {
    Setup::new().kind(kind).set("pool.health_check_interval", "1s")
}

/// The Chromium that has idled longest: the one that the next client gets last or first.
async fn an_idle_browser(case: &Case) -> ProcessId {
    // Longer than the interval, so that it is due for a check at hand-out too.
    sleep(Duration::from_millis(1200)).await;
    let pids = case.service.browser_pids("idle").await;
    ProcessId::of(pids[0]).expect("it lives")
}

async fn until_replaced(browser: ProcessId, limit: Duration) -> Duration {
    eventually("the Chromium is killed", limit, async || {
        if browser.is_alive() { Err(browser) } else { Ok(()) }
    })
    .await
}

async fn f11_idle_browser_hangs(kind: LeaseKind) {
    case(checked(kind), async |case| {
        let case: &Case = case;
        let hung = an_idle_browser(case).await;
        hung.signal(Signal::STOP);
        let leases = iter(0..rounds(60, 200)).map(|number| async move {
            let client = case.service.connect("/").await;
            let began = Instant::now();
            works(&client).await.unwrap_or_else(|error| panic!("lease {number} is dead: {error}"));
            let took = began.elapsed();
            client.close().await;
            took
        });
        let slowest = leases.buffer_unordered(2).collect::<Vec<_>>().await.into_iter().max();
        println!("the slowest first commands took {slowest:?}");
        let found = until_replaced(hung, Duration::from_secs(15)).await;
        println!("it was killed {found:?} after the last lease");
        until_full(&case.service).await;
    })
    .await;
}

async fn f12_leased_browser_hangs(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        client.page("about:blank").await;
        let browser = case.service.browser_of(&client).await;
        let stopped = Instant::now();
        browser.signal(Signal::STOP);
        let closed = client.closed(Duration::from_secs(30)).await;
        assert_eq!(closed.code, 4500, "{closed:?}");
        assert!(closed.reason.starts_with("browser_hung"), "{closed:?}");
        println!("told after {:?}", closed.at - stopped);
        until_replaced(browser, Duration::from_secs(5)).await;
        until_full(&case.service).await;
    })
    .await;
}

async fn f12_leased_browser_comes_back_in_time(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        let page = client.page("about:blank").await;
        let browser = case.service.browser_of(&client).await;
        browser.signal(Signal::STOP);
        sleep(Duration::from_secs(4)).await;
        browser.signal(Signal::CONT);
        assert_eq!(page.eval("42").await, 42);
        assert!(client.has_closed().is_none());
        within("goodbye", Duration::from_secs(10), client.close()).await;
        assert!(browser.is_alive(), "it was replaced for nothing");
    })
    .await;
}

async fn f13_no_page_can_be_made(kind: LeaseKind) {
    case(checked(kind), async |case| {
        let broken = an_idle_browser(case).await;
        let zygotes = case.oracle.ours.helpers(broken, "zygote");
        assert!(!zygotes.is_empty(), "this Chromium has no zygote");
        for zygote in zygotes {
            zygote.id.signal(Signal::KILL);
        }
        until_replaced(broken, Duration::from_secs(60)).await;
        let failed =
            case.service.metric("browserpool_health_checks_total", "outcome=\"error\"").await;
        assert!(failed >= 1.0, "it was not a check that found it");
        until_full(&case.service).await;
    })
    .await;
}
