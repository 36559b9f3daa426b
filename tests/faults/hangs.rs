//! F11, F12, F13, F52: browsers that live and do not answer, or answer late.

use std::process::{Child, Command};
use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{
    Case, Cdp, Home, LeaseKind, Setup, case, case_alone, eventually, for_both_kinds, rounds, within,
};
use futures_util::StreamExt;
use futures_util::stream::iter;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{until_full, works};

for_both_kinds!(
    f11_idle_browser_hangs,
    f12_leased_browser_hangs,
    f12_leased_browser_comes_back_in_time,
    f13_no_page_can_be_made,
    f52_a_busy_machine_is_not_a_hung_browser,
);

/// Checked every second, so that a test need not wait for half a minute.
fn checked(kind: LeaseKind) -> Setup {
    Setup::new().kind(kind).set("pool.health_check_interval", "1s")
}

/// The Chromium that has idled longest: the one that the next client gets last or first.
async fn an_idle_browser(case: &Case) -> ProcessId {
    // Longer than the interval, so that it is due for a check at hand-out too.
    sleep(Duration::from_millis(1200)).await;
    let mut idle = None;
    // At one moment all may be under a check.
    eventually("one is idle", Duration::from_secs(20), async || {
        idle = case.service.browser_pids("idle").await.first().copied();
        idle.map(drop).ok_or("none")
    })
    .await;
    idle.and_then(ProcessId::of).expect("it lives")
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

/// Programs that use all the CPU they get, fifteen for each core. They end with this.
struct Load(Vec<Child>);

impl Load {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let busy = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Self((0..15 * cores).map(|_| busy().expect("there is a shell")).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for busy in &mut self.0 {
            // It has not ended by itself.
            let _ = busy.kill();
            let _ = busy.wait();
        }
    }
}

/// How long the machine is overloaded: for some ten checks of the idle browser.
const OVERLOADED: Duration = Duration::from_secs(30);

async fn f52_a_busy_machine_is_not_a_hung_browser(kind: LeaseKind) {
    let setup = checked(kind)
        .set("pool.min_size", 4)
        .set("pool.max_size", 4)
        // A third of what they are, so that what takes minutes otherwise shows in one.
        .set("chrome.hang_timeout", "3s")
        .set("chrome.check_timeout", "500ms");
    case_alone(Home::new(), setup, async |case| {
        let case: &Case = case;
        let (large, wide) = tokio::join!(case.service.connect("/"), case.service.connect("/"));
        let (answers, pictures) = tokio::join!(large.page("about:blank"), wide.page("about:blank"));
        let idle = case.service.connect("/").await;
        idle.page("about:blank").await;
        let known = case.service.browser_pids("").await;
        let load = Load::new();
        // What kept a browser from answering for as long as the limit.
        let answer = async {
            loop {
                // One may take longer than the client waits for it; the browser must live.
                let _ = answers.try_eval("'x'.repeat(98_000_000)").await;
            }
        };
        let picture = async {
            loop {
                let params = json!({ "format": "png", "captureBeyondViewport": true,
                    "clip": { "x": 0, "y": 0, "width": 5000, "height": 5000, "scale": 1 } });
                let _ = pictures.call("Page.captureScreenshot", params).await;
            }
        };
        // The fourth is idle, and checked each second meanwhile.
        tokio::select! {
            () = answer => {}
            () = picture => {}
            () = sleep(OVERLOADED) => {}
        }
        let bytes = case.service.metric("browserpool_gateway_bytes_total", "out").await;
        println!("{bytes} bytes of answers and pictures");
        for client in [&large, &wide, &idle] {
            assert!(client.has_closed().is_none(), "{:?}", client.has_closed());
        }
        let failed =
            case.service.metric("browserpool_health_checks_total", "outcome=\"error\"").await;
        assert_eq!(failed, 0.0, "checks have failed");
        for reason in ["check_failed", "broken"] {
            let exits = case.service.metric("browserpool_browser_exits_total", reason).await;
            assert_eq!(exits, 0.0, "browsers were ended as {reason}");
        }
        assert_eq!(case.service.browser_pids("").await, known, "browsers were replaced");

        // One that stands still is found all the same.
        stopped_is_found(case, &idle).await;
        drop((load, large, wide));
        until_full(&case.service).await;
    })
    .await;
}

async fn stopped_is_found(case: &Case, client: &Cdp) {
    let browser = case.service.browser_of(client).await;
    let began = Instant::now();
    browser.signal(Signal::STOP);
    let closed = client.closed(Duration::from_secs(60)).await;
    assert_eq!(closed.code, 4500, "{closed:?}");
    assert!(closed.reason.starts_with("browser_hung"), "{closed:?}");
    println!("a stopped one was found after {:?}", closed.at - began);
    until_replaced(browser, Duration::from_secs(10)).await;
}
