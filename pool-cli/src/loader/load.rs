use serde::Deserialize;
use serde_json::Value;

/// The event after which a page counts as loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// Its `load` event was fired: it has its stylesheets, images and frames.
    #[default]
    Load,
    /// Its document is parsed; images may be missing.
    #[value(name = "domcontentloaded")]
    DomContentLoaded,
    /// It is loaded and has used no network for half a second.
    #[value(name = "networkidle", alias = "networkidle0")]
    #[serde(rename = "networkidle0")]
    NetworkIdle,
    /// It is loaded and has had at most two requests open for half a second.
    #[value(name = "networkidle2")]
    #[serde(rename = "networkidle2")]
    NetworkAlmostIdle,
}

impl Wait {
    /// Returns `true` for an event that only Chromium can report, by a lifecycle event.
    pub(crate) fn is_of_network(self) -> bool {
        match self {
            Self::NetworkIdle | Self::NetworkAlmostIdle => true,
            Self::Load | Self::DomContentLoaded => false,
        }
    }
}

/// The progress of loading a page, according to its events.
///
/// Only the page's own document counts, not its frames. If a page navigates elsewhere while it
/// loads, it is followed.
#[derive(Debug)]
pub(crate) struct Load {
    frame: String,
    /// The events that must all happen.
    waits: Vec<Wait>,
    /// Those of them that the document has had.
    had: Vec<Wait>,
    /// The document that was requested or is shown.
    document: Option<String>,
    /// It is shown.
    committed: bool,
    /// The document that it leaves for the requested one.
    left: Option<Left>,
    /// It was written rather than requested, so its address means nothing.
    written: bool,
    answer: Option<Answer>,
    end: Option<LoadEnd>,
}

/// A document that was shown, as far as it had come.
#[derive(Debug)]
struct Left {
    document: Option<String>,
    had: Vec<Wait>,
    answer: Option<Answer>,
}

/// A server's answer to the request for a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The words after the status; empty since HTTP/2.
    pub(crate) text: String,
    /// Its address, after redirects.
    pub(crate) url: String,
    /// The server's address, or that of a proxy.
    pub(crate) ip: Option<String>,
    pub(crate) port: Option<u16>,
}

/// The outcome of loading a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoadEnd {
    /// It loaded as far as required.
    Loaded,
    /// It did not start to load; the reason is in Chromium's own words.
    Failed(String),
    /// Its renderer died.
    Crashed,
}

/// The error of a page that shows that it has failed, as long as nobody has said why.
const UNEXPLAINED: &str = "net::ERR_FAILED";

/// Chromium's error for an address that gives no document: a download, an answer without content,
/// or something for another program.
const ABORTED: &str = "net::ERR_ABORTED";

/// Chromium's error for an answer without a body and with an error status, for which it shows a
/// page of its own.
const EMPTY_ERROR: &str = "net::ERR_HTTP_RESPONSE_CODE_FAILURE";

impl Load {
    /// Creates the progress of the page with this main frame.
    pub(crate) fn new(frame: &str, waits: &[Wait]) -> Self {
        Self {
            frame: frame.to_owned(),
            waits: waits.to_vec(),
            had: Vec::new(),
            document: None,
            committed: false,
            left: None,
            written: false,
            answer: None,
            end: None,
        }
    }

    /// Treats an empty document like any other, since it was asked for.
    pub(crate) fn expect_empty(&mut self) {
        self.written = true;
    }

    /// Returns `true` if it shows the document that it should show.
    pub(crate) fn is_shown(&self) -> bool {
        self.committed
    }

    /// Returns the page's main frame.
    pub(crate) fn frame(&self) -> &str {
        &self.frame
    }

    /// Starts to wait for the document that is about to be written over the present one.
    pub(crate) fn begin_writing(&mut self) {
        self.written = true;
        self.committed = false;
    }

