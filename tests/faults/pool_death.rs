//! F06, F07, F56: the pool dies, or there are two of it.

use std::time::Duration;

use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{LeaseKind, Service, Setup, case, eventually, for_both_kinds, rounds};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::sleep;

for_both_kinds!(f06_pool_killed_under_load, f07_pool_killed_while_a_browser_is_stopped);

async fn f06_pool_killed_under_load(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        for round in 0..rounds(4, 30) {
            let (address, site) = (case.service.address.clone(), case.site.url.clone());
            let clients = join_all((0..4).map(|_| keep_busy(&address, &site)));
            let moment = Duration::from_millis(fastrand::u64(0..1500));
            tokio::select! {
                _ = clients => unreachable!("clients go on until they are stopped"),
                () = sleep(moment) => {}
            }
            // What lives is looked at first: afterwards it has no parent to be known by.
            let living = case.oracle.ours.chromium().len();
            case.kill_service().await;
            let took = case.oracle.gone(Duration::from_secs(2)).await;
            println!("round {round}: {living} processes gone {took:?} after a kill at {moment:?}");
            case.restart().await;
        }
    })
    .await;
}

/// Leases and works, on and on, whatever fails.
async fn keep_busy(address: &str, site: &str) {
    loop {
        let Ok(client) = browser_pool_tests::Cdp::open(address, "/", &[]).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let created = client.call("Target.createTarget", serde_json::json!({ "url": site })).await;
        if created.is_ok() {
            sleep(Duration::from_millis(fastrand::u64(0..100))).await;
        }
    }
}

async fn f07_pool_killed_while_a_browser_is_stopped(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        client.page("about:blank").await;
        let stopped = case.service.browser_of(&client).await;
        let others: Vec<ProcessId> = case.oracle.ours.browsers().iter().map(|it| it.id).collect();
        stopped.signal(Signal::STOP);
        case.kill_service().await;
        eventually("those that run are gone", Duration::from_secs(2), async || {
            let left = others.iter().filter(|it| **it != stopped && it.is_alive()).count();
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        // A stopped process notices nothing: it is the next start that finds it.
        case.restart().await;
        assert!(!stopped.is_alive(), "the stopped Chromium was not swept away");
        assert!(case.home.log().contains("swept up"), "the sweep is not in the log");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f56_two_pools_on_one_state_directory() {
    case(Setup::new(), async |case| {
        let (exit, log) = Service::refused(&case.home, &case.setup).await;
        assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
        assert!(log.contains(&*case.home.state_dir().to_string_lossy()), "{log}");
        assert!(log.contains(&case.service.process.pid.to_string()), "not by whom: {log}");
    })
    .await;
}
