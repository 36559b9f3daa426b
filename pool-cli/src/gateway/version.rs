//! `GET */json/version` and its like: how clients that are given `http://` find the WebSocket, and
//! what they ask about the browsers behind it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use url::form_urlencoded;

use super::refusal::refusal;
use super::who::Who;
use super::{Gateway, LeaseId, LeaseQuery, Problem, Settings};
use crate::pool::Version;

/// Where it is asked for once [`find`] has looked at the address.
pub(super) const PATH: &str = "/json/version";

/// Where the protocol is.
pub(super) const PROTOCOL: &str = "/json/protocol";

/// Returns the address without what a client has put before or behind it, if that is not what the
/// router takes as it is.
///
/// Playwright appends `/json/version/` to the path and keeps the query behind it; chromiumoxide
/// appends it to the whole address, and so to the query. What stands before it is left out, unless
/// it is the address of a lease. Clients that keep neither query nor headers of an address show
/// the token in its path, `/t/<token>/…`; it goes on in the query, so that what is handed out has
/// it, too. It stands first there: what `/json/new` opens is the end of the query.
pub(super) fn find(uri: &Uri) -> Option<Uri> {
    let (path, token) = split_token(uri.path());
    let mut query = uri.query().unwrap_or_default();
    let bare = path.trim_end_matches('/');
    let path = if let Some(known) = find_json(bare) {
        known
    } else if let Some(before) = query.trim_end_matches('/').strip_suffix(PATH) {
        query = before;
        PATH
    } else if token.is_some() {
        path
    } else {
        return None;
    };
    let token = token.map(|token| {
        form_urlencoded::Serializer::new(String::new()).append_pair("token", &token).finish()
    });
    let query = [token.as_deref(), Some(query).filter(|query| !query.is_empty())];
    let query: Vec<&str> = query.into_iter().flatten().collect();
    format!("{path}?{}", query.join("&")).parse().ok()
}

/// Returns the end of a path that is about `/json`, with the lease before it that it is about.
fn find_json(path: &str) -> Option<&str> {
    let at = path.rfind("/json").filter(|at| {
        let command = &path[at + "/json".len()..];
        let of_a_page = |command: &str| {
            let page = command.strip_prefix("/activate/").or(command.strip_prefix("/close/"));
            page.is_some_and(|page| !page.contains('/'))
        };
        matches!(command, "" | "/list" | "/new" | "/protocol" | "/version") || of_a_page(command)
    })?;
    let lease = path[..at].strip_prefix("/devtools/browser/");
    let is_lease = lease.is_some_and(|lease| !lease.is_empty() && !lease.contains('/'));
    Some(if is_lease { path } else { &path[at..] })
}

/// Splits `/t/<token>/…` into what follows and the token.
fn split_token(path: &str) -> (&str, Option<String>) {
    let Some(rest) = path.strip_prefix("/t/") else { return (path, None) };
    let end = rest.find('/').unwrap_or(rest.len());
    (if end == rest.len() { "/" } else { &rest[end..] }, Some(decode(&rest[..end])))
}

/// Decodes what is written with per cent signs.
pub(super) fn decode(text: &str) -> String {
    // A form is decoded the same way, but for the plus and what parts it.
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = form_urlencoded::parse(form.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, text)| text.into_owned())
}

/// `GET /json/protocol`: the protocol as Chromium describes it.
pub(super) async fn protocol() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], pool_chrome::protocol::JSON)
}

/// `GET /openapi.json`: the routes, described.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../openapi.json"))
}

/// `GET /meta`, in browserless' shape: which browsers there are.
pub(super) async fn meta(State(gateway): State<Arc<Gateway>>) -> Json<serde_json::Value> {
    let version = gateway.fleet().version();
    let chromium = version.as_ref().and_then(|version| version.browser.split_once('/'));
    Json(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "chromium": chromium.map(|(_, number)| number),
        "chrome": null,
        "edge": null,
        "firefox": null,
        "webkit": null,
        "playwright": [],
        "puppeteer": null,
    }))
}

/// `GET /active`, as browserless has it: the pool answers.
pub(super) async fn active() -> StatusCode {
    StatusCode::NO_CONTENT
}

#[derive(Serialize)]
pub(super) struct Discovery {
    #[serde(flatten)]
    version: Version,
    #[serde(rename = "webSocketDebuggerUrl")]
    url: String,
}

