use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use url::Url;

/// Headers by which a server leaves something in a browser that no command clears for a single
/// context: rules for its host, ways to reach it, addresses for reports, and hints that it wants to
/// receive.
const LASTING: [&str; 25] = [
    "accept-ch",
    "alt-svc",
    "attribution-reporting-register-os-source",
    "attribution-reporting-register-os-trigger",
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
    "shared-storage-write",
    "strict-transport-security",
    "use-as-dictionary",
    "www-authenticate",
];

/// Maximum number of open requests of a page that are tracked.
const OPEN: usize = 10_000;

/// The traces of a page, as far as its events show them: a context is only used again if everything
/// in it is of one origin and of a kind that can be cleared.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The origin of all its documents.
    pub(super) origin: Option<String>,
    /// Number of documents that it has shown, those of its frames included.
    documents: usize,
    /// Requests without an answer, since one that outlives its page may still store a cookie, and
    /// whether they are for documents, which are open until they are shown.
    open: HashMap<String, bool>,
    pub(super) stain: Option<Cow<'static, str>>,
}

impl Trace {
    /// Processes an event of the page's session.
    pub(super) fn event(&mut self, method: &str, params: &Value) {
        match method {
            "Page.frameNavigated" => {
                let frame = &params["frame"];
                self.open.remove(frame["loaderId"].as_str().unwrap_or_default());
                self.document(frame);
            }
            "Network.requestWillBeSent" => {
                self.headers(&params["redirectResponse"]["headers"]);
                self.request(&params["request"]["url"]);
                if self.open.len() < OPEN {
                    self.open.insert(id(params), params["type"] == "Document");
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
                if params["type"] != "Document" {
                    // Its body may never be read, and then its end is not reported.
                    self.open.remove(&id(params));
                }
                let response = &params["response"];
                self.headers(&response["headers"]);
                if response["fromServiceWorker"] == true {
                    self.stain("a service worker");
                }
                // Also set for http, but there it means nothing.
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
            "Network.loadingFinished" | "Network.loadingFailed" => {
                self.open.remove(&id(params));
            }
            // A refused handshake does not report its headers.
            "Network.webSocketCreated" => self.stain("a WebSocket"),
            "Network.webTransportCreated" => self.stain("a connection of WebTransport"),
            "Network.trustTokenOperationDone" => self.stain("a trust token"),
            "Preload.ruleSetUpdated" => self.stain("pages that it had loaded ahead"),
            "Target.attachedToTarget" => self.attached(&params["targetInfo"]),
            _ => {}
        }
    }

    /// Returns the number of documents that it has shown, those of its frames included.
    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// Returns `true` if a document is on its way.
    pub(super) fn navigates(&self) -> bool {
        self.open.values().any(|is_document| *is_document)
    }

    /// Returns what is left, or may be left, once the page has gone.
    pub(super) fn left(&self) -> Option<Cow<'static, str>> {
        let open = || (!self.open.is_empty()).then_some("a request that outlived it".into());
        self.stain.clone().or_else(open)
    }

    /// Records that something runs in its context besides the page's own documents.
    pub(super) fn attached(&mut self, target: &Value) {
        let kind = target["type"].as_str().unwrap_or("target");
        self.stain(format!("a {} of its own", kind.replace('_', " ")));
    }

    /// Records that some of its events were missed.
    pub(super) fn lost(&mut self) {
        self.stain("more than could be followed");
    }

    fn document(&mut self, frame: &Value) {
        self.documents += 1;
        let url = frame["url"].as_str().and_then(|url| Url::parse(url).ok());
        let Some(url) = url else { return self.stain("a document without an address") };
        // They have the origin of the document that they are in, or one that cannot store anything.
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
        // An `@` before the path marks a user name.
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

    /// Records a stain; the first one counts.
    fn stain(&mut self, what: impl Into<Cow<'static, str>>) {
        self.stain.get_or_insert_with(|| what.into());
    }
}

fn id(params: &Value) -> String {
    params["requestId"].as_str().unwrap_or_default().to_owned()
}

/// Returns the first of some lower-case names that is among the headers.
fn has(headers: &Value, names: &[&'static str]) -> Option<&'static str> {
    let headers = headers.as_object()?;
    let known = |header: &String| names.iter().find(|name| header.eq_ignore_ascii_case(name));
    headers.keys().find_map(known).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn a_document_is_on_its_way_until_it_is_shown() {
        let mut trace = Trace::default();
        let request =
            json!({ "requestId": "1", "type": "Document", "request": { "url": "http://a/" } });
        trace.event("Network.requestWillBeSent", &request);
        let response =
            json!({ "requestId": "1", "type": "Document", "response": { "url": "http://a/" } });
        trace.event("Network.responseReceived", &response);
        assert!(trace.navigates());
        let frame = json!({ "frame": { "url": "http://a/", "loaderId": "1" } });
        trace.event("Page.frameNavigated", &frame);
        assert!(!trace.navigates());
        assert_eq!((trace.left(), trace.documents()), (None, 1));
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
