use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use pool_chrome::cdp::{CdpError, Client, Event, Session};
use pool_chrome::mux::SessionId;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{sleep, timeout};

use super::furniture::{Asked, Fitting, never_granted, report};
use super::load::LoadEnd;
use super::notes::{Har, Notes};
use super::trace::Trace;
use super::{Answer, Furniture, Load, Trouble, Wait};

/// Time of silence after which a page is asked whether it is loaded: the event that reports it may
/// have been lost among too many, or while the page moved from one renderer to another.
const SILENCE: Duration = Duration::from_millis(500);

/// Resumes a page or a frame that was created paused.
const RUN: &str = "Runtime.runIfWaitingForDebugger";

/// Interval at which a page is asked whether a condition holds.
const OFTEN: Duration = Duration::from_millis(50);

/// The document with everything before it, as in Puppeteer's `content()`.
const HTML: &str = "[...document.childNodes].map(node => node === document.documentElement \
    ? node.outerHTML : new XMLSerializer().serializeToString(node)).join('')";

/// The HTTP status of the document.
const STATUS: &str = "(() => { try { return \
    performance.getEntriesByType('navigation')[0].responseStatus } catch { return null } })()";

/// Maximum number of windows opened by a page that are remembered.
const POPUPS: usize = 1_000;

/// A page, ready to go to its address.
#[derive(Debug)]
pub(crate) struct Page {
    pub(super) session: Session,
    start: Start,
    id: SessionId,
    events: Receiver<Event>,
    pub(super) load: Load,
    pub(super) furniture: Arc<Furniture>,
    asked: Asked,
    notes: Option<Notes>,
    har: Option<Har>,
    /// Kept if the page is to be wiped.
    pub(super) trace: Trace,
    pub(super) paused: Paused,
    /// Windows that it opened, if it shares its context with other pages.
    popups: Vec<String>,
    /// The page, or its browser, is gone.
    gone: Option<Trouble>,
}

/// The way in which a page is started.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// It was made with this address, and is held before its first request.
    Held(String),
    /// It is empty, and is sent to this address.
    Empty(String),
    /// It is empty, and this document is written into it.
    Written(String),
}

/// What happens to the requests of a page that are paused for it.
#[derive(Debug)]
pub(super) enum Paused {
    /// Its filter judges them.
    Judged,
    /// The page is being replaced by its empty document: all other requests fail.
    Left,
    /// The answer that would become its document is kept, once it has come.
    Kept(Option<Arc<Value>>),
}

/// A loaded page's own details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) status: Option<u16>,
    pub(crate) title: String,
    pub(crate) final_url: String,
}

impl Page {
    /// Makes a page for an address. It takes one round trip: everything is sent at once, and no
    /// server is asked for anything until [`load`](Self::load) starts the page.
    ///
    /// With `held`, it is made with its address and held, which the shell supports. The whole
    /// browser does not hold a page that is made with an address: it requests the address before
    /// anybody can be attached to the page.
    pub(crate) async fn stage(
        client: &Client,
        held: bool,
        url: &str,
        furniture: &Arc<Furniture>,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.createTarget";
        let mut events = client.events();
        let root = client.browser();
        let address = url.to_owned();
        let start = if held { Start::Held(address) } else { Start::Empty(address) };
        // If the context is used again, nothing in it may go unnoticed.
        let kinds: &[&str] = if furniture.blank.is_some() { &[] } else { &["page"] };
        root.send("Target.setAutoAttach", auto_attach(held, kinds)).await?;
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        if furniture.blank.is_some() {
            for permission in never_granted() {
                let setting = json!({ "permission": permission, "setting": "prompt" });
                // If this Chromium does not know it, no page can ask for it.
                root.send("Browser.setPermission", setting).await?;
            }
        }
        let first = if held { url } else { "about:blank" };
        let made = root.call(METHOD, json!({ "url": first })).await?;
        let target = made["targetId"].as_str().ok_or_else(|| odd(METHOD, "no targetId"))?;
        let id =
            attached(&mut events, target).ok_or_else(|| odd(METHOD, "it was not attached to"))?;
        if held {
            // A popup must not stay paused, or its opener would too.
            root.send("Target.setAutoAttach", auto_attach(false, kinds)).await?;
        }
        let page = Self::new(client, id, target, events, start, furniture);
        page.furnish().await?;
        if !held {
            // A page that navigates before this is answered does not report it.
            page.session.call("Page.enable", json!({})).await?;
        }
        Ok(page)
    }

