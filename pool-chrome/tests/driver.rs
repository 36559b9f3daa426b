//! The driver behind a real pool on real Chromium.

mod mux_support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mux_support::{Client, ENGINES, KINDS, LONG, eventually};
use pool_chrome::mux::{EndReason, LeaseKind};
use pool_chrome::process::Engine;
use pool_chrome::{BrowserSpec, ChromeConfig, ChromeDriver, Reset};
use pool_core::{Class, Driver, Meta, Policy, Pool, async_trait};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

/// A driver with a state directory of its own.
async fn driver(
    engine: Engine,
    set: impl FnOnce(ChromeConfig) -> ChromeConfig,
) -> (ChromeDriver, TempDir) {
    let root = tempfile::Builder::new().prefix("drv").tempdir().unwrap();
    let config = ChromeConfig::new().engine(engine).state_dir(root.path().join("s"));
    (ChromeDriver::start(set(config)).await.unwrap(), root)
}

fn running(root: &TempDir) -> usize {
    fs::read_dir(root.path().join("s/run")).unwrap().count()
}

fn alive(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

#[tokio::test]
async fn an_exclusive_browser_is_used_again_without_a_trace() {
    for engine in ENGINES {
        let (driver, root) = driver(engine, |config| config).await;
        let pool = Pool::builder(driver).max_size(1).recycle_timeout(LONG).build().unwrap();
        let mut pids = Vec::new();
        for _ in 0..3 {
            let browser = pool.acquire().await.unwrap();
            pids.push(browser.pid());
            let mut client = Client::new(browser.connect().await.unwrap());
            let cookies = client.ok(None, "Storage.getCookies", json!({})).await;
            assert_eq!(cookies["cookies"], json!([]));
            let cookie = json!({ "name": "a", "value": "b", "domain": "example.org", "path": "/" });
            client.ok(None, "Storage.setCookies", json!({ "cookies": [cookie] })).await;
            client.page("data:text/html,<script>while(1);</script>").await;
        }
        assert!(pids.windows(2).all(|pair| pair[0] == pair[1]), "{engine:?}: {pids:?}");
        pool.close().await;
        assert_eq!(running(&root), 0);
    }
}

#[tokio::test]
async fn a_browser_that_closes_its_pipe_before_it_ends_still_says_how_it_ended() {
    let fake = env!("CARGO_BIN_EXE_fake-chromium").into();
    let lingers = |config: ChromeConfig| config.executable(Some(fake)).args(["--fake-mode=linger"]);
    let (driver, _root) = driver(Engine::Auto, lingers).await;
    let pool = Pool::builder(driver).max_size(1).acquire_timeout(Some(LONG)).build().unwrap();
    let error = format!("{:?}", pool.acquire().await.unwrap_err());
    assert!(error.contains("Exited("), "{error}");
    pool.close().await;
}

#[tokio::test]
async fn whoever_looks_at_a_browser_does_not_keep_it_from_being_closed() {
    for kind in KINDS {
        let (driver, root) = driver(ENGINES[0], |config| config.lease(kind)).await;
        let looked_at = driver.clone();
        let looking = tokio::spawn(async move {
            loop {
                looked_at.measure(Duration::ZERO).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let pool = Pool::builder(driver).max_size(2).recycle_timeout(LONG).build().unwrap();
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        pool.close().await;
        assert_eq!(running(&root), 0, "{kind:?}");
        looking.abort();
    }
}

#[tokio::test]
async fn a_measurement_that_its_caller_gave_up_does_not_count() {
    let (driver, _root) = driver(ENGINES[0], |config| config).await;
    let pool = Pool::builder(driver.clone()).max_size(1).build().unwrap();
    let browser = pool.acquire().await.unwrap();
    let memory = || driver.vitals(browser.meta().id).unwrap().memory;
    assert!(driver.measure(Duration::ZERO).now_or_never().is_none());
    assert_eq!(memory(), None);
    driver.measure(LONG).await;
    assert!(memory().is_some_and(|(bytes, _)| bytes > 0));
    drop(browser);
    pool.close().await;
}

#[tokio::test]
async fn the_clipboard_of_one_exclusive_lease_is_empty_in_the_next() {
    for engine in ENGINES {
        let (driver, _root) = driver(engine, |config| config).await;
        let pool = Pool::builder(driver).max_size(1).recycle_timeout(LONG).build().unwrap();
        let key = |name: &str, command: &str| json!({ "type": "keyDown", "key": name, "code": "Key", "commands": [command] });
        for (round, expected) in ["", ""].into_iter().enumerate() {
            let browser = pool.acquire().await.unwrap();
            let mut client = Client::new(browser.connect().await.unwrap());
            let (_, page) = client.page("about:blank").await;
            let on = Some(page.as_str());
            client.ok(on, "Emulation.setFocusEmulationEnabled", json!({ "enabled": true })).await;
            client.evaluate(&page, "document.body.innerHTML = '<input id=i>'; i.focus()").await;
            client.ok(on, "Input.dispatchKeyEvent", key("v", "paste")).await;
            assert_eq!(client.evaluate(&page, "i.value").await, json!(expected), "round {round}");
            client.evaluate(&page, "i.value = 'secret'; i.select()").await;
            client.ok(on, "Input.dispatchKeyEvent", key("c", "copy")).await;
            client.evaluate(&page, "i.value = ''; i.focus()").await;
            client.ok(on, "Input.dispatchKeyEvent", key("v", "paste")).await;
            assert_eq!(client.evaluate(&page, "i.value").await, json!("secret"), "the test copies");
        }
        pool.close().await;
    }
}

#[tokio::test]
async fn a_browser_is_relaunched_where_the_reset_or_the_client_wants_it() {
    let engine = ENGINES[0];
    let (always, _root) = driver(engine, |config| config.reset(Reset::Relaunch)).await;
    let pool = Pool::builder(always).max_size(1).recycle_timeout(LONG).build().unwrap();
    let first = pool.acquire().await.unwrap().pid();
    assert_ne!(pool.acquire().await.unwrap().pid(), first);
    assert!(!alive(first));
    pool.close().await;

    let (when_tainted, _root) = driver(engine, |config| config).await;
    let pool = Pool::builder(when_tainted).max_size(1).recycle_timeout(LONG).build().unwrap();
    let browser = pool.acquire().await.unwrap();
    let mut client = Client::new(browser.connect().await.unwrap());
    client
        .ask(
            None,
            "Browser.addPrivacySandboxEnrollmentOverride",
            json!({ "url": "https://a.example" }),
        )
        .await;
    let first = browser.pid();
    drop(browser);
    assert_ne!(pool.acquire().await.unwrap().pid(), first);
    pool.close().await;
}

#[tokio::test]
async fn screens_that_a_lease_added_are_gone_in_the_next() {
    for engine in ENGINES {
        let (driver, _root) = driver(engine, |config| config).await;
        let pool = Pool::builder(driver).max_size(1).recycle_timeout(LONG).build().unwrap();
        let mut pids = Vec::new();
        for _ in 0..2 {
            let browser = pool.acquire().await.unwrap();
            pids.push(browser.pid());
            let mut client = Client::new(browser.connect().await.unwrap());
            let (_, page) = client.page("about:blank").await;
            let screens = client.ok(Some(&page), "Emulation.getScreenInfos", json!({})).await;
            assert_eq!(screens["screenInfos"].as_array().unwrap().len(), 1, "{engine:?}");
            let screen = json!({ "left": 800, "top": 0, "width": 640, "height": 480 });
            client.ok(Some(&page), "Emulation.addScreen", screen).await;
        }
        assert_eq!(pids[0], pids[1], "{engine:?}: it was wiped, not relaunched");
        pool.close().await;
    }
}

#[tokio::test]
async fn shared_browsers_are_placed_together_up_to_the_limit() {
    for engine in ENGINES {
        let (driver, root) =
            driver(engine, |config| config.lease(LeaseKind::Shared).leases_per_browser(3usize))
                .await;
        let pool = Pool::builder(driver).max_size(4).max_creating(4).build().unwrap();
        let (a, b, c, d) =
            tokio::join!(pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire());
        let leases = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()];
        let mut pids: Vec<u32> = leases.iter().map(|lease| lease.pid()).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 2, "three places in one, one in another");
        assert_eq!(running(&root), 2);
        drop(leases);
        pool.close().await;
        assert_eq!(running(&root), 0);
    }
}

#[tokio::test]
async fn a_worn_out_shared_chromium_is_replaced_while_its_leases_go_on() {
    let shared = |config: ChromeConfig| {
        config.lease(LeaseKind::Shared).leases_per_browser(4usize).max_browser_leases(3u64)
    };
    let (driver, root) = driver(ENGINES[0], shared).await;
    let pool = Pool::builder(driver).max_size(2).recycle_timeout(LONG).build().unwrap();
    let long = pool.acquire().await.unwrap();
    let mut client = Client::new(long.connect().await.unwrap());
    let (_, page) = client.page("about:blank").await;
    let mut pids = Vec::new();
    for _ in 0..5 {
        pids.push(pool.acquire().await.unwrap().pid());
    }
    assert_ne!(pids[0], pids[4], "{pids:?}");
    assert_eq!(client.evaluate(&page, "6*7").await, json!(42));
    let old = long.pid();
    drop((client, long));
    eventually("the old one is gone", async || !alive(old)).await;
    pool.close().await;
    assert_eq!(running(&root), 0);
}

#[tokio::test]
async fn the_death_of_a_chromium_is_told_at_once_and_made_good() {
    for kind in KINDS {
        let (driver, _root) = driver(ENGINES[0], |config| config.lease(kind)).await;
        let pool = Pool::builder(driver).max_size(2).build().unwrap();
        let browser = pool.acquire().await.unwrap();
        let client = Client::new(browser.connect().await.unwrap());
        let pid = browser.pid();
        kill(pid, "KILL");
        // Not as late as one is that says nothing for the 10 s of `hang_timeout`.
        let ended = timeout(Duration::from_secs(5), browser.ended()).await.expect("told at once");
        assert_eq!(ended, EndReason::Crashed);
        assert_eq!(client.end().await, EndReason::Crashed);
        drop(browser);
        let fresh = pool.acquire().await.unwrap();
        assert_ne!(fresh.pid(), pid);
        Client::new(fresh.connect().await.unwrap()).page("about:blank").await;
        drop(fresh);
        pool.close().await;
    }
}

#[tokio::test]
async fn a_leased_chromium_that_hangs_is_killed_and_one_that_comes_back_is_not() {
    let (driver, _root) =
        driver(ENGINES[0], |config| config.hang_timeout(Duration::from_secs(3))).await;
    let pool = Pool::builder(driver).max_size(1).build().unwrap();
    let browser = pool.acquire().await.unwrap();
    let mut client = Client::new(browser.connect().await.unwrap());
    let (_, page) = client.page("about:blank").await;

    kill(browser.pid(), "STOP");
    tokio::time::sleep(Duration::from_secs(1)).await;
    kill(browser.pid(), "CONT");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.evaluate(&page, "6*7").await, json!(42));

    kill(browser.pid(), "STOP");
    let ended = timeout(LONG, browser.ended()).await.unwrap();
    assert_eq!(ended, EndReason::Hung);
    assert_eq!(client.end().await, EndReason::Hung);
    drop(browser);
    pool.close().await;
}

#[tokio::test]
async fn no_browser_that_hangs_or_makes_no_pages_is_handed_out() {
    let every_time = |config: ChromeConfig| config.page_check_interval(Duration::ZERO);
    let (driver, _root) = driver(ENGINES[0], every_time).await;
    for how in ["STOP", "zygotes"] {
        let pool = Pool::builder(driver.clone())
            .max_size(1)
            .check_after_idle(Some(Duration::ZERO))
            .check_timeout(Duration::from_secs(4))
            .recycle_timeout(LONG)
            .build()
            .unwrap();
        let first = pool.acquire().await.unwrap();
        let pid = first.pid();
        drop(first);
        eventually("it is idle", async || pool.load().idle == 1).await;
        if how == "STOP" {
            kill(pid, "STOP");
        } else {
            kill_zygotes(pid);
        }
        let second = pool.acquire().await.unwrap();
        assert_ne!(second.pid(), pid, "{how}");
        Client::new(second.connect().await.unwrap()).page("about:blank").await;
        drop(second);
        pool.close().await;
    }
}

#[tokio::test]
async fn a_persistent_profile_keeps_its_cookies_and_its_next_browser_has_them() {
    struct InProfile(std::path::PathBuf);
    #[async_trait]
    impl<D: Driver<Spec = BrowserSpec>> Policy<D> for InProfile {
        fn configure(&self, _: &Class, spec: &mut BrowserSpec) -> Result<(), pool_core::BoxError> {
            *spec = BrowserSpec::new().profile(&self.0);
            Ok(())
        }
    }
    for engine in ENGINES {
        // A Chromium that is killed has not stored everything.
        let (driver, root) = driver(engine, |config| config.close_grace(LONG)).await;
        let pool = Pool::builder(driver)
            .policy(InProfile(root.path().join("work")))
            .max_size(1)
            .recycle_timeout(LONG)
            .build()
            .unwrap();
        let cookie = json!({
            "name": "login", "value": "yes", "domain": "example.org", "path": "/",
            "expires": 4_000_000_000_u64,
        });
        let session = json!({ "name": "s", "value": "x", "domain": "example.org", "path": "/" });
        let first = pool.acquire().await.unwrap();
        let mut client = Client::new(first.connect().await.unwrap());
        client.ok(None, "Storage.setCookies", json!({ "cookies": [cookie, session] })).await;
        client.page("about:blank").await;
        drop((client, first));
        let second = pool.acquire().await.unwrap();
        let mut client = Client::new(second.connect().await.unwrap());
        let cookies = client.ok(None, "Storage.getCookies", json!({})).await;
        let names: Vec<_> =
            cookies["cookies"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        assert_eq!(names, [json!("login")], "{engine:?}");
        let targets = client.ok(None, "Target.getTargets", json!({})).await;
        let urls: Vec<_> =
            targets["targetInfos"].as_array().unwrap().iter().map(|it| it["url"].clone()).collect();
        assert_eq!(urls, [json!("about:blank")], "only its own first page, {engine:?}");
        drop((client, second));
        pool.close().await;
    }
}

#[tokio::test]
async fn chromiumoxide_comes_with_each_browser() {
    for engine in ENGINES {
        for kind in KINDS {
            let (driver, _root) = driver(engine, |config| config.lease(kind)).await;
            let pool =
                Arc::new(Pool::builder(driver).max_size(1).recycle_timeout(LONG).build().unwrap());
            for _ in 0..2 {
                let browser = pool.acquire().await.unwrap();
                let page = browser.new_page("data:text/html,<title>hello</title>").await.unwrap();
                assert_eq!(page.get_title().await.unwrap().as_deref(), Some("hello"));
                let shot = page
                    .screenshot(chromiumoxide::page::ScreenshotParams::default())
                    .await
                    .unwrap();
                assert!(shot.starts_with(b"\x89PNG"));
                let seen = browser.screenshot(None).await.unwrap();
                assert!(seen.starts_with(b"\x89PNG"));
                // Chromium tells of a title by itself.
                eventually("it is listed", async || browser.targets()[0].title == "hello").await;
                assert_eq!(browser.browser().await.unwrap().pages().await.unwrap().len(), 1);
            }
            pool.close().await;
        }
    }
}

#[tokio::test]
async fn a_revoked_lease_is_ended_under_its_holder() {
    for kind in KINDS {
        let (driver, _root) = driver(ENGINES[0], |config| config.lease(kind)).await;
        let pool = Pool::builder(driver)
            .max_size(1)
            .hold_limit(Some(Duration::from_secs(2)))
            .tick_interval(Duration::from_millis(50))
            .build()
            .unwrap();
        let browser = pool.acquire().await.unwrap();
        let client = Client::new(browser.connect().await.unwrap());
        assert_eq!(client.end().await, EndReason::Revoked);
        assert_eq!(browser.ended().await, EndReason::Revoked);
        let other = timeout(LONG, pool.acquire()).await.unwrap().unwrap();
        drop((browser, other));
        pool.close().await;
    }
}

fn kill(pid: u32, signal: &str) {
    let status =
        std::process::Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Kills the processes that renderers are forked from, which are children of this browser.
fn kill_zygotes(browser: u32) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&browser.to_string())
            && String::from_utf8_lossy(&arguments).contains("--type=zygote")
        {
            kill(pid, "KILL");
        }
    }
}

#[expect(dead_code, reason = "it only has to compile")]
fn a_lease_may_be_held_across_tasks(
    lease: pool_core::Lease<ChromeDriver>,
    meta: Meta,
) -> impl Send {
    (lease, meta)
}
