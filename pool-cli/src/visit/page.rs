use std::time::Duration;

use pool_chrome::ChromeDriver;
use pool_chrome::cdp::{CdpError, Client, Event, Session};
use pool_chrome::mux::SessionId;
use pool_core::Lease;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::load::LoadEnd;
use super::{Load, Options, Trouble, Wait};

/// How often one looks at a page whose events were lost.
const LOOK: Duration = Duration::from_millis(100);

/// A page of a browser of its own, made with its address and held before its first request.
#[derive(Debug)]
pub(crate) struct StagedPage {
    session: Session,
    id: SessionId,
    events: Receiver<Event>,
    load: Load,
    /// The page, or its browser, is gone.
    gone: Option<Trouble>,
    /// Events were lost: whether it is loaded must be asked for.
    blind: bool,
}

/// What a page says of itself when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) status: Option<u16>,
    pub(crate) title: String,
    pub(crate) final_url: String,
}

impl StagedPage {
    /// Makes the page. One round trip: everything is sent at once, and the page stands still until
    /// [`load`](Self::load) lets it go.
    pub(crate) async fn stage(
        browser: &Lease<ChromeDriver>,
        url: &str,
        options: &Options,
    ) -> Result<Self, Trouble> {
        const METHOD: &str = "Target.createTarget";
        let client = Client::new(browser.connect().await?);
        let mut events = client.events();
        let root = client.browser();
        let pages = json!([{ "type": "page" }, { "exclude": true }]);
        let hold = |hold: bool| {
            json!({
                "autoAttach": true, "waitForDebuggerOnStart": hold, "flatten": true, "filter": pages,
            })
        };
        root.send("Target.setAutoAttach", hold(true)).await?;
        root.send("Browser.setDownloadBehavior", json!({ "behavior": "deny" })).await?;
        let made = root.call(METHOD, json!({ "url": url })).await?;
        let odd = |what: &str| CdpError::Unexpected {
            method: METHOD.to_owned(),
            message: what.to_owned(),
        };
        let target = made["targetId"].as_str().ok_or_else(|| odd("no targetId"))?;
        let id = attached(&mut events, target).ok_or_else(|| odd("it was not attached to"))?;
        // A popup must not stand still: its opener would with it.
        root.send("Target.setAutoAttach", hold(false)).await?;
        let page = Self {
            session: client.session(id),
            id,
            events,
            load: Load::new(target, options.wait),
            gone: None,
            blind: false,
        };
        page.furnish(options).await?;
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
        self.session.send("Runtime.runIfWaitingForDebugger", json!({})).await?;
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
            if self.blind {
                let event = timeout(LOOK, self.events.recv()).await;
                match event {
                    Ok(event) => self.take(event).await?,
                    Err(_) => self.look().await?,
                }
            } else {
                let event = self.events.recv().await;
                self.take(event).await?;
            }
        }
    }

    /// Asks the page whether it is loaded, where the event that told so may have been lost.
    async fn look(&mut self) -> Result<(), Trouble> {
        if self.evaluate("document.readyState").await? == json!("complete") {
            self.load.reached();
        }
        Ok(())
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
            Err(RecvError::Lagged(_)) => {
                self.blind = true;
                return Ok(());
            }
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
