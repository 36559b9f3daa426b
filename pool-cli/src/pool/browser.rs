use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pool_chrome::cdp::Client;
use pool_chrome::egress::Requests;
use pool_chrome::mux::{HolderCommands, LeaseTerms};
use pool_core::{BoxError, Driver, ResourceId, async_trait};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::LeaseEnd;
use crate::fleet::ProfileInUse;

/// The interface to a leased browser: everything that the gateway knows of one.
///
/// It is implemented for the virtual browsers of `pool-chrome`, and in tests for their stand-ins.
#[async_trait]
pub trait Browser: Send + Sync + 'static {
    /// Sets the terms of the lease that the browser was granted for, before its first connection.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn begin(&self, terms: &LeaseTerms) -> Result<(), LeaseEnd>;

    /// Opens one more CDP connection to it. The lease ends with the browser, not with the
    /// connection. Commands that no Chromium has, but that a client sends all the same, are
    /// answered by `commands`.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn connect(&self, commands: Arc<dyn HolderCommands>) -> Result<Wire, LeaseEnd>;

    /// Opens a connection for the gateway's own use, as one more client.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn drive(&self) -> Result<Client, LeaseEnd>;

    /// Opens one more CDP connection to it, whose root is one of its pages: the one with this id,
    /// or else the first. It ends with its page.
    ///
    /// # Errors
    ///
    /// [`NoConnection::NoPage`] if it has no such page.
    async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Wire, NoConnection>;

    /// Returns its present pages, oldest first, without disturbing its client.
    async fn pages(&self) -> Vec<OpenPage>;

    /// Returns `true` if it has a page with this id.
    fn has_page(&self, id: &str) -> bool;

    /// Returns `true` if its clients have something to wait for: a command that has not been
    /// answered, or a download that has not ended.
    fn is_busy(&self) -> bool;

    /// Waits until the browser has ended: crashed, hung, or closed by its client.
    async fn ended(&self) -> LeaseEnd;

    /// Returns its profile, if that travels between the nodes of a fleet.
    fn travelling(&self) -> Option<&ProfileInUse> {
        None
    }

    /// Takes a picture of its foremost page, as a PNG, without disturbing its client.
    ///
    /// # Errors
    ///
    /// If it has no page, or the page does not answer.
    async fn screenshot(&self) -> Result<Vec<u8>, BoxError>;
}

/// An open page of a client. Title and address are the page's own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPage {
    /// The id of its target: 128 random bits, which only the clients of its lease receive.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its address.
    pub url: String,
}

/// A CDP connection: commands in, replies and events out, one JSON text each.
pub struct Wire {
    /// Towards the browser.
    pub commands: Box<dyn Commands>,
    /// From the browser.
    pub events: Box<dyn Events>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// The half of a [`Wire`] that accepts a client's messages.
#[async_trait]
pub trait Commands: Send {
    /// Passes a message on; waits while the browser accepts no more.
    ///
    /// # Errors
    ///
    /// The end of the connection.
    async fn send(&mut self, message: Utf8Bytes) -> Result<(), LeaseEnd>;

    /// Reports how many bytes have arrived of a large message that the client is sending, so that
    /// they count as waiting; 0 when it is complete and about to be sent.
    fn receiving(&mut self, bytes: usize) {
        let _ = bytes;
    }
}

/// The half of a [`Wire`] that yields the browser's messages.
#[async_trait]
pub trait Events: Send + Sync {
    /// Waits for the next messages: those that are there, not much more than `limit` bytes, so that
    /// several go out in one write. They count as waiting until [`taken`](Self::taken) is called
    /// with the number that this returns.
    ///
    /// # Errors
    ///
    /// The end of the connection, once all messages before it have been taken.
    ///
    /// # Cancel safety
    ///
    /// No message is lost when the future is dropped.
    async fn next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> Result<usize, LeaseEnd>;

    /// As [`next`](Self::next), for messages that are already there; 0 if there are none.
    fn try_next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> usize;

    /// Notes that the client has taken messages that counted for this much.
    fn taken(&self, counted: usize) {
        let _ = counted;
    }

    /// Forgets all messages that have not been passed on.
    fn forget(&mut self) {}

    /// Returns `true` if messages that were passed on but not taken must be forgotten too, since
    /// others need the room.
    fn must_leave(&self) -> bool {
        false
    }

    /// Returns why the connection has ended, if it has; earlier messages may be left.
    fn end(&self) -> Option<LeaseEnd>;
}

/// Reasons why there is no connection to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// The browser has ended.
    Ended(LeaseEnd),
    /// It has no such page.
    NoPage,
}

/// A driver whose resources are browsers, with what can be said about all of them.
#[async_trait]
pub trait BrowserDriver: Driver<Resource: Browser> {
    /// Returns the native fields of `/json/version`, for the browser that was launched last; `None`
    /// before the first one.
    fn version(&self) -> Option<Version>;

    /// Returns the process of a browser and its memory, as last measured.
    fn vitals(&self, id: ResourceId) -> Option<Vitals>;

    /// Stops Chromiums that several leases share from taking more of them: idle browsers are about
    /// to be closed so that new ones are launched.
    fn renew(&self) {}

    /// Returns the outcomes of the requests of browsers that are guarded or proxied.
    fn requests(&self) -> Requests {
        Requests::default()
    }

    /// Returns `true` if a connection from this peer was made by one of them.
    fn is_a_browser(&self, _peer: SocketAddr) -> bool {
        false
    }

    /// Measures the memory of all browsers. It reads `/proc`, so it is only called at intervals.
    async fn measure(&self);
}

/// The version of a browser: the fields of `Browser.getVersion` under their names in
/// `/json/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Product and version, such as `Chrome/156.0.8078.79`.
    #[serde(rename = "Browser")]
    pub browser: String,
    /// The version of CDP.
    #[serde(rename = "Protocol-Version")]
    pub protocol: String,
    /// The default user agent.
    #[serde(rename = "User-Agent")]
    pub user_agent: String,
    /// The version of V8.
    #[serde(rename = "V8-Version")]
    pub v8: String,
    /// The version of WebKit, with its revision.
    #[serde(rename = "WebKit-Version")]
    pub webkit: String,
}

/// The process behind a browser. Browsers of shared leases may have one in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// The process id of the Chromium.
    pub pid: Option<u32>,
    /// Proportional set size of its whole process tree, in bytes, and how old that number is.
    pub memory: Option<(u64, Duration)>,
}
