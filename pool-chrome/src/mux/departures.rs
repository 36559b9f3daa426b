use std::sync::Weak;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::multiplexer::Shared;
use super::session_id::SessionId;
use super::target::Id;
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
    pub(crate) address: String,
    /// How many commands its clients have sent to it.
    pub(crate) commands: u32,
}

/// Pause between two looks at whether a page may go.
const LOOK: Duration = Duration::from_millis(10);

/// After so many looks without a further command its client is taken to have had its say.
const SAID: u32 = 3;

/// The same for a client that has sent none.
const SILENT: u32 = 20;

/// The page goes after so many looks at the latest.
const LONGEST: u32 = 100;

/// How often the history is told to forget the empty page, which it does not while the page moves:
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
            shared.update(|state| state.detach_own(session));
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
    let departure = shared.update(|state| state.departures.remove(page));
    let Some(Departure { address, .. }) = departure else { return Ok(()) };
    shared.call(Some(session), "Page.navigate", &json!({ "url": address })).await?;
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
