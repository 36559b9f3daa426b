use std::borrow::Cow;
use std::collections::HashSet;

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use url::Url;

use super::load::Load;
use super::{Page, Trouble, Wait};

/// Headers by which a server leaves something in a browser that no command clears for one context:
/// rules for its host, ways to reach it, where to report to, hints that it is to be told.
const LASTING: [&str; 22] = [
    "accept-ch",
    "alt-svc",
    "attribution-reporting-register-source",
    "attribution-reporting-register-trigger",
    "critical-ch",
    "expect-ct",
    "nel",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "origin-trial",
    "proxy-authenticate",
    "public-key-pins",
    "report-to",
    "reporting-endpoints",
    "sec-session-challenge",
    "sec-session-registration",
    "secure-session-challenge",
    "secure-session-registration",
    "set-login",
    "strict-transport-security",
    "use-as-dictionary",
    "www-authenticate",
];

/// Permissions that pages may ask people for. Where nobody answers, Chromium counts how often, and
/// denies them to the origin in the end: nothing clears that. So it must not come to be asked.
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

/// Requests that a page may have open at the same time before nobody counts them any more.
const OPEN: usize = 10_000;

/// Says which stores of its origin are not empty. It runs in an empty document, in which no script
/// of the site's has touched anything.
const LEFT: &str = "(async () => { \
    history.replaceState(null, '', '/'); name = ''; localStorage.clear(); sessionStorage.clear(); \
    const left = []; \
    const count = async (store, count) => { \
        try { if (await count() > 0) left.push(store); } catch (error) { left.push(`${store}: ${error}`); } \
    }; \
    await Promise.all([ \
        count('localStorage', () => localStorage.length), \
        count('sessionStorage', () => sessionStorage.length), \
        count('cookies', () => document.cookie.length), \
        count('indexedDB', async () => (await indexedDB.databases()).length), \
        count('cacheStorage', async () => globalThis.caches ? (await caches.keys()).length : 0), \
        count('serviceWorkers', async () => navigator.serviceWorker \
            ? (await navigator.serviceWorker.getRegistrations()).length : 0), \
        count('storage', async () => navigator.storage?.estimate \
            ? (await navigator.storage.estimate()).usage : 0), \
    ]); \
    return left; })()";

/// Outcome of wiping a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wiped {
    /// Nothing of what it showed is left in its context.
    Clean,
    /// Something is left, or may be: its context is not for another page.
    Stained(Cow<'static, str>),
}

/// What a page leaves behind, as far as its events tell: a context is only used again where all of
/// it is of one origin and of a kind that can be cleared.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The origin of all its documents.
    origin: Option<String>,
    /// Requests without an answer: one that outlives its page may still store a cookie.
    open: HashSet<String>,
    stain: Option<Cow<'static, str>>,
}

impl Trace {
    /// Takes an event of the page's session.
    pub(super) fn event(&mut self, method: &str, params: &Value) {
        match method {
            "Page.frameNavigated" => self.document(&params["frame"]),
            "Network.requestWillBeSent" => {
                self.headers(&params["redirectResponse"]["headers"]);
                self.request(&params["request"]["url"]);
                if self.open.len() < OPEN {
                    self.open.insert(id(params));
                } else {
                    self.stain("more requests than can be followed");
                }
            }
            "Network.requestWillBeSentExtraInfo" => {
                let names = ["authorization", "proxy-authorization"];
                if has(&params["headers"], &names).is_some() {
                    self.stain("credentials that a server asked for");
                }
            }
            "Network.responseReceived" => {
                // Its body may never be read, and then it is not told to have ended.
                self.open.remove(&id(params));
                let response = &params["response"];
                self.headers(&response["headers"]);
                if response["fromServiceWorker"] == true {
                    self.stain("a service worker");
                }
                // Of http, too, but there it says nothing.
                let secure = response["url"].as_str().is_some_and(|url| url.starts_with("https:"));
                let state = response["securityState"].as_str().unwrap_or_default();
                if secure && state.starts_with("insecure") {
                    self.stain("a certificate whose error was ignored");
                }
            }
            "Network.responseReceivedExtraInfo" => {
                self.headers(&params["headers"]);
                if matches!(params["statusCode"].as_u64(), Some(401 | 407)) {
                    self.stain("an answer that asked for credentials");
                }
            }
            "Network.webSocketHandshakeResponseReceived" => {
                self.headers(&params["response"]["headers"]);
            }
            "Network.loadingFinished" | "Network.loadingFailed" => {
                self.open.remove(&id(params));
            }
            "Network.webTransportCreated" => self.stain("a connection of WebTransport"),
            "Network.trustTokenOperationDone" => self.stain("a trust token"),
            "Preload.ruleSetUpdated" => self.stain("pages that it had loaded ahead"),
            "Target.attachedToTarget" => self.attached(&params["targetInfo"]),
            _ => {}
        }
    }

