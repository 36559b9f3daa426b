use serde_json::{Value, json};

use crate::cdp::CdpError;
use crate::mux::{Multiplexer, SessionId};

/// A page of our own in a context of its own, which no lease sees. Dropping it closes it.
#[derive(Debug)]
pub(super) struct ScratchPage<'a> {
    mux: &'a Multiplexer,
    context: Option<String>,
    session: Option<SessionId>,
}

impl<'a> ScratchPage<'a> {
    /// Opens a page; its requests go through `proxy`, or where the Chromium's own requests go.
    pub(super) async fn open(mux: &'a Multiplexer, proxy: Option<&str>) -> Result<Self, CdpError> {
        const TARGET: &str = "Target.createTarget";
        let context = mux.own_context(proxy).await?;
        let mut page = Self { mux, context: Some(context.clone()), session: None };
        let params = json!({ "url": "about:blank", "browserContextId": context });
        let made = mux.call(None, TARGET, &params).await?;
        let Some(target) = made["targetId"].as_str() else {
            return Err(CdpError::unexpected(TARGET, "no targetId"));
        };
        page.session = Some(mux.attach(target).await?);
        Ok(page)
    }

    pub(super) async fn call(&self, method: &str, params: &Value) -> Result<Value, CdpError> {
        self.mux.call(self.session, method, params).await
    }

    /// Returns the value of an expression.
    pub(super) async fn evaluate(&self, expression: &str) -> Result<Value, CdpError> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", &params).await?;
        Ok(result["result"]["value"].take())
    }

    /// Goes to an address and waits until the document has loaded.
    #[cfg(feature = "policies")]
    pub(super) async fn go(&self, url: &str) -> Result<(), CdpError> {
        const METHOD: &str = "Page.navigate";
        let went = self.call(METHOD, &json!({ "url": url })).await?;
        if let Some(error) = went["errorText"].as_str() {
            return Err(CdpError::unexpected(METHOD, error));
        }
        // We do not receive the events of our own sessions, and the answer comes before the old
        // document is gone: the loader shows when the new one is there.
        let loader = &went["loaderId"];
        while !loader.is_null() {
            let tree = self.call("Page.getFrameTree", &json!({})).await?;
            if tree["frameTree"]["frame"]["loaderId"] == *loader {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.run(
            "new Promise(done => document.readyState === 'complete' \
            ? done() : addEventListener('load', () => done()))",
        )
        .await
    }

    /// Runs a script to its end, including that of its promise if it returns one.
    #[cfg(feature = "policies")]
    pub(super) async fn run(&self, script: &str) -> Result<(), CdpError> {
        const METHOD: &str = "Runtime.evaluate";
        let params = json!({ "expression": script, "awaitPromise": true, "userGesture": true });
        let result = self.call(METHOD, &params).await?;
        match result.get("exceptionDetails") {
            None => Ok(()),
            Some(thrown) => {
                let text = thrown["exception"]["description"].as_str();
                let text = text.or(thrown["text"].as_str()).unwrap_or("an exception");
                Err(CdpError::unexpected(METHOD, text))
            }
        }
    }

    /// Closes the page and waits until it is gone.
    pub(super) async fn close(self) -> Result<(), CdpError> {
        let mux = self.mux;
        // Answers come in order: once this one is here, the drop's disposal is done.
        drop(self);
        mux.call(None, "Browser.getVersion", &json!({})).await?;
        Ok(())
    }
}

impl Drop for ScratchPage<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            self.mux.dispose_context(&context);
        }
    }
}

/// Empties the clipboard, which belongs to the whole Chromium, of anything that a lease has left
/// there.
///
/// The protocol has no command for it. A page may write to the clipboard when the user copies, so a
/// page of ours answers a copy with an empty text. It also proves that pages can be made.
pub(super) async fn wipe_clipboard(mux: &Multiplexer) -> Result<(), CdpError> {
    const ANSWER: &str = "document.addEventListener('copy', event => {\
        event.preventDefault(); event.clipboardData.setData('text/plain', ''); wiped = true })";
    let page = ScratchPage::open(mux, None).await?;
    page.evaluate(ANSWER).await?;
    let copy = json!({ "type": "keyDown", "key": "c", "code": "KeyC", "commands": ["copy"] });
    page.call("Input.dispatchKeyEvent", &copy).await?;
    let wiped = page.evaluate("globalThis.wiped === true").await?;
    page.close().await?;
    if wiped == json!(true) { Ok(()) } else { Err(CdpError::Leftover("the clipboard".to_owned())) }
}