    /// Makes an empty page next to others in its context, for one address after another.
    pub(crate) async fn open(
        client: &Client,
        url: &str,
        furniture: &Arc<Furniture>,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.createTarget";
        let events = client.events();
        let root = client.browser();
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        let pages = json!([{ "type": "page" }, { "exclude": true }]);
        let discover = json!({ "discover": true, "filter": pages });
        root.send("Target.setDiscoverTargets", discover).await?;
        let made = root.call(METHOD, json!({ "url": "about:blank" })).await?;
        let target = made["targetId"].as_str().ok_or_else(|| odd(METHOD, "no targetId"))?;
        let session = client.attach(target).await?;
        let id = session.id().ok_or_else(|| odd(METHOD, "no session"))?;
        let start = Start::Empty(url.to_owned());
        let page = Self::new(client, id, target, events, start, furniture);
        page.furnish().await?;
        page.session.call("Page.enable", json!({})).await?;
        Ok(page)
    }

    /// Processes the events that have already come.
    pub(super) async fn catch_up(&mut self) -> Result<(), Trouble> {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(Ok(event)).await?,
                Err(TryRecvError::Lagged(lost)) => self.take(Err(RecvError::Lagged(lost))).await?,
                Err(TryRecvError::Closed) => self.take(Err(RecvError::Closed)).await?,
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    /// Prepares a loaded page for another address. Returns `false` if it must not be used again,
    /// because more has come from its previous address since it was wiped.
    ///
    /// # Errors
    ///
    /// If the page or its browser has gone in the meantime.
    pub(crate) async fn again(&mut self, url: &str) -> Result<bool, Trouble> {
        self.catch_up().await?;
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        self.close_popups().await?;
        self.start = Start::Empty(url.to_owned());
        self.load = Load::new(self.load.frame(), &self.furniture.waits);
        self.asked.clear();
        self.har = self.furniture.har.then(Har::new);
        Ok(self.furniture.blank.is_none() || self.trace.left().is_none())
    }

    /// Closes the page, and the windows that it opened.
    pub(crate) async fn close(mut self) {
        let root = self.session.client().browser();
        let target = json!({ "targetId": self.load.frame() });
        // If it is gone, it need not be closed.
        let _ = self.close_popups().await;
        let _ = root.send("Target.closeTarget", target).await;
    }

    async fn close_popups(&mut self) -> Result<(), Trouble> {
        let root = self.session.client().browser();
        for popup in std::mem::take(&mut self.popups) {
            root.send("Target.closeTarget", json!({ "targetId": popup })).await?;
        }
        Ok(())
    }

    /// Sends the settings that must be in place before the first request.
    async fn furnish(&self) -> Result<(), CdpError> {
        self.reach_frames().await?;
        for Fitting { method, params, .. } in self.furniture.fittings() {
            self.session.send(method, params).await?;
        }
        Ok(())
    }

    /// Takes the page that a lease begins with, for an address or, with `written`, a document.
    ///
    /// # Errors
    ///
    /// [`Trouble::Unfit`] if Chromium does not accept the furniture.
    pub(crate) async fn first(
        client: &Client,
        content: &str,
        written: bool,
        furniture: &Arc<Furniture>,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.getTargets";
        let events = client.events();
        let root = client.browser();
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        let targets = root.call(METHOD, json!({})).await?;
        let infos = targets["targetInfos"].as_array().map(Vec::as_slice).unwrap_or_default();
        let page = infos.iter().rfind(|info| info["type"] == "page");
        let target = page.and_then(|info| info["targetId"].as_str());
        let target = target.ok_or_else(|| odd(METHOD, "the lease has no page"))?;
        let session = client.attach(target).await?;
        let id = session.id().ok_or_else(|| odd(METHOD, "no session"))?;
        let content = content.to_owned();
        let start = if written { Start::Written(content) } else { Start::Empty(content) };
        let mut page = Self::new(client, id, target, events, start, furniture);
        page.reach_frames().await?;
        let fit = |Fitting { member, method, params }: Fitting| {
            let session = page.session.clone();
            async move {
                let fitted = session.call(method, params).await;
                fitted.map_err(|error| unfit(member, error))
            }
        };
        try_join_all(furniture.fittings().into_iter().map(fit)).await?;
        let viewport = &furniture.viewport;
        if written && (viewport.has_touch || viewport.is_mobile) {
            // A document keeps the screen that it was made with.
            page.renew().await?;
        }
        Ok(page)
    }

    fn new(
        client: &Client,
        id: SessionId,
        target: &str,
        events: Receiver<Event>,
        start: Start,
        furniture: &Arc<Furniture>,
    ) -> Self {
        Self {
            session: client.session(id),
            start,
            id,
            events,
            load: Load::new(target, &furniture.waits),
            furniture: Arc::clone(furniture),
            asked: Asked::new(),
            notes: None,
            har: furniture.har.then(Har::new),
            trace: Trace::default(),
            paused: Paused::Judged,
            popups: Vec::new(),
            gone: None,
        }
    }

    /// Sends the page to a new empty document.
    async fn renew(&mut self) -> Result<(), Trouble> {
        let fresh = Load::new(self.load.frame(), &self.furniture.waits);
        self.load = Load::new(fresh.frame(), &[Wait::Load]);
        self.load.expect_empty();
        let answer = self.call("Page.navigate", json!({ "url": "about:blank" })).await?;
        self.load.shows(answer["loaderId"].as_str());
        self.loaded().await?;
        self.load = fresh;
        Ok(())
    }

    /// Gives up a navigation that has not even begun: until it has, the page answers nothing.
    pub(crate) async fn give_up(&mut self) -> Result<(), Trouble> {
        if !self.load.is_shown() {
            self.call("Page.stopLoading", json!({})).await?;
        }
        Ok(())
    }

    /// Starts to record what the page does, for those who look for a mistake.
    pub(crate) fn take_notes(&mut self) {
        self.notes.get_or_insert_default();
    }

    /// Returns the notes of the page, if any were kept.
    pub(crate) fn notes(&mut self) -> Notes {
        self.notes.take().unwrap_or_default()
    }

    /// Returns an archive of what the page has loaded so far, if one is kept.
    pub(crate) fn har(&mut self, title: &str) -> Option<Value> {
        self.har.take().map(|har| har.archive(title))
    }

    /// Asks to be told of frames and workers with a process of their own, if the page's settings
    /// must apply to them as well.
    async fn reach_frames(&self) -> Result<(), CdpError> {
        let written = matches!(self.start, Start::Written(_));
        if written || self.furniture.waits.iter().any(|wait| wait.is_of_network()) {
            let enabled = json!({ "enabled": true });
            self.session.send("Page.setLifecycleEventsEnabled", enabled).await?;
        }
        if self.furniture.reaches_frames() {
            let frames = auto_attach(true, &["iframe", "worker"]);
            self.session.send("Target.setAutoAttach", frames).await?;
        } else if self.furniture.blank.is_some() {
            self.session.send("Target.setAutoAttach", auto_attach(false, &[])).await?;
        }
        if self.furniture.blank.is_some() {
            // Preloading happens where nobody looks.
            self.session.send("Preload.enable", json!({})).await?;
        }
        Ok(())
    }

    /// Prepares a frame or a worker of the page, and resumes it.
    async fn furnish_frame(&self, id: SessionId) -> Result<(), CdpError> {
        let frame = self.session.client().session(id);
        let mut fittings = Vec::new();
        self.furniture.fit_traffic(|_, method, params| fittings.push((method, params)));
        frame.send("Network.enable", json!({})).await?;
        for (method, params) in fittings {
            frame.send(method, params).await?;
        }
        frame.send("Target.setAutoAttach", auto_attach(true, &["iframe", "worker"])).await?;
        frame.send(RUN, json!({})).await
    }

    /// Starts the page, waits until it is loaded, and asks for its details.
    pub(crate) async fn load(&mut self) -> Result<Details, Trouble> {
        // An element with that name cannot shadow the title.
        const TITLE: &str = "Reflect.get(Document.prototype, 'title', document)";
        match self.start.clone() {
            Start::Held(_) => self.session.send(RUN, json!({})).await?,
            Start::Empty(url) => self.navigate(&url).await?,
            Start::Written(html) => {
                self.load.begin_writing();
                let params = json!({ "frameId": self.load.frame(), "html": html });
                self.call("Page.setDocumentContent", params).await?;
            }
        }
        let loaded = self.loaded().await;
        if self.furniture.unreported && self.load.is_unexplained() {
            self.ask_why().await?;
        } else {
            loaded?;
        }
        let details = self.evaluate(&format!("[{TITLE}, location.href, {STATUS}]")).await?;
        let text = |i: usize| details[i].as_str().unwrap_or_default().to_owned();
        let status = if self.furniture.unreported {
            self.own_status(&details[2]).await?
        } else {
            self.load.status()
        };
        Ok(Details { status, title: text(0), final_url: text(1) })
    }

    /// Returns the status that the page `said` it has. If its scripts have put something else in the
    /// place of what knows that, it is asked where they cannot reach.
    async fn own_status(&mut self, said: &Value) -> Result<Option<u16>, Trouble> {
        let mut status = said.as_u64();
        if status.is_none() {
            let frame = json!({ "frameId": self.load.frame() });
            let world = self.call("Page.createIsolatedWorld", frame).await?;
            let id = &world["executionContextId"];
            let params = json!({ "expression": STATUS, "contextId": id, "returnByValue": true });
            status = self.call("Runtime.evaluate", params).await?["result"]["value"].as_u64();
        }
        // Only HTTP has one.
        Ok(status.and_then(|status| status.try_into().ok()).filter(|status| *status != 0))
    }

    /// Sends a page that has failed to its address again, to learn why. It may load this time.
    async fn ask_why(&mut self) -> Result<(), Trouble> {
        if let Start::Held(url) | Start::Empty(url) = self.start.clone() {
            let (method, params) = report();
            self.session.send(method, params).await?;
            self.load = Load::new(self.load.frame(), &self.furniture.waits);
            // From here on, the answer to the command says what becomes of it.
            self.start = Start::Empty(url.clone());
            self.navigate(&url).await?;
        }
        self.loaded().await
    }

    /// Starts the page, and does not wait for the outcome.
    pub(super) async fn depart(&self) -> Result<(), CdpError> {
        match &self.start {
            Start::Held(_) => self.session.send(RUN, json!({})).await,
            Start::Empty(url) => self.session.send("Page.navigate", json!({ "url": url })).await,
            Start::Written(_) => Err(odd("Page.navigate", "the page has no address")),
        }
    }

    /// Sends the page to an address.
    pub(super) async fn navigate(&mut self, url: &str) -> Result<(), Trouble> {
        let mut params = json!({ "url": url });
        if let Some(referrer) = &self.furniture.referrer {
            params["referrer"] = json!(referrer);
        }
        let mut answer = self.call("Page.navigate", params.clone()).await?;
        if answer["loaderId"].is_null() && answer["errorText"].is_null() {
            // Chromium loads nothing if only the fragment differs from the present address.
            self.renew().await?;
            answer = self.call("Page.navigate", params).await?;
        }
        match answer["errorText"].as_str() {
            Some(error) => self.load.failed(error),
            None => self.load.shows(answer["loaderId"].as_str()),
        }
        Ok(())
    }

    /// Returns the answer that its document came with; `None` for a written document.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.load.answer()
    }

