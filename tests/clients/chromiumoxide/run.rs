use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::BrowserContextId;
use chromiumoxide::cdp::browser_protocol::target::CreateTargetParams;
use chromiumoxide::{Browser, Page};
use serde_json::Value;
use tokio::time::sleep;

/// Why a step did not go well.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
/// What a step has seen.
pub(crate) type Outcome = Result<Value, Failure>;

/// What a step works with.
pub(crate) struct Run {
    pub(crate) browser: Browser,
    pub(crate) site: String,
    pub(crate) folder: PathBuf,
}

impl Run {
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.site)
    }

    pub(crate) async fn page(&self, path: &str) -> Result<Page, Failure> {
        Ok(self.browser.new_page(self.at(path)).await?)
    }

    /// A page in a context.
    pub(crate) async fn page_in(
        &self,
        context: &BrowserContextId,
        path: &str,
    ) -> Result<Page, Failure> {
        let target = CreateTargetParams::builder().url(self.at(path));
        let target = target.browser_context_id(context.clone()).build()?;
        Ok(self.browser.new_page(target).await?)
    }

    /// A result without what differs between runs.
    pub(crate) fn stable(&self, result: &Value) -> Value {
        let text = result.to_string().replace(&self.site, "SITE");
        serde_json::from_str(&text).expect("it was JSON before")
    }
}

/// The value of an expression.
pub(crate) async fn value(page: &Page, expression: &str) -> Outcome {
    Ok(page.evaluate(expression).await?.into_value()?)
}

/// Waits until an expression has a value that is not false; the value then. While the page goes
/// elsewhere there is nothing to ask.
pub(crate) async fn until(page: &Page, expression: &str) -> Outcome {
    loop {
        match value(page, expression).await {
            Ok(value) if value != false => return Ok(value),
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
}
