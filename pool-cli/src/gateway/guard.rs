//! Who may ask: the checks before every route but the probes.
//!
//! They are made against a web page in a browser on the same machine (DNS rebinding, cross-site
//! WebSockets and forms) as much as against strangers.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use url::form_urlencoded;

use super::who::{Who, is_token};
use super::{Problem, Settings};

/// Reasons why a request is not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoToken {
    /// It shows none.
    Missing,
    /// It shows another one.
    Wrong,
}

impl NoToken {
    pub(super) fn problem(self) -> Problem {
        let detail = match self {
            Self::Missing => "show the token as ?token=… or in a header: Authorization: Bearer …",
            Self::Wrong => "this is no token of the pool's",
        };
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }
}

impl Settings {
    /// Refuses a request that a foreign web page has made.
    pub(super) fn check_source(&self, headers: &HeaderMap, upgrade: bool) -> Result<(), Problem> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if let Some(host) = host
            && !self.is_own_host(host)
        {
            let detail = "this host is not one of the pool's: add it to allowed_hosts";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_host", detail));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            // A CDP client sends no Origin. Our own dashboard does, but opens no WebSocket.
            let own = !upgrade && host.is_some_and(|host| is_origin_of(origin, host));
            if !own && !self.allowed_origins.iter().any(|allowed| allowed == origin) {
                let detail = "web pages of this origin may not connect: add it to allowed_origins";
                return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
            }
        }
        Ok(())
    }

    /// Returns who asks, by the token that is shown; refuses a request without a good one, if one is
    /// needed.
    pub(super) fn check_token(&self, headers: &HeaderMap, uri: &Uri) -> Result<Who, NoToken> {
        let Some(token) = &self.token else { return Ok(Who::Operator) };
        let in_query = query_token(uri);
        let shown = [bearer(headers), in_query.as_deref()];
        let shown = || shown.into_iter().flatten();
        if shown().any(|given| is_token(token, given)) {
            return Ok(Who::Operator);
        }
        if let Some(tenant) = shown().find_map(|given| self.tenants.of(given)) {
            return Ok(Who::Tenant(Arc::clone(tenant)));
        }
        Err(if shown().next().is_some() { NoToken::Wrong } else { NoToken::Missing })
    }

    /// Refuses a request that changes something, or spends a lease, and that any web page could
    /// have made.
    ///
    /// With a token this cannot be: a page does not know it. Without one, a page can send GET, HEAD
    /// and the POST of a form to every address, by images, frames, popups and redirects, and
    /// nothing in such a request tells it from that of a program: browsers leave out `Origin` for
    /// links and `Sec-Fetch-Site` for addresses such as `0.0.0.0`, and say `none` after a
    /// redirect. For other methods and for JSON they first ask the server, which never agrees.
    pub(super) fn check_change(&self, headers: &HeaderMap, method: &Method) -> Result<(), Problem> {
        if self.token.is_some() {
            return Ok(());
        }
        let forged = |detail| Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail));
        match *method {
            Method::PUT | Method::PATCH | Method::DELETE => Ok(()),
            Method::GET | Method::HEAD => forged(
                "any web page could send this GET: use POST with Content-Type: application/json, \
                 or configure a token and show it",
            ),
            _ if is_json(headers) => Ok(()),
            _ => forged(
                "any web page could send this: add the header Content-Type: application/json, or \
                 configure a token and show it",
            ),
        }
    }

    /// Tells whether a `Host` is one under which this gateway is meant to be reached.
    ///
    /// A page that rebinds its name to our address still sends its own name. Addresses are a list
    /// like names, since `0.0.0.0`, `[::ffff:127.0.0.1]` and the like lead here as well, and
    /// browsers do not treat them as loopback. Spellings are compared and not what they stand for.
    fn is_own_host(&self, host: &str) -> bool {
        self.token.is_some()
            || without_port(host)
                .is_some_and(|host| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }
}

/// Returns the host of `host` or `host:port`; `None` for a port that is no number.
fn without_port(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => {
            port.parse::<u16>().is_ok_and(|_| !port.starts_with('+')).then_some(host)
        }
        _ => Some(authority),
    }
}

/// Tells whether the body is declared to be JSON and nothing else.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Returns `true` if an origin is that of a page which this host has served, by http or through a proxy
/// that speaks https.
fn is_origin_of(origin: &str, host: &str) -> bool {
    ["http://", "https://"]
        .into_iter()
        .filter_map(|scheme| origin.strip_prefix(scheme))
        .any(|authority| authority.eq_ignore_ascii_case(host))
}

