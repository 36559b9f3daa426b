//! A login that is still there in the next lease, and after a restart; and nowhere else.
//!
//! ```sh
//! cargo run --example profiles
//! ```

use std::error::Error;
use std::path::Path;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::response::Html;
use axum::routing::get;
use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::{Pool, Request};
use pool_policies::{Profile, Profiles};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let site = site().await?;
    let home = tempfile::tempdir()?;

    let pool = open(home.path()).await?;
    println!("log in with profile work: {}", visit(&pool, Some("work"), &site, "/login").await?);
    println!("the next lease of work:   {}", visit(&pool, Some("work"), &site, "/").await?);
    println!("profile private:          {}", visit(&pool, Some("private"), &site, "/").await?);
    println!("no profile:               {}", visit(&pool, None, &site, "/").await?);
    if let Err(error) = visit(&pool, Some("wrok"), &site, "/").await {
        println!("a profile misspelt:       {error}");
    }
    // Lets Chromium write down what it has kept in mind.
    pool.close().await;
    // With the last handle goes the lock on the state directory.
    drop(pool);

    let pool = open(home.path()).await?;
    println!("work after a restart:     {}", visit(&pool, Some("work"), &site, "/").await?);
    pool.close().await;
    Ok(())
}

/// A pool that has two profiles, each with a directory that one browser at a time uses.
async fn open(home: &Path) -> Result<Pool<ChromeDriver>, Box<dyn Error>> {
    let driver = ChromeDriver::start(ChromeConfig::new().state_dir(home.join("state"))).await?;
    let profiles = Profiles::builder(home.join("profiles"))
        .profile("work", Profile::new())
        .profile("private", Profile::new())
        .build()?;
    Ok(Pool::builder(driver).policy(profiles).max_size(2).build()?)
}

/// The title that a page shows to a profile.
async fn visit(
    pool: &Pool<ChromeDriver>,
    profile: Option<&str>,
    site: &str,
    path: &str,
) -> Result<String, Box<dyn Error>> {
    let request = match profile {
        Some(profile) => Request::new().label("profile", profile),
        None => Request::new(),
    };
    let browser = pool.acquire_with(request).await?;
    let page = browser.new_page(&format!("{site}{path}")).await?;
    Ok(page.get_title().await?.unwrap_or_default())
}

/// Knows its visitors by a cookie, which `/login` gives them for an hour.
async fn site() -> std::io::Result<String> {
    let login =
        || async { ([(SET_COOKIE, "user=ada; Max-Age=3600")], Html("<title>welcome</title>")) };
    let home = |headers: HeaderMap| async move {
        let cookie = headers.get(COOKIE).and_then(|cookie| cookie.to_str().ok());
        let user = cookie.and_then(|cookie| cookie.strip_prefix("user=")).unwrap_or("stranger");
        Html(format!("<title>hello, {user}</title>"))
    };
    browser_pool_examples::serve(Router::new().route("/", get(home)).route("/login", get(login)))
        .await
}
