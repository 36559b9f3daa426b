use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::task::unconstrained;

pub(crate) mod memory;
#[cfg(feature = "nats")]
pub(crate) mod nats;

/// Carries the messages of a fleet by subject, and keeps none.
///
/// A message may be lost, duplicated or late; the engines above cope with all three. In return, an
/// implementer must not keep anything for later: a message that cannot go out now is an error,
/// since one that comes minutes late takes up a browser for a client that is long gone.
///
/// Implementers need not notice quickly that a connection is dead, but must notice it eventually
/// and reconnect by themselves, for ever, with the subscriptions as they were.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a message to everyone who listens to its subject.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] and [`TransportError::TooLarge`]. Success does not mean
    /// that anybody has received the message.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), TransportError>;

    /// Waits until the server has everything that was published before. A program must call it
    /// before it ends.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] and [`TransportError::TimedOut`].
    async fn flush(&self) -> Result<(), TransportError>;

    /// Sends a message and waits for the first answer.
    ///
    /// # Errors
    ///
    /// [`TransportError::NoResponders`] at once if nobody listens, [`TransportError::TimedOut`]
    /// after `timeout`, and the errors of [`publish`](Self::publish).
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;

    /// Listens to a subject, in which any token may be `*` and the last one `>`.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] if the transport has been closed for good; a connection
    /// that is only down for now accepts subscriptions.
    async fn subscribe(&self, subject: &str) -> Result<Subscription, TransportError>;

    /// Returns the state of the connection, as a value to read and wait on.
    fn connection(&self) -> watch::Receiver<Connection>;

    /// Measures the round trip to the server, and returns it with what is known of the server.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] and [`TransportError::TimedOut`].
    async fn server(&self) -> Result<ServerInfo, TransportError>;
}

/// Keeps data that must outlive nodes: entries that change by compare-and-swap, and whole objects.
///
/// Every write of an entry names the revision that it replaces, so of two writers one wins and the
/// other learns that it has lost. Objects have names of their own and are written once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns an entry, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`], [`TransportError::TimedOut`], [`TransportError::Store`].
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Entry>, TransportError>;

    /// Writes an entry if it still has the `expected` revision, or, if that is `None`, if there is
    /// no entry yet. Returns the new revision.
    ///
    /// # Errors
    ///
    /// [`TransportError::Conflict`] if somebody else has written it. After any other error, the
    /// entry may or may not have been written; the writer has to look.
    async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, TransportError>;

    /// Removes an entry if it still has the `expected` revision.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    async fn delete(&self, bucket: &str, key: &str, expected: u64) -> Result<(), TransportError>;

    /// Returns the keys of all entries of a bucket.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn keys(&self, bucket: &str) -> Result<Vec<String>, TransportError>;

    /// Stores an object under a name that has never been used. Returns its size in bytes. A failed
    /// upload may leave parts behind, which [`uploads`](Self::uploads) lists.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`TransportError::Io`] if the source fails.
    async fn put_object(
        &self,
        bucket: &str,
        name: &str,
        source: Source,
    ) -> Result<u64, TransportError>;

    /// Opens an object, or returns `None` if there is none with that name.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). If the object is damaged in transit, its reader ends with an error.
    async fn object(&self, bucket: &str, name: &str) -> Result<Option<Source>, TransportError>;

    /// Returns the names of all objects of a bucket.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn objects(&self, bucket: &str) -> Result<Vec<String>, TransportError>;

    /// Removes an object; it is not an error if there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn delete_object(&self, bucket: &str, name: &str) -> Result<(), TransportError>;

    /// Returns the uploads that have stored parts but no object yet: those under way, and those
    /// that have failed. If failed uploads leave nothing behind in a store, it has none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn uploads(&self, bucket: &str) -> Result<Vec<Upload>, TransportError>;

    /// Removes the parts of an upload; it is not an error if there are none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn delete_upload(&self, bucket: &str, id: &str) -> Result<(), TransportError>;
}

/// The bytes of an object.
pub type Source = Pin<Box<dyn AsyncRead + Send>>;

/// The stored parts of an upload that is not an object of a [`Store`] yet, or never will be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Upload {
    /// Id of the upload.
    pub id: String,
    /// Number of parts that are stored so far.
    pub parts: u64,
}

impl Upload {
    /// Returns an upload, for implementers of stores.
    #[must_use]
    pub fn new(id: String, parts: u64) -> Self {
        Self { id, parts }
    }
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// Subject on which it was sent.
    pub subject: String,
    /// Its content.
    pub payload: Bytes,
    /// Subject on which to publish an answer, if the sender waits for one.
    pub reply: Option<String>,
}

impl Incoming {
    /// Returns a message, for implementers of transports.
    #[must_use]
    pub fn new(subject: String, payload: Bytes, reply: Option<String>) -> Self {
        Self { subject, payload, reply }
    }
}

/// The messages of a subject; dropping it stops listening.
pub struct Subscription {
    messages: Pin<Box<dyn Stream<Item = Incoming> + Send>>,
}

impl Subscription {
    /// Returns the subscription that a stream feeds, for implementers of transports.
    #[must_use]
    pub fn new(messages: impl Stream<Item = Incoming> + Send + 'static) -> Self {
        Self { messages: Box::pin(messages) }
    }

    /// Returns the next message, or `None` when the transport is closed for good.
    ///
    /// # Cancel safety
    ///
    /// No message is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.messages.next().await
    }

    /// Returns the next message if one is there.
    pub fn try_next(&mut self) -> Option<Incoming> {
        // Without the task's budget, which would hide a message that is there.
        unconstrained(self.next()).now_or_never().flatten()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// State of the connection to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// Messages go out.
    Connected,
    /// The server cannot be reached at present; the transport tries again by itself.
    Disconnected,
    /// The server can be reached but is unusable, for this reason; the transport tries again.
    Refused(Arc<str>),
    /// The transport was closed and stays so.
    Closed,
}

impl Connection {
    /// Returns `true` if messages go out.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self == Self::Connected
    }
}

/// Facts about the server, for troubleshooting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The name that it gives itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Time that a message to it and back took.
    pub round_trip: Duration,
    /// It can store entries and objects.
    pub stores: bool,
}

/// An entry of a [`Store`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its value.
    pub value: Bytes,
    /// Its revision, which a writer must name.
    pub revision: u64,
}

/// Error of a [`Transport`] or a [`Store`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// There is no connection at present.
    #[error("there is no connection to the server")]
    Disconnected,
    /// Nobody listens to the subject.
    #[error("nobody listens to {subject}")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The message is larger than the server takes.
    #[error("a message of {size} bytes is larger than the {limit} that the server accepts")]
    TooLarge {
        /// Size of the message.
        size: usize,
        /// Limit of the server.
        limit: usize,
    },
    /// Somebody else has written the entry since it was read.
    #[error("somebody else has written {key} in the meantime")]
    Conflict {
        /// Key of the entry.
        key: String,
    },
    /// The store refused, or does not exist.
    #[error("the store failed: {reason}")]
    Store {
        /// The server's own words.
        reason: String,
    },
    /// The bytes of an object could not be read.
    #[error("an object could not be read")]
    Io(#[from] std::io::Error),
    /// The subject or the key has characters that it must not have.
    #[error("{name:?} is not a subject or key")]
    Name {
        /// The subject or the key.
        name: String,
    },
    /// The configuration of the transport cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// The server was reached but is unusable.
    #[error("{0}")]
    Refused(Arc<str>),
}
