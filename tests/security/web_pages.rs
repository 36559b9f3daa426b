//! S12, S13, S14: a web page, in any browser on this machine, tries to use the pool.

use std::time::Duration;

use browser_pool_tests::{Case, Cdp, LeaseKind, Setup, Site, case, for_both_kinds, request};
use serde_json::{Value, json};

const STRANGER: &str = "https://evil.example";

/// The names under which a page can reach what listens on 127.0.0.1.
const NAMES: [&str; 8] = [
    "127.0.0.1",
    "localhost",
    "0.0.0.0",
    "0",
    "127.1",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "a.localhost",
];

/// What changes the pool, or spends a lease, by HTTP.
const CHANGES: [&str; 4] =
    ["/kill/all", "/api/drain", "/api/resize", "/browser_pools/default/acquire"];

for_both_kinds!(
    s03_a_page_ends_no_lease_whatever_the_address_is_called,
    s03_a_redirect_or_popup_ends_no_lease,
);

#[tokio::test(flavor = "multi_thread")]
async fn s12_dns_rebinding() {
    // The page's name leads here, as after its second answer.
    let resolver = vec!["--host-resolver-rules=MAP evil.example 127.0.0.1".to_owned()];
    case(Setup::new().set("chrome.args", resolver), async |case| {
        let address = &case.service.address;
        let port = port(case);
        let foreign = [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a.localhost",
            "192.0.2.7",
            "0.0.0.0",
            "0",
            "127.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::]",
            "127.0.0.1.",
        ];
        for host in foreign.map(|host| format!("{host}:{port}")) {
            let headers = [("host", host.as_str())];
            for path in ["/json/version", "/sessions", "/metrics", "/api/state", "/pressure"] {
                let answer = request(address, "GET", path, &headers, "").await.expect("an answer");
                assert_eq!(answer.status, 403, "{host} {path}: {answer:?}");
            }
            let refused = Cdp::open(address, "/", &headers).await.expect_err("a foreign host");
            assert_eq!((refused.status, refused.code()), (403, "foreign_host"), "{host}");
        }
        for host in ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")) {
            let answer = request(address, "GET", "/json/version", &[("host", &host)], "").await;
            assert_eq!(answer.expect("an answer").status, 200, "{host}");
        }
        // The same by a real page: its own origin is where the pool answers.
        let client = case.service.connect("/").await;
        for name in ["evil.example", "0.0.0.0", "0", "[::ffff:127.0.0.1]"] {
            let page = client.page(&format!("http://{name}:{port}/sessions")).await;
            let read = page.eval("fetch('/api/state').then(answer => answer.json())").await;
            assert_eq!(read["code"], "foreign_host", "{name}: {read}");
            page.close().await.expect("it is open");
        }
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_cross_site_websocket() {
    case(Setup::new(), async |case| {
        let address = &case.service.address;
        let same = format!("http://{address}");
        for origin in [STRANGER, "null", "http://localhost", "file://", &same] {
            let refused = Cdp::open(address, "/", &[("origin", origin)]).await;
            let refused = refused.expect_err("it comes from a page");
            assert_eq!((refused.status, refused.code()), (403, "foreign_origin"), "{origin}");
        }
        // The same by a real page of a real browser.
        let client = case.service.connect("/").await;
        let page = client.page(&case.site.at("/title.html")).await;
        let attempt = format!(
            "new Promise(done => {{ const socket = new WebSocket('ws://{address}/'); \
             socket.onopen = () => done('open'); socket.onerror = () => done('refused'); }})"
        );
        assert_eq!(page.eval(&attempt).await, "refused");
        let sessions = case.service.sessions().await;
        assert_eq!(sessions.len(), 1, "the page got a lease: {sessions:?}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_state_changes_by_a_foreign_page() {
    case(Setup::new(), async |case| {
        let address = &case.service.address;
        let client = case.service.connect("/").await;
        let changes = [
            ("GET", "/kill/all"),
            ("POST", "/kill/all"),
            ("POST", "/api/flush"),
            ("POST", "/api/drain"),
            ("POST", "/api/resize"),
            ("POST", "/browser_pools/default/acquire"),
            ("GET", "/json/close/0123456789ABCDEF0123456789ABCDEF"),
            ("POST", "/json/close/0123456789ABCDEF0123456789ABCDEF"),
            ("GET", "/json/activate/0123456789ABCDEF0123456789ABCDEF"),
        ];
        for (method, path) in changes {
            let origin = [("origin", STRANGER), ("content-type", "application/json")];
            let answer = request(address, method, path, &origin, "{}").await.expect("an answer");
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
            // What a page sends unasked: nothing in it may have to say where it comes from.
            for headers in [
                &[][..],
                &[("sec-fetch-site", "none")],
                &[("content-type", "text/plain")],
                &[("content-type", "text/plain; application/json")],
                &[("content-type", "application/x-www-form-urlencoded")],
            ] {
                let answer = request(address, method, path, headers, "{}").await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {answer:?}");
                assert_eq!(answer.json()["code"], "cross_site", "{method} {path} {headers:?}");
            }
        }
        let refused = request(address, "GET", "/kill/all", &[], "").await.expect("an answer");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("POST") && detail.contains("application/json"), "{detail}");
        client.call("Browser.getVersion", json!({})).await.expect("the lease is alive");
        let json = [("content-type", "application/json")];
        let killed = request(address, "POST", "/kill/all", &json, "{}").await.expect("an answer");
        assert_eq!(killed.json()["killed"], 1, "{killed:?}");
    })
    .await;
}

async fn s03_a_page_ends_no_lease_whatever_the_address_is_called(kind: LeaseKind) {
    let witness = Site::start().await;
    let witness_port = witness.url.rsplit(':').next().expect("it has a port");
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        let before = standing(case).await;
        let page = client.page(&case.site.at("/hostile.html")).await;
        for name in NAMES {
            let urls = CHANGES.map(|path| format!("http://{name}:{}{path}", port(case)));
            page.eval(&format!("attack({})", json!(urls))).await;
            // A page does not see what became of its requests. A server beside the pool does.
            witness.forget();
            let url = format!("http://{name}:{witness_port}/witness");
            page.eval(&format!("attack([{}])", json!(url))).await;
            assert!(!witness.seen().is_empty(), "{name}: the page's requests do not get through");
            assert_eq!(page.eval("6 * 7").await, 42, "{name}: the lease is over");
            assert_eq!(standing(case).await, before, "{name}");
        }
        client.close().await;
    })
    .await;
}

async fn s03_a_redirect_or_popup_ends_no_lease(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        let before = standing(case).await;
        let page = client.page(&case.site.at("/hostile.html")).await;
        for name in NAMES {
            let own = format!("http://{name}:{}/kill/all", port(case));
            let mut redirect = url::Url::parse(&case.site.at("/redirect")).expect("it is one");
            redirect.query_pairs_mut().append_pair("to", &own);
            page.eval(&format!("popups({})", json!([own, redirect.as_str()]))).await;
            // By a client that goes where a server sends it.
            let guest = client.page("about:blank").await;
            for status in [301, 302, 303, 307] {
                guest.go(&format!("{redirect}&status={status}")).await.expect("it is answered");
            }
            assert_eq!(guest.eval("document.body.innerText.includes('killed')").await, false);
            guest.close().await.expect("it is open");
            assert_eq!(page.eval("6 * 7").await, 42, "{name}: the lease is over");
            assert_eq!(standing(case).await, before, "{name}");
        }
        client.close().await;
    })
    .await;
}

