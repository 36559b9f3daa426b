//! F27: what one lease stores is not there for the next, and what a profile stores is.

use std::time::Duration;

use browser_pool_tests::{Case, Cdp, Engine, LeaseKind, Setup, case, for_both_kinds};
use serde_json::{Value, json};
use toml::Table;

use crate::support::until_released;

for_both_kinds!(f27_state_leak, f27_state_that_a_client_sets);

/// What a page finds in every store there is; null for nothing.
async fn read(client: &Cdp, site: &str) -> Value {
    let page = client.page(&format!("{site}/storage.html")).await;
    page.eval("read()").await
}

async fn write(client: &Cdp, site: &str, tag: &str) {
    let page = client.page(&format!("{site}/storage.html")).await;
    page.eval(&format!("write('{tag}')")).await;
}

fn setup(kind: LeaseKind) -> Setup {
    match kind {
        LeaseKind::Exclusive => Setup::new().size(1),
        LeaseKind::Shared => Setup::new().kind(kind).size(2),
    }
}

async fn f27_state_leak(kind: LeaseKind) {
    for engine in [Engine::Shell, Engine::Chromium] {
        case(setup(kind).engine(engine), async |case| {
            let fresh = case.service.connect("/").await;
            let nothing = read(&fresh, &case.site.url).await;
            fresh.close().await;

            let writer = case.service.connect("/").await;
            write(&writer, &case.site.url, "left-behind").await;
            let written = read(&writer, &case.site.url).await;
            let held =
                ["cookie", "localStorage", "indexedDB", "cacheStorage", "httpCache", "authCache"];
            for store in held {
                assert!(!written[store].is_null(), "{engine}: {store} was not written: {written}");
            }
            if kind == LeaseKind::Shared {
                let neighbour = case.service.connect("/").await;
                let found = read(&neighbour, &case.site.url).await;
                assert_eq!(found, nothing, "{engine}: a neighbour reads it");
                neighbour.close().await;
            }
            writer.close().await;

            until_released(&case.service, Duration::from_secs(10)).await;
            for _ in 0..case.service.state().await["load"]["max_size"].as_u64().unwrap_or(1) {
                let reader = case.service.connect("/").await;
                let found = read(&reader, &case.site.url).await;
                assert_eq!(found, nothing, "{engine}: the next lease reads it");
                reader.close().await;
            }
        })
        .await;
    }
}

async fn f27_state_that_a_client_sets(kind: LeaseKind) {
    case(setup(kind), async |case| {
        let fresh = case.service.connect("/").await;
        let nothing = read(&fresh, &case.site.url).await;
        let unvisited = drawn(&fresh, &case.site.url).await;
        fresh.close().await;

        let client = case.service.connect("/").await;
        change_everything(case, &client).await;
        client.close().await;

        until_released(&case.service, Duration::from_secs(10)).await;
        for _ in 0..case.service.state().await["load"]["max_size"].as_u64().unwrap_or(1) {
            let next = case.service.connect("/").await;
            let found = read(&next, &case.site.url).await;
            assert_eq!(found, nothing);
            let link = drawn(&next, &case.site.url).await;
            assert!(link == unvisited, "the link is drawn as one that was visited");
            next.close().await;
        }
    })
    .await;
}

/// What only a client can change: permissions, overrides, init scripts, interception, the
/// clipboard, the history.
async fn change_everything(case: &Case, client: &Cdp) {
    let granted = json!({ "permissions": ["geolocation", "clipboardReadWrite", "notifications"] });
    client.call("Browser.grantPermissions", granted).await.expect("permissions are a client's");
    let page = client.page(&case.site.at("/title.html")).await;
    let commands = [
        ("Emulation.setUserAgentOverride", json!({ "userAgent": "left behind" })),
        ("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Tokyo" })),
        (
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": 321, "height": 123, "deviceScaleFactor": 3, "mobile": true }),
        ),
        ("Page.addScriptToEvaluateOnNewDocument", json!({ "source": "initScript = 'left'" })),
        ("Network.enable", json!({})),
        ("Network.setExtraHTTPHeaders", json!({ "headers": { "x-left": "behind" } })),
        ("Fetch.enable", json!({ "patterns": [{ "urlPattern": "*/never" }] })),
    ];
    for (method, params) in commands {
        page.call(method, params).await.unwrap_or_else(|error| panic!("{method}: {error:?}"));
    }
    page.call("Page.bringToFront", json!({})).await.expect("it is a page");
    // Where no permission helps, nothing is left behind.
    let _ = page.try_eval("navigator.clipboard.writeText('left behind')").await;
    page.go(&case.site.at("/visited.html")).await.expect("it loads");
}

/// How a link to a page is drawn that may have been visited. No script may know; an eye can.
async fn drawn(client: &Cdp, site: &str) -> Vec<u8> {
    let page = client.page(&format!("{site}/visited.html")).await;
    page.screenshot().await.expect("it is drawn")
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_profile_keeps_what_it_should() {
    let setup = Setup::new().size(1).set("pool.max_size", 2).set("profiles.work", Table::new());
    case(setup, async |case| {
        let first = case.service.connect("/?profile=work").await;
        write(&first, &case.site.url, "kept").await;
        first.close().await;
        until_released(&case.service, Duration::from_secs(10)).await;

        let second = case.service.connect("/?profile=work").await;
        let found = read(&second, &case.site.url).await;
        for store in
            ["cookie", "httpOnlyCookie", "localStorage", "indexedDB", "cacheStorage", "opfs"]
        {
            assert_eq!(found[store], "kept", "{found}");
        }
        for store in ["sessionStorage", "authCache", "sharedWorker", "windowName"] {
            assert!(found[store].is_null(), "{store} is not for keeping: {found}");
        }
        second.close().await;

        let anonymous = case.service.connect("/").await;
        let found = read(&anonymous, &case.site.url).await;
        for store in
            ["cookie", "httpOnlyCookie", "localStorage", "indexedDB", "cacheStorage", "opfs"]
        {
            assert!(found[store].is_null(), "an anonymous lease has {store}: {found}");
        }
        anonymous.close().await;
    })
    .await;
}
