//! Whoever dies, nothing stays.

use std::time::Duration;

use browser_pool_tests::{LeaseKind, Setup, case, eventually, for_both_kinds};
use rustix::process::Signal;

for_both_kinds!(a_killed_pool_leaves_no_chromium, a_killed_chromium_is_told_and_replaced);

async fn a_killed_pool_leaves_no_chromium(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let one = case.service.connect("/").await;
        let other = case.service.connect("/").await;
        one.page(&case.site.at("/flood.html")).await;
        other.page("about:blank").await;
        case.kill_service().await;
        case.oracle.gone(Duration::from_secs(2)).await;
        case.restart().await;
    })
    .await;
}

async fn a_killed_chromium_is_told_and_replaced(kind: LeaseKind) {
    case(Setup::new().kind(kind), async |case| {
        let client = case.service.connect("/").await;
        client.page("about:blank").await;
        let browser = case.service.browser_of(&client).await;
        let killed = tokio::time::Instant::now();
        browser.signal(Signal::KILL);
        let closed = client.closed(Duration::from_secs(5)).await;
        assert_eq!(closed.code, 4500, "{closed:?}");
        assert!(closed.reason.starts_with("browser_crashed"), "{closed:?}");
        let told = closed.at - killed;
        assert!(told <= Duration::from_secs(1), "told after {told:?}");
        eventually("the pool is full again", Duration::from_secs(10), async || {
            let load = case.service.state().await["load"].clone();
            if load["idle"] == load["min_size"] { Ok(()) } else { Err(load) }
        })
        .await;
    })
    .await;
}
