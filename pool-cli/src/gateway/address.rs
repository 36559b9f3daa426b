//! Addresses of the gateway: how clients spell them, and where things are.

use axum::http::Uri;
use url::form_urlencoded;

use super::query::is_known;

/// The path of the version, once [`find`] has normalized the address.
pub(super) const VERSION: &str = "/json/version";

/// The path of the protocol.
pub(super) const PROTOCOL: &str = "/json/protocol";

/// Returns the address without anything that a client has put before or after it, if the router
/// does not accept it as it is.
///
/// Playwright appends `/json/version/` to the path and keeps the query after it; chromiumoxide
/// appends it to the whole address, and so to the query. Anything before it is left out, unless it
/// is the address of a lease. Clients that keep neither the query nor the headers of an address
/// send the token in its path, `/t/<token>/…`; it is moved to the query, so that the addresses that
/// are handed out have it too. There it comes first, since the end of the query is the address that
/// `/json/new` opens.
pub(super) fn find(uri: &Uri) -> Option<Uri> {
    let (path, token) = split_token(uri.path());
    let mut query = uri.query().unwrap_or_default();
    let bare = path.trim_end_matches('/');
    let path = if let Some(known) = find_json(bare) {
        known
    } else if let Some(before) = query.trim_end_matches('/').strip_suffix(VERSION) {
        query = before;
        VERSION
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

/// Returns the end of a path that is about `/json`, with the lease before it if it names one.
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

/// Splits `/t/<token>/…` into the rest and the token.
fn split_token(path: &str) -> (&str, Option<String>) {
    let Some(rest) = path.strip_prefix("/t/") else { return (path, None) };
    let end = rest.find('/').unwrap_or(rest.len());
    (if end == rest.len() { "/" } else { &rest[end..] }, Some(decode(&rest[..end])))
}

/// Decodes percent-encoding.
fn decode(text: &str) -> String {
    // A form is decoded in the same way, except for the plus and the separators.
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = form_urlencoded::parse(form.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, text)| text.into_owned())
}

/// Path of a lease whose client talks to its first page.
pub(super) const NEW_PAGE: &str = "/devtools/page/new";

/// Returns the path of a lease, `/devtools/browser/{lease}`.
pub(super) fn lease_path(lease: &str) -> String {
    format!("/devtools/browser/{lease}")
}

/// Splits the query of `/json/new` into our own parameters, with which it begins, and the address
/// that follows, which is the whole rest, as in Chromium.
pub(super) fn split_address(query: &str) -> (&str, String) {
    let mut end = 0;
    for part in query.split_inclusive('&') {
        let name = part.trim_end_matches('&').split('=').next().unwrap_or_default();
        if !is_known(name) {
            break;
        }
        end += part.len();
    }
    let (own, address) = query.split_at(end);
    (own.trim_end_matches('&'), decode(address))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_address_goes_to_the_browser_without_what_is_for_the_pool() {
        for (query, own, address) in [
            ("", "", ""),
            ("session=mine", "session=mine", ""),
            ("https://a.example/?x=1&token=y", "", "https://a.example/?x=1&token=y"),
            ("token=s3cret&https://a.example/?a&b", "token=s3cret", "https://a.example/?a&b"),
            ("session=mine&nowait&about:blank", "session=mine&nowait", "about:blank"),
            ("https%3A%2F%2Fa.example%2F+b", "", "https://a.example/+b"),
            ("session=mine&", "session=mine", ""),
        ] {
            assert_eq!(split_address(query), (own, address.to_owned()), "{query}");
        }
    }
}