/// What a change would change: the leases, the sizes, and whether it drains.
async fn standing(case: &Case) -> Value {
    let state = case.service.state().await;
    let sessions: Vec<&Value> =
        state["sessions"].as_array().into_iter().flatten().map(|session| &session["id"]).collect();
    let load = &state["load"];
    json!([sessions, load["min_size"], load["max_size"], load["leased"], state["draining"]])
}

fn port(case: &Case) -> &str {
    case.service.address.rsplit(':').next().expect("it has a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_with_a_token_a_change_shows_it() {
    const TOKEN: &str = "canary-Zk9-token";
    case(Setup::new().set("gateway.token", TOKEN).tokened(TOKEN), async |case| {
        let address = &case.service.address;
        for (method, path) in [("GET", "/kill/all"), ("POST", "/api/flush"), ("POST", "/api/drain")]
        {
            for path in [path.to_owned(), format!("{path}?token=wrong")] {
                let json = [("content-type", "application/json")];
                let answer = request(address, method, &path, &json, "{}").await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 401, "{path}: {answer:?}");
            }
        }
        // As clients of browserless end a lease.
        let client = case.service.connect("/?trackingId=nightly").await;
        let path = format!("/kill/nightly?token={TOKEN}");
        let killed = request(address, "GET", &path, &[], "").await.expect("an answer");
        assert_eq!(killed.json()["killed"], 1, "{killed:?}");
        assert_eq!(client.closed(Duration::from_secs(5)).await.code, 1000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_page_of_another_site_does_not_show_the_screen_of_a_lease() {
    case(Setup::new(), async |case| {
        let client = case.service.connect("/").await;
        let page = client.page(&case.site.at("/title.html")).await;
        let browser = case.service.state().await["sessions"][0]["browserId"].clone();
        let path = format!("/api/browsers/{browser}/screenshot");
        let shot = case.service.get(&path).await;
        assert_eq!(shot.status, 200, "{shot:?}");
        assert_eq!(shot.header("cross-origin-resource-policy"), Some("same-origin"));
        let shown = format!(
            "new Promise(done => {{ const image = new Image(); image.onload = () => done(true); \
             image.onerror = () => done(false); image.src = 'http://{}{path}'; }})",
            case.service.address
        );
        assert_eq!(page.eval(&shown).await, false);
        client.close().await;
    })
    .await;
}
