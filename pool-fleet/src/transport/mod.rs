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

/// Carries the messages of a fleet by their subjects, and keeps none.
///
/// A message may be lost, doubled or late; the engines above live with all three. What an
/// implementer owes them is that nothing is kept for later: a message that cannot go out now is an
/// error, since one that comes minutes late takes up a browser for a client that is long gone.
///
/// Implementers need not be quick to notice that a connection is dead, but must notice it at last
/// and reconnect by themselves, for ever, with the subscriptions as they were.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a message to all that listen to its subject.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] and [`TransportError::TooLarge`]. That a message went out
    /// does not say that somebody has it.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), TransportError>;

    /// Waits until the server has everything that was published before: what a program has to do
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
    /// [`TransportError::NoResponders`] at once where nobody listens, [`TransportError::TimedOut`]
    /// after `timeout`, and what [`publish`](Self::publish) returns.
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;

    /// Listens to a subject, in which a token may be `*` and the last one `>`.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] if the transport has been closed for good; a connection that
    /// is down only for now takes subscriptions.
    async fn subscribe(&self, subject: &str) -> Result<Subscription, TransportError>;

    /// Returns the state of the connection, to read and to wait on.
    fn connection(&self) -> watch::Receiver<Connection>;

    /// Measures the round trip to the server and returns what is known of it.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`] and [`TransportError::TimedOut`].
    async fn server(&self) -> Result<ServerInfo, TransportError>;
}

/// Keeps what must outlive nodes: entries that change by compare-and-swap, and whole objects.
///
/// Every write of an entry names the revision that it replaces, so of two writers one wins and the
/// other learns it. Objects have names of their own and are written once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns an entry, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`TransportError::Disconnected`], [`TransportError::TimedOut`], [`TransportError::Store`].
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Entry>, TransportError>;

    /// Writes an entry if it still has the `expected` revision, or none if that is `None`. Returns
    /// the new revision.
    ///
    /// # Errors
    ///
    /// [`TransportError::Conflict`] if another has written it. After any other error the entry may
    /// have been written or not; the writer has to look.
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

    /// Stores an object under a name that none has had before. Returns its size in bytes. One that
    /// fails may leave parts, which [`uploads`](Self::uploads) lists.
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

    /// Opens an object, or returns `None` where there is none of that name.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). A reader whose object is damaged on the way ends with an error.
    async fn object(&self, bucket: &str, name: &str) -> Result<Option<Source>, TransportError>;

    /// Returns the names of all objects of a bucket.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn objects(&self, bucket: &str) -> Result<Vec<String>, TransportError>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn delete_object(&self, bucket: &str, name: &str) -> Result<(), TransportError>;

    /// Returns the uploads that have stored parts and no object yet: those under way, and those
    /// that have failed. A store in which a failed upload leaves nothing has none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn uploads(&self, bucket: &str) -> Result<Vec<Upload>, TransportError>;

    /// Removes the parts of an upload; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    async fn delete_upload(&self, bucket: &str, id: &str) -> Result<(), TransportError>;
}

/// The bytes of an object.
pub type Source = Pin<Box<dyn AsyncRead + Send>>;

/// The stored parts of something that is no object of a [`Store`] yet, or never will be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Upload {
    /// Id of the upload.
    pub id: String,
    /// Number of parts that are stored so far.
    pub parts: u64,
}

impl Upload {
    /// Returns an upload, for stores of one's own.
    #[must_use]
    pub fn new(id: String, parts: u64) -> Self {
        Self { id, parts }
    }
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// Subject to which it was sent.
    pub subject: String,
    /// Its content.
    pub payload: Bytes,
    /// Subject to which an answer is published, if the sender waits for one.
    pub reply: Option<String>,
}

impl Incoming {
    /// Returns a message, for transports of one's own.
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
    /// Returns the subscription that a stream feeds, for transports of one's own.
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
        // Without the budget of the task, which would hide what is there.
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
    /// The server is reached and of no use, for this reason; the transport tries again.
    Refused(Arc<str>),
    /// The transport was closed and stays so.
    Closed,
}

impl Connection {
    /// Returns true if messages go out.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self == Self::Connected
    }
}

/// The server, for whoever looks for a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Time that a message to it and back took.
    pub round_trip: Duration,
    /// It keeps entries and objects.
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
    #[error("a message of {size} bytes is larger than the {limit} that the server takes")]
    TooLarge {
        /// Size of the message.
        size: usize,
        /// Limit of the server.
        limit: usize,
    },
    /// Another has written the entry since it was read.
    #[error("another has written {key} meanwhile")]
    Conflict {
        /// Key of the entry.
        key: String,
    },
    /// The store refused, or is not there.
    #[error("the store failed: {reason}")]
    Store {
        /// Words of the server.
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
    /// The server was reached and is of no use.
    #[error("{0}")]
    Refused(Arc<str>),
}
