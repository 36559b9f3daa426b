//! F22, F24, F25, F26: leases that end in the middle of something.

use std::time::Duration;

use browser_pool_tests::{Case, Cdp, LeaseKind, Page, Setup, case, for_both_kinds};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{until_released, works};

for_both_kinds!(
    f22_release_hangs,
    f24_dialogs_at_release,
    f25_endless_loop_at_release,
    f26_popups_alive_at_release,
    f26_workers_alive_at_release,
    f26_downloads_alive_at_release,
);

/// Each command that cleans up after a lease, never answered by the fake Chromium.
async fn f22_release_hangs(kind: LeaseKind) {
    for step in ["Target.detachFromTarget", "Target.getTargets", "Target.closeTarget"] {
        let hang = format!("hang:{step}");
        let setup = Setup::new().kind(kind).fake_chromium(&[&hang]).set("pool.min_size", 1);
        case(setup, async |case| {
            let client = case.service.connect("/").await;
            client
                .call("Target.createTarget", json!({ "url": "about:blank" }))
                .await
                .expect("a page");
            drop(client);
            let took = until_released(&case.service, Duration::from_secs(5)).await;
            println!("with {step} hanging the slot was back after {took:?}");
        })
        .await;
    }
}

/// Lets a lease end in the middle of what `begin` has begun; it must be over within the time that
/// is promised, and the next one must neither see it nor be disturbed by it.
async fn ends_in_the_middle(kind: LeaseKind, begin: impl AsyncFn(&Case, &Cdp)) {
    let setup = match kind {
        LeaseKind::Exclusive => Setup::new().size(1),
        LeaseKind::Shared => Setup::new().kind(kind),
    };
    case(setup, async |case| {
        for ending in ["a close frame", "a cut connection", "Browser.close"] {
            let client = case.service.connect("/").await;
            begin(case, &client).await;
            match ending {
                "a close frame" => client.close().await,
                "a cut connection" => drop(client),
                _ => {
                    // The answer and the end may come in either order.
                    let _ = client.call("Browser.close", json!({})).await;
                    client.closed(Duration::from_secs(5)).await;
                }
            }
            let took = until_released(&case.service, Duration::from_secs(2)).await;
            println!("after {ending} it was over in {took:?}");

            let next = case.service.connect("/").await;
            let targets = next.call("Target.getTargets", json!({})).await.expect("an answer");
            let foreign: Vec<_> = targets["targetInfos"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|target| target["type"] != "browser" && target["url"] != "about:blank")
                .collect();
            assert!(foreign.is_empty(), "after {ending} the next lease sees {foreign:?}");
            works(&next).await.expect("the next lease works");
            case.site.forget();
            sleep(Duration::from_millis(700)).await;
            let late = case.site.seen();
            assert!(late.is_empty(), "after {ending} the old lease asks on: {late:?}");
            next.close().await;
        }
    })
    .await;
}

/// Lets a page ask the site for something again and again, so that its life can be seen.
const ASK_ON: &str = "setInterval(() => fetch('/echo?alive'), 100)";

async fn begin_soon(page: &Page<'_>, script: &str) {
    page.eval(&format!("void setTimeout(() => {{ {script} }}, 0)")).await;
    sleep(Duration::from_millis(200)).await;
}

async fn f24_dialogs_at_release(kind: LeaseKind) {
    ends_in_the_middle(kind, async |case, client| {
        for dialog in ["alert('stay')", "confirm('stay?')", "prompt('stay?')"] {
            let page = client.page(&case.site.at("/dialogs.html")).await;
            begin_soon(&page, dialog).await;
        }
        let page = client.page(&case.site.at("/beforeunload.html")).await;
        page.eval("document.getElementById('touch').click()").await;
        // Its dialog asks whether to leave.
        let away = json!({ "url": case.site.at("/title.html") });
        let left = page.call("Page.navigate", away);
        let _ = tokio::time::timeout(Duration::from_millis(500), left).await;
    })
    .await;
}

async fn f25_endless_loop_at_release(kind: LeaseKind) {
    ends_in_the_middle(kind, async |case, client| {
        let page = client.page(&case.site.at("/title.html")).await;
        page.eval(ASK_ON).await;
        begin_soon(&page, "for (;;);").await;
    })
    .await;
}

async fn f26_popups_alive_at_release(kind: LeaseKind) {
    ends_in_the_middle(kind, async |case, client| {
        let page = client.page(&case.site.at("/popups.html")).await;
        for button in ["opener", "noopener", "cross", "blank"] {
            page.eval(&format!("document.getElementById('{button}').click()")).await;
        }
        page.eval("void window.open('/title/popup')").await;
        page.eval(ASK_ON).await;
        sleep(Duration::from_millis(300)).await;
    })
    .await;
}

async fn f26_workers_alive_at_release(kind: LeaseKind) {
    ends_in_the_middle(kind, async |case, client| {
        let page = client.page(&case.site.at("/workers.html?dedicated&blob&shared")).await;
        let worker =
            format!("new Worker(URL.createObjectURL(new Blob([`{}`])))", ask_from_afar(case));
        page.eval(&format!("window.asking = {worker}; undefined")).await;
        page.eval("navigator.serviceWorker.register('/service-worker.js').then(() => 1)").await;
        sleep(Duration::from_millis(300)).await;
    })
    .await;
}

fn ask_from_afar(case: &Case) -> String {
    format!("setInterval(() => fetch('{}/echo?worker'), 100)", case.site.url)
}

async fn f26_downloads_alive_at_release(kind: LeaseKind) {
    ends_in_the_middle(kind, async |case, client| {
        let path = case.home.path().join("downloads");
        let allow =
            json!({ "behavior": "allowAndName", "downloadPath": path, "eventsEnabled": true });
        // Where to is the pool's choice or a refusal: either is right here.
        let _ = client.call("Browser.setDownloadBehavior", allow).await;
        let page = client.page(&case.site.at("/title.html")).await;
        page.eval("location.href = '/download'").await;
        let page = client.page(&case.site.at("/title.html")).await;
        page.eval("location.href = '/download/slow'").await;
        sleep(Duration::from_millis(500)).await;
    })
    .await;
}
