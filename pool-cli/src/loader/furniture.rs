use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::Wait;

/// The state of a page before its first request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Furniture {
    /// Events after all of which it counts as loaded.
    pub(crate) waits: Vec<Wait>,
    /// Referrer of its first request.
    pub(crate) referrer: Option<String>,
    /// `screen` or `print`, if it should differ from the default.
    pub(crate) media: Option<String>,
    pub(crate) cookies: Vec<Cookie>,
    pub(crate) viewport: Viewport,
    pub(crate) user_agent: Option<UserAgent>,
    /// Headers that are sent with every request.
    pub(crate) headers: BTreeMap<String, String>,
    /// Disables the page's scripts.
    pub(crate) without_javascript: bool,
    /// Filter of its requests.
    pub(crate) filter: Filter,
    /// Keeps the messages on its console.
    pub(crate) console: bool,
    /// Keeps an archive of its requests.
    pub(crate) har: bool,
    /// Has its requests not reported, which saves Chromium a twentieth of its work or more. Then
    /// the page itself is asked for its status, and a page that failed is asked for once more, to
    /// learn the reason.
    pub(crate) unreported: bool,
    /// The path of the empty document that it shows while it is wiped; `None` for a page that is
    /// not wiped.
    pub(crate) blank: Option<String>,
}

/// Returns the command after which Chromium reports the requests of a page. Nobody asks for bodies,
/// so none are kept.
pub(super) fn report() -> (&'static str, Value) {
    ("Network.enable", json!({ "maxTotalBufferSize": 0, "maxResourceBufferSize": 0 }))
}

/// The size of a page, in CSS pixels, and its device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Viewport {
    pub(crate) width: u32,
    pub(crate) height: u32,
    #[serde(default = "one")]
    pub(crate) device_scale_factor: f64,
    #[serde(default)]
    pub(crate) is_mobile: bool,
    #[serde(default)]
    pub(crate) has_touch: bool,
    #[serde(default)]
    pub(crate) is_landscape: bool,
}

fn one() -> f64 {
    1.0
}

impl Viewport {
    /// Returns a screen of this size.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            device_scale_factor: 1.0,
            is_mobile: false,
            has_touch: false,
            is_landscape: false,
        }
    }
}

impl Default for Viewport {
    /// Returns Puppeteer's default.
    fn default() -> Self {
        Self::new(800, 600)
    }
}

/// Name and password for a server that asks for them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Shown without the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The user agent of a page.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserAgent {
    pub(crate) user_agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accept_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent_metadata: Option<Map<String, Value>>,
}

impl UserAgent {
    /// Creates one with only the text of the header.
    pub(crate) fn new(user_agent: String) -> Self {
        Self { user_agent, accept_language: None, platform: None, user_agent_metadata: None }
    }
}

/// A cookie that is set before the first request.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The address that it is for, if no domain is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secure: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_site: Option<SameSite>,
    /// Seconds since 1970; -1 for the end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_scheme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<PartitionKey>,
    /// Members that a client may copy from an earlier answer; they follow from the others.
    #[serde(default, skip_serializing, rename = "size")]
    _size: Option<Value>,
    #[serde(default, skip_serializing, rename = "session")]
    _session: Option<Value>,
    #[serde(default, skip_serializing, rename = "sameParty")]
    _same_party: Option<Value>,
    #[serde(default, skip_serializing, rename = "sourcePort")]
    _source_port: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum SameSite {
    Strict,
    Lax,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "GivenKey", rename_all = "camelCase")]
struct PartitionKey {
    top_level_site: String,
    has_cross_site_ancestor: bool,
}

/// The key in Puppeteer's form, or in the protocol's.
#[derive(Deserialize)]
#[serde(untagged)]
enum GivenKey {
    Site(String),
    #[serde(rename_all = "camelCase")]
    Key {
        #[serde(alias = "sourceOrigin")]
        top_level_site: String,
        #[serde(default)]
        has_cross_site_ancestor: bool,
    },
}

impl From<GivenKey> for PartitionKey {
    fn from(given: GivenKey) -> Self {
        match given {
            GivenKey::Site(top_level_site) => {
                Self { top_level_site, has_cross_site_ancestor: false }
            }
            GivenKey::Key { top_level_site, has_cross_site_ancestor } => {
                Self { top_level_site, has_cross_site_ancestor }
            }
        }
    }
}

/// A command that prepares a page, and the member of a request that it comes from.
pub(super) struct Fitting {
    pub(super) member: &'static str,
    pub(super) method: &'static str,
    pub(super) params: Value,
}

impl Furniture {
    /// Returns the commands in order.
    pub(super) fn fittings(&self) -> Vec<Fitting> {
        let mut fittings = Vec::new();
        let mut fit = |member, method, params| fittings.push(Fitting { member, method, params });
        fit("url", "Page.enable", json!({}));
        if !self.unreported {
            let (method, params) = report();
            fit("url", method, params);
        }
        fit("url", "Inspector.enable", json!({}));
        if self.console {
            fit("debugOpts", "Runtime.enable", json!({}));
        }
        if let Some(media) = &self.media {
            fit("emulateMediaType", "Emulation.setEmulatedMedia", json!({ "media": media }));
        }
        if !self.cookies.is_empty() {
            fit("cookies", "Network.setCookies", json!({ "cookies": self.cookies }));
        }
        fit("viewport", "Emulation.setDeviceMetricsOverride", self.viewport.metrics());
        if self.viewport.has_touch {
            fit("viewport", "Emulation.setTouchEmulationEnabled", json!({ "enabled": true }));
        }
        self.fit_traffic(fit);
        fittings
    }

