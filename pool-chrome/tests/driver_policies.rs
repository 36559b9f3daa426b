//! The driver with the policies of `pool-policies`, on real Chromium.

mod mux_support;

use std::time::Duration;

use mux_support::{Client, ENGINES, LONG};
use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::{Pool, Request};
use pool_policies::{GeoProxy, Profile, Profiles, Proxy, Region, WarmUp, Warming};
use serde_json::json;

#[tokio::test]
async fn a_profile_is_exclusive_and_keeps_its_cookies_over_a_restart_of_the_pool() {
    for engine in ENGINES {
        let root = tempfile::tempdir().unwrap();
        for round in 0..2 {
            let config = ChromeConfig::new().engine(engine).state_dir(root.path().join("s"));
            // A Chromium that is killed has not stored everything.
            let driver = ChromeDriver::start(config.close_grace(LONG)).await.unwrap();
            let profiles = Profiles::builder(root.path().join("profiles"))
                .profile("work", Profile::new().max_size(1))
                .profile("play", Profile::new().max_size(1))
                .build()
                .unwrap();
            let pool = Pool::builder(driver)
                .policy(profiles)
                .max_size(2)
                .recycle_timeout(LONG)
                .close_timeout(LONG)
                .build()
                .unwrap();
            for (profile, expected) in [("work", round), ("play", 0)] {
                let browser =
                    pool.acquire_with(Request::new().label("profile", profile)).await.unwrap();
                let mut client = Client::new(browser.connect().await.unwrap());
                let cookies = client.ok(None, "Storage.getCookies", json!({})).await;
                assert_eq!(
                    cookies["cookies"].as_array().unwrap().len(),
                    expected,
                    "{engine:?} {profile}"
                );
                if profile == "work" {
                    let cookie = json!({ "name": "login", "value": "yes", "domain": "example.org",
                        "path": "/", "expires": 4_000_000_000_u64 });
                    client.ok(None, "Storage.setCookies", json!({ "cookies": [cookie] })).await;
                }
            }
            pool.close().await;
        }
    }
}

#[tokio::test]
async fn a_warm_up_leaves_nothing_for_the_first_holder_and_its_failure_is_told() {
    let root = tempfile::tempdir().unwrap();
    let config = ChromeConfig::new().engine(ENGINES[0]).state_dir(root.path().join("s"));
    let driver = ChromeDriver::start(config).await.unwrap();
    let how = WarmUp::new()
        .viewport(800, 600)
        .user_agent("warm")
        .url("data:text/html,<title>warm</title>")
        .script("if (document.title !== 'warm' || navigator.userAgent !== 'warm') throw Error(document.title)");
    let pool = Pool::builder(driver.clone()).policy(Warming::new(how)).max_size(1).build().unwrap();
    let browser = pool.acquire().await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(browser.targets().is_empty());
    drop(browser);
    pool.close().await;

    let broken = Warming::new(WarmUp::new().script("throw Error('on purpose')"));
    let pool = Pool::builder(driver)
        .policy(broken)
        .max_size(1)
        .acquire_timeout(Some(Duration::from_secs(15)))
        .build()
        .unwrap();
    let error = format!("{:?}", pool.acquire().await.unwrap_err());
    assert!(error.contains("on purpose"), "{error}");
    pool.close().await;
}

#[tokio::test]
async fn a_region_whose_proxy_is_down_is_an_error_and_never_a_direct_connection() {
    let root = tempfile::tempdir().unwrap();
    let config = ChromeConfig::new().engine(ENGINES[0]).state_dir(root.path().join("s"));
    let driver = ChromeDriver::start(config).await.unwrap();
    // Nobody listens there.
    let proxy = Proxy::parse("http://user:secret@127.0.0.1:1").unwrap();
    let regions = GeoProxy::builder().region("eu", Region::new().proxy(proxy)).build().unwrap();
    let pool = Pool::builder(driver)
        .policy(regions)
        .max_size(1)
        .acquire_timeout(Some(Duration::from_secs(15)))
        .build()
        .unwrap();
    let error =
        pool.acquire_with(Request::new().label("region", "eu")).await.unwrap_err().to_string();
    assert!(error.contains("prox"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    pool.close().await;
}
