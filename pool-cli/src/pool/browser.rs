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

/// Interface to a leased browser: all that the gateway knows of one.
///
/// It is implemented for the virtual browsers of `pool-chrome`, and in tests for whatever stands
/// in for them.
#[async_trait]
pub trait Browser: Send + Sync + 'static {
    /// Sets the terms of the lease that it was granted for, before its first connection.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn begin(&self, terms: &LeaseTerms) -> Result<(), LeaseEnd>;

    /// Opens one more CDP connection to it. The lease ends with the browser, not with the
    /// connection. What no Chromium has, and a client asks for all the same, `commands` answers.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn connect(&self, commands: Arc<dyn HolderCommands>) -> Result<Wire, LeaseEnd>;

    /// Opens a connection for what is done with it here, as one more client.
    ///
    /// # Errors
    ///
    /// The end of the browser, if it has ended.
    async fn drive(&self) -> Result<Client, LeaseEnd>;

    /// Opens one more CDP connection to it, whose root is one of its pages: the one of this id, or
    /// else the first. It ends with its page.
    ///
    /// # Errors
    ///
    /// [`NoConnection::NoPage`] if it has no such page.
    async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Wire, NoConnection>;

    /// Returns its pages as they are now, the oldest first, without disturbing its client.
    async fn pages(&self) -> Vec<OpenPage>;

    /// Returns `true` if it has a page of this id.
    fn has_page(&self, id: &str) -> bool;

    /// Returns `true` if its clients have something to wait for: a command that is not answered, or a
    /// download that has not ended.
    fn is_busy(&self) -> bool;

    /// Waits until the browser has ended: crashed, hung, or closed by its client.
    async fn ended(&self) -> LeaseEnd;

    /// Returns the profile that it has, if that travels between the nodes of a fleet.
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

/// A page that a client has open. Title and address are the page's own choice.
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

/// The half of a [`Wire`] that takes a client's messages.
#[async_trait]
pub trait Commands: Send {
    /// Passes one message on; waits while the browser takes no more.
    ///
    /// # Errors
    ///
    /// The end of the connection.
    async fn send(&mut self, message: Utf8Bytes) -> Result<(), LeaseEnd>;

    /// Reports the bytes received of a large message that the client is sending, so that they count
    /// as waiting; 0 when it is whole and about to be sent.
    fn receiving(&mut self, bytes: usize) {
        let _ = bytes;
    }
}

/// The half of a [`Wire`] that yields the browser's messages.
#[async_trait]
pub trait Events: Send + Sync {
    /// The next messages: those that are there up to so many bytes and a few more, so that
    /// several go out in one write. They count as waiting until [`taken`](Self::taken) is called
    /// with what this returns.
    ///
    /// # Errors
    ///
    /// The end of the connection, once all messages before it were taken.
    ///
    /// # Cancel safety
    ///
    /// No message is lost when the future is dropped.
    async fn next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> Result<usize, LeaseEnd>;

    /// As [`next`](Self::next), for what is there already; 0 if nothing is.
    fn try_next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> usize;

    /// The client has taken what counted for so much.
    fn taken(&self, counted: usize) {
        let _ = counted;
    }

    /// Forgets all messages that were not given out yet.
    fn forget(&mut self) {}

    /// Returns `true` if what was given out and not taken is to be forgotten too, since others need the room.
    fn must_leave(&self) -> bool {
        false
    }

    /// Returns why the connection has ended, if it has; messages may be left that came before.
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

/// A driver whose resources are browsers, with what can be said of them all.
#[async_trait]
pub trait BrowserDriver: Driver<Resource: Browser> {
    /// The native fields of `/json/version`, of whichever browser was launched last; `None`
    /// before the first one.
    fn version(&self) -> Option<Version>;

    /// The process of a browser and its memory, as last looked at.
    fn vitals(&self, id: ResourceId) -> Option<Vitals>;

    /// Stops what several browsers have in common from taking more of them: idle ones are about to be
    /// closed so that new ones are launched.
    fn renew(&self) {}

    /// Returns what became of the requests of browsers that are guarded or proxied.
    fn requests(&self) -> Requests {
        Requests::default()
    }

    /// Returns `true` if a connection from this peer was made by one of them.
    fn is_a_browser(&self, _peer: SocketAddr) -> bool {
        false
    }

    /// Looks at the memory of all browsers. Reads `/proc`, so it is called now and then.
    async fn measure(&self);
}

/// Version of a browser: the fields of `Browser.getVersion` under the names that
/// `/json/version` has for them.
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
