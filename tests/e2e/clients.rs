//! A hundred sessions of every client, eight at a time on two browsers: all are served, and none
//! finds anything of another.

use std::time::Duration;

use browser_pool_tests::{Case, Engine, Script, Setup, case, rounds};
use chromiumoxide::Browser;
use chromiumoxide::page::ScreenshotParams;
use futures_util::StreamExt;
use futures_util::stream::iter;

/// Maximum time of a session on a machine that does much else, its time in the queue included.
const PATIENCE: Duration = Duration::from_secs(120);

fn setup(engine: Engine) -> Setup {
    Setup::new().engine(engine).set("pool.acquire_timeout", "2m")
}

/// The shell has its hundred in every run, as it is what `auto` takes; the whole browser is four
/// times as slow and has them in a long one.
fn sessions(engine: Engine) -> usize {
    match engine {
        Engine::Shell => 100,
        Engine::Chromium => rounds(12, 100),
    }
}

/// Runs a script that makes sessions, which look for what others have left behind.
async fn script(engine: Engine, name: &str, more: &[&str]) {
    case(setup(engine), async |case| {
        let count = sessions(engine).to_string();
        let timeout = PATIENCE.as_millis().to_string();
        let url = case.service.url("/?priority=1");
        let outcome = Script::new(name)
            .args([&url, &case.site.url])
            .args(["--sessions", &count, "--concurrency", "8", "--timeout", &timeout])
            .args(more)
            .run(Duration::from_secs(600))
            .await;
        let failed: Vec<_> = outcome.lines.iter().filter(|line| line["ok"] == false).collect();
        assert!(failed.is_empty(), "{failed:?}\n{}", outcome.stderr);
        let summary = outcome.lines.last().expect("it ends with a summary");
        assert_eq!(summary["ok"], sessions(engine), "{summary}\n{}", outcome.stderr);
        assert_eq!(summary["leaks"], 0, "{summary}");
    })
    .await;
}

/// The same in chromiumoxide.
async fn chromiumoxide(engine: Engine) {
    case(setup(engine), async |case| {
        let case: &Case = case;
        let failures: Vec<String> = iter(0..sessions(engine))
            .map(|number| async move {
                let session = tokio::time::timeout(PATIENCE, session(case, number)).await;
                let told = session.unwrap_or_else(|_| Err("it took too long".to_owned()));
                told.err().map(|error| format!("session {number}: {error}"))
            })
            .buffer_unordered(8)
            .filter_map(async |failure| failure)
            .collect()
            .await;
        assert!(failures.is_empty(), "{failures:#?}");
    })
    .await;
}

async fn session(case: &Case, number: usize) -> Result<(), String> {
    let told = |error: chromiumoxide::error::CdpError| error.to_string();
    let url = case.service.url("/?priority=1");
    let (mut browser, mut handler) = Browser::connect(url).await.map_err(told)?;
    let handling = tokio::spawn(async move { while handler.next().await.is_some() {} });
    let outcome = async {
        let page = browser.new_page(case.site.at("/title.html")).await.map_err(told)?;
        let title = page.get_title().await.map_err(told)?;
        if title.as_deref() != Some("A page with a title") {
            return Err(format!("the title is {title:?}"));
        }
        let mark = format!(
            "(() => {{ const found = document.cookie + JSON.stringify(localStorage); \
             document.cookie = 'mark={number}; Max-Age=3600; Path=/'; \
             localStorage.mark = {number}; return found; }})()"
        );
        let found: String = value(&page, mark).await?;
        if found != "{}" {
            return Err(format!("it found {found}"));
        }
        let kept: String = value(&page, "document.cookie + localStorage.mark".to_owned()).await?;
        if kept != format!("mark={number}{number}") {
            return Err(format!("its own mark became {kept}"));
        }
        let png = page.screenshot(ScreenshotParams::default()).await.map_err(told)?;
        if !png.starts_with(b"\x89PNG") {
            return Err("the screenshot is no PNG".to_owned());
        }
        page.close().await.map_err(told)
    }
    .await;
    let closed = browser.close().await.map_err(told);
    handling.abort();
    outcome.and(closed.map(drop))
}

async fn value(page: &chromiumoxide::Page, script: String) -> Result<String, String> {
    let evaluated = page.evaluate(script).await.map_err(|error| error.to_string())?;
    evaluated.into_value().map_err(|error| error.to_string())
}

macro_rules! sessions_of {
    ($($client:ident: $run:ident $(, $argument:expr)*;)+) => {$(
        mod $client {
            use browser_pool_tests::Engine;

            #[tokio::test(flavor = "multi_thread")]
            async fn on_the_shell() {
                super::$run(Engine::Shell $(, $argument)*).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_chromium() {
                super::$run(Engine::Chromium $(, $argument)*).await;
            }
        }
    )+};
}

sessions_of! {
    playwright: script, "load.mjs", &["--client", "playwright"];
    playwright_for_python: script, "load.py", &[];
    puppeteer: script, "load.mjs", &["--client", "puppeteer"];
    oxide: chromiumoxide;
}
