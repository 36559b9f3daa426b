use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::patience::GENEROUS;
use crate::{Cdp, CdpError};

/// A page of a [`Cdp`] client, with a session attached to it.
#[derive(Debug)]
pub struct Page<'a> {
    cdp: &'a Cdp,
    /// The id of its target.
    pub target: String,
    /// The id of our session with it.
    pub session: String,
}

impl<'a> Page<'a> {
    pub(crate) async fn open(cdp: &'a Cdp, url: &str) -> Result<Self, CdpError> {
        let page = Self::blank(cdp).await?;
        if url != "about:blank" {
            page.go(url).await?;
        }
        Ok(page)
    }

    async fn blank(cdp: &'a Cdp) -> Result<Self, CdpError> {
        let created = cdp.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let target = text(&created["targetId"]);
        Self::attach(cdp, target).await
    }

    /// A session with a page that is there already.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn attach(cdp: &'a Cdp, target: String) -> Result<Self, CdpError> {
        let params = json!({ "targetId": target, "flatten": true });
        let attached = cdp.call("Target.attachToTarget", params).await?;
        let page = Self { cdp, target, session: text(&attached["sessionId"]) };
        page.call("Page.enable", json!({})).await?;
        Ok(page)
    }

    /// Sends a command to it.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CdpError> {
        self.cdp.call_in(Some(&self.session), method, params).await
    }

    /// Goes to `url` and waits until it has loaded. The answer to `Page.navigate`, whose
    /// `errorText` says that nothing was loaded.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn go(&self, url: &str) -> Result<Value, CdpError> {
        let mut events = self.cdp.events();
        let answer = self.call("Page.navigate", json!({ "url": url })).await?;
        if answer["errorText"].is_null() {
            // The load that is told first may be that of the page before, such as an error page.
            let its = |event: &Value| event["params"]["frame"]["loaderId"] == answer["loaderId"];
            self.wait_for(&mut events, "Page.frameNavigated", its, GENEROUS).await?;
            self.wait(&mut events, "Page.loadEventFired", GENEROUS).await?;
        }
        Ok(answer)
    }

    /// Waits for an event of this page.
    ///
    /// # Errors
    ///
    /// [`CdpError::Timeout`], or [`CdpError::Ended`].
    pub async fn wait(
        &self,
        events: &mut Receiver<Arc<Value>>,
        method: &str,
        limit: Duration,
    ) -> Result<Arc<Value>, CdpError> {
        self.wait_for(events, method, |_| true, limit).await
    }

    async fn wait_for(
        &self,
        events: &mut Receiver<Arc<Value>>,
        method: &str,
        fits: impl Fn(&Value) -> bool + Send + Sync,
        limit: Duration,
    ) -> Result<Arc<Value>, CdpError> {
        let wanted = async {
            loop {
                match events.recv().await {
                    Ok(event)
                        if event["method"] == method
                            && event["sessionId"] == *self.session
                            && fits(&event) =>
                    {
                        return Ok(event);
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(CdpError::Ended),
                }
            }
        };
        let closed = self.cdp.closed(Duration::MAX);
        let either = async {
            tokio::select! {
                event = wanted => event,
                _ = closed => Err(CdpError::Ended),
            }
        };
        timeout(limit, either).await.unwrap_or(Err(CdpError::Timeout))
    }

    /// Evaluates an expression, awaits it if it is a promise, and returns its value as JSON.
    ///
    /// # Panics
    ///
    /// If it throws, or the page does not answer.
    pub async fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).await.unwrap_or_else(|error| panic!("{expression}: {error:?}"))
    }

    /// Like [`eval`](Self::eval).
    ///
    /// # Errors
    ///
    /// A [`CdpError`]; what the page throws is one too.
    pub async fn try_eval(&self, expression: &str) -> Result<Value, CdpError> {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        match answer.get("exceptionDetails") {
            None => Ok(answer["result"]["value"].take()),
            Some(thrown) => Err(CdpError::Answer { code: 0, message: thrown.to_string() }),
        }
    }

    /// Lets its renderer crash, which is never answered.
    pub async fn crash(&self) {
        // An error means that the connection has ended, which whoever waits for the crash sees.
        let _ = self.cdp.begin(Some(&self.session), "Page.crash", json!({})).await;
    }

    /// What it shows, as a PNG.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn screenshot(&self) -> Result<Vec<u8>, CdpError> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        Ok(STANDARD.decode(text(&answer["data"])).unwrap_or_default())
    }

    /// Closes it.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn close(self) -> Result<(), CdpError> {
        let params = json!({ "targetId": self.target });
        self.cdp.call("Target.closeTarget", params).await.map(drop)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
