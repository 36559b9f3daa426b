use std::time::Duration;

use pool_chrome::ChromeDriver;
use pool_chrome::cdp::{CdpError, Client, Event, Session};
use pool_chrome::mux::{LeaseTerms, SessionId};
use pool_chrome::process::Engine;
use pool_core::Lease;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::load::LoadEnd;
use super::{Load, Options, Trouble, Wait};

/// A page that says nothing for so long is asked whether it is loaded: the event that tells so may
/// have been lost among too many, or while the page moved from one renderer to another.
const SILENCE: Duration = Duration::from_millis(500);

/// A page of a browser of its own, ready to go to its address.
#[derive(Debug)]
pub(crate) struct StagedPage {
    session: Session,
    start: Start,
    id: SessionId,
    events: Receiver<Event>,
    load: Load,
    /// The page, or its browser, is gone.
    gone: Option<Trouble>,
}

/// The way in which a page is let go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    /// It was made with its address, and is held before its first request.
    Held,
    /// It is empty, and is sent there. The whole browser does not hold a page that is made with an
    /// address: it asks for it before anybody can be attached to the page.
    Empty(String),
}

/// A loaded page's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) status: Option<u16>,
    pub(crate) title: String,
    pub(crate) final_url: String,
}

impl StagedPage {
    /// Makes the page. One round trip: everything is sent at once, and nothing is asked of any
    /// server until [`load`](Self::load) lets it go.
    pub(crate) async fn stage(
        browser: &Lease<ChromeDriver>,
        url: &str,
        options: &Options,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.createTarget";
        // Its page is made with its address.
        browser.begin(&LeaseTerms::new().first_page(false)).await?;
        let client = Client::new(browser.connect().await?);
        let mut events = client.events();
        let root = client.browser();
        let start = match browser.engine() {
            Engine::Shell => Start::Held,
            _ => Start::Empty(url.to_owned()),
        };
        let held = start == Start::Held;
        root.send("Target.setAutoAttach", auto_attach(held)).await?;
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        let first = if held { url } else { "about:blank" };
        let made = root.call(METHOD, json!({ "url": first })).await?;
        let odd = |what: &str| CdpError::Unexpected {
            method: METHOD.to_owned(),
            message: what.to_owned(),
        };
        let target = made["targetId"].as_str().ok_or_else(|| odd("no targetId"))?;
        let id = attached(&mut events, target).ok_or_else(|| odd("it was not attached to"))?;
        if held {
            // A popup must not stand still: its opener would with it.
            root.send("Target.setAutoAttach", auto_attach(false)).await?;
        }
        let page = Self {
            session: client.session(id),
            start,
            id,
            events,
            load: Load::new(target, options.wait),
            gone: None,
        };
        page.furnish(options).await?;
        if !held {
            // A page that goes elsewhere before this is answered does not tell that it went.
            page.session.call("Page.enable", json!({})).await?;
        }
        Ok(page)
    }

    /// Sends what must hold before the first request.
    async fn furnish(&self, options: &Options) -> Result<(), CdpError> {
        let page = &self.session;
        page.send("Page.enable", json!({})).await?;
        // Nobody asks for bodies, so that none are kept.
        let buffers = json!({ "maxTotalBufferSize": 0, "maxResourceBufferSize": 0 });
        page.send("Network.enable", buffers).await?;
        page.send("Inspector.enable", json!({})).await?;
        if options.wait == Wait::NetworkIdle {
            page.send("Page.setLifecycleEventsEnabled", json!({ "enabled": true })).await?;
        }
        let [width, height] = options.viewport;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        page.send("Emulation.setDeviceMetricsOverride", metrics).await?;
        if let Some(user_agent) = &options.user_agent {
            page.send("Emulation.setUserAgentOverride", json!({ "userAgent": user_agent })).await?;
        }
        Ok(())
    }

    /// Lets the page go, waits until it is loaded, and asks it what it is.
    pub(crate) async fn load(&mut self) -> Result<Details, Trouble> {
        // The title cannot be taken over by an element of that name.
        const DETAILS: &str = "[Reflect.get(Document.prototype, 'title', document), location.href]";
        match self.start.clone() {
            Start::Held => self.session.send("Runtime.runIfWaitingForDebugger", json!({})).await?,
            Start::Empty(url) => {
                let answer = self.call("Page.navigate", json!({ "url": url })).await?;
                match answer["errorText"].as_str() {
                    Some(error) => self.load.failed(error),
                    None => self.load.shows(answer["loaderId"].as_str()),
                }
            }
        }
        loop {
            self.loaded().await?;
            match self.evaluate(DETAILS).await {
                Ok(details) => {
                    let text = |i: usize| details[i].as_str().unwrap_or_default().to_owned();
                    return Ok(Details {
                        status: self.load.status(),
                        title: text(0),
                        final_url: text(1),
                    });
                }
                // It went elsewhere in this moment: wait for what comes next.
                Err(Trouble::Protocol(CdpError::Refused { .. })) if self.load.end().is_none() => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// The value of an expression.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Result<Value, Trouble> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        Ok(answer["result"]["value"].take())
    }

    /// Sends a command and awaits its result; meanwhile the page is looked after.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Trouble> {
        let session = self.session.clone();
        let answer = session.call(method, params);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return Ok(answer?),
                event = self.events.recv() => self.take(event).await?,
            }
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
        }
    }

    /// Waits until the page is loaded.
    async fn loaded(&mut self) -> Result<(), Trouble> {
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
        match self.evaluate("[document.readyState, location.href]").await {
            Ok(seen) => {
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
            _ => self.gone.clone(),
        }
    }

    async fn take(&mut self, event: Result<Event, RecvError>) -> Result<(), Trouble> {
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => return Ok(()),
            Err(RecvError::Closed) => {
                // Says why.
                let ended = self.session.send("Page.enable", json!({})).await;
                return Err(ended.err().map_or(Trouble::PageClosed, Trouble::from));
            }
        };
        if event.session.is_none() {
            let session = event.params["sessionId"].as_str();
            if &*event.method == "Target.detachedFromTarget" && session == Some(self.id.as_str()) {
                self.gone = Some(Trouble::PageClosed);
            }
        } else if event.session == Some(self.id) {
            self.load.event(&event.method, &event.params);
            if &*event.method == "Page.javascriptDialogOpening" {
                // Nobody is there to answer. To leave a page must always be possible.
                let accept = json!({ "accept": event.params["type"] == "beforeunload" });
                self.session.send("Page.handleJavaScriptDialog", accept).await?;
            }
        }
        Ok(())
    }
}

fn auto_attach(hold: bool) -> Value {
    json!({
        "autoAttach": true,
        "waitForDebuggerOnStart": hold,
        "flatten": true,
        "filter": [{ "type": "page" }, { "exclude": true }],
    })
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