    /// Takes that something runs in its context besides the page's own documents.
    pub(super) fn attached(&mut self, target: &Value) {
        let kind = target["type"].as_str().unwrap_or("target");
        self.stain(format!("a {} of its own", kind.replace('_', " ")));
    }

    /// Takes that its events were not all seen.
    pub(super) fn lost(&mut self) {
        self.stain("more than could be followed");
    }

    fn document(&mut self, frame: &Value) {
        let url = frame["url"].as_str().and_then(|url| Url::parse(url).ok());
        let Some(url) = url else { return self.stain("a document without an address") };
        // They have the origin of the document that they are in, or none that could store.
        if matches!(url.scheme(), "about" | "data") {
            return;
        }
        let origin = url.origin();
        if !origin.is_tuple() {
            return self.stain("a document of no server");
        }
        let origin = origin.ascii_serialization();
        match &self.origin {
            None => self.origin = Some(origin),
            Some(known) if *known == origin => {}
            Some(_) => self.stain("documents of several origins"),
        }
    }

    fn request(&mut self, url: &Value) {
        // An `@` before the path names a user.
        let text = url.as_str().unwrap_or_default();
        let authority = text.split_once("://").map_or("", |(_, rest)| rest);
        if authority.split(['/', '?', '#']).next().is_some_and(|part| part.contains('@')) {
            self.stain("an address with credentials");
        }
    }

    fn headers(&mut self, headers: &Value) {
        if let Some(name) = has(headers, &LASTING) {
            self.stain(format!("what the header {name} says"));
        }
    }

    /// The first one stands.
    fn stain(&mut self, what: impl Into<Cow<'static, str>>) {
        self.stain.get_or_insert_with(|| what.into());
    }
}

fn id(params: &Value) -> String {
    params["requestId"].as_str().unwrap_or_default().to_owned()
}