    /// Processes an event of the page's session.
    pub(crate) fn event(&mut self, method: &str, params: &Value) {
        match method {
            "Network.requestWillBeSent" if self.is_document(params) => {
                self.begin(params["loaderId"].as_str());
            }
            "Network.responseReceived"
                if self.is_document(params) || self.is_of_document(params) =>
            {
                // Chromium may have reported the request before anybody listened.
                self.begin(params["loaderId"].as_str());
                self.answer = Answer::of(&params["response"]);
            }
            "Network.loadingFailed" if self.is_of_document(params) && !self.committed => {
                let error = params["errorText"].as_str().unwrap_or(UNEXPLAINED);
                match self.left.take() {
                    Some(left) if error == ABORTED => self.stay(left),
                    _ => self.end = Some(Self::failure(error)),
                }
            }
            "Page.frameNavigated" if params["frame"]["id"].as_str() == Some(&self.frame) => {
                let frame = &params["frame"];
                if frame["unreachableUrl"].is_string() {
                    // This is Chromium's own error page; if requests are reported, the error itself
                    // came before.
                    self.end.get_or_insert(LoadEnd::Failed(UNEXPLAINED.to_owned()));
                    return;
                }
                if self.document.as_deref() != frame["loaderId"].as_str() {
                    self.begin(frame["loaderId"].as_str());
                }
                self.committed = true;
            }
            "Page.domContentEventFired" => self.has_had(Wait::DomContentLoaded),
            "Page.loadEventFired" => self.has_had(Wait::Load),
            "Page.lifecycleEvent" if params["frameId"].as_str() == Some(&self.frame) => {
                self.lifecycle(params);
            }
            "Inspector.targetCrashed" => self.end = Some(LoadEnd::Crashed),
            _ => {}
        }
    }

    /// Processes Chromium's report that the page does not start to load.
    pub(crate) fn failed(&mut self, error: &str) {
        if self.end.is_none() || self.is_unexplained() {
            self.end = Some(Self::failure(error));
        }
    }

    /// Returns `true` if it has failed, and nobody has said why.
    pub(crate) fn is_unexplained(&self) -> bool {
        matches!(&self.end, Some(LoadEnd::Failed(error)) if error == UNEXPLAINED)
    }

    /// Processes an event of a page whose requests are not reported. `fresh` is a page that was made
    /// with its address.
    pub(crate) fn event_unreported(&mut self, method: &str, params: &Value, fresh: bool) {
        if params["frameId"].as_str() != Some(&self.frame) {
            return;
        }
        match method {
            "Page.frameStartedNavigating" => {
                let kind = params["navigationType"].as_str().unwrap_or_default();
                if !matches!(kind, "sameDocument" | "historySameDocument") {
                    self.begin(params["loaderId"].as_str());
                }
            }
            // It has become a download, or there is nothing to show.
            "Page.frameStoppedLoading"
                if fresh && self.document.is_some() && !self.committed && self.left.is_none() =>
            {
                self.end.get_or_insert(LoadEnd::Failed(ABORTED.to_owned()));
            }
            _ => {}
        }
    }

    fn failure(error: &str) -> LoadEnd {
        // The status says more than the fact that there is nothing to show.
        if error == EMPTY_ERROR {
            return LoadEnd::Loaded;
        }
        LoadEnd::Failed(error.to_owned())
    }

    /// Notes that it shows this document, according to the answer to the command that sent it
    /// there.
    pub(crate) fn shows(&mut self, document: Option<&str>) {
        if self.document.is_none() {
            self.begin(document);
        }
        self.committed |= self.document.as_deref() == document;
    }

    /// Processes the page's own report that it is in this state, at this address.
    pub(crate) fn seen(&mut self, ready_state: &str, address: &str) {
        let empty = address == "about:blank" && !self.written;
        if empty || address.starts_with("chrome-error:") || self.end.is_some() {
            return;
        }
        // Only Chromium knows about its network.
        let had: &[Wait] = match ready_state {
            "complete" => &[Wait::DomContentLoaded, Wait::Load],
            "interactive" => &[Wait::DomContentLoaded],
            _ => &[],
        };
        for wait in had {
            self.committed = true;
            self.has_had(*wait);
        }
    }

