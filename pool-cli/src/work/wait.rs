use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::members::{
    Milliseconds, NamedPolling, Polling, WaitForEvent, WaitForFunction, WaitForSelector,
};
use crate::loader::{Page, Trouble};

/// Maximum wait if nothing else is asked for; as in Puppeteer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Interval at which a page is asked.
const OFTEN: Duration = Duration::from_millis(50);

/// Waits once a page is loaded, in this order.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) event: Option<WaitForEvent>,
    pub(super) function: Option<WaitForFunction>,
    pub(super) selector: Option<WaitForSelector>,
    pub(super) time: Option<Duration>,
}

impl Waits {
    /// Waits for one after the other; `attempt` says whether to go on after one.
    pub(super) async fn wait(
        &self,
        page: &mut Page,
        attempt: impl Fn(Result<(), Trouble>) -> Result<(), Trouble> + Send + Sync,
    ) -> Result<(), Trouble> {
        if let Some(event) = &self.event {
            attempt(for_event(page, event).await)?;
        }
        if let Some(function) = &self.function {
            attempt(for_function(page, function).await)?;
        }
        if let Some(selector) = &self.selector {
            attempt(for_selector(page, selector).await)?;
        }
        if let Some(time) = self.time {
            page.pause(time).await?;
        }
        Ok(())
    }
}

async fn for_event(page: &mut Page, wait: &WaitForEvent) -> Result<(), Trouble> {
    let event = json!(wait.event);
    let expression = format!(
        "new Promise(resolve => {{ for (const target of [document, window]) \
         target.addEventListener({event}, () => resolve(0), {{ once: true }}); }})"
    );
    let come = async { page.evaluate(&expression).await.map(drop) };
    let what = || format!("waitForEvent: the event {event} did not come");
    within(wait.timeout, what, come).await
}

async fn for_function(page: &mut Page, wait: &WaitForFunction) -> Result<(), Trouble> {
    let expression = format!(
        "(async () => {{ const given = ({}\n); \
         return Boolean(await (typeof given === 'function' ? given() : given)); }})()",
        wait.function.trim().trim_end_matches(';')
    );
    let every = match wait.polling {
        Some(Polling::Every(every)) => every.0.max(Duration::from_millis(10)),
        Some(Polling::Named(NamedPolling::Raf | NamedPolling::Mutation)) | None => OFTEN,
    };
    let what = || "waitForFunction: it did not return a true value".to_owned();
    let come = until(page, "waitForFunction", &expression, every);
    within(wait.timeout, what, come).await
}

async fn for_selector(page: &mut Page, wait: &WaitForSelector) -> Result<(), Trouble> {
    let WaitForSelector { selector, hidden, visible, timeout } = wait;
    let text = json!(selector);
    let wanted = match (hidden, visible) {
        (false, false) => "Boolean(element)",
        (false, true) => "Boolean(element) && seen",
        (true, _) => "!element || !seen",
    };
    let expression = format!(
        "(() => {{ const element = document.querySelector({text}); \
         const style = element && getComputedStyle(element); \
         const box = element && element.getBoundingClientRect(); \
         const seen = element && !['hidden', 'collapse'].includes(style.visibility) \
         && box.width > 0 && box.height > 0; return {wanted}; }})()"
    );
    let what = || match (hidden, visible) {
        (true, _) => format!("waitForSelector: what matches {text} was not hidden"),
        (false, true) => format!("waitForSelector: nothing that matches {text} was visible"),
        (false, false) => format!("waitForSelector: nothing matched {text}"),
    };
    within(*timeout, what, until(page, "waitForSelector", &expression, OFTEN)).await
}

/// Asks the page again and again until it says yes.
async fn until(
    page: &mut Page,
    member: &'static str,
    expression: &str,
    every: Duration,
) -> Result<(), Trouble> {
    loop {
        match page.evaluate(expression).await {
            Ok(Value::Bool(true)) => return Ok(()),
            Ok(_) => page.pause(every).await?,
            Err(Trouble::Script { error }) => {
                return Err(Trouble::Unfit { member, why: format!("failed in the page: {error}") });
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Gives up when the time is over, which is without end if it is 0.
async fn within(
    asked: Option<Milliseconds>,
    what: impl FnOnce() -> String,
    come: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    let waited = asked.map_or(PATIENCE, |asked| asked.0);
    if waited.is_zero() {
        return come.await;
    }
    timeout(waited, come).await.unwrap_or_else(|_| Err(Trouble::Wait { what: what(), waited }))
}
