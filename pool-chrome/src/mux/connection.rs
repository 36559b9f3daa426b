use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::EndReason;
use super::multiplexer::Shared;
use super::state::ConnectionId;

/// How many bytes of one connection may wait to be written to Chromium before its
/// [`send`](ConnectionSender::send) waits.
const UNSENT_LIMIT: usize = 4 * 1024 * 1024;

/// One client's connection to its lease: text messages of the Chrome DevTools Protocol, in and
/// out.
///
/// To the client it is the WebSocket of a browser of its own. Dropping it, or its receiver, ends
/// the connection as a closed socket would: its sessions go, and so do the contexts that it made
/// to be disposed with it; the rest stays with the lease.
#[derive(Debug)]
pub struct Connection {
    sender: ConnectionSender,
    receiver: ConnectionReceiver,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        link: Arc<Link>,
        queue: mpsc::UnboundedReceiver<Bytes>,
    ) -> Self {
        let sender = ConnectionSender { shared: shared.clone(), id, link: link.clone() };
        Self { sender, receiver: ConnectionReceiver { queue, link, shared, id } }
    }

    /// Hands over one message of the client. See [`ConnectionSender::send`].
    ///
    /// # Errors
    ///
    /// Why the connection has ended.
    pub async fn send(&self, message: &str) -> Result<(), EndReason> {
        self.sender.send(message).await
    }

    /// The next message for the client. See [`ConnectionReceiver::recv`].
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.sender.end_reason()
    }

    /// Both directions, for two tasks or the two arms of a `select!`.
    #[must_use]
    pub fn split(self) -> (ConnectionSender, ConnectionReceiver) {
        (self.sender, self.receiver)
    }
}

/// The direction from a client to its lease. Clones send over the same connection.
#[derive(Clone, Debug)]
pub struct ConnectionSender {
    shared: Arc<Shared>,
    id: ConnectionId,
    link: Arc<Link>,
}

impl ConnectionSender {
    /// Hands over one message of the client.
    ///
    /// A malformed or forbidden command is answered with an error in the protocol's own way, never
    /// here. Waits while too much of this connection has not been taken by Chromium.
    ///
    /// # Errors
    ///
    /// Why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn send(&self, message: &str) -> Result<(), EndReason> {
        loop {
            let room = self.link.room.notified();
            if let Some(reason) = self.end_reason() {
                return Err(reason);
            }
            if self.link.has_room() {
                break;
            }
            room.await;
        }
        self.shared.update(|state| state.client_message(self.id, message));
        Ok(())
    }

    /// Ends the connection, for a client that broke its own transport's rules.
    pub fn close(&self, reason: EndReason) {
        self.shared.update(|state| state.close_connection(self.id, reason));
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.link.reason()
    }
}

/// The direction from a lease to its client. Its drop ends the connection.
#[derive(Debug)]
pub struct ConnectionReceiver {
    queue: mpsc::UnboundedReceiver<Bytes>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl ConnectionReceiver {
    /// The next message for the client: one JSON text. `None` when the connection has ended and
    /// everything was delivered; [`end_reason`](Self::end_reason) says why.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost.
    pub async fn recv(&mut self) -> Option<Bytes> {
        if self.end_reason() == Some(EndReason::SlowReader) {
            return None;
        }
        let message = self.queue.recv().await?;
        self.link.queued.fetch_sub(message.len(), Relaxed);
        Some(message)
    }

    /// The next message if there is one already, to write several with one flush.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        let message = self.queue.try_recv().ok()?;
        self.link.queued.fetch_sub(message.len(), Relaxed);
        Some(message)
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.link.reason()
    }
}

impl Drop for ConnectionReceiver {
    fn drop(&mut self) {
        self.shared.update(|state| state.close_connection(self.id, EndReason::ClientClosed));
    }
}

/// What the two ends of a connection and the multiplexer share.
#[derive(Debug, Default)]
pub(crate) struct Link {
    reason: OnceLock<EndReason>,
    /// Bytes that wait for the client.
    queued: AtomicUsize,
    /// Bytes of the client that wait for Chromium.
    unsent: AtomicUsize,
    /// There is room for more of the client's, or the end has come.
    room: Notify,
}

impl Link {
    /// Ends the connection; the first reason counts.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.reason.set(reason);
        self.room.notify_waiters();
    }

    /// Why it has ended, if it has.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// The client has sent this much.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Relaxed);
    }

    /// The writer has taken this much.
    pub(crate) fn taken(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Relaxed);
        if self.has_room() {
            self.room.notify_waiters();
        }
    }

    fn has_room(&self) -> bool {
        self.unsent.load(Relaxed) < UNSENT_LIMIT
    }
}

/// The multiplexer's end of a connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) link: Arc<Link>,
    queue: mpsc::UnboundedSender<Bytes>,
    limit: usize,
}

/// The client has let more than its limit pile up.
pub(crate) struct TooSlow;

impl Outgoing {
    pub(crate) fn new(limit: usize) -> (Self, mpsc::UnboundedReceiver<Bytes>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        (Self { link: Arc::default(), queue, limit }, receiver)
    }

    /// Queues a message for the client. One that is larger than the limit by itself passes when
    /// nothing else waits.
    pub(crate) fn push(&self, message: Bytes) -> Result<(), TooSlow> {
        if self.link.queued.load(Relaxed) > self.limit {
            return Err(TooSlow);
        }
        self.link.queued.fetch_add(message.len(), Relaxed);
        // A receiver that is gone has ended the connection already.
        let _ = self.queue.send(message);
        Ok(())
    }
}
