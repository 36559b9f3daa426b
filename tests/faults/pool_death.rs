//! F06, F07, F56: the pool dies, or there are two of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use browser_pool_tests::process::{Process, ProcessId};
use browser_pool_tests::{
    Case, Engine, Home, LeaseKind, Service, Setup, case, case_in, eventually, for_both_kinds,
    rounds,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::support::works;

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
        // A stopped process notices nothing: the pool's reaper ends it.
        case.oracle.gone(Duration::from_secs(5)).await;
        case.restart().await;
        assert!(case.home.log().contains("swept up"), "the sweep is not in the log");
    })
    .await;
}

/// Stays when its Chromium has gone.
const STUBBORN: &str =
    "#!/bin/sh\ntrap '' HUP INT TERM\n'PROGRAM' \"$@\"\nwhile :; do sleep 1; done\n";

#[tokio::test(flavor = "multi_thread")]
async fn f07_pool_killed_with_a_wrapper_that_ignores_the_end_of_its_pipe() {
    let home = Home::new();
    let wrapper = stubborn_wrapper(&home);
    let setup = Setup::new().set("chrome.executable", wrapper.to_string_lossy().into_owned());
    case_in(home, setup, async |case| {
        works(&case.service.connect("/").await).await.expect("the wrapper passes all on");
        assert!(!case.oracle.ours.chromium().is_empty());
        case.kill_service().await;
        let took = case.oracle.gone(Duration::from_secs(5)).await;
        println!("gone {took:?} after the kill");
        case.restart().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f07_a_reaper_that_was_killed_is_replaced() {
    let home = Home::new();
    let wrapper = stubborn_wrapper(&home);
    let setup = Setup::new().set("chrome.executable", wrapper.to_string_lossy().into_owned());
    case_in(home, setup, async |case| {
        let first = reaper_of(case).expect("there is one");
        first.signal(Signal::KILL);
        eventually("another takes its place", Duration::from_secs(5), async || {
            reaper_of(case).filter(|it| *it != first).map(drop).ok_or("none")
        })
        .await;
        case.kill_service().await;
        case.oracle.gone(Duration::from_secs(5)).await;
        case.restart().await;
    })
    .await;
}

fn stubborn_wrapper(home: &Home) -> PathBuf {
    let path = home.path().join("chromium-wrapper");
    let program = Engine::any_executable();
    fs::write(&path, STUBBORN.replace("PROGRAM", &program.to_string_lossy())).expect("it is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn reaper_of(case: &Case) -> Option<ProcessId> {
    let is_it = |process: &Process| {
        process.parent == case.service.process.pid
            && process.arguments().first().is_some_and(|name| name == "browser-pool-reaper")
    };
    Process::all().into_iter().find(is_it).map(|process| process.id)
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
