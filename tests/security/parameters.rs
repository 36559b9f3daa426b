//! S06, S11: what a parameter of an allowed command can do.

use std::time::Duration;

use browser_pool_tests::{
    Cdp, CdpError, Engine, LeaseKind, Page, Proxy, Setup, case, eventually, for_both_kinds,
};
use serde_json::{Value, json};
use toml::Table;

const ENGINES: [Engine; 2] = [Engine::Shell, Engine::Chromium];

/// A page that reads whatever is dropped on it.
const READER: &str = "document.body.style.height = '500px'; \
    for (const kind of ['dragenter', 'dragover', 'drop']) document.body.addEventListener(kind, async (event) => { \
        event.preventDefault(); \
        const file = event.dataTransfer.files[0]; \
        if (kind === 'drop' && file) window.read = await file.text(); \
    })";

async fn drop_on(page: &Page<'_>, data: &Value) -> Vec<Result<Value, CdpError>> {
    let mut answers = Vec::new();
    for kind in ["dragEnter", "dragOver", "drop"] {
        let params = json!({ "type": kind, "x": 50, "y": 50, "data": data });
        answers.push(page.call("Input.dispatchDragEvent", params).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_a_shared_lease_reads_no_file() {
    for engine in ENGINES {
        case(Setup::new().kind(LeaseKind::Shared).engine(engine), async |case| {
            let secret = case.home.path().join("secret");
            std::fs::write(&secret, "secret").expect("the home is ours");
            let url = format!("file://{}", secret.display());
            let client = case.service.connect("/").await;
            let page = client.page(&case.site.at("/title.html")).await;
            page.eval(READER).await;
            let files = json!({ "items": [], "files": [secret], "dragOperationsMask": 1 });
            let list = json!([{ "mimeType": "text/uri-list", "data": url }]);
            let list = json!({ "items": list, "files": [], "dragOperationsMask": 1 });
            for data in [files, list] {
                let answers = drop_on(&page, &data).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert_eq!(page.eval("typeof read").await, "undefined", "{engine} {data}");
                assert!(answers.iter().all(Result::is_err), "{engine} {data}: {answers:?}");
            }
            // Where no page takes it, the browser opens it.
            let plain = client.page(&case.site.at("/title.html")).await;
            plain.eval("document.body.style.height = '500px'").await;
            let list = json!([{ "mimeType": "text/uri-list", "data": url }]);
            drop_on(&plain, &json!({ "items": list, "files": [], "dragOperationsMask": 1 })).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let targets = client.call("Target.getTargets", json!({})).await.expect("its own");
            assert!(!targets.to_string().contains("file://"), "{engine}: {targets}");
            client.close().await;
        })
        .await;
    }
}

/// Waits until a neighbour can make a page and show it.
async fn assert_well(neighbour: &Cdp, page: &Page<'_>, after: &str) {
    let well = async || {
        let seen = tokio::time::timeout(Duration::from_secs(5), page.eval("6*7")).await;
        let picture = json!({ "clip": { "x": 0, "y": 0, "width": 50, "height": 50, "scale": 1 } });
        let shown = page.call("Page.captureScreenshot", picture).await;
        if seen.is_ok_and(|answer| answer == 42) && shown.is_ok() { Ok(()) } else { Err(shown) }
    };
    eventually(&format!("the neighbour is well after {after}"), Duration::from_secs(8), well).await;
    assert!(neighbour.has_closed().is_none(), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_no_number_of_a_shared_lease_ends_its_neighbours() {
    let huge = 10_000_000;
    for engine in ENGINES {
        // Both in one Chromium.
        let setup = Setup::new().kind(LeaseKind::Shared).size(2).engine(engine);
        case(setup, async |case| {
            let neighbour = case.service.connect("/").await;
            let shown = neighbour.page(&case.site.at("/title.html")).await;
            let client = case.service.connect("/").await;
            let page = client.page(&case.site.at("/title.html")).await;
            let window = json!({ "targetId": page.target });
            let window = client.call("Browser.getWindowForTarget", window).await.expect("its own");
            let window = &window["windowId"];
            let sides = json!({ "width": huge, "height": huge });
            for (method, params) in [
                (
                    "Target.createTarget",
                    json!({ "url": "about:blank", "newWindow": true, "width": huge, "height": huge }),
                ),
                ("Browser.setWindowBounds", json!({ "windowId": window, "bounds": sides })),
                (
                    "Browser.setContentsSize",
                    json!({ "windowId": window, "width": huge, "height": huge }),
                ),
                (
                    "Target.createTarget",
                    json!({ "url": "about:blank", "background": true, "newWindow": true, "windowState": "fullscreen" }),
                ),
                (
                    "Browser.setWindowBounds",
                    json!({ "windowId": window, "bounds": { "windowState": "fullscreen" } }),
                ),
            ] {
                let answer = client.call(method, params.clone()).await;
                assert_well(&neighbour, &shown, &format!("{method} {params}")).await;
                assert!(matches!(answer, Err(CdpError::Answer { .. })), "{engine} {params}: {answer:?}");
            }
            client.close().await;
            neighbour.close().await;
        })
        .await;
    }
}

for_both_kinds!(s11_a_context_that_leaves_its_regions_proxy);

async fn s11_a_context_that_leaves_its_regions_proxy(kind: LeaseKind) {
    // user:pass
    let proxy = Proxy::start("dXNlcjpwYXNz").await;
    let mut table = Table::new();
    table.insert("url".into(), proxy.url.clone().into());
    table.insert("username".into(), "user".into());
    let mut password = Table::new();
    password.insert("env".into(), "EU_PASSWORD".into());
    table.insert("password".into(), password.into());
    let setup = Setup::new()
        .set("pool.lease", kind.word())
        .size(1)
        .set("pool.max_size", 3)
        .set("regions.eu.proxies", vec![toml::Value::Table(table)])
        .env("EU_PASSWORD", "pass");
    case(setup, async |case| {
        let client = case.service.connect("/?region=eu").await;
        for params in [
            json!({ "proxyServer": "direct://" }),
            json!({ "proxyServer": "" }),
            json!({ "proxyBypassList": "*" }),
            json!({ "proxyServer": proxy.url, "proxyBypassList": "*" }),
        ] {
            case.site.forget();
            let made = client.call("Target.createBrowserContext", params.clone()).await;
            if let Ok(context) = &made {
                let there = case.site.at("/title.html");
                let page = json!({ "url": there, "browserContextId": context["browserContextId"] });
                client.call("Target.createTarget", page).await.expect("a page is made");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let seen = case.site.seen();
            let round = seen.iter().find(|it| !it.headers.contains_key(Proxy::MARK));
            assert!(round.is_none(), "{params}: asked directly: {round:?}");
            let refused = made.expect_err("it may not name one");
            assert!(format!("{refused:?}").contains("client_proxies"), "{params}: {refused:?}");
        }
        // A context that names none has the region's.
        let context = client.call("Target.createBrowserContext", json!({})).await.expect("made");
        let there = json!({ "url": case.site.at("/title.html"), "browserContextId": context["browserContextId"] });
        client.call("Target.createTarget", there).await.expect("a page is made");
        eventually("the site is asked through the proxy", Duration::from_secs(10), async || {
            let seen = case.site.seen();
            if seen.iter().any(|it| it.headers.contains_key(Proxy::MARK)) { Ok(()) } else { Err(seen.len()) }
        })
        .await;
        client.close().await;
    })
    .await;
}
