//! F14 to F17, F19, F21: Chromiums that are not there, do not start, or start all at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use browser_pool_tests::{
    Case, Home, LeaseKind, Refused, Setup, case, case_alone, case_in, eventually, for_both_kinds,
    refused, rounds,
};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{REFILL, StandIn, kill_idle, until_full, works};

#[tokio::test(flavor = "multi_thread")]
async fn f14_chromium_missing_at_start() {
    let setup = Setup::new().set("chrome.executable", "/nowhere/chromium");
    let (exit, log) = refused(Home::new(), &setup).await;
    assert_eq!(exit.code, Some(78), "{log}");
    assert!(log.contains("/nowhere/chromium"), "{log}");
}

/// A case whose Chromium can be made to fail, and is whole again in the end.
async fn with_stand_in(setup: Setup, fault: impl AsyncFnOnce(&Case, &StandIn)) {
    let home = Home::new();
    let stand_in = StandIn::new(home.path());
    let setup = setup.set("chrome.executable", stand_in.path());
    case_in(home, setup, async |case| {
        fault(case, &stand_in).await;
        stand_in.heal();
        // The breaker waits for half a minute at most before it tries again.
        eventually("it heals by itself", Duration::from_secs(90), async || {
            let load = case.service.state().await["load"].clone();
            if load["idle"] == load["min_size"] { Ok(()) } else { Err(load) }
        })
        .await;
    })
    .await;
}

/// Launches that failed so far, as the pool counts them.
async fn failures(case: &Case) -> f64 {
    let all = case.service.metric("browserpool_browser_launches_total", "outcome=").await;
    all - case.service.metric("browserpool_browser_launches_total", "outcome=\"ok\"").await
}

/// A lease that cannot be had: the answer, and how long it took.
async fn no_lease(case: &Case) -> (Refused, Duration) {
    let began = Instant::now();
    let refused = case.service.try_connect("/?acquire_timeout=20000").await;
    (refused.expect_err("there is no Chromium"), began.elapsed())
}

/// Kills what idles, so that the pool must launch, and watches what it does for a while: it tries
/// at most eight times a minute, and refuses at once.
async fn launches_fail(case: &Case, watched: Duration) -> Refused {
    let began = Instant::now();
    kill_idle(case).await;
    eventually("a launch has failed", REFILL, async || {
        let failed = failures(case).await;
        if failed > 0.0 { Ok(()) } else { Err(failed) }
    })
    .await;
    let (first, _) = no_lease(case).await;
    sleep(watched.saturating_sub(began.elapsed())).await;
    let (then, took) = no_lease(case).await;
    assert_eq!(then.status, 503, "{then:?} (at first {first:?})");
    assert_eq!(then.code(), "browser_unavailable", "{then:?}");
    assert!(then.retry_after.is_some(), "{then:?}");
    assert!(took <= Duration::from_secs(1), "refused after {took:?}");
    let tries = failures(case).await;
    println!("{tries} tries within {:?}", began.elapsed());
    assert!(tries <= 8.0, "{tries} tries within {:?}", began.elapsed());
    then
}

