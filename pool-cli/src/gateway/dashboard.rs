//! `GET /` for people: the page, and the files that it consists of.
//!
//! They are in the folder `dashboard` exactly as they are served, without a bundler, and are
//! embedded. They contain nothing about any pool: what they show comes from `/api/…`, with the
//! token.

use std::sync::LazyLock;

use axum::extract::{Path, Request};
use axum::http::header::{self, HeaderMap};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::bridge::Handshake;
use super::{Code, Problem};

/// Allows nothing from elsewhere, nothing inline and no frames; pictures of browsers are blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// Lists the files by their names under `/dashboard/`.
macro_rules! files {
    ($($kind:ident: $($name:literal),+;)+) => {
        static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
            vec![$($(File::new($name, $kind, include_str!(concat!("dashboard/", $name))),)+)+]
        });
    };
}

files! {
    HTML: "index.html";
    CSS: "style.css", "vendor/uplot/uPlot.min.css";
    SVG: "icon.svg";
    TEXT: "vendor/uplot/LICENSE";
    JAVASCRIPT:
        "actions.js", "api.js", "browsers.js", "dialogs.js", "dom.js", "format.js", "history.js",
        "journal.js", "live.js", "main.js", "nodes.js", "plots.js", "states.js", "stream.js",
        "summary.js", "table.js", "tenants.js", "token.js", "waiters.js",
        "vendor/uplot/uPlot.esm.js";
}

struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    tag: HeaderValue,
}

impl File {
    fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        let digest = Sha256::digest(text);
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::try_from(format!("\"{digest}\"")).expect("it is plain ASCII");
        Self { name, kind, text, tag }
    }

    /// Returns the file, or the answer that the browser's copy is still valid.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let known = asked.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == self.tag);
        let headers = [
            // It is cached, but validated at each visit, so that a new release is seen at once.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::ETAG, self.tag.clone()),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        if known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, [(header::CONTENT_TYPE, self.kind)], self.text).into_response()
    }
}

/// Returns `true` if a person opens `/` in a browser, rather than a client that asks for a lease.
pub(super) fn is_wanted(request: &Request) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    matches!(*request.method(), Method::GET | Method::HEAD)
        && request.uri().path() == "/"
        && !Handshake::is_wanted(request.headers())
        && accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Returns the page itself.
pub(super) fn page(asked: &HeaderMap) -> Response {
    FILES[0].answer(asked)
}

/// `GET /dashboard/{file}`: returns a file of the page.
pub(super) async fn file(Path(name): Path<String>, asked: HeaderMap) -> Result<Response, Problem> {
    let file = FILES.iter().find(|file| file.name == name);
    file.map(|file| file.answer(&asked)).ok_or_else(|| {
        let detail = "the dashboard has no such file";
        Problem::new(Code::UnknownFile, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_first_file() {
        assert_eq!(FILES[0].name, "index.html");
    }
}
