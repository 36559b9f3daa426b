//! The two queues between a client and its Chromium: messages for the client, frames for Chromium.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;

use super::EndReason;
use super::budget::{Account, Budget, Gate, Holder, Standing};

/// Number of bytes of one connection that may wait to be written to Chromium before its
/// [`send`](ConnectionSender::send) waits.
const UNSENT_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes that a waiting message takes in addition to its own.
const OVERHEAD: usize = 64;

/// Capacity above which a queue is not kept when it is empty.
const ROOM: usize = 1024;

/// State shared by the two ends of a connection and the multiplexer.
#[derive(Debug)]
pub(crate) struct Link {
    account: Account,
    gate: Arc<Gate>,
    reason: OnceLock<EndReason>,
    queue: Mutex<Queue>,
    /// Bytes of the client that wait for Chromium.
    unsent: AtomicUsize,
    /// Bytes that have arrived of a message that the client is sending.
    receiving: AtomicUsize,
    /// Notified when the client may send more, or when the end has come.
    room: Notify,
    /// Everything of it must be dropped.
    leaving: AtomicBool,
}

/// Messages that wait for a client.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    /// Bytes that the client has not taken, including those on their way to it.
    waiting: usize,
    /// It exceeds the connection's share, and the gate knows.
    over: bool,
    /// Nothing more comes.
    closed: bool,
    /// The reader that waits for the next message.
    reader: Option<Waker>,
}

/// Work that a message leaves for after the locks are released.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// The waker of the reader that waits for it.
    pub(crate) reader: Option<Waker>,
    /// The message has spent the budget: [room](Budget::make_room) must be made.
    pub(crate) spent: bool,
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

    /// Ends the connection; the first reason counts. Messages waiting for a client that does not
    /// read are forgotten.
    pub(crate) fn end(&self, reason: EndReason) {
        self.close(reason);
        self.tell();
    }

    /// Ends the connection as [`end`](Self::end) does, but wakes nobody: [`tell`](Holder::tell)
    /// must be called once no lock is held.
    pub(crate) fn close(&self, reason: EndReason) {
        let reason = *self.reason.get_or_init(|| reason);
        let mut queue = self.queue();
        let first = !std::mem::replace(&mut queue.closed, true);
        let was_over = std::mem::take(&mut queue.over);
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
    }

    /// Returns why it has ended, if it has.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// Queues a message for the client.
    pub(crate) fn push(&self, message: Bytes) -> Result<Pushed, Closed> {
        let bytes = message.len() + OVERHEAD;
        let mut queue = self.queue();
        if queue.closed {
            return Err(Closed);
        }
        queue.messages.push_back(message);
        queue.waiting += bytes;
        // Before the client can take it.
        let spent = self.account.add(bytes);
        if !queue.over && queue.waiting >= LARGE && queue.waiting > self.account.budget().share() {
            queue.over = true;
            self.gate.one_over();
        }
        Ok(Pushed { reader: queue.reader.take(), spent })
    }

    /// Gives out messages up to `limit` bytes; returns how many bytes they count for.
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

    pub(super) fn poll_take(
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

    /// Notes that messages that were given out have reached the client, or never will.
    pub(super) fn delivered(&self, bytes: usize) {
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
            self.gate.tell();
        }
    }

    /// Forgets messages that have not been given out.
    pub(super) fn forget(&self) {
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

    /// Counts bytes that the client has sent. Returns `true` if that has spent the budget.
    fn sent(&self, bytes: usize) -> bool {
        self.unsent.fetch_add(bytes, Relaxed);
        self.account.add(bytes)
    }

    /// Records how much of the message that the client is sending has arrived.
    pub(super) fn receiving(&self, bytes: usize) {
        let before = self.receiving.swap(bytes, Relaxed);
        if bytes > before {
            self.account.add_with_room(bytes - before);
        } else {
            self.account.sub(before - bytes);
        }
    }

    /// Waits until the client may send more.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    pub(super) async fn room(&self) -> Result<(), EndReason> {
        loop {
            let room = self.room.notified();
            if let Some(reason) = self.reason() {
                return Err(reason);
            }
            if self.has_room() {
                return Ok(());
            }
            room.await;
        }
    }

    /// Notes that the writer has taken this many bytes. Returns `true` if there is room again, in
    /// which case [`tell_room`](Self::tell_room) must be called once no lock is held; as long as
    /// there is room, nobody waits.
    fn taken(&self, bytes: usize) -> bool {
        self.account.sub(bytes);
        let before = self.unsent.fetch_sub(bytes, Relaxed);
        before >= UNSENT_LIMIT && before - bytes < UNSENT_LIMIT
    }

    /// Wakes those who wait to send more.
    pub(crate) fn tell_room(&self) {
        self.room.notify_waiters();
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
        // For a link without a connection. If nobody holds it, nobody waits for it.
        self.close(EndReason::Released);
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
            self.close(EndReason::SlowReader);
        } else {
            self.leaving.store(true, Relaxed);
        }
    }

    fn tell(&self) {
        let reader = self.queue().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
        self.room.notify_waiters();
        self.gate.tell();
    }
}

impl Queue {
    /// Releases the memory of a long queue when it is empty.
    fn tidy(&mut self) {
        if self.messages.is_empty() && self.messages.capacity() > ROOM {
            self.messages = VecDeque::new();
        }
    }
}

/// The size from which a frame is written from where it is instead of being copied into a batch.
pub(crate) const LARGE: usize = 64 * 1024;