fn watched() -> Duration {
    Duration::from_secs(rounds(12, 60) as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_chromium_missing_at_run_time() {
    with_stand_in(Setup::new(), async |case, stand_in| {
        stand_in.vanish();
        let told = launches_fail(case, watched()).await;
        assert!(told.detail().contains(&stand_in.path()), "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_chromium_exits_at_once() {
    with_stand_in(Setup::new(), async |case, stand_in| {
        stand_in.become_fake("exit");
        let told = launches_fail(case, watched()).await;
        assert!(told.detail().contains("cannot open the display"), "no tail of stderr: {told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_chromium_never_gets_ready() {
    let setup = Setup::new().set("chrome.launch_timeout", "5s");
    with_stand_in(setup, async |case, stand_in| {
        stand_in.become_fake("silent");
        launches_fail(case, watched()).await;
        stand_in.heal();
        eventually("those that never got ready are killed", Duration::from_secs(10), async || {
            let chromium = case.oracle.ours.chromium();
            let fakes = chromium.iter().filter(|process| process.name.starts_with("fake")).count();
            if fakes == 0 { Ok(()) } else { Err(fakes) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_chromium_floods_stderr() {
    with_stand_in(Setup::new(), async |case, stand_in| {
        stand_in.become_fake("flood");
        let logged = case.home.log().len();
        let before = case.service.process.status("VmRSS").expect("it runs");
        kill_idle(case).await;
        until_full(&case.service).await;
        for _ in 0..5 {
            let began = Instant::now();
            let client = case.service.connect("/").await;
            works(&client).await.expect("it answers while it floods");
            client.close().await;
            println!("a lease took {:?}", began.elapsed());
        }
        let after = case.service.process.status("VmRSS").expect("it runs");
        assert!(after < before + 32 * 1024, "{before} KiB became {after} KiB");
        let logged = case.home.log().len() - logged;
        assert!(logged < 100_000, "{logged} bytes of it went to the log");
        stand_in.heal();
        kill_idle(case).await;
    })
    .await;
}

for_both_kinds!(f19_cold_herd);

async fn f19_cold_herd(kind: LeaseKind) {
    const MAX: i64 = 8;
    let setup = Setup::new()
        .kind(kind)
        .set("pool.min_size", 0)
        .set("pool.max_size", MAX)
        .set("pool.max_creating", 2)
        .set("pool.acquire_timeout", "5m");
    case(setup, async |case| {
        let case: &Case = case;
        let before = case.service.state().await;
        let done = AtomicBool::new(false);
        let herd = async {
            let clients = (0..rounds(150, 500)).map(|number| async move {
                let client = case.service.connect("/").await;
                works(&client).await.unwrap_or_else(|error| panic!("lease {number}: {error}"));
                client.close().await;
            });
            join_all(clients).await;
            done.store(true, Ordering::Release);
        };
        let watch = async {
            let mut most = (0, 0);
            while !done.load(Ordering::Acquire) {
                let load = case.service.state().await["load"].clone();
                let count = |name: &str| load[name].as_i64().unwrap_or_default();
                most = (most.0.max(count("creating")), most.1.max(count("total")));
                sleep(Duration::from_millis(50)).await;
            }
            most
        };
        let ((), (creating, total)) = tokio::join!(herd, watch);
        assert!(creating <= 2, "{creating} were launched at once");
        assert!(total <= MAX, "there were {total}");
        let counters = case.service.state().await["counters"].clone();
        let count = |value: &Value| value.as_i64().unwrap_or_default();
        let since = |name: &str| count(&counters[name]) - count(&before["counters"][name]);
        // A machine that is overloaded cannot clean up in time, and replaces what it cannot clean.
        let wanted = MAX + since("recycle_failed") + since("checks_failed");
        let created = count(&before["load"]["total"]) + since("created");
        assert!(created <= wanted, "{created} were created for one herd of {wanted}: {counters}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_timeout_meets_ready() {
    let home = Home::new();
    let stand_in = StandIn::new(home.path());
    let real = browser_pool_tests::Engine::any_executable();
    let setup = Setup::new()
        .set("chrome.executable", stand_in.path())
        .set("pool.min_size", 0)
        .set("pool.max_size", 1)
        .set("warming.min_idle", 0);
    case_alone(home, setup, async |case| {
        stand_in.become_script(&format!("sleep 1; exec {} \"$@\"", real.display()));
        let began = Instant::now();
        let refused = case.service.try_connect("/?acquire_timeout=1000").await;
        let waited = began.elapsed();
        let refused = refused.expect_err("it is not ready yet");
        assert_eq!(refused.status, 408, "{refused:?}");
        assert!(waited <= Duration::from_millis(1100), "refused after {waited:?}");
        eventually("the browser is kept", REFILL, async || {
            let load = case.service.state().await["load"].clone();
            if load["idle"] == 1 { Ok(()) } else { Err(load) }
        })
        .await;
        let created: Value = case.service.state().await["counters"]["created"].clone();
        case.service.connect("/").await.close().await;
        assert_eq!(case.service.state().await["counters"]["created"], created);
        stand_in.heal();
    })
    .await;
}