/// Takes no lease: a client that only looks must not keep a browser from the others.
pub(super) async fn version(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Discovery>, Problem> {
    let query = uri.query().unwrap_or_default();
    // A mistake is told here, where the client still shows the answer.
    let mut asked = LeaseQuery::parse(query)?;
    let settings = gateway.settings();
    settings.attribute(&who, &mut asked)?;
    let version = match gateway.fleet().version() {
        Some(version) => version,
        None => {
            // No browser was ever launched: one is, into the pool, so that it can be asked.
            let wait = asked.acquire_timeout.unwrap_or(settings.acquire_timeout);
            let request = asked.request().timeout(wait);
            let leased = gateway
                .fleet()
                .acquire(request)
                .await
                .map_err(|error| refusal(&error, gateway.history.release_rate()))?;
            drop(leased);
            gateway.fleet().version().ok_or_else(no_version)?
        }
    };
    Ok(Json(Discovery { version, url: settings.websocket_url(&headers, "/", query) }))
}

/// `GET /devtools/browser/{lease}/json/version`: where the lease is that is held.
pub(super) async fn version_of_lease(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Discovery>, Problem> {
    let query = uri.query().unwrap_or_default();
    let session = gateway.held(&lease, peer, &headers, &uri).await?;
    LeaseQuery::parse(query)?;
    let version = gateway.fleet().version().ok_or_else(no_version)?;
    let path = lease_path(session.id);
    Ok(Json(Discovery { version, url: gateway.settings().websocket_url(&headers, &path, query) }))
}

fn lease_path(lease: LeaseId) -> String {
    format!("/devtools/browser/{lease}")
}

fn no_version() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "browser_unavailable",
        "no browser has said its version yet",
    )
}

impl Settings {
    /// The address of a lease that is held, which is all that is needed to use it.
    pub(super) fn lease_url(&self, headers: &HeaderMap, lease: LeaseId) -> String {
        self.websocket_url(headers, &lease_path(lease), "")
    }

    /// The address of a path of ours, as the client that sent these headers can reach it.
    pub(super) fn websocket_url(&self, headers: &HeaderMap, path: &str, query: &str) -> String {
        let base = match &self.external_url {
            Some(url) => {
                let base = url.as_str().trim_end_matches('/');
                match base.split_once("://") {
                    Some(("https" | "wss", rest)) => format!("wss://{rest}"),
                    Some((_, rest)) => format!("ws://{rest}"),
                    None => base.to_owned(),
                }
            }
            None => {
                let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
                let host = text(header::HOST).unwrap_or("127.0.0.1");
                // Said by a proxy in front of us; a client that says it misleads only itself.
                let proto = text(header::HeaderName::from_static("x-forwarded-proto"));
                let scheme = if proto == Some("https") { "wss" } else { "ws" };
                format!("{scheme}://{host}")
            }
        };
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}{path}{mark}{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn it_is_found_wherever_a_client_puts_it() {
        for (uri, found) in [
            ("/json/version", Some("/json/version?")),
            ("/json/version/", Some("/json/version?")),
            ("/json/version?priority=1", Some("/json/version?priority=1")),
            ("/base/json/version/?x=1", Some("/json/version?x=1")),
            ("/?token=a/json/version", Some("/json/version?token=a")),
            ("/?token=a/json/version/", Some("/json/version?token=a")),
            ("/chromium?priority=2/json/version", Some("/json/version?priority=2")),
            ("/", None),
            ("/json/list", Some("/json/list?")),
            ("/json", Some("/json?")),
            ("/json/", Some("/json?")),
            ("/base/json/list/?session=mine", Some("/json/list?session=mine")),
            ("/t/a/json/new?https://b.example/?c", Some("/json/new?token=a&https://b.example/?c")),
            ("/json/close/AB/", Some("/json/close/AB?")),
            ("/json/close/AB/c", None),
            ("/json/closed", None),
            (
                "/t/a/devtools/browser/00ff/json/list/",
                Some("/devtools/browser/00ff/json/list?token=a"),
            ),
            ("/devtools/browser/00ff/json", Some("/devtools/browser/00ff/json?")),
            ("/devtools/browser/a/b/json", Some("/json?")),
            ("/json/protocol/", Some("/json/protocol?")),
            ("/t/a%2Fb+c/json/version", Some("/json/version?token=a%2Fb%2Bc")),
            ("/t/s3cret/json/version/?x=1", Some("/json/version?token=s3cret&x=1")),
            ("/t/s3cret", Some("/?token=s3cret")),
            ("/t/s3cret?x=1", Some("/?token=s3cret&x=1")),
            ("/t/s3cret/api/state", Some("/api/state?token=s3cret")),
            ("/t", None),
            ("/json/version/x", None),
        ] {
            let answer = find(&uri.parse().expect("a uri")).map(|uri| uri.to_string());
            assert_eq!(answer.as_deref(), found, "{uri}");
        }
    }

    #[test]
    fn the_url_is_the_external_one_or_that_of_the_request() {
        let mut config = Config::default();
        let headers: HeaderMap =
            [(header::HOST, "localhost:3000".parse().expect("a value"))].into_iter().collect();
        let url = |config: &Config, query| {
            let settings = Settings::new(config).expect("it is valid");
            settings.websocket_url(&headers, "/", query)
        };
        assert_eq!(url(&config, ""), "ws://localhost:3000/");
        assert_eq!(url(&config, "priority=1&token=x"), "ws://localhost:3000/?priority=1&token=x");
        for (external, expected) in [
            ("wss://pool.example", "wss://pool.example/?a=1"),
            ("https://pool.example/base/", "wss://pool.example/base/?a=1"),
            ("http://pool.example:8080", "ws://pool.example:8080/?a=1"),
        ] {
            config.gateway.external_url = Some(external.to_owned());
            assert_eq!(url(&config, "a=1"), expected);
        }
    }
}
