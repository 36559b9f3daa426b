use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;

use super::EndReason;
use super::budget::{Account, Budget, Holder, Standing};
use super::gate::Gate;
use super::multiplexer::Shared;
use super::outbox::LARGE;
use super::state::ConnectionId;

/// How many bytes of one connection may wait to be written to Chromium before its
/// [`send`](ConnectionSender::send) waits.
const UNSENT_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes that a waiting message takes besides its own.
const OVERHEAD: usize = 64;

/// A queue with more room than this is not kept when it is empty.
const ROOM: usize = 1024;

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
    pub(crate) fn new(shared: Arc<Shared>, id: ConnectionId, link: Arc<Link>) -> Self {
        let sender = ConnectionSender { shared: shared.clone(), id, link: link.clone() };
        Self { sender, receiver: ConnectionReceiver { link, shared, id } }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.sender.id
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

    /// Returns why the connection has ended, if it has.
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
        self.room().await?;
        self.shared.update(|state| state.client_message(self.id, message, None));
        Ok(())
    }

    /// Hands over one message of the client, as [`send`](Self::send) does, without copying it if
    /// it is large. What is not UTF-8 is no message, and dropped.
    ///
    /// # Errors
    ///
    /// Why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn send_bytes(&self, message: Bytes) -> Result<(), EndReason> {
        self.room().await?;
        let Ok(text) = std::str::from_utf8(&message) else { return Ok(()) };
        let whole = (message.len() >= LARGE).then_some(&message);
        self.shared.update(|state| state.client_message(self.id, text, whole));
        Ok(())
    }

    /// Says how much has come in of the message that the client is sending, so that it counts as
    /// waiting; 0 when it is whole and about to be sent.
    pub fn receiving(&self, bytes: usize) {
        let before = self.link.receiving.swap(bytes, Relaxed);
        if bytes > before {
            self.link.account.add(bytes - before);
        } else {
            self.link.account.sub(before - bytes);
        }
    }

    async fn room(&self) -> Result<(), EndReason> {
        loop {
            let room = self.link.room.notified();
            if let Some(reason) = self.end_reason() {
                return Err(reason);
            }
            if self.link.has_room() {
                return Ok(());
            }
            room.await;
        }
    }

    /// Ends the connection, for a client that broke its own transport's rules.
    pub fn close(&self, reason: EndReason) {
        self.shared.update(|state| state.close_connection(self.id, reason));
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
        let mut message = None;
        let bytes = poll_fn(|cx| self.link.poll_take(cx, 1, |next| message = Some(next))).await;
        self.taken(bytes);
        message
    }

    /// The next message if there is one already, to write several with one flush.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        let mut message = None;
        let bytes = self.try_recv_many(1, |next| message = Some(next));
        self.taken(bytes);
        message
    }

    /// The next messages for the client, `limit` bytes of them or a few more: all that are there,
    /// at least one. They count as waiting until [`taken`](Self::taken) is called with what this
    /// returns, which is a little more than their bytes. 0 at the end, as with
    /// [`recv`](Self::recv).
    ///
    /// `each` is called under a lock: it must return at once and not use the connection.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost.
    pub async fn recv_many(&mut self, limit: usize, mut each: impl FnMut(Bytes) + Send) -> usize {
        poll_fn(|cx| self.link.poll_take(cx, limit, &mut each)).await
    }

    /// As [`recv_many`](Self::recv_many), for what is there already; 0 if nothing is.
    pub fn try_recv_many(&mut self, limit: usize, each: impl FnMut(Bytes)) -> usize {
        self.link.take(limit, each)
    }

    /// The client has taken so many bytes of what [`recv_many`](Self::recv_many) gave.
    pub fn taken(&self, bytes: usize) {
        self.link.delivered(bytes);
    }

    /// Forgets all messages that were not given out yet, for a client that will not take them.
    pub fn forget(&mut self) {
        self.link.forget();
    }

    /// Returns `true` if what the client has not taken of the last messages is to be forgotten as well: it
    /// does not read, and others need the room.
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
        self.shared.update(|state| state.close_connection(self.id, EndReason::ClientClosed));
        // For one that was closed before.
        self.link.end(EndReason::ClientClosed);
        self.link.forget();
        self.link.delivered(usize::MAX);
    }
}

/// State shared by the two ends of a connection and the multiplexer.
#[derive(Debug)]
pub(crate) struct Link {
    account: Account,
    gate: Arc<Gate>,
    reason: OnceLock<EndReason>,
    queue: Mutex<Queue>,
    /// Bytes of the client that wait for Chromium.
    unsent: AtomicUsize,
    /// Bytes that have come in of a message of the client's.
    receiving: AtomicUsize,
    /// There is room for more of the client's, or the end has come.
    room: Notify,
    /// Everything of it must go.
    leaving: AtomicBool,
}

/// Messages that wait for a client.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    /// Bytes that the client has not taken, those on their way to it included.
    waiting: usize,
    /// It is more than the connection's share, and the gate knows.
    over: bool,
    /// Nothing comes any more.
    closed: bool,
    /// Whoever waits for the next message.
    reader: Option<Waker>,
}

