//! A login that is kept, and for whom.

use std::time::Duration;

use browser_pool_tests::{Case, Setup, case};
use rustix::process::Signal;
use toml::Table;

/// The cookies that the site gets from a lease, after it has set one if it is told to.
async fn cookies(case: &Case, lease: &str, set: &str) -> String {
    let client = case.service.connect(lease).await;
    let page = client.page(&case.site.at(&format!("/cookie{set}"))).await;
    page.go(&case.site.at("/cookie")).await.expect("the page loads");
    let text = page.eval("document.body.textContent").await;
    client.close().await;
    text.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_kept_over_leases_and_a_restart_and_nobody_else_has_it() {
    let setup = Setup::new()
        .size(1)
        .set("pool.max_size", 3)
        .set("profiles.work", Table::new())
        .set("profiles.other", Table::new());
    case(setup, async |case| {
        let login = "?name=login&value=me&attributes=HttpOnly;%20Max-Age=86400";
        let set = cookies(case, "/?profile=work", login).await;
        assert!(set.contains("login=me"), "{set}");

        let again = cookies(case, "/?profile=work", "").await;
        assert!(again.contains("login=me"), "the next lease: {again}");
        for stranger in ["/?profile=other", "/"] {
            let theirs = cookies(case, stranger, "").await;
            assert!(!theirs.contains("login"), "{stranger}: {theirs}");
        }

        case.service.signal(Signal::TERM);
        let exit = case.service.exit(Duration::from_secs(20)).await;
        assert_eq!(exit.code, Some(0));
        case.restart().await;
        let after = cookies(case, "/?profile=work", "").await;
        assert!(after.contains("login=me"), "after the restart: {after}");
        for stranger in ["/?profile=other", "/"] {
            let theirs = cookies(case, stranger, "").await;
            assert!(!theirs.contains("login"), "{stranger} after the restart: {theirs}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_nobody_has_made_is_not_found() {
    case(Setup::new().size(1), async |case| {
        let refused = case.service.try_connect("/?profile=nobody").await.expect_err("refused");
        assert_eq!((refused.status, refused.code()), (404, "unknown_profile"), "{refused:?}");
    })
    .await;
}
