//! Who may ask: the checks before every route but the probes.
//!
//! They are made against a web page in a browser on the same machine (DNS rebinding, cross-site
//! WebSockets and forms) as much as against strangers.

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use subtle::ConstantTimeEq;
use url::{Host, Url, form_urlencoded};

use super::{Problem, Settings};
use crate::config::Secret;

/// How a request may show the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// In the query or in a header.
    Anywhere,
    /// In a header only: what changes something must not be a link.
    InHeader,
}

impl Settings {
    /// Refuses a request that a foreign web page has made.
    pub(super) fn check_source(&self, headers: &HeaderMap, upgrade: bool) -> Result<(), Problem> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if let Some(host) = host
            && !self.is_own_host(host)
        {
            let detail = "this host name is not one of the pool's: add it to allowed_hosts";
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

    /// Refuses a request without the right token, if there is one.
    pub(super) fn check_token(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        shown: Shown,
    ) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        if bearer(headers).is_some_and(|given| is_token(token, given)) {
            return Ok(());
        }
        let in_query = query_token(uri).is_some_and(|given| is_token(token, &given));
        let detail = match shown {
            Shown::Anywhere if in_query => return Ok(()),
            Shown::InHeader if in_query => {
                "what changes something wants the token in a header: Authorization: Bearer …"
            }
            _ => "show the token as ?token=… or in a header: Authorization: Bearer …",
        };
        Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
    }

    /// Refuses a request that changes something and was made by a page of another site.
    ///
    /// With a token this cannot be: a page cannot set the header. Without one, browsers say where
    /// a request comes from, also for images and links, which carry no `Origin`.
    pub(super) fn check_change(&self, headers: &HeaderMap, method: &Method) -> Result<(), Problem> {
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let foreign = match site {
            None | Some(b"same-origin") => false,
            // Typed into the address bar, or opened by something that is no page.
            Some(b"none") => method != Method::GET,
            Some(_) => true,
        };
        if foreign && self.token.is_none() {
            let detail = "a page of another site may not change anything here";
            return Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail));
        }
        Ok(())
    }

    /// Whether a `Host` is one under which this gateway is meant to be reached. A page that
    /// rebinds its name to our address still sends its own name; it cannot send an address.
    fn is_own_host(&self, host: &str) -> bool {
        if self.token.is_some() {
            return true;
        }
        let Some(host) = host_name(host) else { return false };
        match &host {
            Host::Ipv4(_) | Host::Ipv6(_) => true,
            Host::Domain(name) => {
                name == "localhost"
                    || name.ends_with(".localhost")
                    || self.allowed_hosts.iter().any(|allowed| allowed == name)
                    || self.external_url.as_ref().and_then(Url::host_str) == Some(name)
            }
        }
    }
}

/// The host of `host` or `host:port`, in its one spelling.
fn host_name(authority: &str) -> Option<Host> {
    // The url parser would take `a@b` and `a/b` for something else than a host.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !authority.bytes().all(plain) {
        return None;
    }
    let url = Url::parse(&format!("http://{authority}/")).ok()?;
    url.host().map(|host| host.to_owned())
}

/// Whether an origin is that of a page which this host has served, by http or through a proxy
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

/// In constant time, but for the length.
fn is_token(token: &Secret, given: &str) -> bool {
    token.expose().as_bytes().ct_eq(given.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
    fn a_rebound_name_is_refused_and_an_address_is_not() {
        let settings = settings(|config| {
            config.gateway.external_url = Some("wss://pool.example/base".into());
            config.gateway.allowed_hosts = vec!["Build.Internal".into()];
        });
        for (host, own) in [
            ("127.0.0.1:3000", true),
            ("[::1]:3000", true),
            ("192.0.2.7", true),
            ("localhost:3000", true),
            ("LOCALHOST", true),
            ("pool.localhost:3000", true),
            ("pool.example", true),
            ("build.internal:9", true),
            ("evil.example", false),
            ("evil.example:3000", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("evil.example@127.0.0.1", false),
            ("evil.example/@127.0.0.1", false),
            ("", false),
        ] {
            let answer = settings.check_source(&headers([("host", host)]), false);
            assert_eq!(answer.is_ok(), own, "{host}");
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
    fn a_change_wants_the_token_in_a_header() {
        let settings = settings(|config| config.gateway.token = Some(Secret::new("s3cret")));
        let uri: Uri = "/kill/all?token=s3cret".parse().expect("a uri");
        let none = HeaderMap::new();
        assert!(settings.check_token(&none, &uri, Shown::Anywhere).is_ok());
        assert!(settings.check_token(&none, &uri, Shown::InHeader).is_err());
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
            let uri = Uri::from_static("/kill/all");
            let answer = settings.check_token(&headers, &uri, Shown::InHeader);
            assert_eq!(answer.is_ok(), right, "{value}");
        }
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let settings = settings(|_| ());
        for (site, method, allowed) in [
            ("cross-site", Method::GET, false),
            ("same-site", Method::POST, false),
            ("none", Method::GET, true),
            ("same-origin", Method::POST, true),
        ] {
            let answer = settings.check_change(&headers([("sec-fetch-site", site)]), &method);
            assert_eq!(answer.is_ok(), allowed, "{site} {method}");
        }
        assert!(settings.check_change(&HeaderMap::new(), &Method::POST).is_ok());
    }
}
