//! F44, F45: told to end, once and twice, in the middle of everything.

use std::process::Stdio;
use std::time::Duration;

use browser_pool_tests::oracle::Ours;
use browser_pool_tests::process::ProcessId;
use browser_pool_tests::{Home, LeaseKind, Setup, case, for_both_kinds, pool_cli, rounds};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::support::works;

for_both_kinds!(f44_sigterm_with_leases, f44_sigterm_and_leases_that_stay, f45_second_signal);

async fn f44_sigterm_with_leases(kind: LeaseKind) {
    case(Setup::new().kind(kind).set("gateway.drain_timeout", "30s"), async |case| {
        let client = case.service.connect("/").await;
        case.service.signal(Signal::TERM);
        browser_pool_tests::eventually("it drains", Duration::from_secs(5), async || {
            let ready = case.service.get("/readyz").await;
            if ready.status == 503 { Ok(()) } else { Err(ready) }
        })
        .await;
        works(&client).await.expect("a lease goes on");
        let refused = case.service.try_connect("/").await.expect_err("no new ones");
        assert_eq!((refused.status, refused.code()), (503, "draining"), "{refused:?}");
        assert!(refused.retry_after.is_some(), "{refused:?}");
        assert_eq!(case.service.get("/livez").await.status, 200);
        works(&client).await.expect("a lease goes on");
        client.close().await;
        let exit = case.service.exit(Duration::from_secs(10)).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        case.oracle.gone(Duration::from_secs(2)).await;
        case.restart().await;
    })
    .await;
}

async fn f44_sigterm_and_leases_that_stay(kind: LeaseKind) {
    case(Setup::new().kind(kind).set("gateway.drain_timeout", "2s"), async |case| {
        let client = case.service.connect("/").await;
        case.service.signal(Signal::TERM);
        let closed = client.closed(Duration::from_secs(10)).await;
        assert_eq!(closed.code, 1001, "{closed:?}");
        let exit = case.service.exit(Duration::from_secs(10)).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        case.oracle.gone(Duration::from_secs(2)).await;
        case.restart().await;
    })
    .await;
}

async fn f45_second_signal(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        client.page(&case.site.at("/flood.html")).await;
        case.service.signal(Signal::TERM);
        sleep(Duration::from_millis(300)).await;
        assert!(case.service.is_running(), "it lets leases finish");
        case.service.signal(Signal::INT);
        let exit = case.service.exit(Duration::from_secs(10)).await;
        assert!(exit.took <= Duration::from_secs(2), "{exit:?}");
        case.oracle.gone(Duration::from_secs(2)).await;
        case.restart().await;
    })
    .await;
}

/// At any moment of the start: before it listens, while it launches, when it is ready.
#[tokio::test(flavor = "multi_thread")]
async fn f45_signal_during_launch() {
    case(Setup::new(), async |case| {
        // A second pool beside that of the case, in a home of its own.
        for _ in 0..rounds(8, 40) {
            let home = Home::new();
            let ours = Ours::of(&home);
            let state = home.state_dir().to_string_lossy().into_owned();
            let setup = case.setup.clone().set("pool.state_dir", state);
            std::fs::write(home.config(), setup.toml()).expect("the home is ours");
            let mut child = tokio::process::Command::new(pool_cli())
                .args(["run", "--config"])
                .arg(home.config())
                .env("HOME", home.user_home())
                .env("TMPDIR", home.temp_dir())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("it is executable");
            let moment = Duration::from_millis(fastrand::u64(20..700));
            sleep(moment).await;
            let process = child.id().and_then(ProcessId::of).expect("it was not waited for");
            process.signal(Signal::TERM);
            let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
            let status =
                status.unwrap_or_else(|_| panic!("it lives, told to end after {moment:?}"));
            let status = status.expect("it can be waited for");
            // Before it listens to signals, the signal itself ends it.
            assert!(status.code().is_none_or(|code| code == 0), "{status} after {moment:?}");
            browser_pool_tests::eventually("nothing is left", Duration::from_secs(2), async || {
                let left = ours.chromium();
                if left.is_empty() { Ok(()) } else { Err(left) }
            })
            .await;
        }
    })
    .await;
}
