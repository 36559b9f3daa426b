//! F29, F30, F31, F33: profile directories in every condition.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use browser_pool_tests::process::Process;
use browser_pool_tests::{Canary, Case, Setup, case, eventually, rounds};
use futures_util::future::join_all;
use rustix::process::Signal;
use toml::Table;

use crate::support::{until_released, works};

fn setup() -> Setup {
    let mut work = Table::new();
    work.insert("max_size".into(), 1.into());
    Setup::new().size(1).set("pool.max_size", 3).set("profiles.work", work)
}

/// The directory of the one browser that the profile has, once it was leased.
async fn profile_directory(case: &Case) -> PathBuf {
    let client = case.service.connect("/?profile=work").await;
    let browser = case.service.browser_of(&client).await;
    let process = Process::read(browser.pid).expect("it lives");
    let argument = process
        .arguments()
        .into_iter()
        .find_map(|argument| argument.strip_prefix("--user-data-dir=").map(PathBuf::from));
    client.close().await;
    until_released(&case.service, Duration::from_secs(10)).await;
    argument.expect("every Chromium has one")
}

/// Leases the profile, ends the service, and does something to the directory before it starts
/// again.
async fn between_two_starts(case: &mut Case, harm: impl AsyncFnOnce(&PathBuf)) {
    let directory = profile_directory(case).await;
    case.service.signal(Signal::TERM);
    let exit = case.service.exit(Duration::from_secs(20)).await;
    assert_eq!(exit.code, Some(0));
    harm(&directory).await;
    case.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f29_stale_singleton_lock() {
    case(setup(), async |case| {
        between_two_starts(case, async |directory| {
            for name in ["SingletonLock", "SingletonCookie", "SingletonSocket"] {
                // An error means that it is not there.
                let _ = fs::remove_file(directory.join(name));
            }
            // No process has this id: it is above the highest that there can be.
            symlink("elsewhere-99999999", directory.join("SingletonLock")).expect("it is ours");
        })
        .await;
        let client = case.service.connect("/?profile=work").await;
        works(&client).await.expect("a lock of nobody locks nobody out");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f30_profile_in_use_by_a_foreign_chrome() {
    case(setup(), async |case| {
        let mut foreign = None;
        between_two_starts(case, async |directory| {
            let chrome = Canary::on(directory);
            eventually("the foreign Chrome runs", Duration::from_secs(20), async || {
                let lock = fs::symlink_metadata(directory.join("SingletonLock"));
                let port = fs::metadata(directory.join("DevToolsActivePort"));
                if lock.is_ok() || port.is_ok() { Ok(()) } else { Err("no lock") }
            })
            .await;
            foreign = Some(chrome);
        })
        .await;
        let foreign = foreign.expect("it was started");
        case.oracle.ours.disown(foreign.process());
        let refused = case.service.try_connect("/?profile=work&acquire_timeout=5000").await;
        let refused = refused.expect_err("somebody else has it");
        assert!([408, 503].contains(&refused.status), "{refused:?}");
        assert!(refused.body.to_string().contains("profile"), "not why: {refused:?}");
        assert!(foreign.is_alive(), "the foreign Chrome was killed");
        let client = case.service.connect("/").await;
        works(&client).await.expect("others are not affected");
        client.close().await;

        drop(foreign);
        eventually("the profile can be leased again", Duration::from_secs(90), async || match case
            .service
            .try_connect("/?profile=work&acquire_timeout=5000")
            .await
        {
            Ok(client) => works(&client).await,
            Err(refused) => Err(format!("{refused:?}")),
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f31_fifty_acquires_of_one_profile() {
    let setup = setup().set("pool.acquire_timeout", "10m");
    case(setup, async |case| {
        let case: &Case = case;
        let holders = AtomicUsize::new(0);
        let clients = (0..rounds(15, 50)).map(|number| {
            let holders = &holders;
            async move {
                let client = case.service.connect("/?profile=work").await;
                let held = holders.fetch_add(1, Ordering::AcqRel);
                assert_eq!(held, 0, "two hold the one directory");
                works(&client).await.unwrap_or_else(|error| panic!("lease {number}: {error}"));
                let browsers = browsers_of_profiles(case);
                assert!(browsers <= 1, "{browsers} Chromiums use the one directory");
                holders.fetch_sub(1, Ordering::AcqRel);
                client.close().await;
            }
        });
        join_all(clients).await;
    })
    .await;
}

fn browsers_of_profiles(case: &Case) -> usize {
    let is_profile = |process: &Process| {
        process.arguments().iter().any(|argument| {
            argument.starts_with("--user-data-dir=") && argument.contains("/profiles/")
        })
    };
    case.oracle.ours.browsers().iter().filter(|process| is_profile(process)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn f33_corrupt_profile() {
    case(setup(), async |case| {
        between_two_starts(case, async |directory| {
            // Files where Chromium has directories, and the other way round.
            for name in ["Default", "Local State"] {
                let path = directory.join(name);
                let _ = fs::remove_dir_all(&path);
                let _ = fs::remove_file(&path);
            }
            fs::write(directory.join("Default"), "no directory").expect("it is ours");
            fs::create_dir(directory.join("Local State")).expect("it is ours");
        })
        .await;
        eventually("the profile can be leased again", Duration::from_secs(60), async || match case
            .service
            .try_connect("/?profile=work&acquire_timeout=10000")
            .await
        {
            Ok(client) => works(&client).await,
            Err(refused) => Err(format!("{refused:?}")),
        })
        .await;
    })
    .await;
}
