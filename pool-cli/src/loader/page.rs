use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use pool_chrome::cdp::{CdpError, Client, Event, Session};
use pool_chrome::mux::SessionId;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{sleep, timeout};

use super::furniture::{Asked, Fitting, never_granted};
use super::load::LoadEnd;
use super::notes::{Har, Notes};
use super::trace::Trace;
use super::{Answer, Furniture, Load, Trouble, Wait};

/// A page that says nothing for so long is asked whether it is loaded: the event that tells so may
/// have been lost among too many, or while the page moved from one renderer to another.
const SILENCE: Duration = Duration::from_millis(500);

/// Resumes a page or a frame that was created paused.
const RUN: &str = "Runtime.runIfWaitingForDebugger";

/// Interval at which a page is asked whether the wait is over.
const OFTEN: Duration = Duration::from_millis(50);

/// The document with all that stands before it, as Puppeteer's `content()` has it.
const HTML: &str = "[...document.childNodes].map(node => node === document.documentElement \
    ? node.outerHTML : new XMLSerializer().serializeToString(node)).join('')";

/// More windows that a page opened are not kept in mind.
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
    /// Kept where the page is to be wiped.
    pub(super) trace: Trace,
    pub(super) paused: Paused,
    /// Windows that it opened, where it shares its context with other pages.
    popups: Vec<String>,
    /// The page, or its browser, is gone.
    gone: Option<Trouble>,
}

/// The way in which a page is let go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// It was made with its address, and is held before its first request.
    Held,
    /// It is empty, and is sent there.
    Empty(String),
    /// It is empty, and is written.
    Written(String),
}

/// Treatment of the requests of a page that are paused for it.
#[derive(Debug)]
pub(super) enum Paused {
    /// Its filter judges them.
    Judged,
    /// It is being left for its empty document: all other requests fail.
    Left,
    /// The answer that its document would be made of is kept, once it has come.
    Kept(Option<Arc<Value>>),
}

/// A loaded page's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) status: Option<u16>,
    pub(crate) title: String,
    pub(crate) final_url: String,
}

impl Page {
    /// Makes a page for an address. One round trip: everything is sent at once, and nothing is
    /// asked of any server until [`load`](Self::load) lets it go.
    ///
    /// With `held` it is made with its address, and held, as the shell can. The whole browser does
    /// not hold a page that is made with an address: it asks for it before anybody can be attached
    /// to the page.
    pub(crate) async fn stage(
        client: &Client,
        held: bool,
        url: &str,
        furniture: &Arc<Furniture>,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.createTarget";
        let mut events = client.events();
        let root = client.browser();
        let start = if held { Start::Held } else { Start::Empty(url.to_owned()) };
        // Where the context is used again, nothing in it may go unseen.
        let kinds: &[&str] = if furniture.blank.is_some() { &[] } else { &["page"] };
        root.send("Target.setAutoAttach", auto_attach(held, kinds)).await?;
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        if furniture.blank.is_some() {
            for permission in never_granted() {
                let setting = json!({ "permission": permission, "setting": "prompt" });
                // One that this Chromium does not know is none that a page could ask for.
                root.send("Browser.setPermission", setting).await?;
            }
        }
        let first = if held { url } else { "about:blank" };
        let made = root.call(METHOD, json!({ "url": first })).await?;
        let target = made["targetId"].as_str().ok_or_else(|| odd(METHOD, "no targetId"))?;
        let id =
            attached(&mut events, target).ok_or_else(|| odd(METHOD, "it was not attached to"))?;
        if held {
            // A popup must not stand still: its opener would with it.
            root.send("Target.setAutoAttach", auto_attach(false, kinds)).await?;
        }
        let page = Self::new(client, id, target, events, start, furniture);
        page.furnish().await?;
        if !held {
            // A page that goes elsewhere before this is answered does not tell that it went.
            page.session.call("Page.enable", json!({})).await?;
        }
        Ok(page)
    }

    /// Makes an empty page beside others of its context, for one address after another.
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

    /// Takes the events that have come already.
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

    /// Makes the page ready for another address, once it was loaded. Returns `false` if it is not to
    /// be used again: since it was wiped, more has come of what it showed before.
    ///
    /// # Errors
    ///
    /// If the page or its browser has gone since.
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

