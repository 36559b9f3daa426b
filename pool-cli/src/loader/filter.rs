use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::Credentials;

/// Filter of the requests of a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Requests to such addresses fail.
    pub(crate) patterns: Vec<Regex>,
    /// Requests for such things fail.
    pub(crate) types: Vec<ResourceType>,
    /// Requests to these hosts, and to those below them, fail.
    pub(crate) hosts: Vec<String>,
    /// Requests that are answered without a server.
    pub(crate) interceptors: Vec<Interceptor>,
    /// For servers that ask who comes.
    pub(crate) credentials: Option<Credentials>,
}

/// An answer to the requests for some addresses.
#[derive(Clone, Debug)]
pub(crate) struct Interceptor {
    pub(crate) pattern: Regex,
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// The kind of thing that a request is for, by Puppeteer's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResourceType {
    Document,
    Stylesheet,
    Image,
    Media,
    Font,
    Script,
    TextTrack,
    Xhr,
    Fetch,
    Prefetch,
    EventSource,
    WebSocket,
    Manifest,
    SignedExchange,
    Ping,
    CspViolationReport,
    Preflight,
    FedCm,
    Other,
}

impl ResourceType {
    /// The protocol's name.
    fn name(self) -> &'static str {
        match self {
            Self::Document => "Document",
            Self::Stylesheet => "Stylesheet",
            Self::Image => "Image",
            Self::Media => "Media",
            Self::Font => "Font",
            Self::Script => "Script",
            Self::TextTrack => "TextTrack",
            Self::Xhr => "XHR",
            Self::Fetch => "Fetch",
            Self::Prefetch => "Prefetch",
            Self::EventSource => "EventSource",
            Self::WebSocket => "WebSocket",
            Self::Manifest => "Manifest",
            Self::SignedExchange => "SignedExchange",
            Self::Ping => "Ping",
            Self::CspViolationReport => "CSPViolationReport",
            Self::Preflight => "Preflight",
            Self::FedCm => "FedCM",
            Self::Other => "Other",
        }
    }
}

/// More requests that were asked who comes than a page has.
const ASKED: usize = 10_000;

/// The requests that the credentials were given to; whoever asks again does not take them.
pub(super) type Asked = HashSet<String>;

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.interception().is_none()
    }

    /// The params of `Fetch.enable`, if it is needed. Requests that need no look are not paused.
    pub(super) fn interception(&self) -> Option<Value> {
        let asks = self.credentials.is_some();
        let all = asks || !self.patterns.is_empty() || !self.interceptors.is_empty();
        let patterns: Vec<Value> = if all {
            vec![json!({ "urlPattern": "*" })]
        } else {
            let of =
                |kind: &ResourceType| json!({ "urlPattern": "*", "resourceType": kind.name() });
            let at = |host: &String| {
                [
                    format!("*://{host}/*"),
                    format!("*://{host}:*"),
                    format!("*://*.{host}/*"),
                    format!("*://*.{host}:*"),
                ]
                .map(|pattern| json!({ "urlPattern": pattern }))
            };
            self.types.iter().map(of).chain(self.hosts.iter().flat_map(at)).collect()
        };
        (!patterns.is_empty()).then(|| json!({ "patterns": patterns, "handleAuthRequests": asks }))
    }

    /// The command that answers `Fetch.requestPaused`.
    pub(super) fn judge(&self, paused: &Value) -> (&'static str, Value) {
        let id = &paused["requestId"];
        let url = paused["request"]["url"].as_str().unwrap_or_default();
        let kind = &paused["resourceType"];
        if self.types.iter().any(|rejected| kind == rejected.name())
            || self.patterns.iter().any(|pattern| pattern.is_match(url))
            || self.is_blocked(url)
        {
            let reason = json!({ "requestId": id, "errorReason": "BlockedByClient" });
            return ("Fetch.failRequest", reason);
        }
        match self.interceptors.iter().find(|interceptor| interceptor.pattern.is_match(url)) {
            Some(interceptor) => ("Fetch.fulfillRequest", interceptor.answer(id)),
            None => ("Fetch.continueRequest", json!({ "requestId": id })),
        }
    }

    fn is_blocked(&self, url: &str) -> bool {
        if self.hosts.is_empty() {
            return false;
        }
        let url = Url::parse(url).ok();
        let Some(host) = url.as_ref().and_then(Url::host_str) else { return false };
        self.hosts.iter().any(|blocked| {
            let below = host.strip_suffix(blocked.as_str());
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        })
    }

    /// The command that answers `Fetch.authRequired`.
    pub(super) fn authenticate(&self, asked: &mut Asked, params: &Value) -> (&'static str, Value) {
        const METHOD: &str = "Fetch.continueWithAuth";
        let id = params["requestId"].as_str().unwrap_or_default();
        let first = asked.len() < ASKED && asked.insert(id.to_owned());
        let response = match &self.credentials {
            Some(Credentials { username, password }) if first => json!({
                "response": "ProvideCredentials", "username": username, "password": password,
            }),
            _ => json!({ "response": "CancelAuth" }),
        };
        (METHOD, json!({ "requestId": id, "authChallengeResponse": response }))
    }
}

