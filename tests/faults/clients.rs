//! F01, F03: clients that die or forget.

use std::time::Duration;

use browser_pool_tests::{
    Case, LeaseKind, Script, Setup, case, eventually, for_both_kinds, rounds,
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

for_both_kinds!(f01_client_killed_while_it_holds_a_lease, f03_client_never_releases,);

async fn f01_client_killed_while_it_holds_a_lease(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let case: &Case = case;
        let mut held = 0;
        for round in 0..rounds(3, 7) {
            let clients = (0..8).map(|number| kill_a_client(case, format!("c-{round}-{number}")));
            held += join_all(clients).await.into_iter().filter(|held| *held).count();
        }
        assert!(held > 0, "no client was killed while it held a lease");
        let gone = case.service.metric("browserpool_leases_ended_total", "client_gone").await;
        assert!(gone >= held as f64, "{held} were killed, {gone} ended with client_gone");
    })
    .await;
}

/// Starts a client in a process of its own and kills it at a random moment. Whether it held a
/// lease then.
async fn kill_a_client(case: &Case, name: String) -> bool {
    let url = case.service.url(&format!("/?trackingId={name}"));
    let mut client = Script::new("raw.mjs").args([&url]).start();
    sleep(Duration::from_millis(fastrand::u64(100..1500))).await;
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

async fn f03_client_never_releases(kind: LeaseKind) {
    let setup = Setup::new()
        .kind(kind)
        .set("pool.lease_idle_timeout", "2s")
        .set("pool.lease_timeout", "5s");
    case(setup, async |case| {
        let began = Instant::now();
        let silent = case.service.connect("/?trackingId=silent").await;
        let busy = case.service.connect("/?trackingId=busy").await;

        let sessions = case.service.sessions().await;
        let reported = sessions.iter().find(|session| session["trackingId"] == "silent");
        let reported = reported.expect("it is reported").clone();
        assert_eq!(reported["id"], silent.lease.clone().expect("the pool tells the lease"));
        assert!(reported["timeAliveMs"].is_u64() && reported["idleMs"].is_u64(), "{reported}");

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
        assert!(over.at - began >= Duration::from_secs(5), "too early: {:?}", over.at - began);
        for reason in ["idle_timeout", "lease_limit"] {
            let ended = case.service.metric("browserpool_leases_ended_total", reason).await;
            assert_eq!(ended, 1.0, "{reason}");
        }
    })
    .await;
}
