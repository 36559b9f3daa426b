//! Frames on the pipe: JSON texts, each ended by a NUL, and their sessions, found without parsing.
//!
//! `sessionId` is always the last member of what Chromium sends, so the last 48 bytes show which
//! session a message is for. A root message can never end like that: its last member is an object,
//! so it ends in `}}`. Each Chromium is checked for this when it starts (see `Assumptions` in
//! `state`).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::budget::{Account, Budget, Holder, Standing};
use super::target::SessionId;

/// Number of bytes read at once, and the size from which a frame is not copied out of the read
/// buffer.
const CHUNK: usize = 64 * 1024;

/// Size from which a frame is read into [`ROOM`].
const LARGE: usize = 256 * 1024;

/// Room for a large frame. From 32 MiB on, glibc maps memory for each allocation, grows it without
/// copying, and unmaps it at once. Pages that nothing is written to cost nothing.
const ROOM: usize = 64 * 1024 * 1024;

/// Number of bytes that are kept of the end of a dropped frame, where its session is.
const END: usize = 64;

/// The memory of a large frame, which is returned to the system when it is dropped.
///
/// When glibc unmaps an allocation below 32 MiB, it takes the size for usual, and from then on
/// keeps up to twice as much in reserve. So none of that size is unmapped: it first grows beyond
/// it, in address space only.
struct Large(Vec<u8>);

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        // If the system has no room even for addresses, it is unmapped as it is.
        let _ = self.0.try_reserve_exact(ROOM.saturating_sub(self.0.len()));
    }
}

/// Wraps a message to be passed on, so that the memory of a large one is returned to the system
/// when it is dropped.
///
/// A message is large from 256 KiB on; smaller ones are left to the allocator. Nothing is copied.
#[must_use]
pub fn into_frame(bytes: Vec<u8>) -> Bytes {
    if bytes.len() < LARGE { bytes.into() } else { Bytes::from_owner(Large(bytes)) }
}

/// Splits what Chromium writes into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
    /// Position up to which the buffer has been searched for a NUL, so that a large frame is
    /// searched only once.
    searched: usize,
    /// The part of the budget that the buffer holds.
    hold: Arc<Hold>,
    /// The frame being read has no room in the budget, so only its end is kept.
    dropping: bool,
}

/// An item read from a [`FrameReader`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A whole frame, without its NUL.
    Frame(Bytes),
    /// The end of a frame that was dropped for lack of room.
    End(Bytes),
}

/// A partly received frame.
#[derive(Debug)]
struct Hold {
    account: Account,
    counted: AtomicUsize,
    must_drop: AtomicBool,
}