    /// Closes the page, and what it opened.
    pub(crate) async fn close(mut self) {
        let root = self.session.client().browser();
        let target = json!({ "targetId": self.load.frame() });
        // What is gone needs no closing.
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

    /// Sends what must hold before the first request.
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
    /// [`Trouble::Unfit`] if the furniture is such that Chromium does not take it.
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

    /// Makes the empty document anew, since one is what its screen was when it was made.
    async fn renew(&mut self) -> Result<(), Trouble> {
        let fresh = Load::new(self.load.frame(), &self.furniture.waits);
        let answer = self.call("Page.navigate", json!({ "url": "about:blank" })).await?;
        self.load = Load::new(fresh.frame(), &[Wait::Load]);
        self.load.shows(answer["loaderId"].as_str());
        self.load.expect_empty();
        self.loaded().await?;
        self.load = fresh;
        Ok(())
    }

    /// Lets the page be what it is, if it has not even begun to be what it was to become: until it
    /// has, it answers nothing.
    pub(crate) async fn give_up(&mut self) -> Result<(), Trouble> {
        if !self.load.is_shown() {
            self.call("Page.stopLoading", json!({})).await?;
        }
        Ok(())
    }

    /// Keeps what the page does from now on, for those who look for a mistake.
    pub(crate) fn take_notes(&mut self) {
        self.notes.get_or_insert_default();
    }

    /// Returns the notes of the page, if any were kept.
    pub(crate) fn notes(&mut self) -> Notes {
        self.notes.take().unwrap_or_default()
    }

    /// Returns what the page has loaded so far, as an archive, if that was to be kept.
    pub(crate) fn har(&mut self, title: &str) -> Option<Value> {
        self.har.take().map(|har| har.archive(title))
    }

    /// Asks to be told of frames and workers with a process of their own, where what holds for the
    /// page must hold for them.
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
            // What is loaded ahead is loaded where nobody looks.
            self.session.send("Preload.enable", json!({})).await?;
        }
        Ok(())
    }

    /// Furnishes a frame or a worker of the page, and lets it go.
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

    /// Lets the page go, waits until it is loaded, and asks it what it is.
    pub(crate) async fn load(&mut self) -> Result<Details, Trouble> {
        // The title cannot be taken over by an element of that name.
        const DETAILS: &str = "[Reflect.get(Document.prototype, 'title', document), location.href]";
        match self.start.clone() {
            Start::Held => self.session.send(RUN, json!({})).await?,
            Start::Empty(url) => self.navigate(&url).await?,
            Start::Written(html) => {
                self.load.begin_writing();
                let params = json!({ "frameId": self.load.frame(), "html": html });
                self.call("Page.setDocumentContent", params).await?;
            }
        }
        self.loaded().await?;
        let details = self.evaluate(DETAILS).await?;
        let text = |i: usize| details[i].as_str().unwrap_or_default().to_owned();
        Ok(Details { status: self.load.status(), title: text(0), final_url: text(1) })
    }

    /// Lets the page go, and does not wait for what becomes of it.
    pub(super) async fn depart(&self) -> Result<(), CdpError> {
        match &self.start {
            Start::Held => self.session.send(RUN, json!({})).await,
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
        let answer = self.call("Page.navigate", params).await?;
        match answer["errorText"].as_str() {
            Some(error) => self.load.failed(error),
            None => self.load.shows(answer["loaderId"].as_str()),
        }
        Ok(())
    }

    /// The answer that its document came with; none for one that was written.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.load.answer()
    }

    /// Its document as it is now, with its doctype.
    pub(crate) async fn html(&mut self) -> Result<String, Trouble> {
        match self.evaluate(HTML).await? {
            Value::String(html) => Ok(html),
            _ => Ok(String::new()),
        }
    }

    /// The value of an expression, or of the promise that it is. A page that goes elsewhere
    /// meanwhile is asked again when it is there.
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
                // It went elsewhere in this moment: wait for what comes next.
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

    /// Sends a command and awaits its result; meanwhile the page is looked after.
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

    /// Takes the next event.
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

    /// Asks the page how far it is.
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
            // It went elsewhere in this moment.
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
                // Says why.
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
                // Nobody is there to answer. To leave a page must always be possible.
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

    /// Takes an event of the browser's own session.
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

/// The error that an evaluation has ended with, if it has.
fn thrown(answer: &Value) -> Option<String> {
    let details = answer.get("exceptionDetails")?;
    let exception = &details["exception"];
    let said = exception["description"].as_str().or(exception["value"].as_str());
    let said = said.or(details["text"].as_str()).unwrap_or_default();
    // Without the places in the script, which are ours.
    Some(said.lines().next().unwrap_or_default().chars().take(500).collect())
}

/// Returns `true` if a request is paused at its answer, and that is no redirect.
fn is_final(paused: &Value) -> bool {
    let names = || paused["responseHeaders"].as_array().into_iter().flatten();
    let is_location = |header: &Value| {
        header["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("location"))
    };
    match paused["responseStatusCode"].as_u64() {
        Some(301 | 302 | 303 | 307 | 308) => !names().any(is_location),
        Some(_) => true,
        // It has not been answered, or has failed.
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

/// To targets of some kinds; to all but browsers and tabs where none are named.
fn auto_attach(hold: bool, kinds: &[&str]) -> Value {
    let mut params = json!({ "autoAttach": true, "waitForDebuggerOnStart": hold, "flatten": true });
    if !kinds.is_empty() {
        let mut filter: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        filter.push(json!({ "exclude": true }));
        params["filter"] = filter.into();
    }
    params
}

/// The session that Chromium has attached to a page, which it tells before it answers that the page
/// is made.
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