/// The connection takes no more messages.
pub(crate) struct Closed;

impl Link {
    pub(crate) fn new(gate: &Arc<Gate>, budget: &Budget) -> Arc<Self> {
        let link = Arc::new(Self {
            account: Account::new(budget.clone()),
            gate: Arc::clone(gate),
            reason: OnceLock::new(),
            queue: Mutex::default(),
            unsent: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
            room: Notify::new(),
            leaving: AtomicBool::new(false),
        });
        let weak: Weak<dyn Holder> = Arc::downgrade(&link) as _;
        budget.join(weak);
        budget.connected();
        gate.enter();
        link
    }

    /// Ends the connection; the first reason counts. What waits for a client that does not read is
    /// forgotten.
    pub(crate) fn end(&self, reason: EndReason) {
        let reason = *self.reason.get_or_init(|| reason);
        let mut queue = self.queue();
        let first = !std::mem::replace(&mut queue.closed, true);
        let was_over = std::mem::take(&mut queue.over);
        let reader = queue.reader.take();
        drop(queue);
        if first {
            self.account.budget().disconnected();
            // In this order, so that the gate is not open for a moment in between.
            self.gate.leave();
            if was_over {
                self.gate.one_less();
            }
        }
        if reason == EndReason::SlowReader {
            self.forget();
        }
        if let Some(reader) = reader {
            reader.wake();
        }
        self.room.notify_waiters();
    }

    /// Returns why it has ended, if it has.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// Queues a message for the client. Where the budget is spent by it, this connection may be
    /// the one that is cut.
    pub(crate) fn push(&self, message: Bytes) -> Result<(), Closed> {
        let bytes = message.len() + OVERHEAD;
        self.account.add(bytes);
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            self.account.sub(bytes);
            return Err(Closed);
        }
        queue.messages.push_back(message);
        queue.waiting += bytes;
        if !queue.over && queue.waiting >= LARGE && queue.waiting > self.account.budget().share() {
            queue.over = true;
            self.gate.one_over();
        }
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Gives messages out until they have `limit` bytes; how many bytes count for them.
    pub(crate) fn take(&self, limit: usize, each: impl FnMut(Bytes)) -> usize {
        Self::take_from(&mut self.queue(), limit, each)
    }

    fn take_from(queue: &mut Queue, limit: usize, mut each: impl FnMut(Bytes)) -> usize {
        let mut bytes = 0;
        while bytes < limit
            && let Some(message) = queue.messages.pop_front()
        {
            bytes += message.len() + OVERHEAD;
            each(message);
        }
        queue.tidy();
        bytes
    }

    fn poll_take(
        &self,
        cx: &mut Context<'_>,
        limit: usize,
        each: impl FnMut(Bytes),
    ) -> Poll<usize> {
        let mut queue = self.queue();
        if queue.messages.is_empty() {
            if queue.closed {
                return Poll::Ready(0);
            }
            if queue.reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
                queue.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(Self::take_from(&mut queue, limit, each))
    }

    /// Messages that were given out have reached the client, or never will.
    fn delivered(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut queue = self.queue();
        let bytes = bytes.min(queue.waiting);
        queue.waiting -= bytes;
        let less = queue.over && queue.waiting <= self.account.budget().share();
        queue.over &= !less;
        drop(queue);
        self.account.sub(bytes);
        if less {
            self.gate.one_less();
        }
    }

    /// Forgets what was not given out.
    fn forget(&self) {
        let mut bytes = 0;
        let mut queue = self.queue();
        let messages = std::mem::take(&mut queue.messages);
        drop(queue);
        for message in &messages {
            bytes += message.len() + OVERHEAD;
        }
        drop(messages);
        self.delivered(bytes);
    }

    /// The client has sent this much.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Relaxed);
        self.account.add(bytes);
    }

    /// The writer has taken this much.
    pub(crate) fn taken(&self, bytes: usize) {
        self.account.sub(bytes);
        self.unsent.fetch_sub(bytes, Relaxed);
        if self.has_room() {
            self.room.notify_waiters();
        }
    }

    fn has_room(&self) -> bool {
        self.unsent.load(Relaxed) < UNSENT_LIMIT
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // For one that no connection was made of.
        self.end(EndReason::Released);
    }
}

impl Holder for Link {
    fn account(&self) -> &Account {
        &self.account
    }

    fn standing(&self) -> Standing {
        if self.leaving.load(Relaxed) {
            Standing::Leaving
        } else if self.reason.get().is_some() {
            Standing::Cut
        } else {
            Standing::Open
        }
    }

    fn give_way(&self) {
        if self.standing() == Standing::Open {
            self.end(EndReason::SlowReader);
        } else {
            self.leaving.store(true, Relaxed);
        }
    }
}

impl Queue {
    /// Gives the room of a long queue back when it is empty.
    fn tidy(&mut self) {
        if self.messages.is_empty() && self.messages.capacity() > ROOM {
            self.messages = VecDeque::new();
        }
    }
}
