//! Browsers by region, each behind one of the region's proxies, and never without.
//!
//! ```sh
//! cargo run --example geo_proxy
//! ```

use std::error::Error;
use std::io;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::StatusCode;
use axum::http::header::{PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use axum::response::{Html, IntoResponse};
use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::{Pool, Request};
use pool_policies::{ConnectProbe, GeoProxy, Proxy, Region};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let eu_west = Proxy::parse(&proxy("eu-west").await?)?.credentials("pool", "secret");
    let us_east = Proxy::parse(&proxy("us-east").await?)?.credentials("pool", "secret");
    // Nobody listens at that port.
    let down = Proxy::parse("http://127.0.0.1:1")?;

    let regions = GeoProxy::builder()
        .region("eu-west", Region::new().proxy(eu_west))
        .region("us-east", Region::new().proxy(us_east))
        .region("ap-south", Region::new().proxy(down.clone()).fallback("us-east"))
        // No fallback: then it is an error. Nothing ever goes out directly.
        .region("af-north", Region::new().proxy(down))
        .probe(ConnectProbe)
        .build()?;

    let home = tempfile::tempdir()?;
    let driver = ChromeDriver::start(ChromeConfig::new().state_dir(home.path())).await?;
    let pool = Pool::builder(driver).policy(regions.clone()).max_size(2).build()?;

    for region in ["eu-west", "us-east", "ap-south", "af-north", "the-moon"] {
        match visit(&pool, region).await {
            Ok(title) => println!("{region}: {title}"),
            Err(error) => println!("{region}: {error}"),
        }
    }
    for proxy in regions.status() {
        let state = if proxy.is_serving { "in service" } else { "out of service" };
        println!("a proxy of {} is {state}", proxy.region);
    }
    pool.close().await;
    Ok(())
}

async fn visit(pool: &Pool<ChromeDriver>, region: &str) -> Result<String, Box<dyn Error>> {
    let browser = pool.acquire_with(Request::new().label("region", region)).await?;
    // There is no such host. Only the proxy is asked for it, so it does not matter.
    let page = browser.new_page("http://shop.example/").await?;
    Ok(page.get_title().await?.unwrap_or_default())
}

/// A proxy that requires credentials and, this being an example, is also the whole internet behind it.
///
/// Chromium takes no credentials for a proxy. A forwarder of the pool's own, on loopback, adds them,
/// so that they are on no command line.
async fn proxy(region: &'static str) -> io::Result<String> {
    let answer = move |request: HttpRequest| async move {
        let basic = "Basic cG9vbDpzZWNyZXQ="; // pool:secret
        if request.headers().get(PROXY_AUTHORIZATION).is_none_or(|shown| shown != basic) {
            let challenge = [(PROXY_AUTHENTICATE, "Basic realm=\"example\"")];
            return (StatusCode::PROXY_AUTHENTICATION_REQUIRED, challenge).into_response();
        }
        let host = request.uri().host().unwrap_or("nobody").to_owned();
        Html(format!("<title>{host} as {region} sees it</title>")).into_response()
    };
    browser_pool_examples::serve(Router::new().fallback(answer)).await
}
