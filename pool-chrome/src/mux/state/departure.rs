use bytes::Bytes;
use serde::Deserialize;

use super::ConnectionId;
use crate::mux::framing;
use crate::mux::target::Message;

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
        if !framing::is_lifecycle_event(&event) {
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