impl Interceptor {
    fn answer(&self, request: &Value) -> Value {
        let header = |(name, value): (&String, &String)| json!({ "name": name, "value": value });
        let headers: Vec<Value> = self.headers.iter().map(header).collect();
        json!({
            "requestId": request,
            "responseCode": self.status,
            "responseHeaders": headers,
            "body": BASE64_STANDARD.encode(&self.body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(url: &str, kind: &str) -> Value {
        json!({ "requestId": "1", "request": { "url": url }, "resourceType": kind })
    }

    #[test]
    fn only_what_must_be_looked_at_is_paused() {
        let images = Filter { types: vec![ResourceType::Image], ..Filter::default() };
        let only = json!([{ "urlPattern": "*", "resourceType": "Image" }]);
        assert_eq!(images.interception().expect("it filters")["patterns"], only);
        assert!(Filter::default().is_empty());
    }

    #[test]
    fn what_is_rejected_fails_and_what_is_intercepted_is_answered() {
        let filter = Filter {
            patterns: vec![Regex::new(r"\.css$").expect("a pattern")],
            interceptors: vec![Interceptor {
                pattern: Regex::new("ada").expect("a pattern"),
                status: 201,
                headers: BTreeMap::new(),
                body: b"hi".to_vec(),
            }],
            ..Filter::default()
        };
        let method = |url, kind| filter.judge(&paused(url, kind)).0;
        assert_eq!(method("http://a/b.css", "Stylesheet"), "Fetch.failRequest");
        assert_eq!(method("http://a/b.css?c", "Stylesheet"), "Fetch.continueRequest");
        let (method, params) = filter.judge(&paused("http://ada/", "XHR"));
        assert_eq!((method, &params["body"]), ("Fetch.fulfillRequest", &json!("aGk=")));
    }

    #[test]
    fn a_host_is_blocked_with_all_below_it() {
        let filter = Filter { hosts: vec!["ads.example".into()], ..Filter::default() };
        let method = |url| filter.judge(&paused(url, "Script")).0;
        for url in ["http://ads.example/a", "https://x.ads.example:8443/"] {
            assert_eq!(method(url), "Fetch.failRequest", "{url}");
        }
        for url in ["http://badads.example/", "http://a/?ads.example", "data:,ads.example"] {
            assert_eq!(method(url), "Fetch.continueRequest", "{url}");
        }
    }

    #[test]
    fn credentials_are_given_once() {
        let credentials = Credentials { username: "u".into(), password: "p".into() };
        let filter = Filter { credentials: Some(credentials), ..Filter::default() };
        let mut asked = Asked::new();
        let mut given = || {
            let (_, params) = filter.authenticate(&mut asked, &json!({ "requestId": "1" }));
            params["authChallengeResponse"]["response"].clone()
        };
        assert_eq!([given(), given()], [json!("ProvideCredentials"), json!("CancelAuth")]);
    }
}