    fn lifecycle(&mut self, params: &Value) {
        let document = params["loaderId"].as_str();
        match params["name"].as_str() {
            // The document was opened for writing.
            Some("init") if self.written && !self.committed => {
                self.begin(document);
                self.committed = true;
            }
            Some("networkIdle") if document == self.document.as_deref() => {
                self.has_had(Wait::NetworkIdle);
            }
            Some("networkAlmostIdle") if document == self.document.as_deref() => {
                self.has_had(Wait::NetworkAlmostIdle);
            }
            _ => {}
        }
    }

    /// Goes on with the document that it was about to leave.
    fn stay(&mut self, left: Left) {
        let Left { document, had, answer } = left;
        self.document = document;
        self.had = had;
        self.answer = answer;
        self.committed = true;
        self.settle();
    }

    fn has_had(&mut self, wait: Wait) {
        if !self.committed {
            return;
        }
        if !self.had.contains(&wait) {
            self.had.push(wait);
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.waits.iter().all(|wait| self.had.contains(wait)) {
            self.end.get_or_insert(LoadEnd::Loaded);
        }
    }

    /// Returns the outcome, once there is one.
    pub(crate) fn end(&self) -> Option<&LoadEnd> {
        self.end.as_ref()
    }

    /// Returns the HTTP status of the document.
    pub(crate) fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status).filter(|status| *status != 0)
    }

    /// Returns the answer that the document came with; `None` for a written document.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    fn begin(&mut self, document: Option<&str>) {
        if self.document.as_deref() == document || self.end == Some(LoadEnd::Crashed) {
            // A redirect continues with the same document.
            return;
        }
        let document = std::mem::replace(&mut self.document, document.map(str::to_owned));
        let (had, answer) = (std::mem::take(&mut self.had), self.answer.take());
        if std::mem::take(&mut self.committed) {
            self.left = Some(Left { document, had, answer });
        }
        self.end = None;
    }

    fn is_document(&self, params: &Value) -> bool {
        params["type"] == "Document" && params["frameId"].as_str() == Some(&self.frame)
    }

    /// Returns `true` if it is about the request for the document. As long as there is no document,
    /// there are no frames whose documents it could be about.
    fn is_of_document(&self, params: &Value) -> bool {
        match &self.document {
            Some(document) => params["requestId"].as_str() == Some(document),
            None => params["type"] == "Document",
        }
    }
}

