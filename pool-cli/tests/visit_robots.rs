//! `pool-cli visit --robots`: answers to the request for a `robots.txt`, on both engines.

mod gateway_support;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use gateway_support::Visit;
use tokio::net::TcpListener;

const ENGINES: [&str; 2] = ["shell", "chromium"];

const RULES: &str = "User-agent: *\nDisallow: /denied\n";

/// `Disallow: /denied` for all, by gzip.
const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x0b\x2d\x4e\x2d\xd2\x4d\x4c\x4f\
    \xcd\x2b\xb1\x52\xd0\xe2\x72\xc9\x2c\x4e\xcc\xc9\xc9\x2f\xb7\x52\xd0\x4f\
    \x49\xcd\xcb\x4c\x4d\xe1\x02\x00\xfb\x58\x90\xd3\x20\x00\x00\x00";

/// A site of two pages, whose `robots.txt` is answered like this.
async fn site(robots: impl Fn() -> Response + Clone + Send + Sync + 'static) -> String {
    let page = get(|| async { Html("<title>page</title>") });
    let router = Router::new()
        .route("/robots.txt", get(async move || robots()))
        .route("/elsewhere", get(|| async { RULES }))
        .route("/denied", page.clone())
        .route("/open", page);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The rules, with a header that says what they are.
fn rules(name: &'static str, value: &'static str) -> Response {
    ([(HeaderName::from_static(name), value)], RULES).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_read_however_they_are_served() {
    for engine in ENGINES {
        let sites = [
            site(|| rules("content-type", "text/plain")).await,
            site(|| rules("content-disposition", "attachment; filename=robots.txt")).await,
            site(|| rules("content-type", "application/octet-stream")).await,
            site(|| rules("content-type", "application/x-nobody-knows")).await,
            site(|| rules("content-type", "application/pdf")).await,
            site(|| rules("content-type", "text/html")).await,
            site(|| ([("content-encoding", "gzip")], ZIPPED).into_response()).await,
            site(|| Redirect::permanent("/elsewhere").into_response()).await,
        ];
        let urls: Vec<String> = sites
            .iter()
            .flat_map(|site| [format!("{site}/denied"), format!("{site}/open")])
            .collect();
        let visit = Visit::new(engine);
        let (code, told) = visit.run(&urls, &["--robots", "-n", "3"]).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        for pair in urls.chunks(2) {
            let denied = visit.record(&pair[0]);
            assert_eq!(denied["error"]["code"], "robots_denied", "{engine}: {denied}\n{told}");
            assert_eq!(visit.record(&pair[1])["title"], "page", "{engine}: {told}");
        }
        visit.until_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_rules_allows_all_and_one_that_fails_nothing() {
    for engine in ENGINES {
        let open = [
            site(|| StatusCode::NOT_FOUND.into_response()).await,
            site(|| (StatusCode::FORBIDDEN, RULES).into_response()).await,
            site(|| StatusCode::NO_CONTENT.into_response()).await,
            site(|| "".into_response()).await,
        ];
        let failing = [
            site(|| (StatusCode::SERVICE_UNAVAILABLE, RULES).into_response()).await,
            site(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await,
            site(|| (StatusCode::MULTIPLE_CHOICES, RULES).into_response()).await,
            site(|| Redirect::permanent("/robots.txt").into_response()).await,
            site(|| Redirect::permanent("http://127.0.0.1:9/robots.txt").into_response()).await,
        ];
        let pages = |sites: &[String]| {
            sites.iter().map(|site| format!("{site}/denied")).collect::<Vec<String>>()
        };
        let (open, failing) = (pages(&open), pages(&failing));
        let visit = Visit::new(engine);
        let (code, told) =
            visit.run(&[&open[..], &failing].concat(), &["--robots", "-n", "3"]).await;
        assert_eq!(code, Some(1), "{engine}: {told}");
        for url in &open {
            assert_eq!(visit.record(url)["title"], "page", "{engine}: {told}");
        }
        for url in &failing {
            let record = visit.record(url);
            assert_eq!(record["error"]["code"], "robots_unknown", "{engine}: {record}\n{told}");
        }
    }
}
