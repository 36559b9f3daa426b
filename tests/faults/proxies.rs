//! F41: proxies that fail in every way there is.

use std::time::Duration;

use browser_pool_tests::{Case, Proxy, ProxyFault, Setup, case};
use serde_json::Value as Json;
use tokio::time::{Instant, timeout};
use toml::{Table, Value};

use crate::support::works;

/// `user:password` in base64.
const CREDENTIALS: &str = "dXNlcjpwYXNzd29yZA==";

fn setup(proxy: &Proxy) -> Setup {
    let mut table = Table::new();
    table.insert("url".into(), proxy.url.clone().into());
    table.insert("username".into(), "user".into());
    table.insert("password".into(), "password".into());
    Setup::new()
        .size(1)
        .set("pool.max_size", 3)
        .set("regions.eu.proxies", vec![Value::Table(table)])
}

/// Time in which a region's browser is there, on a machine that has much else to do, where nothing is
/// wrong with its proxy.
const LAUNCHED: Duration = Duration::from_secs(60);

/// Time that a client waits where something may be wrong.
const WAIT: Duration = Duration::from_secs(8);

/// A lease by the region, within this time, and a page by that lease: the page's title, or whatever went
/// wrong.
async fn title(case: &Case, wait: Duration) -> Result<Json, String> {
    let path = format!("/?region=eu&acquire_timeout={}", wait.as_millis());
    let client = case.service.try_connect(&path).await;
    let client = client.map_err(|refused| {
        assert!([408, 503].contains(&refused.status), "{refused:?}");
        assert!(!refused.code().is_empty(), "no typed error: {refused:?}");
        refused.detail().to_owned()
    })?;
    let page = client.page("about:blank").await;
    let url = case.site.at("/title.html");
    let went = page.go(&url);
    let went = timeout(Duration::from_secs(20), went).await.map_err(|_| "it hangs".to_owned())?;
    let went = went.map_err(|error| format!("{error:?}"))?;
    match went["errorText"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(page.eval("document.title").await),
    }
}

const TITLE: &str = "A page with a title";

/// The proxy fails, then it does not; meanwhile the others are served and nothing goes round it.
async fn fails_and_heals(fault: ProxyFault) {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        proxy.fail(fault);
        let began = Instant::now();
        let found = title(case, WAIT).await;
        println!("{fault:?}: {found:?} after {:?}", began.elapsed());
        // An error page of the proxy's own making has no title of the site's.
        assert_ne!(found.as_ref().ok(), Some(&Json::from(TITLE)), "it went through");
        assert!(case.site.seen().is_empty(), "it went round: {:?}", case.site.seen());

        let other = case.service.connect("/").await;
        works(&other).await.expect("others are not affected");
        let page = other.page(&case.site.at("/title.html")).await;
        assert_eq!(page.eval("document.title").await, TITLE);
        other.close().await;
        case.site.forget();

        proxy.fail(ProxyFault::None);
        heals(case).await;
    })
    .await;
}

async fn heals(case: &Case) {
    browser_pool_tests::eventually("the region heals", Duration::from_secs(120), async || {
        match title(case, WAIT).await {
            Ok(title) if title == TITLE => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for request in case.site.seen() {
        assert!(request.headers.contains_key(Proxy::MARK), "it went round: {request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_refuses() {
    fails_and_heals(ProxyFault::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_is_a_black_hole() {
    fails_and_heals(ProxyFault::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_answers_407() {
    fails_and_heals(ProxyFault::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_answers_502() {
    fails_and_heals(ProxyFault::BadGateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_is_slow() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        proxy.fail(ProxyFault::Slow);
        assert_eq!(title(case, LAUNCHED).await, Ok(Json::from(TITLE)), "slow is not down");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f41_proxy_dies() {
    let proxy = Proxy::start(CREDENTIALS).await;
    case(setup(&proxy), async |case| {
        assert_eq!(title(case, LAUNCHED).await, Ok(Json::from(TITLE)));
        proxy.stop().await;
        case.site.forget();
        let found = title(case, WAIT).await;
        println!("{found:?}");
        assert!(found.is_err() || found != Ok(Json::from(TITLE)), "it went through");
        assert!(case.site.seen().is_empty(), "it went round: {:?}", case.site.seen());
    })
    .await;
}
