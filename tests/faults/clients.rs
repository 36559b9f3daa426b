//! F01, F02, F03: clients that die, vanish or forget.

use std::time::Duration;

use browser_pool_tests::{
    Case, FarMachine, LeaseKind, Script, Setup, case, eventually, for_both_kinds, rounds,
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

for_both_kinds!(
    f01_client_killed_while_it_holds_a_lease,
    f02_client_vanishes_with_its_machine,
    f03_client_never_releases,
);

async fn f01_client_killed_while_it_holds_a_lease(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let (mut held, mut round) = (0, 0);
        // A machine that is slow to start clients gets more time, until some have a lease.
        while round < rounds(3, 7) || held == 0 && round < 12 {
            let longest = 1500 << (round / 3);
            let clients = (0..8).map(|number| kill_a_client(case, round, number, longest));
            held += join_all(clients).await.into_iter().filter(|held| *held).count();
            round += 1;
        }
        assert!(held > 0, "no client was killed while it held a lease");
        println!("{held} were killed while they held a lease");
        case.service.until_ended("client_gone", |gone| gone >= held as f64).await;
    })
    .await;
}

/// Starts a client in a process of its own and kills it at a random moment. Whether it held a
/// lease then.
async fn kill_a_client(case: &Case, round: usize, number: usize, longest: u64) -> bool {
    let name = format!("c-{round}-{number}");
    let url = case.service.url(&format!("/?trackingId={name}"));
    let mut client = Script::new("raw.mjs").args([&url]).start();
    sleep(Duration::from_millis(fastrand::u64(100..longest))).await;
    let holds = async || {
        let sessions = case.service.sessions().await;
        sessions.iter().any(|session| session["trackingId"] == *name)
    };
    let held = holds().await;
    client.kill().await.expect("it runs until it is killed");
    eventually("its lease is reclaimed", Duration::from_secs(2), async || {
        if holds().await { Err(&name) } else { Ok(()) }
    })
    .await;
    held
}

async fn f02_client_vanishes_with_its_machine(kind: LeaseKind) {
    const BACK: Duration = Duration::from_secs(25);
    const TOKEN: &str = "what-the-far-machine-shows";
    let Some(far) = FarMachine::connect() else {
        assert!(!rustix::process::geteuid().is_root(), "root can lay a cable: is iproute2 there?");
        println!("skipped: there is no second machine to be had here");
        return;
    };
    let setup = Setup::new()
        .kind(kind)
        .set("gateway.listen", format!("{}:0", far.near))
        .set("pool.max_size", 2)
        .set("pool.min_size", 2)
        .set("gateway.token", TOKEN)
        .tokened(TOKEN);
    case(setup, async |case| {
        let url = |name| case.service.url(&format!("/?token={TOKEN}&trackingId={name}"));
        let client =
            |name| Script::new("raw.mjs").args([&url(name)]).started_by(&far.starter()).talk();
        // One whose page says something each second, so that there is always something on its way.
        let mut told = client("told");
        let made =
            told.ask(r#"{"method":"Target.createTarget","params":{"url":"about:blank"}}"#).await;
        let target = &made["result"]["targetId"];
        let attach = json!({ "method": "Target.attachToTarget",
            "params": { "targetId": target, "flatten": true } });
        let attached = told.ask(&attach.to_string()).await;
        let session = &attached["result"]["sessionId"];
        let enable = json!({ "method": "Runtime.enable", "sessionId": session });
        told.ask(&enable.to_string()).await;
        let ticking = json!({ "method": "Runtime.evaluate", "sessionId": session,
            "params": { "expression": "setInterval(() => console.log('tick'), 1000)" } });
        told.ask(&ticking.to_string()).await;
        // One to which nothing is sent, and one that has no browser yet.
        let mut quiet = client("quiet");
        quiet.ask(r#"{"method":"Browser.getVersion"}"#).await;
        let waiting = client("waiting");
        eventually("the third one waits", Duration::from_secs(20), async || {
            let waiting = case.service.state().await["load"]["waiting"].clone();
            if waiting == 1 { Ok(()) } else { Err(waiting) }
        })
        .await;

        far.cut();
        let cut = Instant::now();
        eventually("all three are noticed", BACK, async || {
            let state = case.service.state().await;
            let sessions = case.service.sessions().await;
            let left: Vec<_> =
                sessions.iter().map(|session| session["trackingId"].clone()).collect();
            let waiting = state["load"]["waiting"].clone();
            if left.is_empty() && waiting == 0 { Ok(()) } else { Err((left, waiting)) }
        })
        .await;
        println!("noticed after {:?}", cut.elapsed());
        assert!(cut.elapsed() <= BACK, "noticed after {:?}", cut.elapsed());
        case.service.until_ended("client_gone", |gone| gone >= 2.0).await;
        for client in [told, quiet, waiting] {
            client.kill().await;
        }
    })
    .await;
}

async fn f03_client_never_releases(kind: LeaseKind) {
    let setup = Setup::new()
        .kind(kind)
        .set("pool.lease_idle_timeout", "2s")
        .set("pool.lease_timeout", "5s");
    case(setup, async |case| {
        let began = Instant::now();
        let silent = case.service.connect("/?trackingId=silent").await;
        let sessions = case.service.sessions().await;
        let reported = sessions.iter().find(|session| session["trackingId"] == "silent");
        let reported = reported.expect("it is reported").clone();
        assert_eq!(reported["id"], silent.lease.clone().expect("the pool tells the lease"));
        assert!(reported["timeAliveMs"].is_u64() && reported["idleMs"].is_u64(), "{reported}");

        // Only now: it may take a while, and the silent one has two seconds.
        let came = Instant::now();
        let busy = case.service.connect("/?trackingId=busy").await;
        let talk = async {
            while busy.has_closed().is_none() {
                // Until the pool cuts it off.
                let _ = busy.call("Browser.getVersion", json!({})).await;
                sleep(Duration::from_millis(200)).await;
            }
        };
        let limit = Duration::from_secs(15);
        let (idle, over, ()) = tokio::join!(silent.closed(limit), busy.closed(limit), talk);
        assert_eq!(idle.code, 4408, "{idle:?}");
        assert!(idle.at - began >= Duration::from_secs(2), "too early: {:?}", idle.at - began);
        assert_eq!(over.code, 4410, "{over:?}");
        assert!(over.at - came >= Duration::from_secs(5), "too early: {:?}", over.at - came);
        for reason in ["idle_timeout", "lease_limit"] {
            case.service.until_ended(reason, |ended| ended == 1.0).await;
        }
    })
    .await;
}
