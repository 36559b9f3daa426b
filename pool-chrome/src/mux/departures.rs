use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::multiplexer::Shared;
use super::session_id::SessionId;
use super::state::ConnectionId;
use super::suffix;
use super::target::{Id, Message};
use crate::cdp::CdpError;

/// A page that was made empty for a client that named an address.
///
/// While a page waits for the first byte of an address, Chromium hands no command on to it: a
/// client that attaches to a page of its own right after making it would talk to nobody for as
/// long as the server is silent. The control session is attached to every page from its beginning,
/// so that this holds for all of them; in a plain Chromium it holds for clients that attach by
/// themselves. So the page is made empty, and goes to its address once its client has had its say.
#[derive(Debug)]
pub(crate) struct Departure {
    /// Taken when the page leaves for it.
    pub(crate) address: Option<String>,
    /// Number of commands its clients have sent to it.
    pub(crate) commands: u32,
    /// The loader of the empty document, read when the page leaves it.
    pub(crate) loader: Option<String>,
    /// What clients are not told of the empty document: for them the page is loaded when its address
    /// is. Told after all if the page does not get away, as with a download.
    pub(crate) withheld: Vec<(ConnectionId, Bytes)>,
}

/// As many events as a document has for some sessions. A client that asks for them again and again
/// gets the first ones.
const WITHHELD: usize = 64;

impl Departure {
    pub(crate) fn new(address: String) -> Self {
        Self { address: Some(address), commands: 0, loader: None, withheld: Vec::new() }
    }

    /// Withholds an event if it tells how far the empty document has loaded. Returns it otherwise.
    pub(crate) fn withhold(&mut self, connection: ConnectionId, event: Bytes) -> Option<Bytes> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Loading<'a> {
            loader_id: &'a str,
        }
        if !suffix::is_lifecycle_event(&event) {
            return Some(event);
        }
        let loading = serde_json::from_slice::<Message<'_>>(&event)
            .ok()
            .and_then(|message| serde_json::from_str::<Loading<'_>>(message.params?.get()).ok());
        let of_empty = loading.is_some_and(|loading| {
            // Until it leaves, the page has no other document.
            self.loader.as_deref().is_none_or(|empty| empty == loading.loader_id)
        });
        if !of_empty {
            return Some(event);
        }
        if self.withheld.len() < WITHHELD {
            self.withheld.push((connection, event));
        }
        None
    }
}

/// Pause between two looks at whether a page may go.
const LOOK: Duration = Duration::from_millis(10);

/// After so many looks without a further command its client is taken to have had its say.
const SAID: u32 = 3;

/// The same for a client that has sent none.
const SILENT: u32 = 20;

/// The page goes after so many looks at the latest.
const LONGEST: u32 = 100;

/// Attempts to make the history forget the empty page, which it refuses while the page moves: for
/// five seconds, since on a busy machine the address is answered long before it is shown.
const RESETS: usize = 500;

/// Sends pages to their addresses, each in its own time. Ends with the multiplexer's state.
pub(super) async fn send_off(shared: Weak<Shared>, mut departing: UnboundedReceiver<Id>) {
    while let Some(page) = departing.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        tokio::spawn(async move {
            // A page that is gone by now goes nowhere.
            let Ok(session) = shared.attach(&page).await else { return };
            let _ = send(&shared, &page, session).await;
            shared.update(|state| {
                state.departures.remove(&page);
                state.detach_own(session);
            });
        });
    }
}

async fn send(shared: &Shared, page: &Id, session: SessionId) -> Result<(), CdpError> {
    let commands = || {
        let commands = |departure: &Departure| departure.commands;
        shared.look(|state| state.departures.get(page).map(commands))
    };
    let nothing = json!({ "expression": "0" });
    let (mut seen, mut quiet) = (0, 0);
    for _ in 0..LONGEST {
        // Once it is answered, even with an error, so is what the client has sent before.
        let _ = shared.call(Some(session), "Runtime.evaluate", &nothing).await;
        sleep(LOOK).await;
        let Some(now) = commands() else { return Ok(()) };
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
        if quiet >= if seen > 0 { SAID } else { SILENT } {
            break;
        }
    }
    let tree = shared.call(Some(session), "Page.getFrameTree", &json!({})).await?;
    let loader = tree["frameTree"]["frame"]["loaderId"].as_str().unwrap_or_default();
    let address = shared.update(|state| {
        let departure = state.departures.get_mut(page)?;
        departure.loader = Some(loader.to_owned());
        departure.address.take()
    });
    let Some(address) = address else { return Ok(()) };
    let went = shared.call(Some(session), "Page.navigate", &json!({ "url": address })).await?;
    // So answers Chromium where there is nothing to show: a download, or a 204.
    let stays = went["errorText"] == "net::ERR_ABORTED";
    shared.update(|state| state.departed(page, stays));
    for _ in 0..RESETS {
        // As if it had been made with the address.
        let reset = shared.call(Some(session), "Page.resetNavigationHistory", &json!({})).await;
        if reset.is_ok() {
            break;
        }
        sleep(LOOK).await;
    }
    Ok(())
}
