use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::binary::workspace;

/// A site of our own on loopback, with a log of what was asked of it.
///
/// It serves the pages of `tests/site/pages`, and the routes behind them that the suites need.
#[derive(Debug)]
pub struct Site {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    log: Log,
    task: JoinHandle<()>,
}

/// One request as the site saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
}

type Log = Arc<Mutex<Vec<Seen>>>;
type Parameters = Query<BTreeMap<String, String>>;

impl Site {
    /// Begins to serve.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start() -> Self {
        let log = Log::default();
        let router = Router::new()
            .route("/title/{words}", get(title))
            .route("/cookie", get(cookie))
            .route("/auth", get(auth))
            .route("/auth/seen", get(auth_seen))
            .route("/cached", get(cached))
            .route("/echo", get(echo))
            .route("/slow", get(slow))
            .route("/hang", get(hang))
            .route("/redirect", any(redirect))
            .route("/download", get(download))
            .route("/download/slow", get(endless_download))
            .fallback(page)
            .layer(from_fn_with_state(Arc::clone(&log), note));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves until it is dropped");
        });
        Self { url: format!("http://{address}"), log, task }
    }

    /// The address of a path here.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// What was asked so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn note(State(log): State<Log>, request: Request, next: Next) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let seen = Seen { path, headers: request.headers().clone() };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let mut response = next.run(request).await;
    let cached = response.headers().contains_key(header::CACHE_CONTROL);
    if !cached {
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, "no-store".parse().expect("it is one"));
    }
    response
}

/// `/title/some%20words`: a page with that title.
async fn title(UrlPath(words): UrlPath<String>) -> Html<String> {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    Html(format!("<!doctype html><title>{words}</title><h1>{words}</h1>"))
}

/// Sets `name=value` if asked to, and answers with the cookies that came.
async fn cookie(Query(query): Parameters, headers: HeaderMap) -> Response {
    let came = text(&headers, header::COOKIE);
    let mut response = axum::Json(json!({ "cookie": came })).into_response();
    if let Some(name) = query.get("name") {
        let value = query.get("value").map_or("", String::as_str);
        let attributes =
            query.get("attributes").map(|more| format!("; {more}")).unwrap_or_default();
        let cookie = format!("{name}={value}; Path=/{attributes}");
        let cookie = cookie.parse().expect("a test writes a cookie");
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// `user` and `secret` in base64.
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

async fn auth(headers: HeaderMap) -> Response {
    if text(&headers, header::AUTHORIZATION) == CREDENTIALS {
        return Html("<!doctype html><title>Welcome, user</title>").into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"browser-pool\"")];
    (StatusCode::UNAUTHORIZED, challenge, "credentials wanted").into_response()
}

async fn auth_seen(headers: HeaderMap) -> axum::Json<serde_json::Value> {
    axum::Json(json!({ "authorized": text(&headers, header::AUTHORIZATION) == CREDENTIALS }))
}

/// Cacheable for an hour, another body for every request that comes here.
async fn cached() -> Response {
    let body = axum::Json(json!({ "id": fastrand::u64(..) }));
    ([(header::CACHE_CONTROL, "max-age=3600")], body).into_response()
}

async fn echo(request: Request) -> axum::Json<serde_json::Value> {
    let headers: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    axum::Json(json!({ "path": request.uri().path(), "headers": headers }))
}

async fn slow(Query(query): Parameters) -> Html<&'static str> {
    let ms = query.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(1000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Html("<!doctype html><title>Slow</title>")
}

/// `/redirect?to=…&status=307`: sends whatever comes elsewhere.
async fn redirect(Query(query): Parameters) -> Response {
    let status = query.get("status").and_then(|status| status.parse().ok()).unwrap_or(302);
    let status = StatusCode::from_u16(status).expect("a test writes a status");
    let to = query.get("to").cloned().unwrap_or_default();
    // Scripts of this site may follow, so that only the server at the end can refuse.
    (status, [(header::LOCATION, to), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned())])
        .into_response()
}

async fn hang() {
    std::future::pending::<()>().await;
}

const ATTACHMENT: [(header::HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "application/octet-stream"),
    (header::CONTENT_DISPOSITION, "attachment; filename=\"report.bin\""),
];

async fn download() -> Response {
    (ATTACHMENT, vec![b'x'; 100_000]).into_response()
}

/// Begins, and goes on for ever with a little every now and then.
async fn endless_download() -> Response {
    let chunks = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024])), ()))
    });
    (ATTACHMENT, axum::body::Body::from_stream(chunks)).into_response()
}

/// A page of the site that the clients' tests use too.
async fn page(request: Request) -> Response {
    let name = request.uri().path().trim_start_matches('/');
    let plain = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    let not_found = (StatusCode::NOT_FOUND, Html("<!doctype html><title>Not found</title>"));
    if name.starts_with('.') || !name.chars().all(plain) {
        return not_found.into_response();
    }
    let path = workspace().join("tests/site/pages").join(name);
    let Ok(bytes) = tokio::fs::read(&path).await else { return not_found.into_response() };
    let kind = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    ([(header::CONTENT_TYPE, kind)], bytes).into_response()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