/// Returns the first of some names, in small letters, that the headers have.
fn has(headers: &Value, names: &[&'static str]) -> Option<&'static str> {
    let headers = headers.as_object()?;
    let known = |header: &String| names.iter().find(|name| header.eq_ignore_ascii_case(name));
    headers.keys().find_map(known).copied()
}

impl Page {
    /// Blanks the page and clears everything of the origin that it showed, so that the next address
    /// finds its context as a new one; and proves it.
    ///
    /// The page goes to an empty document of that origin, which is answered here: its renderer
    /// stays, scripts and timers of the site end, and what its origin stores can be asked for from
    /// within. What cannot be cleared, or was not seen, is a stain.
    ///
    /// # Errors
    ///
    /// If the page or its browser does not do as it is told.
    pub(crate) async fn wipe(&mut self) -> Result<Wiped, Trouble> {
        let Some(path) = self.furniture.blank.clone() else {
            return Ok(stained("a page that is used once"));
        };
        let origin = match (&self.trace.stain, &self.trace.origin) {
            (Some(stain), _) => return Ok(Wiped::Stained(stain.clone())),
            (None, None) => return Ok(stained("a page of no origin")),
            (None, Some(origin)) => origin.clone(),
        };
        let interception = self.furniture.filter.interception(Some(&path));
        self.call("Fetch.enable", interception.unwrap_or_default()).await?;
        self.load = Load::new(self.load.frame(), &[Wait::DomContentLoaded]);
        self.navigate(&format!("{origin}{path}")).await?;
        self.loaded().await?;
        self.clear(&origin).await?;
        let left = self.evaluate(LEFT).await?;
        let cookies = self.cookies().await?;
        if let Some(store) = left.as_array().and_then(|left| left.first()) {
            return Ok(stained(format!("something in {}", store.as_str().unwrap_or("a store"))));
        }
        if !left.is_array() || cookies != 0 {
            return Ok(stained("cookies"));
        }
        // Only now: what comes late shows as well.
        if let Some(stain) = &self.trace.stain {
            return Ok(Wiped::Stained(stain.clone()));
        }
        if !self.trace.open.is_empty() {
            return Ok(stained("a request that outlived it"));
        }
        self.trace = Trace::default();
        Ok(Wiped::Clean)
    }

    /// Clears what the protocol clears: storage of the origin, cookies and caches of the context,
    /// the history of the page, and what its renderer keeps in memory of what it loaded.
    async fn clear(&mut self, origin: &str) -> Result<(), Trouble> {
        let restore = match self.furniture.filter.interception(None) {
            Some(own) => ("Fetch.enable", own),
            None => ("Fetch.disable", json!({})),
        };
        let commands = [
            restore,
            ("Storage.clearDataForOrigin", json!({ "origin": origin, "storageTypes": "all" })),
            ("Network.clearBrowserCookies", json!({})),
            ("Network.clearBrowserCache", json!({})),
            // The renderer's own cache is emptied when caches are turned off.
            ("Network.setCacheDisabled", json!({ "cacheDisabled": true })),
            ("Network.setCacheDisabled", json!({ "cacheDisabled": false })),
            ("Page.resetNavigationHistory", json!({})),
        ];
        let session = self.session.clone();
        let calls = commands.map(|(method, params)| {
            let session = session.clone();
            async move { session.call(method, params).await }
        });
        self.meanwhile(async { Ok(try_join_all(calls).await.map(drop)?) }).await
    }

    /// The number of cookies in its context, whatever they are for.
    async fn cookies(&mut self) -> Result<usize, Trouble> {
        let root = self.session.client().browser();
        let answer = root.call("Storage.getCookies", json!({}));
        let answer = self.meanwhile(async { Ok(answer.await?) }).await?;
        Ok(answer["cookies"].as_array().map_or(usize::MAX, Vec::len))
    }
}

fn stained(what: impl Into<Cow<'static, str>>) -> Wiped {
    Wiped::Stained(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(trace: &mut Trace, url: &str) {
        trace.event("Page.frameNavigated", &json!({ "frame": { "url": url } }));
    }

    fn stain(events: &[(&str, Value)]) -> Option<String> {
        let mut trace = Trace::default();
        document(&mut trace, "http://a/");
        for (method, params) in events {
            trace.event(method, params);
        }
        trace.stain.map(Cow::into_owned)
    }

    #[test]
    fn documents_of_one_origin_leave_no_stain_and_others_do() {
        let mut trace = Trace::default();
        for url in ["about:blank", "http://a/x", "about:srcdoc", "blob:http://a/1", "http://a/y"] {
            document(&mut trace, url);
            assert_eq!(trace.stain, None, "{url}");
        }
        for url in ["http://a:81/", "https://a/", "http://b/", "chrome-error://chromewebdata/"] {
            let mut trace = Trace::default();
            document(&mut trace, "http://a/");
            document(&mut trace, url);
            assert!(trace.stain.is_some(), "{url}");
        }
    }

    #[test]
    fn what_no_command_clears_is_a_stain() {
        let answer = |name: &str| json!({ "headers": { name: "x" }, "statusCode": 200 });
        let info = "Network.responseReceivedExtraInfo";
        assert_eq!(stain(&[(info, answer("Content-Type"))]), None);
        for name in ["Strict-Transport-Security", "alt-svc", "NEL", "Accept-CH"] {
            assert!(stain(&[(info, answer(name))]).is_some(), "{name}");
        }
        for (method, params) in [
            (info, json!({ "headers": {}, "statusCode": 401 })),
            ("Network.requestWillBeSent", json!({ "request": { "url": "http://u:p@a/" } })),
            (
                "Network.requestWillBeSent",
                json!({ "request": { "url": "http://a/" }, "redirectResponse": { "headers": { "nel": "" } } }),
            ),
            ("Network.requestWillBeSentExtraInfo", json!({ "headers": { "Authorization": "x" } })),
            (
                "Network.responseReceived",
                json!({ "response": { "url": "https://a/", "securityState": "insecure" } }),
            ),
            ("Target.attachedToTarget", json!({ "targetInfo": { "type": "worker" } })),
            ("Preload.ruleSetUpdated", json!({})),
        ] {
            assert!(stain(&[(method, params.clone())]).is_some(), "{method} {params}");
        }
    }

    #[test]
    fn a_request_is_open_until_it_is_answered_or_has_failed() {
        for end in ["Network.responseReceived", "Network.loadingFailed"] {
            let mut trace = Trace::default();
            let request = json!({ "requestId": "1", "request": { "url": "http://a/" } });
            trace.event("Network.requestWillBeSent", &request);
            // That of a step of a redirect is not the last.
            trace.event("Network.responseReceivedExtraInfo", &json!({ "requestId": "1" }));
            assert_eq!(trace.open.len(), 1);
            trace.event(end, &json!({ "requestId": "1" }));
            assert!(trace.open.is_empty());
        }
    }
}