    /// Returns its present document, including the doctype.
    pub(crate) async fn html(&mut self) -> Result<String, Trouble> {
        match self.evaluate(HTML).await? {
            Value::String(html) => Ok(html),
            _ => Ok(String::new()),
        }
    }

    /// Returns the value of an expression, or of the promise that it evaluates to. If the page
    /// navigates in the meantime, it is asked again when it is there.
    ///
    /// # Errors
    ///
    /// [`Trouble::Script`] if it throws.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Result<Value, Trouble> {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        loop {
            match self.call("Runtime.evaluate", params.clone()).await {
                Ok(mut answer) => match thrown(&answer) {
                    None => return Ok(answer["result"]["value"].take()),
                    Some(error) => return Err(Trouble::Script { error }),
                },
                // It has just navigated: wait for what comes next.
                Err(Trouble::Protocol(CdpError::Refused { .. })) if self.load.end().is_none() => {
                    self.loaded().await?;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Asks the page again and again until an expression is true.
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate).
    pub(crate) async fn until(&mut self, expression: &str) -> Result<(), Trouble> {
        while self.evaluate(expression).await? != true {
            self.pause(OFTEN).await?;
        }
        Ok(())
    }

    /// Lets some time pass, in which the page is looked after.
    pub(crate) async fn pause(&mut self, time: Duration) -> Result<(), Trouble> {
        self.meanwhile(async {
            sleep(time).await;
            Ok(())
        })
        .await
    }

    /// Sends a command and waits for its result, looking after the page in the meantime.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Trouble> {
        let session = self.session.clone();
        let answer = session.call(method, params);
        self.meanwhile(async { Ok(answer.await?) }).await
    }

