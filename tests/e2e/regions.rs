//! A proxy with credentials, and what happens without it.

use browser_pool_tests::process::Process;
use browser_pool_tests::{Case, Proxy, Setup, case};
use toml::{Table, Value};

const PASSWORD: &str = "canary-Zk9-proxy-password";

/// `user:PASSWORD` in base64, as it stands in the header.
const CREDENTIALS: &str = "dXNlcjpjYW5hcnktWms5LXByb3h5LXBhc3N3b3Jk";

fn setup(proxy: &Proxy) -> Setup {
    let mut password = Table::new();
    password.insert("env".into(), "EU_PASSWORD".into());
    let mut table = Table::new();
    table.insert("url".into(), proxy.url.clone().into());
    table.insert("username".into(), "user".into());
    table.insert("password".into(), password.into());
    Setup::new()
        .size(1)
        .set("pool.max_size", 3)
        .set("regions.eu.proxies", vec![Value::Table(table)])
        .env("EU_PASSWORD", PASSWORD)
}

/// Where the password, or the header made of it, could be found by somebody who looks.
async fn places(case: &Case) -> Vec<(String, String)> {
    let mut places = vec![("the log".to_owned(), case.home.log())];
    let service = Process::read(case.service.process.pid).expect("it runs");
    places.push(("its arguments".to_owned(), service.arguments().join(" ")));
    for process in case.oracle.ours.chromium() {
        let name = format!("{} ({})", process.name, process.id.pid);
        places.push((format!("the arguments of {name}"), process.arguments().join(" ")));
        places.push((format!("the environment of {name}"), process.environment().join(" ")));
    }
    for path in ["/api/state", "/api/history", "/sessions", "/metrics", "/pressure"] {
        places.push((path.to_owned(), case.service.get(path).await.text()));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_sees_the_proxy_and_nobody_sees_its_password() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        let client = case.service.connect("/?region=eu").await;
        let page = client.page(&case.site.at("/title.html")).await;
        assert_eq!(page.eval("document.title").await, "A page with a title");
        let seen = case.site.seen();
        assert!(!seen.is_empty());
        for request in &seen {
            assert!(request.headers.contains_key(Proxy::MARK), "not by the proxy: {request:?}");
            assert!(!request.headers.contains_key("proxy-authorization"), "{request:?}");
        }
        for (place, text) in places(case).await {
            assert!(!text.contains(PASSWORD), "the password is in {place}");
            assert!(!text.contains(CREDENTIALS), "the credentials are in {place}");
        }
        client.close().await;

        case.site.forget();
        let anonymous = case.service.connect("/").await;
        anonymous.page(&case.site.at("/title.html")).await;
        let seen = case.site.seen();
        assert!(!seen.iter().any(|request| request.headers.contains_key(Proxy::MARK)));
        anonymous.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_proxy_the_lease_fails_and_nothing_reaches_the_origin() {
    let proxy = Proxy::start(CREDENTIALS).await;
    let setup = setup(&proxy);
    proxy.stop().await;
    case(setup, async |case| {
        let refused = case.service.try_connect("/?region=eu&acquire_timeout=5000").await;
        let refused = refused.expect_err("there is no way out");
        assert!([408, 503].contains(&refused.status), "{refused:?}");
        assert!(refused.detail().contains("proxy"), "{refused:?}");
        assert!(!refused.body.to_string().contains(PASSWORD), "{refused:?}");
        assert!(case.site.seen().is_empty(), "{:?}", case.site.seen());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_dies_during_a_lease_is_never_gone_round() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        let client = case.service.connect("/?region=eu").await;
        let page = client.page(&case.site.at("/title.html")).await;
        proxy.stop().await;
        case.site.forget();
        let answer = page.go(&case.site.at("/title/after")).await.expect("the browser answers");
        let error = answer["errorText"].as_str().unwrap_or_default();
        let loaded = page.eval("document.title").await;
        assert!(error.starts_with("net::ERR_") || loaded != "after", "{answer}: {loaded}");
        assert!(case.site.seen().is_empty(), "{:?}", case.site.seen());
        client.close().await;
    })
    .await;
}
