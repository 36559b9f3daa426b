use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;

use super::EndReason;
use super::budget::{Holder, Standing};
use super::hub::Hub;
use super::link::{LARGE, Link};
use super::state::ConnectionId;

/// One client's connection to its lease: text messages of the Chrome DevTools Protocol, in and
/// out.
///
/// To the client it is the WebSocket of a browser of its own. Dropping it, or its receiver, ends
/// the connection as a closed socket would: its sessions are closed, and the contexts that it made
/// to be disposed of with it are; the rest stays with the lease.
#[derive(Debug)]
pub struct Connection {
    sender: ConnectionSender,
    receiver: ConnectionReceiver,
}

impl Connection {
    pub(crate) fn new(hub: Arc<Hub>, id: ConnectionId, link: Arc<Link>) -> Self {
        let sender = ConnectionSender { hub: hub.clone(), id, link: link.clone() };
        Self { sender, receiver: ConnectionReceiver { link, hub, id } }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.sender.id
    }

    /// Hands over one message of the client. See [`ConnectionSender::send`].
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing was sent.
    pub async fn send(&self, message: &str) -> Result<(), EndReason> {
        self.sender.send(message).await
    }

    /// Returns the next message for the client. See [`ConnectionReceiver::recv`].
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, no message is lost.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// Returns why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.sender.end_reason()
    }

    /// Splits it into its two directions, for two tasks or the two arms of a `select!`.
    #[must_use]
    pub fn split(self) -> (ConnectionSender, ConnectionReceiver) {
        (self.sender, self.receiver)
    }
}

/// The direction from a client to its lease. Clones send over the same connection.
#[derive(Clone, Debug)]
pub struct ConnectionSender {
    hub: Arc<Hub>,
    id: ConnectionId,
    link: Arc<Link>,
}

impl ConnectionSender {
    /// Hands over one message of the client.
    ///
    /// A malformed or forbidden command is answered with an error of the protocol, not here. This
    /// waits while Chromium has yet to take too much of this connection.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing was sent.
    pub async fn send(&self, message: &str) -> Result<(), EndReason> {
        self.link.room().await?;
        self.hub.update(|state| state.client_message(self.id, message, None));
        Ok(())
    }

    /// Hands over one message of the client, as [`send`](Self::send) does, without copying it if it
    /// is large. Bytes that are not UTF-8 are not a message, and are dropped.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing was sent.
    pub async fn send_bytes(&self, message: Bytes) -> Result<(), EndReason> {
        self.link.room().await?;
        let Ok(text) = std::str::from_utf8(&message) else { return Ok(()) };
        let whole = (message.len() >= LARGE).then_some(&message);
        self.hub.update(|state| state.client_message(self.id, text, whole));
        Ok(())
    }

    /// Reports how much of the message that the client is sending has arrived, so that it counts as
    /// waiting; 0 when it is complete and about to be sent.
    pub fn receiving(&self, bytes: usize) {
        self.link.receiving(bytes);
    }

    /// Ends the connection of a client that broke the rules of its own transport.
    pub fn close(&self, reason: EndReason) {
        self.hub.update(|state| state.close_connection(self.id, reason));
    }

    /// Returns why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.link.reason()
    }
}

/// The direction from a lease to its client. Its drop ends the connection.
#[derive(Debug)]
pub struct ConnectionReceiver {
    link: Arc<Link>,
    hub: Arc<Hub>,
    id: ConnectionId,
}

impl ConnectionReceiver {
    /// Returns the next message for the client: one JSON text. `None` when the connection has ended
    /// and everything was delivered; [`end_reason`](Self::end_reason) says why.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, no message is lost.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let mut message = None;
        let bytes = poll_fn(|cx| self.link.poll_take(cx, 1, |next| message = Some(next))).await;
        self.taken(bytes);
        message
    }

    /// Returns the next message if there is one already, so that several can be written with one
    /// flush.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        let mut message = None;
        let bytes = self.try_recv_many(1, |next| message = Some(next));
        self.taken(bytes);
        message
    }

    /// Passes the next messages for the client to `each`: everything that is there, at least one
    /// message, and not much more than `limit` bytes. They count as waiting until
    /// [`taken`](Self::taken) is called with the number that this returns, which is slightly more
    /// than their bytes. Returns 0 at the end, as [`recv`](Self::recv) returns `None`.
    ///
    /// `each` is called under a lock: it must return at once and not use the connection.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, no message is lost.
    pub async fn recv_many(&mut self, limit: usize, mut each: impl FnMut(Bytes) + Send) -> usize {
        poll_fn(|cx| self.link.poll_take(cx, limit, &mut each)).await
    }

    /// As [`recv_many`](Self::recv_many), for messages that are there already; 0 if there are none.
    pub fn try_recv_many(&mut self, limit: usize, each: impl FnMut(Bytes)) -> usize {
        self.link.take(limit, each)
    }

    /// Notes that the client has taken this many bytes of those that [`recv_many`](Self::recv_many)
    /// passed on.
    pub fn taken(&self, bytes: usize) {
        self.link.delivered(bytes);
    }

    /// Forgets all messages that have not been passed on, for a client that will not take them.
    pub fn forget(&mut self) {
        self.link.forget();
    }

    /// Returns `true` if the rest of the messages that were passed on must be forgotten as well:
    /// the client does not read, and others need the room.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.link.standing() == Standing::Leaving
    }

    /// Returns why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.link.reason()
    }
}

impl Drop for ConnectionReceiver {
    fn drop(&mut self) {
        self.hub.update(|state| state.close_connection(self.id, EndReason::ClientClosed));
        // For a connection that was closed before.
        self.link.end(EndReason::ClientClosed);
        self.link.forget();
        self.link.delivered(usize::MAX);
    }
}
