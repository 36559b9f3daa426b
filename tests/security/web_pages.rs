//! S12, S13, S14: a web page, in any browser on this machine, tries to use the pool.

use browser_pool_tests::{Cdp, Setup, case, request};

const STRANGER: &str = "https://evil.example";

#[tokio::test(flavor = "multi_thread")]
async fn s12_dns_rebinding() {
    case(Setup::new(), async |case| {
        let address = &case.service.address;
        let port = address.rsplit(':').next().expect("it has a port");
        let rebound = format!("evil.example:{port}");
        for host in ["evil.example", &rebound, "127.0.0.1.evil.example", "localhost.evil.example"] {
            let headers = [("host", host)];
            for path in ["/json/version", "/sessions", "/metrics", "/api/state", "/pressure"] {
                let answer = request(address, "GET", path, &headers, "").await.expect("an answer");
                assert_eq!(answer.status, 403, "{host} {path}: {answer:?}");
            }
            let refused = Cdp::open(address, "/", &headers).await.expect_err("a foreign host");
            assert_eq!((refused.status, refused.code()), (403, "foreign_host"), "{host}");
        }
        let own = format!("localhost:{port}");
        let answer = request(address, "GET", "/json/version", &[("host", &own)], "").await;
        assert_eq!(answer.expect("an answer").status, 200);
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
            ("POST", "/api/flush"),
            ("POST", "/api/drain"),
            ("POST", "/api/resize"),
            ("POST", "/browser_pools/default/acquire"),
        ];
        for (method, path) in changes {
            let origin = [("origin", STRANGER), ("content-type", "application/json")];
            let answer = request(address, method, path, &origin, "{}").await.expect("an answer");
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
            // Images and links carry no Origin; browsers say where they come from all the same.
            let linked = [("sec-fetch-site", "cross-site"), ("content-type", "application/json")];
            let answer = request(address, method, path, &linked, "{}").await.expect("an answer");
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
        // The same by a real page of a real browser, in all the ways that need no preflight.
        let page = client.page(&case.site.at("/title.html")).await;
        let attempts = format!(
            "(async () => {{ const to = 'http://{address}'; \
             for (const path of ['/kill/all', '/api/drain', '/api/flush']) {{ \
               await fetch(to + path, {{ mode: 'no-cors' }}).catch(() => 0); \
               await fetch(to + path, {{ mode: 'no-cors', method: 'POST', body: '{{}}' }}).catch(() => 0); \
               const image = new Image(); image.src = to + path; \
               await new Promise(done => {{ image.onload = image.onerror = done; }}); }} }})()"
        );
        page.eval(&attempts).await;
        assert_eq!(page.eval("42").await, 42, "the lease is alive");
        assert_eq!(case.service.get("/readyz").await.status, 200, "it does not drain");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_with_a_token_a_change_wants_it_in_a_header() {
    const TOKEN: &str = "canary-Zk9-token";
    case(Setup::new().set("gateway.token", TOKEN).tokened(TOKEN), async |case| {
        let address = &case.service.address;
        for (method, path) in [("GET", "/kill/all"), ("POST", "/api/flush"), ("POST", "/api/drain")]
        {
            let path = format!("{path}?token={TOKEN}");
            let answer = request(address, method, &path, &[], "{}").await.expect("an answer");
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
        }
    })
    .await;
}