    /// Looks after the page until something else is done.
    pub(crate) async fn meanwhile<T>(
        &mut self,
        done: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        tokio::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                event = self.events.recv() => self.take(event).await?,
            }
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
        }
    }

    /// Processes the next event.
    pub(super) async fn next(&mut self) -> Result<(), Trouble> {
        let event = self.events.recv().await;
        self.take(event).await?;
        self.trouble().map_or(Ok(()), Err)
    }

    /// Waits until the page is loaded.
    pub(super) async fn loaded(&mut self) -> Result<(), Trouble> {
        loop {
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
            match self.load.end() {
                Some(LoadEnd::Loaded) => return Ok(()),
                Some(LoadEnd::Failed(error)) => return Err(Trouble::Net { error: error.clone() }),
                Some(LoadEnd::Crashed) | None => {}
            }
            match timeout(SILENCE, self.events.recv()).await {
                Ok(event) => self.take(event).await?,
                Err(_) => self.look().await?,
            }
        }
    }

    /// Asks the page how far it has loaded.
    async fn look(&mut self) -> Result<(), Trouble> {
        const STATE: &str = "[document.readyState, location.href]";
        let params = json!({ "expression": STATE, "returnByValue": true });
        match self.call("Runtime.evaluate", params).await {
            Ok(answer) => {
                let seen = &answer["result"]["value"];
                let text = |i: usize| seen[i].as_str().unwrap_or_default();
                self.load.seen(text(0), text(1));
                Ok(())
            }
            // It has just navigated.
            Err(Trouble::Protocol(CdpError::Refused { .. })) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        match self.load.end() {
            Some(LoadEnd::Crashed) => Some(Trouble::PageCrashed),
            Some(LoadEnd::Loaded | LoadEnd::Failed(_)) | None => self.gone.clone(),
        }
    }

    async fn take(&mut self, event: Result<Event, RecvError>) -> Result<(), Trouble> {
        let event = match event {
            Ok(event) => event,
            // A request that nobody answers would wait for ever.
            Err(RecvError::Lagged(_)) if !self.furniture.filter.is_empty() => {
                return Err(Trouble::Flooded);
            }
            Err(RecvError::Lagged(_)) => {
                self.trace.lost();
                return Ok(());
            }
            Err(RecvError::Closed) => {
                // The error says why.
                let ended = self.session.send("Page.enable", json!({})).await;
                return Err(ended.err().map_or(Trouble::PageClosed, Trouble::from));
            }
        };
        let Some(session) = event.session else {
            self.take_of_browser(&event.method, &event.params);
            return Ok(());
        };
        if let Some(notes) = &mut self.notes {
            notes.take(&event.method, &event.params);
        }
        if session == self.id {
            self.load.event(&event.method, &event.params);
            if self.furniture.unreported {
                let fresh = matches!(self.start, Start::Held(_));
                self.load.event_unreported(&event.method, &event.params, fresh);
            }
            if self.furniture.blank.is_some() {
                self.trace.event(&event.method, &event.params);
            }
        }
        if let Some(har) = &mut self.har {
            har.take(&event.method, &event.params);
        }
        let of_session = || self.session.client().session(session);
        match &*event.method {
            "Page.javascriptDialogOpening" => {
                // Nobody is there to answer. It must always be possible to leave a page.
                let accept = json!({ "accept": event.params["type"] == "beforeunload" });
                of_session().send("Page.handleJavaScriptDialog", accept).await?;
            }
            "Fetch.requestPaused" => {
                let (method, params) = match &mut self.paused {
                    Paused::Judged => self.furniture.filter.judge(&event.params),
                    Paused::Left => self.furniture.judge_of_leaving(&event.params),
                    Paused::Kept(answer) if is_final(&event.params) => {
                        *answer = Some(Arc::clone(&event.params));
                        return Ok(());
                    }
                    Paused::Kept(_) => {
                        let id = json!({ "requestId": event.params["requestId"] });
                        ("Fetch.continueRequest", id)
                    }
                };
                of_session().send(method, params).await?;
            }
            "Fetch.authRequired" => {
                let filter = &self.furniture.filter;
                let (method, params) = filter.authenticate(&mut self.asked, &event.params);
                of_session().send(method, params).await?;
            }
            "Target.attachedToTarget" if self.furniture.reaches_frames() => {
                if let Some(id) = event.params["sessionId"].as_str().and_then(SessionId::parse) {
                    self.furnish_frame(id).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Processes an event of the browser's own session.
    fn take_of_browser(&mut self, method: &str, params: &Value) {
        let own = params["sessionId"].as_str() == Some(self.id.as_str());
        let info = &params["targetInfo"];
        match method {
            "Target.detachedFromTarget" if own => self.gone = Some(Trouble::PageClosed),
            "Target.attachedToTarget" if !own => self.trace.attached(info),
            "Target.targetCreated"
                if info["openerId"].as_str() == Some(self.load.frame())
                    && self.popups.len() < POPUPS =>
            {
                self.popups.extend(info["targetId"].as_str().map(str::to_owned));
            }
            _ => {}
        }
    }
}

/// Returns the error that an evaluation has ended with, if it has.
fn thrown(answer: &Value) -> Option<String> {
    let details = answer.get("exceptionDetails")?;
    let exception = &details["exception"];
    let said = exception["description"].as_str().or(exception["value"].as_str());
    let said = said.or(details["text"].as_str()).unwrap_or_default();
    // Without the positions in the script, which is ours.
    Some(said.lines().next().unwrap_or_default().chars().take(500).collect())
}

/// Returns `true` if a request is paused at its answer, and that is not a redirect.
fn is_final(paused: &Value) -> bool {
    let names = || paused["responseHeaders"].as_array().into_iter().flatten();
    let is_location = |header: &Value| {
        header["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("location"))
    };
    match paused["responseStatusCode"].as_u64() {
        Some(301 | 302 | 303 | 307 | 308) => !names().any(is_location),
        Some(_) => true,
        // It has not been answered, or it has failed.
        None => false,
    }
}

fn unfit(member: &'static str, error: CdpError) -> Trouble {
    match error {
        CdpError::Refused { message, .. } if member != "url" => {
            Trouble::Unfit { member, why: format!("was refused by Chromium: {message}") }
        }
        error => error.into(),
    }
}

pub(super) fn odd(method: &str, what: &str) -> CdpError {
    CdpError::Unexpected { method: method.to_owned(), message: what.to_owned() }
}

/// Returns the params for attaching to targets of some kinds; if none are named, to all except
/// browsers and tabs.
fn auto_attach(hold: bool, kinds: &[&str]) -> Value {
    let mut params = json!({ "autoAttach": true, "waitForDebuggerOnStart": hold, "flatten": true });
    if !kinds.is_empty() {
        let mut filter: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        filter.push(json!({ "exclude": true }));
        params["filter"] = filter.into();
    }
    params
}

/// Returns the session that Chromium has attached to a page; it reports that before it answers that
/// the page is made.
fn attached(events: &mut Receiver<Event>, target: &str) -> Option<SessionId> {
    loop {
        let event = events.try_recv().ok()?;
        let params = &event.params;
        if &*event.method == "Target.attachedToTarget" && params["targetInfo"]["targetId"] == target
        {
            return params["sessionId"].as_str().and_then(SessionId::parse);
        }
    }
}