/// A frame for Chromium, with its NUL.
#[derive(Debug)]
pub(crate) struct Frame {
    head: Vec<u8>,
    /// Part of what a client sent, as it came in. Empty in most frames.
    body: Bytes,
    tail: Vec<u8>,
}

impl From<Vec<u8>> for Frame {
    fn from(head: Vec<u8>) -> Self {
        Self { head, body: Bytes::new(), tail: Vec::new() }
    }
}

impl Frame {
    /// Returns a frame around bytes of a client, which are not copied.
    pub(crate) fn around(head: Vec<u8>, body: Bytes, tail: Vec<u8>) -> Self {
        Self { head, body, tail }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        [&self.head, &self.body, &self.tail]
    }
}

/// Commands that wait to be written to Chromium, our own before those of clients.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    own: VecDeque<Vec<u8>>,
    clients: VecDeque<Queued>,
}

/// A frame that keeps its place among those of clients.
#[derive(Debug)]
enum Queued {
    Client(Arc<Link>, Frame),
    Own(Vec<u8>),
}

/// A large frame on its way to Chromium. Its bytes count as unsent until it is dropped.
#[derive(Debug)]
pub(crate) struct LargeFrame {
    link: Arc<Link>,
    frame: Option<Frame>,
}

impl LargeFrame {
    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        self.frame.as_ref().map_or([&[]; 3], Frame::parts)
    }
}

impl Drop for LargeFrame {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            let bytes = frame.len();
            // Dropped before it is reported as gone.
            drop(frame);
            if self.link.taken(bytes) {
                self.link.tell_room();
            }
        }
    }
}

impl Outbox {
    pub(crate) fn push_own(&mut self, frame: Vec<u8>) {
        self.own.push_back(frame);
    }

    /// Queues a client's frame, whose bytes count as unsent until the writer takes them. Returns
    /// `true` if that has spent the budget.
    #[must_use = "room must be made once no lock is held"]
    pub(crate) fn push_client(&mut self, link: &Arc<Link>, frame: Frame) -> bool {
        let spent = link.sent(frame.len());
        self.clients.push_back(Queued::Client(Arc::clone(link), frame));
        spent
    }

    /// Returns the number of our own commands that wait.
    pub(crate) fn own_count(&self) -> usize {
        self.own.len()
    }

    /// Moves our own commands, but for the first `kept`, behind everything that a client has sent.
    pub(crate) fn put_behind(&mut self, link: &Arc<Link>, kept: usize) {
        let is_its =
            |queued: &Queued| matches!(queued, Queued::Client(of, _) if Arc::ptr_eq(of, link));
        if self.clients.iter().any(is_its) {
            self.clients.extend(self.own.drain(kept..).map(Queued::Own));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.clients.is_empty()
    }

    /// Moves frames to `batch` until it holds `limit` bytes: all of our own, then those of clients,
    /// and what was put behind them, in the order in which they came. Small batches keep ours from
    /// waiting behind a client's flood.
    ///
    /// A large frame ends the batch and is returned, to be written after it. `roomy` is called with
    /// each link that has [room](Link::tell_room) again.
    pub(crate) fn take(
        &mut self,
        batch: &mut Vec<u8>,
        limit: usize,
        mut roomy: impl FnMut(Arc<Link>),
    ) -> Option<LargeFrame> {
        for frame in self.own.drain(..) {
            batch.extend_from_slice(&frame);
        }
        while batch.len() < limit {
            let (link, frame) = match self.clients.pop_front() {
                Some(Queued::Client(link, frame)) => (link, frame),
                Some(Queued::Own(frame)) => {
                    batch.extend_from_slice(&frame);
                    continue;
                }
                None => break,
            };
            if frame.len() >= LARGE {
                return Some(LargeFrame { link, frame: Some(frame) });
            }
            for part in frame.parts() {
                batch.extend_from_slice(part);
            }
            if link.taken(frame.len()) {
                roomy(link);
            }
        }
        if self.clients.is_empty() && self.clients.capacity() > ROOM {
            self.clients = VecDeque::new();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_frames_overtake_those_of_clients() {
        let mut outbox = Outbox::default();
        let link = Link::new(&Arc::default(), &crate::mux::Budget::default());
        let _ = outbox.push_client(&link, b"client 1,".to_vec().into());
        outbox.push_own(b"own,".to_vec());
        let _ = outbox.push_client(&link, b"client 2,".to_vec().into());
        let mut batch = Vec::new();
        outbox.take(&mut batch, 10, drop);
        assert_eq!(batch, b"own,client 1,");
        outbox.take(&mut batch, 100, drop);
        assert!(batch.ends_with(b"client 2,") && outbox.is_empty());
    }

    #[test]
    fn a_large_frame_is_not_copied_and_keeps_its_place() {
        let mut outbox = Outbox::default();
        let link = Link::new(&Arc::default(), &crate::mux::Budget::default());
        let body = Bytes::from(vec![b'x'; LARGE]);
        let at = body.as_ptr();
        let _ = outbox.push_client(&link, b"first,".to_vec().into());
        let _ = outbox.push_client(&link, Frame::around(b"<".to_vec(), body, b">".to_vec()));
        let _ = outbox.push_client(&link, b"last".to_vec().into());
        let mut batch = Vec::new();
        let large = outbox.take(&mut batch, usize::MAX, drop).expect("it is large");
        assert_eq!(batch, b"first,");
        assert_eq!(large.parts()[1].as_ptr(), at);
        assert_eq!(large.parts().map(<[u8]>::len), [1, LARGE, 1]);
        drop(large);
        assert!(outbox.take(&mut batch, usize::MAX, drop).is_none());
        assert_eq!(batch, b"first,last");
    }
}