/// The token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn query_token(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token");
    found.map(|(_, token)| token.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};

    fn settings(change: impl FnOnce(&mut Config)) -> Settings {
        let mut config = Config::default();
        change(&mut config);
        Settings::new(&config).expect("it is valid")
    }

    fn headers<const N: usize>(pairs: [(&'static str, &str); N]) -> HeaderMap {
        pairs
            .into_iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn hosts_are_a_list_and_each_has_one_spelling() {
        let settings = settings(|config| {
            config.gateway.listen = "127.8.8.8:3000".parse().expect("an address");
            config.gateway.external_url = Some("wss://pool.example/base".into());
            config.gateway.allowed_hosts = vec!["Build.Internal".into(), "192.0.2.9".into()];
        });
        for own in [
            "127.0.0.1:3000",
            "127.8.8.8:3000",
            "[::1]:3000",
            "[::1]",
            "localhost:3000",
            "LOCALHOST",
            "pool.example",
            "build.internal:9",
            "192.0.2.9",
        ] {
            assert!(settings.check_source(&headers([("host", own)]), false).is_ok(), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:3000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "pool.localhost",
            "evil.example@127.0.0.1",
            "evil.example/@127.0.0.1",
            "",
            ":3000",
            "192.0.2.7",
            "0.0.0.0:3000",
            "0",
            "0:3000",
            "127.1",
            "127.0.1",
            "127.0.0.2",
            "127.0.0.1.",
            "127.0.0.1:",
            "127.0.0.1:+3000",
            "127.0.0.1:70000",
            "0127.0.0.1",
            "0177.0.0.1",
            "0x7f000001",
            "2130706433",
            "localhost.",
            "[::]",
            "::1",
            "[::1",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:3000",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
        ] {
            let refused = settings.check_source(&headers([("host", foreign)]), false);
            assert_eq!(refused.map_err(|no| no.code()), Err("foreign_host"), "{foreign}");
        }
    }

    #[test]
    fn an_upgrade_with_an_origin_is_refused_unless_it_is_allowed() {
        let settings = settings(|config| {
            config.gateway.allowed_origins = vec!["https://tools.example".into()];
        });
        let check = |origin, upgrade| {
            let headers = headers([("host", "127.0.0.1:3000"), ("origin", origin)]);
            settings.check_source(&headers, upgrade).is_ok()
        };
        assert!(check("https://tools.example", true));
        assert!(check("http://127.0.0.1:3000", false));
        for origin in ["http://127.0.0.1:3000", "https://evil.example", "null", ""] {
            assert!(!check(origin, true), "{origin}");
        }
        for origin in ["http://127.0.0.1:3001", "https://evil.example", "null"] {
            assert!(!check(origin, false), "{origin}");
        }
    }

    #[test]
    fn the_token_is_shown_in_a_header_or_in_the_query() {
        let settings = settings(|config| config.gateway.token = Some(Secret::new("s3cret")));
        let in_query = |query: &str| {
            let uri: Uri = format!("/kill/all?{query}").parse().expect("a uri");
            settings.check_token(&HeaderMap::new(), &uri).is_ok()
        };
        assert!(in_query("token=s3cret"));
        assert!(!in_query("token=s3cre"));
        assert!(!in_query("token="));
        for (value, right) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer s3crett", false),
            ("Basic s3cret", false),
            ("s3cret", false),
            ("Bearer ", false),
        ] {
            let headers = headers([("authorization", value)]);
            let answer = settings.check_token(&headers, &Uri::from_static("/kill/all"));
            assert_eq!(answer.is_ok(), right, "{value}");
        }
    }

    #[test]
    fn what_a_page_can_send_unasked_changes_nothing_without_a_token() {
        let open = settings(|_| ());
        let tokened = settings(|config| config.gateway.token = Some(Secret::new("s3cret")));
        let json = "application/json; charset=utf-8";
        for (method, kind, allowed) in [
            (Method::GET, None, false),
            (Method::HEAD, None, false),
            (Method::GET, Some(json), false),
            (Method::POST, None, false),
            (Method::POST, Some("text/plain"), false),
            (Method::POST, Some("text/plain; a=application/json"), false),
            (Method::POST, Some("application/x-www-form-urlencoded"), false),
            (Method::POST, Some("multipart/form-data; boundary=x"), false),
            (Method::POST, Some("application/jsonx"), false),
            (Method::POST, Some("text/plain, application/json"), false),
            (Method::POST, Some(json), true),
            (Method::POST, Some("Application/JSON"), true),
            (Method::PUT, None, true),
            (Method::PATCH, None, true),
            (Method::DELETE, None, true),
        ] {
            let headers: HeaderMap = kind
                .map(|kind| (header::CONTENT_TYPE, kind.parse().expect("a value")))
                .into_iter()
                .collect();
            let answer = open.check_change(&headers, &method);
            assert_eq!(answer.is_ok(), allowed, "{method} {kind:?}");
            assert!(tokened.check_change(&headers, &method).is_ok(), "{method} {kind:?}");
        }
    }
}
