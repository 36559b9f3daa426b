//! Pages that are found by HTTP, and sockets that are bound to one.

use std::time::Duration;

use browser_pool_tests::{
    Case, Cdp, LeaseKind, Response, Setup, case, eventually, for_both_kinds, request,
};
use serde_json::{Value, json};

async fn put(case: &Case, path: &str) -> Response {
    request(&case.service.address, "PUT", path, &[], "").await.expect("an answer")
}

async fn pages(case: &Case, path: &str) -> Vec<Value> {
    case.service.get(path).await.json().as_array().cloned().expect("a list")
}

/// The path of a page's socket as it was handed out.
fn socket(entry: &Value) -> String {
    let url = entry["webSocketDebuggerUrl"].as_str().expect("an address");
    let at = url.find("/devtools").expect("a path");
    url[at..].to_owned()
}

async fn evaluate(page: &Cdp, expression: &str) -> Value {
    let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
    let answer = page.call("Runtime.evaluate", params).await.expect("the page answers");
    answer["result"]["value"].clone()
}

async fn pages_are_found_by_http_and_spoken_with_one_by_one(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let listed = pages(case, "/json/list?session=mine").await;
        assert_eq!((listed.len(), case.service.sessions().await.len()), (1, 0), "{listed:?}");
        let first = case.service.connect(&socket(&listed[0])).await;
        let form = case.site.at("/title/A-form");
        first.call("Page.enable", json!({})).await.expect("it is a page");
        first.call("Page.navigate", json!({ "url": form })).await.expect("it goes there");
        eventually("the list tells it", Duration::from_secs(10), async || {
            let listed = pages(case, "/json/list?session=mine").await;
            let told = listed[0]["url"] == form.as_str() && listed[0]["title"] == "A-form";
            if told && listed.len() == 1 { Ok(()) } else { Err(listed) }
        })
        .await;

        let new = put(case, &format!("/json/new?session=mine&{form}")).await.json();
        let second = case.service.connect(&socket(&new)).await;
        assert_eq!(second.lease, first.lease);
        assert_eq!(evaluate(&second, "6 * 7").await, 42);
        let own = second.call("Target.getTargetInfo", json!({})).await.expect("it is a page");
        assert_eq!(own["targetInfo"]["targetId"], new["id"]);
        let refused = put(case, "/json/new?session=mine&file:///etc/passwd").await;
        let status = if kind == LeaseKind::Shared { 400 } else { 200 };
        assert_eq!(refused.status, status, "{refused:?}");

        let id = new["id"].as_str().expect("an id");
        assert_eq!(put(case, &format!("/json/activate/{id}")).await.text(), "Target activated");
        assert_eq!(put(case, &format!("/json/close/{id}")).await.text(), "Target is closing");
        let closed = second.closed(Duration::from_secs(10)).await;
        assert_eq!((closed.code, &*closed.reason), (1000, "released: the page was closed"));
        assert_eq!(case.service.try_connect(&socket(&new)).await.expect_err("gone").status, 404);
        assert_eq!(evaluate(&first, "document.title").await, "A-form", "the lease goes on");
        first.call("Browser.close", json!({})).await.expect("it is answered");
        first.closed(Duration::from_secs(10)).await;
    })
    .await;
}

async fn a_page_socket_reaches_nothing_of_another_lease(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let theirs = case.service.connect("/").await;
        let lease = theirs.lease.clone().expect("it is told");
        let foreign = pages(case, &format!("/devtools/browser/{lease}/json")).await;
        let foreign = foreign[0]["id"].as_str().expect("an id").to_owned();
        let own = case.service.connect("/devtools/page/new").await;
        let targets = own.call("Target.getTargets", json!({})).await.expect("they are listed");
        assert!(!targets.to_string().contains(&foreign), "{targets}");
        for (method, params) in [
            ("Target.attachToTarget", json!({ "targetId": foreign, "flatten": true })),
            ("Target.getTargetInfo", json!({ "targetId": foreign })),
            ("Target.closeTarget", json!({ "targetId": foreign })),
            ("Target.activateTarget", json!({ "targetId": foreign })),
            ("Browser.getWindowForTarget", json!({ "targetId": foreign })),
            ("Target.attachToBrowserTarget", json!({})),
            ("Target.setDiscoverTargets", json!({ "discover": true })),
            ("Target.createBrowserContext", json!({})),
        ] {
            let answer = own.call(method, params).await;
            assert!(answer.is_err(), "{method}: {answer:?}");
        }
        if kind == LeaseKind::Shared {
            let file = json!({ "url": "file:///etc/passwd" });
            let answer = own.call("Page.navigate", file).await.expect("it fails as any other");
            assert!(answer["errorText"].is_string(), "{answer}");
            for method in ["Tracing.start", "Browser.crash", "SystemInfo.getProcessInfo"] {
                assert!(own.call(method, json!({})).await.is_err(), "{method}");
            }
        }
        own.call("Browser.close", json!({})).await.expect("it is answered");
        own.closed(Duration::from_secs(10)).await;
        theirs.call("Target.getTargets", json!({})).await.expect("theirs goes on");
        theirs.close().await;
    })
    .await;
}

async fn a_lease_lasts_until_the_last_of_its_sockets_is_closed(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let browser = case.service.connect("/").await;
        let lease = browser.lease.clone().expect("it is told");
        let listed = pages(case, &format!("/devtools/browser/{lease}/json/list")).await;
        let page = case.service.connect(&socket(&listed[0])).await;
        browser.close().await;
        assert_eq!(evaluate(&page, "6 * 7").await, 42, "the browser's socket is gone");
        assert_eq!(case.service.sessions().await.len(), 1);
        // Not answered: its session has ended by then.
        let _closing = page.begin(None, "Page.close", json!({})).await;
        let closed = page.closed(Duration::from_secs(10)).await;
        assert_eq!(closed.code, 1000, "{closed:?}");
        eventually("the lease is over", Duration::from_secs(10), async || {
            let left = case.service.sessions().await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    })
    .await;
}

for_both_kinds!(
    pages_are_found_by_http_and_spoken_with_one_by_one,
    a_page_socket_reaches_nothing_of_another_lease,
    a_lease_lasts_until_the_last_of_its_sockets_is_closed,
);
