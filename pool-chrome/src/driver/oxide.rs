use std::time::Duration;

use chromiumoxide::Browser;
use chromiumoxide::handler::HandlerConfig;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::ChromeError;
use crate::loopback::Published;

/// A connected `chromiumoxide::Browser` with the task that drives it.
#[derive(Debug)]
pub(super) struct Oxide {
    browser: Browser,
    handler: JoinHandle<()>,
    _published: Published,
}

impl Oxide {
    pub(super) async fn connect(published: Published) -> Result<Self, ChromeError> {
        // Contexts and pages of the lease are all there are; none exists that it should ignore.
        let config = HandlerConfig { viewport: None, ..HandlerConfig::default() };
        let (browser, mut events) = Browser::connect_with_config(published.url(), config)
            .await
            .map_err(ChromeError::client)?;
        let handler = tokio::spawn(async move {
            // Its timeouts only fire while it is polled: without the ticker a frozen browser
            // leaves every call pending for ever.
            let mut ticker = tokio::time::interval(Duration::from_millis(250));
            loop {
                tokio::select! {
                    // An error is not the end: it also tells of events that it does not know.
                    event = events.next() => if event.is_none() { break },
                    _ = ticker.tick() => {}
                }
            }
        });
        Ok(Self { browser, handler, _published: published })
    }

    pub(super) fn browser(&self) -> &Browser {
        &self.browser
    }
}

impl Drop for Oxide {
    fn drop(&mut self) {
        self.handler.abort();
    }
}