    /// Calls `fit` with the commands that each frame with a process of its own, and each worker,
    /// needs as well.
    pub(super) fn fit_traffic(&self, mut fit: impl FnMut(&'static str, &'static str, Value)) {
        if let Some(agent) = &self.user_agent {
            fit("userAgent", "Emulation.setUserAgentOverride", json!(agent));
        }
        if !self.headers.is_empty() {
            let headers = json!({ "headers": self.headers });
            fit("setExtraHTTPHeaders", "Network.setExtraHTTPHeaders", headers);
        }
        if self.without_javascript {
            let disabled = json!({ "value": true });
            fit("setJavaScriptEnabled", "Emulation.setScriptExecutionDisabled", disabled);
        }
        if let Some(interception) = self.filter.interception() {
            fit("rejectRequestPattern", "Fetch.enable", interception);
        }
    }

    /// Returns the command that answers `Fetch.requestPaused` while a page is being replaced by its
    /// empty document.
    pub(super) fn judge_of_leaving(&self, paused: &Value) -> (&'static str, Value) {
        let id = &paused["requestId"];
        let url = paused["request"]["url"].as_str().unwrap_or_default();
        match &self.blank {
            Some(path) if url.ends_with(path.as_str()) => {
                let headers = json!([{ "name": "content-type", "value": "text/html" }]);
                // With an icon, so that the whole browser does not ask the site for one.
                let empty = BASE64_STANDARD.encode("<!doctype html><link rel=icon href=data:,>");
                let answer = json!({
                    "requestId": id,
                    "responseCode": 200,
                    "responseHeaders": headers,
                    "body": empty,
                });
                ("Fetch.fulfillRequest", answer)
            }
            _ => ("Fetch.failRequest", json!({ "requestId": id, "errorReason": "Aborted" })),
        }
    }

    /// Returns `true` if frames and workers must be prepared too.
    pub(super) fn reaches_frames(&self) -> bool {
        self.user_agent.is_some()
            || !self.headers.is_empty()
            || self.without_javascript
            || !self.filter.is_empty()
    }
}

impl Viewport {
    fn metrics(&self) -> Value {
        let orientation = if self.is_landscape {
            json!({ "angle": 90, "type": "landscapePrimary" })
        } else {
            json!({ "angle": 0, "type": "portraitPrimary" })
        };
        json!({
            "width": self.width,
            "height": self.height,
            "deviceScaleFactor": self.device_scale_factor,
            "mobile": self.is_mobile,
            "screenOrientation": orientation,
        })
    }
}

/// The filter for the requests of a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Addresses to which requests fail.
    pub(crate) patterns: Vec<Regex>,
    /// Types of resources for which requests fail.
    pub(crate) types: Vec<ResourceType>,
    /// Hosts to which requests fail, including those below them.
    pub(crate) hosts: Vec<String>,
    /// Answers to requests that never reach a server.
    pub(crate) interceptors: Vec<Interceptor>,
    /// Credentials for servers that ask for them.
    pub(crate) credentials: Option<Credentials>,
}

/// An answer to requests for certain addresses.
#[derive(Clone, Debug)]
pub(crate) struct Interceptor {
    pub(crate) pattern: Regex,
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// The type of resource that a request is for, with Puppeteer's names.
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
    /// Returns the protocol's name.
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

/// Maximum number of requests that are remembered as having been asked for credentials.
const ASKED: usize = 10_000;

/// The requests that have been given the credentials; a server that asks again does not accept
/// them.
pub(super) type Asked = HashSet<String>;

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.interception().is_none()
    }

    /// Returns the params of `Fetch.enable`, if it is needed. Requests that need no examination are
    /// not paused.
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

    /// Returns the command that answers `Fetch.requestPaused`.
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

    /// Returns the command that answers `Fetch.authRequired`.
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

/// Permissions that pages may ask people for. If nobody answers, Chromium counts how often it has
/// asked, and finally denies them to the origin, which nothing clears. So it must never ask.
const ASKED_FOR: [&str; 21] = [
    "camera",
    "captured-surface-control",
    "clipboard-read",
    "display-capture",
    "geolocation",
    "idle-detection",
    "keyboard-lock",
    "local-fonts",
    "local-network",
    "local-network-access",
    "loopback-network",
    "microphone",
    "midi",
    "nfc",
    "notifications",
    "persistent-storage",
    "pointer-lock",
    "speaker-selection",
    "storage-access",
    "top-level-storage-access",
    "window-management",
];

/// Returns the descriptors of permissions that stay as they are, whatever a page does.
pub(super) fn never_granted() -> impl Iterator<Item = Value> {
    let more = [
        json!({ "name": "midi", "sysex": true }),
        json!({ "name": "camera", "panTiltZoom": true }),
        json!({ "name": "push", "userVisibleOnly": true }),
    ];
    ASKED_FOR.into_iter().map(|name| json!({ "name": name })).chain(more)
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
