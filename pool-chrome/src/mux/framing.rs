//! Frames on the pipe: JSON texts, each ended by a NUL.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::budget::{Account, Budget, Holder, Standing};

/// Bytes read at once, and the size from which a frame is not copied out of the read buffer.
const CHUNK: usize = 64 * 1024;

/// Size from which a frame is read into [`ROOM`].
const LARGE: usize = 256 * 1024;

/// Room for a large frame. From 32 MiB on, glibc maps memory for each allocation, grows it without
/// copying, and unmaps it at once; what is smaller it keeps, about 50 MiB after many frames of a few
/// megabytes. Pages that nothing is written to cost nothing.
const ROOM: usize = 64 * 1024 * 1024;

/// How much is kept of the end of a frame that is dropped: its session stands there.
const END: usize = 64;

/// Splits what Chromium writes into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
    /// Position up to which the buffer has been searched for a NUL, so that a large frame is searched once.
    searched: usize,
    /// What the buffer has of the budget.
    hold: Arc<Hold>,
    /// The frame that is being read has no room in the budget: only its end is kept.
    dropping: bool,
}

/// Item read from a [`FrameReader`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A whole frame, without its NUL.
    Frame(Bytes),
    /// The end of a frame that was dropped for want of room.
    End(Bytes),
}

/// A frame that has come in part.
#[derive(Debug)]
struct Hold {
    account: Account,
    counted: AtomicUsize,
    must_drop: AtomicBool,
}

impl Hold {
    /// Counts what is in the buffer; a reader that waits for small frames does not count.
    fn set(&self, bytes: usize) {
        let bytes = if bytes < CHUNK { 0 } else { bytes };
        let before = self.counted.swap(bytes, Relaxed);
        if bytes > before {
            self.account.add(bytes - before);
        } else {
            self.account.sub(before - bytes);
        }
    }
}

impl Holder for Hold {
    fn account(&self) -> &Account {
        &self.account
    }

    fn standing(&self) -> Standing {
        if self.must_drop.load(Relaxed) { Standing::Leaving } else { Standing::Open }
    }

    fn give_way(&self) {
        self.must_drop.store(true, Relaxed);
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(reader: R, budget: &Budget) -> Self {
        let hold = Arc::new(Hold {
            account: Account::new(budget.clone()),
            counted: AtomicUsize::new(0),
            must_drop: AtomicBool::new(false),
        });
        let weak: Weak<dyn Holder> = Arc::downgrade(&hold) as _;
        budget.join(weak);
        let buffer = BytesMut::with_capacity(CHUNK);
        Self { reader, buffer, searched: 0, hold, dropping: false }
    }

    /// Waits for bytes. `false` at the end of the stream.
    ///
    /// Cancel safe: bytes are either in the buffer or still in the pipe.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.len() >= LARGE && self.buffer.capacity() < ROOM {
            self.renew(0, ROOM);
        }
        self.buffer.reserve(CHUNK);
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next whole frame in the buffer.
    pub(crate) fn next_frame(&mut self) -> Option<Taken> {
        let Some(offset) = memchr::memchr(0, &self.buffer[self.searched..]) else {
            self.keep_part();
            return None;
        };
        let end = self.searched + offset;
        self.searched = 0;
        if std::mem::take(&mut self.dropping) {
            let from = end.saturating_sub(END);
            let kept = Bytes::copy_from_slice(&self.buffer[from..end]);
            self.buffer.advance(end + 1);
            return Some(Taken::End(kept));
        }
        // A small frame in a client's queue must not keep a whole read buffer alive.
        if end < CHUNK {
            let frame = Bytes::copy_from_slice(&self.buffer[..end]);
            self.buffer.advance(end + 1);
            return Some(Taken::Frame(frame));
        }
        // Nor may what follows keep the memory of a large one.
        let large = self.renew(end + 1, CHUNK);
        let mut frame = Vec::from(large);
        frame.truncate(end);
        frame.shrink_to_fit();
        self.hold.set(0);
        Some(Taken::Frame(frame.into()))
    }

    /// Keeps the part of a frame that is in the buffer, or only its end if there is no room.
    fn keep_part(&mut self) {
        let held = self.buffer.len();
        if !self.dropping && held >= CHUNK {
            if self.hold.counted.load(Relaxed) == 0 {
                // What was asked of an earlier frame is not asked of this one.
                self.hold.must_drop.store(false, Relaxed);
            }
            self.hold.set(held);
            let spent = held > self.hold.account.budget().limit();
            self.dropping = self.hold.must_drop.swap(false, Relaxed) || spent;
        }
        if self.dropping && held > END {
            self.renew(held - END, CHUNK);
            self.hold.set(0);
        }
        self.searched = self.buffer.len();
    }

    /// Goes on in fresh memory of this capacity, without so many of the first bytes; returns the
    /// old.
    fn renew(&mut self, without: usize, capacity: usize) -> BytesMut {
        let rest = &self.buffer[without..];
        let mut fresh = BytesMut::with_capacity(capacity.max(rest.len()));
        fresh.extend_from_slice(rest);
        std::mem::replace(&mut self.buffer, fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn read_all(sent: Vec<Vec<u8>>, budget: &Budget) -> Vec<Taken> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let writer = tokio::spawn(async move {
            for bytes in sent {
                theirs.write_all(&bytes).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(ours, budget);
        let mut taken = Vec::new();
        while reader.fill().await.unwrap() {
            taken.extend(std::iter::from_fn(|| reader.next_frame()));
        }
        writer.await.unwrap();
        assert!(reader.buffer.capacity() <= 4 * CHUNK, "it keeps {}", reader.buffer.capacity());
        taken
    }

    #[tokio::test]
    async fn a_frame_without_room_is_dropped_but_for_its_end() {
        let budget = Budget::new(1 << 20);
        let large = [vec![b'x'; 3 << 20], b"the end\0".to_vec()].concat();
        let taken = read_all(vec![b"before\0".to_vec(), large, b"after\0".to_vec()], &budget).await;
        let [Taken::Frame(before), Taken::End(end), Taken::Frame(after)] = &taken[..] else {
            panic!("{} were taken", taken.len())
        };
        assert_eq!((&before[..], &after[..]), (&b"before"[..], &b"after"[..]));
        assert!(end.ends_with(b"xthe end") && end.len() == END);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn frames_are_whole_however_they_arrive() {
        let (ours, mut theirs) = tokio::io::duplex(7);
        let large = "x".repeat(200_000);
        let sent = [String::new(), "{}".to_owned(), large, "last".to_owned()];
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            for frame in sent {
                theirs.write_all(frame.as_bytes()).await.unwrap();
                theirs.write_all(b"\0").await.unwrap();
            }
            theirs.write_all(b"cut off").await.unwrap();
        });
        let mut reader = FrameReader::new(ours, &Budget::default());
        let mut frames = Vec::new();
        while reader.fill().await.unwrap() {
            while let Some(frame) = reader.next_frame() {
                let Taken::Frame(frame) = frame else { panic!("{frame:?} was dropped") };
                frames.push(String::from_utf8(frame.to_vec()).unwrap());
            }
        }
        writer.await.unwrap();
        assert_eq!(frames, expected);
    }
}
