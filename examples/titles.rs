//! The titles of many pages, a few at a time, each read in a clean browser.
//!
//! ```sh
//! cargo run --example titles                                    # a site of its own
//! cargo run --example titles -- https://example.com/ https://www.rust-lang.org/
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::Html;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::Pool;
use tokio::time::{Instant, timeout};

const AT_ONCE: usize = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls = match std::env::args().skip(1).collect::<Vec<_>>() {
        urls if urls.is_empty() => site().await?,
        urls => urls,
    };

    // One pool at a time uses a state directory. Left out, it is below XDG_STATE_HOME.
    let home = tempfile::tempdir()?;
    let driver = ChromeDriver::start(ChromeConfig::new().state_dir(home.path())).await?;
    let pool = Pool::builder(driver).max_size(AT_ONCE).build()?;

    let begun = Instant::now();
    let mut titles = stream::iter(&urls)
        .map(async |url| (url, timeout(Duration::from_secs(30), title(&pool, url)).await))
        .buffered(AT_ONCE);
    while let Some((url, outcome)) = titles.next().await {
        // A page that hangs or kills its browser costs only itself.
        match outcome {
            Ok(Ok(title)) => println!("{url}  {title}"),
            Ok(Err(error)) => println!("{url}  failed: {error}"),
            Err(_) => println!("{url}  took too long"),
        }
    }
    let (took, counters) = (begun.elapsed(), pool.stats().counters);
    println!(
        "{} pages in {:.1} s, {} leases of {} browsers",
        urls.len(),
        took.as_secs_f64(),
        counters.acquired,
        counters.created,
    );

    // Waits until every process is gone. Without it they end with this one.
    pool.close().await;
    Ok(())
}

/// Reads one page's title. The page, its cookies and its cache go with the lease, which is given
/// back on every way out of here.
async fn title(pool: &Pool<ChromeDriver>, url: &str) -> Result<String, Box<dyn Error>> {
    let browser = pool.acquire().await?;
    let page = browser.new_page(url).await?;
    Ok(page.get_title().await?.unwrap_or_default())
}

/// Twelve pages to read.
async fn site() -> std::io::Result<Vec<String>> {
    let page = |Path(number): Path<u32>| async move {
        Html(format!("<title>Page {number} of 12</title><script>document.title += '!'</script>"))
    };
    let site = browser_pool_examples::serve(Router::new().route("/{number}", get(page))).await?;
    Ok((1..=12).map(|number| format!("{site}/{number}")).collect())
}