impl Hold {
    /// Counts the contents of the buffer; a reader that waits for small frames does not count. If
    /// that spends the budget, the worst holder has given way before this returns; it may be this
    /// one.
    fn set(&self, bytes: usize) {
        let bytes = if bytes < CHUNK { 0 } else { bytes };
        let before = self.counted.swap(bytes, Relaxed);
        if bytes > before {
            self.account.add_with_room(bytes - before);
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

    /// The reader checks for itself what it was told.
    fn tell(&self) {}
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

    /// Waits for bytes, once all frames in the buffer are taken. Returns `false` at the end of the
    /// stream.
    ///
    /// Must not be called under a lock, since what is left in the buffer may spend the budget.
    ///
    /// Cancel safe: bytes are either in the buffer or still in the pipe.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.keep_part();
        if self.buffer.len() >= LARGE && self.buffer.capacity() < ROOM {
            self.renew(0, ROOM);
        }
        self.buffer.reserve(CHUNK);
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }

    /// Returns the next whole frame in the buffer.
    pub(crate) fn next_frame(&mut self) -> Option<Taken> {
        let offset = memchr::memchr(0, &self.buffer[self.searched..])?;
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
        // What follows must not keep the memory of a large frame alive either.
        let large = self.renew(end + 1, CHUNK);
        let mut frame = Vec::from(large);
        frame.truncate(end);
        frame.shrink_to_fit();
        self.hold.set(0);
        Some(Taken::Frame(into_frame(frame)))
    }

    /// Keeps the part of a frame that is in the buffer, or only its end if there is no room.
    fn keep_part(&mut self) {
        let held = self.buffer.len();
        if !self.dropping && held >= CHUNK {
            if self.hold.counted.load(Relaxed) == 0 {
                // A request to drop an earlier frame does not apply to this one.
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

    /// Continues in fresh memory of this capacity, leaving out the first `without` bytes; returns
    /// the old memory.
    fn renew(&mut self, without: usize, capacity: usize) -> BytesMut {
        let rest = &self.buffer[without..];
        let mut fresh = BytesMut::with_capacity(capacity.max(rest.len()));
        fresh.extend_from_slice(rest);
        std::mem::replace(&mut self.buffer, fresh)
    }
}

const LEAD: &[u8] = br#","sessionId":""#;
const TAIL: &[u8] = br#""}"#;
/// The length of `,"sessionId":"<32 digits>"}`.
const SUFFIX: usize = LEAD.len() + SessionId::LEN + TAIL.len();

/// Ids at or below this are the multiplexer's own.
pub(crate) const OWN_IDS_FROM: i32 = -1_000_000;

/// Returns the session that a message is for; `None` for the root session.
pub(crate) fn session_of(message: &[u8]) -> Option<SessionId> {
    let suffix = message.get(message.len().checked_sub(SUFFIX)?..)?;
    let digits = suffix.strip_prefix(LEAD)?.strip_suffix(TAIL)?;
    SessionId::from_bytes(digits)
}

/// Returns a message without its session suffix, as the root session of a client would get it.
pub(crate) fn without_session(message: &[u8]) -> Bytes {
    let body = &message[..message.len() - SUFFIX];
    let mut bare = Vec::with_capacity(body.len() + 1);
    bare.extend_from_slice(body);
    bare.push(b'}');
    into_frame(bare)
}

/// Returns the id of a reply to a command of the multiplexer's own; `None` for everything else.
pub(crate) fn own_reply(message: &[u8]) -> Option<i32> {
    let rest = message.strip_prefix(br#"{"id":-"#)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let digits = std::str::from_utf8(&rest[..end]).expect("digits are ASCII");
    let id = digits.parse::<i64>().ok()?.checked_neg()?;
    i32::try_from(id).ok().filter(|id| *id <= OWN_IDS_FROM)
}

/// Returns `true` if a message is an answer: an event has no id.
pub(crate) fn is_reply(message: &[u8]) -> bool {
    message.starts_with(br#"{"id":"#)
}

/// Returns the same message with its session at the end, for a Chromium that puts it elsewhere.
pub(crate) fn with_session_last(message: &[u8]) -> Option<Vec<u8>> {
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(message).ok()?;
    let session = members.remove("sessionId")?;
    let session = SessionId::parse(session.as_str()?)?;
    let id = members.remove("id").map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let method = members.remove("method");
    let method = method.map(|method| format!(r#""method":{method},"#)).unwrap_or_default();
    let rest = serde_json::to_string(&members).ok()?;
    let rest = rest.strip_prefix('{')?.strip_suffix('}')?;
    Some(format!(r#"{{{id}{method}{rest},"sessionId":"{session}"}}"#).into_bytes())
}

/// Returns `true` if a message is an event of the `Target` domain: only those change what the
/// session of a page is.
pub(crate) fn is_target_event(message: &[u8]) -> bool {
    message.starts_with(br#"{"method":"Target."#)
}

/// Returns `true` if a message reports how far a document has loaded.
pub(crate) fn is_lifecycle_event(message: &[u8]) -> bool {
    message.starts_with(br#"{"method":"Page.lifecycleEvent","#)
}

/// Returns `true` if a message on a browser session must be examined by the multiplexer.
pub(crate) fn is_browser_event(message: &[u8]) -> bool {
    is_target_event(message) || message.starts_with(br#"{"method":"Browser.download"#)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

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

    const ID: &str = "7EA8539A0034C78D11E68DEDA3A7AA39";

    #[test]
    fn the_session_is_read_from_the_end() {
        let message = format!(r#"{{"id":4,"result":{{}},"sessionId":"{ID}"}}"#);
        let session = session_of(message.as_bytes()).unwrap();
        assert_eq!(session.as_str(), ID);
        assert_eq!(*without_session(message.as_bytes()), *br#"{"id":4,"result":{}}"#);
    }

    #[test]
    fn a_root_message_that_names_a_session_in_its_params_stays_a_root_message() {
        let event = format!(
            r#"{{"method":"Target.detachedFromTarget","params":{{"targetId":"T","sessionId":"{ID}"}}}}"#
        );
        assert_eq!(session_of(event.as_bytes()), None);
    }

    #[test]
    fn a_title_that_imitates_the_suffix_does_not_reroute() {
        let title = format!(r#"\",\"sessionId\":\"{ID}\"}}"#);
        let event = format!(r#"{{"method":"X.y","params":{{"title":"{title}"}}}}"#);
        assert_eq!(session_of(event.as_bytes()), None);
    }

    #[test]
    fn lower_case_and_short_ids_are_not_sessions() {
        let lower = format!(r#"{{"id":4,"result":{{}},"sessionId":"{}"}}"#, ID.to_lowercase());
        assert_eq!(session_of(lower.as_bytes()), None);
        assert_eq!(session_of(br#"{"id":4,"sessionId":"7EA8"}"#), None);
        assert_eq!(session_of(b""), None);
    }

    #[test]
    fn a_session_elsewhere_is_found_and_moved() {
        let message = format!(r#"{{"id":4,"sessionId":"{ID}","result":{{"a":1}}}}"#);
        assert_eq!(session_of(message.as_bytes()), None);
        let moved = with_session_last(message.as_bytes()).unwrap();
        assert_eq!(session_of(&moved).unwrap().as_str(), ID);
        assert_eq!(*without_session(&moved), *br#"{"id":4,"result":{"a":1}}"#);
    }

    #[test]
    fn only_ids_of_the_reserved_range_are_own() {
        assert_eq!(own_reply(br#"{"id":-1000000,"result":{}}"#), Some(-1_000_000));
        assert_eq!(own_reply(br#"{"id":-2147483648,"error":{}}"#), Some(i32::MIN));
        assert_eq!(own_reply(br#"{"id":-999999,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"id":1000000,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"id":-99999999999999999999,"result":{}}"#), None);
        assert_eq!(own_reply(br#"{"method":"X.y","params":{}}"#), None);
    }
}
