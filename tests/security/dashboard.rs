//! S36, S37: what a page, or a client, can do to whoever looks at the dashboard.

use std::time::Duration;

use browser_pool_tests::{Setup, case, request};
use serde_json::json;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn s36_dashboard_xss() {
    case(Setup::new(), async |case| {
        let evil = "<img src=x onerror=pwned=1>\"'><script>pwned=1</script>";
        let client = case.service.connect("/?trackingId=x").await;
        let page = client.page("about:blank").await;
        page.eval(&format!("document.title = {}", json!(evil))).await;
        // Refusals are shown too, and name what they refuse.
        let bad = "/?profile=%3Cimg%20src%3Dx%20onerror%3Dpwned%3D1%3E";
        let _ = case.service.try_connect(bad).await.expect_err("there is no such name");

        let viewer = case.service.connect("/").await;
        let dashboard = viewer.page(&format!("http://{}/", case.service.address)).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(dashboard.eval("typeof pwned").await, "undefined");
        let images = dashboard.eval("document.querySelectorAll('img[onerror]').length").await;
        assert_eq!(images, 0);
        viewer.close().await;
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s37_framing_and_content_policy() {
    case(Setup::new(), async |case| {
        let address = &case.service.address;
        let accept = [("accept", "text/html")];
        let answer = request(address, "GET", "/", &accept, "").await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            policy.contains("default-src 'none'") || policy.contains("default-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe-eval"), "{policy}");
        let sniff = answer.header("x-content-type-options").unwrap_or_default();
        assert_eq!(sniff, "nosniff");

        // By a page of a real browser.
        let client = case.service.connect("/").await;
        let page = client.page(&case.site.at("/title.html")).await;
        let framed = format!(
            "new Promise(done => {{ const frame = document.createElement('iframe'); \
             frame.src = 'http://{address}/'; frame.onload = done; \
             document.body.append(frame); }}).then(() => 1)"
        );
        page.eval(&framed).await;
        let tree = page.call("Page.getFrameTree", json!({})).await.expect("it has one");
        let frame = &tree["frameTree"]["childFrames"][0]["frame"];
        let url = frame["url"].as_str().unwrap_or_default();
        assert!(url.starts_with("chrome-error:"), "the dashboard was framed: {frame}");
        client.close().await;
    })
    .await;
}