impl Answer {
    fn of(response: &Value) -> Option<Self> {
        let text = |name: &str| response[name].as_str().map(str::to_owned);
        Some(Self {
            status: response["status"].as_u64()?.try_into().ok()?,
            text: text("statusText").unwrap_or_default(),
            url: text("url").unwrap_or_default(),
            ip: text("remoteIPAddress").filter(|ip| !ip.is_empty()),
            port: response["remotePort"].as_u64().and_then(|port| port.try_into().ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(load: &mut Load, document: &str) {
        load.event(
            "Network.requestWillBeSent",
            &json!({ "type": "Document", "frameId": "F", "loaderId": document, "requestId": document }),
        );
    }

    fn response(load: &mut Load, document: &str, status: u16) {
        let params = json!({
            "type": "Document", "frameId": "F", "loaderId": document, "requestId": document,
            "response": { "status": status },
        });
        load.event("Network.responseReceived", &params);
    }

    fn commit(load: &mut Load, document: &str) {
        load.event("Page.frameNavigated", &json!({ "frame": { "id": "F", "loaderId": document } }));
    }

    fn failed(load: &mut Load, document: &str, error: &str) {
        let params = json!({ "type": "Document", "requestId": document, "errorText": error });
        load.event("Network.loadingFailed", &params);
    }

    fn loaded(load: &mut Load) {
        load.event("Page.loadEventFired", &json!({}));
    }

    fn departs(load: &mut Load, document: &str, kind: &str) {
        let params = json!({ "frameId": "F", "loaderId": document, "navigationType": kind });
        load.event_unreported("Page.frameStartedNavigating", &params, true);
    }

    fn stops(load: &mut Load, frame: &str, fresh: bool) {
        load.event_unreported("Page.frameStoppedLoading", &json!({ "frameId": frame }), fresh);
    }

    #[test]
    fn a_page_that_goes_to_what_is_no_document_stays_where_it_is() {
        let mut load = Load::new("F", &[Wait::Load]);
        request(&mut load, "1");
        response(&mut load, "1", 200);
        commit(&mut load, "1");
        request(&mut load, "2");
        response(&mut load, "2", 204);
        failed(&mut load, "2", "net::ERR_ABORTED");
        assert_eq!((load.end(), load.status()), (None, Some(200)));
        loaded(&mut load);
        assert_eq!(load.end(), Some(&LoadEnd::Loaded));
    }

    #[test]
    fn without_reports_of_requests_a_page_is_followed_to_its_last_document() {
        let mut load = Load::new("F", &[Wait::Load]);
        departs(&mut load, "1", "differentDocument");
        commit(&mut load, "1");
        departs(&mut load, "1b", "sameDocument");
        departs(&mut load, "2", "differentDocument");
        loaded(&mut load);
        assert_eq!(load.end(), None, "that was the first one");
        stops(&mut load, "F", true);
        assert_eq!(load.end(), None, "it still shows the first one");
        commit(&mut load, "2");
        loaded(&mut load);
        assert_eq!(load.end(), Some(&LoadEnd::Loaded));
    }

    #[test]
    fn without_reports_of_requests_a_page_says_that_it_failed_and_not_why() {
        let mut load = Load::new("F", &[Wait::Load]);
        stops(&mut load, "F", true);
        assert_eq!(load.end(), None, "that was the empty page before it");
        departs(&mut load, "1", "differentDocument");
        stops(&mut load, "a frame of it", true);
        assert_eq!(load.end(), None);
        stops(&mut load, "F", false);
        assert_eq!(load.end(), None, "the answer to the command says so");
        stops(&mut load, "F", true);
        assert_eq!(load.end(), Some(&LoadEnd::Failed("net::ERR_ABORTED".to_owned())));

        let mut load = Load::new("F", &[Wait::Load]);
        departs(&mut load, "1", "differentDocument");
        let unreachable = json!({ "id": "F", "loaderId": "1", "unreachableUrl": "http://a/" });
        load.event("Page.frameNavigated", &json!({ "frame": unreachable }));
        assert!(load.is_unexplained());
        load.failed("net::ERR_EMPTY_RESPONSE");
        assert_eq!(load.end(), Some(&LoadEnd::Failed("net::ERR_EMPTY_RESPONSE".to_owned())));
    }

    #[test]
    fn a_page_is_loaded_when_its_own_document_is() {
        let mut load = Load::new("F", &[Wait::Load]);
        loaded(&mut load);
        assert_eq!(load.end(), None, "that was the empty page before it");
        request(&mut load, "1");
        response(&mut load, "1", 404);
        commit(&mut load, "1");
        assert_eq!(load.end(), None);
        loaded(&mut load);
        assert_eq!((load.end(), load.status()), (Some(&LoadEnd::Loaded), Some(404)));
    }

    #[test]
    fn a_page_that_goes_elsewhere_is_followed() {
        let mut load = Load::new("F", &[Wait::Load]);
        request(&mut load, "1");
        response(&mut load, "1", 200);
        commit(&mut load, "1");
        request(&mut load, "2");
        failed(&mut load, "1", "net::ERR_ABORTED");
        response(&mut load, "2", 203);
        commit(&mut load, "2");
        assert_eq!(load.end(), None);
        loaded(&mut load);
        assert_eq!((load.end(), load.status()), (Some(&LoadEnd::Loaded), Some(203)));
    }

    #[test]
    fn what_cannot_be_had_has_failed_at_once() {
        let mut load = Load::new("F", &[Wait::Load]);
        request(&mut load, "1");
        failed(&mut load, "1", "net::ERR_CONNECTION_REFUSED");
        let failed = LoadEnd::Failed("net::ERR_CONNECTION_REFUSED".to_owned());
        assert_eq!(load.end(), Some(&failed));
    }

    #[test]
    fn a_request_that_nobody_was_told_of_ends_like_any_other() {
        let mut load = Load::new("F", &[Wait::Load]);
        response(&mut load, "1", 204);
        failed(&mut load, "1", "net::ERR_ABORTED");
        let aborted = LoadEnd::Failed("net::ERR_ABORTED".to_owned());
        assert_eq!((load.end(), load.status()), (Some(&aborted), Some(204)));
        let mut load = Load::new("F", &[Wait::Load]);
        failed(&mut load, "1", "net::ERR_ABORTED");
        assert_eq!(load.end(), Some(&aborted));
    }

    #[test]
    fn a_document_that_breaks_off_after_it_is_shown_is_still_shown() {
        let mut load = Load::new("F", &[Wait::Load]);
        request(&mut load, "1");
        commit(&mut load, "1");
        failed(&mut load, "1", "net::ERR_CONTENT_LENGTH_MISMATCH");
        assert_eq!(load.end(), None);
        loaded(&mut load);
        assert_eq!(load.end(), Some(&LoadEnd::Loaded));
    }

    #[test]
    fn an_error_without_a_body_is_a_status_and_not_a_failure() {
        let mut load = Load::new("F", &[Wait::Load]);
        request(&mut load, "1");
        response(&mut load, "1", 500);
        failed(&mut load, "1", EMPTY_ERROR);
        assert_eq!((load.end(), load.status()), (Some(&LoadEnd::Loaded), Some(500)));
    }

    #[test]
    fn a_page_whose_events_were_lost_is_believed_what_it_says_of_itself() {
        let mut load = Load::new("F", &[Wait::Load]);
        load.seen("complete", "about:blank");
        load.seen("interactive", "http://a/");
        assert_eq!(load.end(), None);
        load.seen("complete", "http://a/");
        assert_eq!(load.end(), Some(&LoadEnd::Loaded));
    }

    #[test]
    fn a_crash_is_the_end_of_it() {
        let mut load = Load::new("F", &[Wait::Load]);
        load.event("Inspector.targetCrashed", &json!({}));
        commit(&mut load, "1");
        loaded(&mut load);
        assert_eq!(load.end(), Some(&LoadEnd::Crashed));
    }

    fn lifecycle(load: &mut Load, name: &str, document: &str) {
        let params = json!({ "frameId": "F", "loaderId": document, "name": name });
        load.event("Page.lifecycleEvent", &params);
    }

    #[test]
    fn a_page_is_loaded_when_it_has_had_every_event_that_is_waited_for() {
        let mut load = Load::new("F", &[Wait::Load, Wait::NetworkAlmostIdle]);
        request(&mut load, "1");
        commit(&mut load, "1");
        lifecycle(&mut load, "networkAlmostIdle", "0");
        loaded(&mut load);
        assert_eq!(load.end(), None, "that was another document's network");
        lifecycle(&mut load, "networkAlmostIdle", "1");
        assert_eq!(load.end(), Some(&LoadEnd::Loaded));
    }

    #[test]
    fn a_document_that_is_written_begins_when_it_is_opened() {
        let mut load = Load::new("F", &[Wait::Load]);
        load.begin_writing();
        loaded(&mut load);
        assert_eq!(load.end(), None, "that was the empty page before it");
        lifecycle(&mut load, "init", "1");
        loaded(&mut load);
        assert_eq!((load.end(), load.answer()), (Some(&LoadEnd::Loaded), None));
    }
}
