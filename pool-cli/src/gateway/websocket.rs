//! The server's end of a client's WebSocket (RFC 6455), with no extension.
//!
//! It is our own so that its memory is too: a large message is received and sent in place, in
//! memory of its own that is freed with it, and it is known to the byte how much of a frame the
//! client has taken.

use std::io;
use std::time::Duration;

use pool_chrome::mux::into_frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Maximum length of a client's message. Chromium itself drops a WebSocket at a command of about
/// 100 MB, so nothing that works without the pool fails here.
pub(super) const MAX_MESSAGE: usize = 100 * 1024 * 1024;

/// Number of bytes read at once.
const READ: usize = 32 * 1024;

/// Size from which a message is read into [`ROOM`].
const LARGE: usize = 256 * 1024;

/// Room for a large message, which glibc maps separately, grows without copying and unmaps at once.
const ROOM: usize = 64 * 1024 * 1024;

/// Number of bytes written at once, and the size from which a message is not copied.
pub(super) const BATCH: usize = 64 * 1024;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The bit of the first byte that marks the last frame of a message.
const FINAL: u8 = 0x80;

/// Message from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A message.
    Text(Utf8Bytes),
    /// This many bytes of a large message have arrived.
    Part(usize),
    /// Must be answered with a [pong](Writer::pong).
    Ping(Vec<u8>),
    Pong,
    /// With the code, to be [answered](Writer::close) with the same code.
    Close(Option<u16>),
}

/// Reasons why nothing more can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection broke off.
    Gone,
    /// A message is longer than [`MAX_MESSAGE`].
    TooLong,
    /// A message is not text.
    NotText,
    /// The rules of WebSocket are broken, or a text is not UTF-8.
    BadFrame,
}

/// The direction from a client.
#[derive(Debug)]
pub(super) struct Reader<R> {
    io: R,
    buffer: Vec<u8>,
    /// Number of bytes of the buffer that have been used up.
    used: usize,
    /// The frame whose payload is being received.
    frame: Option<Head>,
    /// The part received so far of a message in several frames, or in one that is large.
    message: Option<Vec<u8>>,
    /// Number of payload bytes that have yet to be discarded.
    skip: u64,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_final: bool,
    opcode: u8,
    length: usize,
    mask: [u8; 4],
    /// Number of payload bytes that have already gone into the message.
    have: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Creates a reader; `read` are the bytes that came after the handshake.
    pub(super) fn new(io: R, read: Vec<u8>) -> Self {
        Self { io, buffer: read, used: 0, frame: None, message: None, skip: 0 }
    }

    /// Returns the next thing that the client sends.
    ///
    /// # Errors
    ///
    /// A [`Fault`], after which only [`discard`](Self::discard) makes sense.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Received, Fault> {
        loop {
            let head = match self.frame {
                Some(head) => head,
                None => match self.head()? {
                    Some(head) => *self.frame.insert(head),
                    None => {
                        self.fill().await?;
                        continue;
                    }
                },
            };
            let whole = self.message.is_none() && head.length <= BATCH && head.is_final;
            if whole || is_control(head.opcode) {
                if self.buffered().len() < head.length {
                    self.fill().await?;
                    continue;
                }
                self.frame = None;
                let mut payload = self.buffered()[..head.length].to_vec();
                self.used += head.length;
                unmask(&mut payload, head.mask, 0);
                return received(head.opcode, payload);
            }
            if let Some(received) = self.collect(head).await? {
                return Ok(received);
            }
        }
    }

    /// Moves the available part of a payload into the message.
    async fn collect(&mut self, head: Head) -> Result<Option<Received>, Fault> {
        let left = head.length - head.have;
        // A length that is merely claimed takes no memory: pages that are never touched do not
        // exist.
        let message = self.message.get_or_insert_default();
        if message.is_empty() {
            let room = if head.length < LARGE { head.length } else { head.length.max(ROOM) };
            message.reserve_exact(room);
        }
        let from = message.len();
        let buffered = &self.buffer[self.used..];
        if buffered.is_empty() && left > 0 {
            let mut rest = (&mut self.io).take(left as u64);
            let read = rest.read_buf(message).await.map_err(|_| Fault::Gone)?;
            if read == 0 {
                return Err(Fault::Gone);
            }
        } else {
            let part = &buffered[..left.min(buffered.len())];
            message.extend_from_slice(part);
            self.used += part.len();
        }
        let came = message.len() - from;
        unmask(&mut message[from..], head.mask, head.have);
        if came < left {
            self.frame = Some(Head { have: head.have + came, ..head });
            return Ok(Some(Received::Part(message.len())));
        }
        self.frame = None;
        if !head.is_final {
            return Ok(None);
        }
        let mut message = self.message.take().unwrap_or_default();
        message.shrink_to_fit();
        received(TEXT, message).map(Some)
    }

    /// Reads the head of a frame, if it is there.
    fn head(&mut self) -> Result<Option<Head>, Fault> {
        let Some((head, size)) = parse_head(self.buffered())? else { return Ok(None) };
        self.used += size;
        let before = self.message.as_ref().map(Vec::len);
        match head.opcode {
            TEXT | CONTINUATION if before.is_some() != (head.opcode == CONTINUATION) => {
                self.skip = head.length as u64;
                Err(Fault::BadFrame)
            }
            TEXT | CONTINUATION if head.length > MAX_MESSAGE - before.unwrap_or(0) => {
                self.skip = head.length as u64;
                Err(Fault::TooLong)
            }
            BINARY => {
                self.skip = head.length as u64;
                Err(Fault::NotText)
            }
            _ => Ok(Some(head)),
        }
    }

    /// Discards what the client sends, until it closes or is gone.
    ///
    /// If a socket is closed with bytes unread, its connection is reset, and the reset overtakes
    /// what was written last: the close frame.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn discard(&mut self, mut each: impl FnMut()) {
        self.message = None;
        if let Some(head) = self.frame.take() {
            self.skip = (head.length - head.have) as u64;
        }
        loop {
            let there = self.buffered().len();
            let skipped = there.min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.used += skipped;
            self.skip -= skipped as u64;
            if self.skip == 0 {
                match parse_head(self.buffered()) {
                    Ok(Some((head, _))) if head.opcode == CLOSE => return,
                    Ok(Some((head, size))) => {
                        self.used += size;
                        self.skip = head.length as u64;
                        continue;
                    }
                    Ok(None) => {}
                    // From here on these are not frames any more.
                    Err(_) => self.skip = u64::MAX,
                }
            }
            if self.fill().await.is_err() {
                return;
            }
            each();
        }
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Reads more after the contents of the buffer.
    async fn fill(&mut self) -> Result<(), Fault> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        if self.buffer.is_empty() {
            self.buffer.shrink_to(2 * READ);
        }
        self.buffer.reserve(READ);
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Fault::Gone),
            Ok(_) => Ok(()),
        }
    }
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// Returns the head of a frame and its length; `None` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Fault> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (is_final, opcode) = (first & FINAL != 0, first & 0x0F);
    // Reserved bits belong to extensions, and clients must mask.
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(Fault::BadFrame);
    }
    let short = usize::from(second & 0x7F);
    let extended: usize = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
    if !known || is_control(opcode) && (!is_final || short > 125) {
        return Err(Fault::BadFrame);
    }
    let size = 2 + extended + 4;
    let Some(head) = bytes.get(2..size) else { return Ok(None) };
    let (length, mask) = head.split_at(extended);
    let length = match extended {
        0 => short as u64,
        _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if length > u64::MAX / 2 {
        return Err(Fault::BadFrame);
    }
    let length = usize::try_from(length).map_err(|_| Fault::TooLong)?;
    let mask = mask.try_into().expect("it was cut to four bytes");
    Ok(Some((Head { is_final, opcode, length, mask, have: 0 }, size)))
}

/// Removes the mask, starting at this offset in the payload.
fn unmask(payload: &mut [u8], mut mask: [u8; 4], from: usize) {
    mask.rotate_left(from % 4);
    let key = u64::from(u32::from_ne_bytes(mask));
    let key = key | key << 32;
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let bytes: [u8; 8] = (&*word).try_into().expect("it has eight bytes");
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ key).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn received(opcode: u8, payload: Vec<u8>) -> Result<Received, Fault> {
    match opcode {
        PING => Ok(Received::Ping(payload)),
        PONG => Ok(Received::Pong),
        CLOSE => match *payload {
            [] => Ok(Received::Close(None)),
            [_] => Err(Fault::BadFrame),
            [high, low, ref reason @ ..] => {
                let code = u16::from_be_bytes([high, low]);
                if !CloseCode::from(code).is_allowed() || std::str::from_utf8(reason).is_err() {
                    return Err(Fault::BadFrame);
                }
                Ok(Received::Close(Some(code)))
            }
        },
        _ => {
            let text = Utf8Bytes::try_from(into_frame(payload)).map_err(|_| Fault::BadFrame)?;
            Ok(Received::Text(text))
        }
    }
}

/// The direction to a client.
#[derive(Debug)]
pub(super) struct Writer<W> {
    io: W,
    /// Complete frames, or the head of the large one at their end.
    out: Vec<u8>,
    /// Number of bytes of `out` that the client has taken.
    sent: usize,
    /// The payload of a large frame, and how much of it the client has taken.
    large: Option<(Utf8Bytes, usize)>,
    /// Frames that wait for the end of the large one.
    behind: Vec<u8>,
    /// Time at which the client last took something, or we began to wait for it.
    taken_at: Instant,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(io: W) -> Self {
        let taken_at = Instant::now();
        Self { io, out: Vec::new(), sent: 0, large: None, behind: Vec::new(), taken_at }
    }

    /// Queues a message. [Flush](Self::flush) first if it [is full](Self::is_full).
    pub(super) fn text(&mut self, message: Utf8Bytes) {
        push_head(&mut self.out, TEXT, message.len());
        if message.len() >= BATCH {
            self.large = Some((message, 0));
        } else {
            self.out.extend_from_slice(message.as_bytes());
        }
    }

    pub(super) fn ping(&mut self) {
        self.control(PING, &[]);
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.control(PONG, payload);
    }

    /// Queues the close frame, which is the last one. The reason has at most 123 bytes.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str) {
        let mut payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
        payload.extend_from_slice(reason.as_bytes());
        self.control(CLOSE, &payload);
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) {
        let at = if self.large.is_some() { &mut self.behind } else { &mut self.out };
        push_head(at, opcode, payload.len());
        at.extend_from_slice(payload);
    }

    /// Returns `true` if the queue must be flushed before there is room for more.
    pub(super) fn is_full(&self) -> bool {
        self.large.is_some() || self.out.len() >= BATCH
    }

    /// Returns for how long the client has taken nothing.
    pub(super) fn stalled_for(&self) -> Duration {
        self.taken_at.elapsed()
    }

    /// Starts to wait for the client from now on.
    pub(super) fn begin(&mut self) {
        self.taken_at = Instant::now();
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    ///
    /// Errors of the socket.
    ///
    /// # Cancel safety
    ///
    /// Call it again to go on.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        loop {
            while self.sent < self.out.len() {
                self.sent += written(self.io.write(&self.out[self.sent..]).await)?;
                self.taken_at = Instant::now();
            }
            self.out.clear();
            self.out.shrink_to(2 * BATCH);
            self.sent = 0;
            if let Some((payload, sent)) = &mut self.large {
                while *sent < payload.len() {
                    *sent += written(self.io.write(&payload.as_bytes()[*sent..]).await)?;
                    self.taken_at = Instant::now();
                }
                self.large = None;
            }
            if self.behind.is_empty() {
                return self.io.flush().await;
            }
            std::mem::swap(&mut self.out, &mut self.behind);
        }
    }
}

fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        result => result,
    }
}

fn push_head(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(FINAL | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
    use tokio_tungstenite::tungstenite::{Bytes, Message};

    use super::*;

    /// Around every border of the format and of the buffers.
    const SIZES: [usize; 10] =
        [0, 1, 125, 126, BATCH - 1, BATCH, BATCH + 1, 65_535, 65_536, 300_000];

    type Ends = (Reader<ReadHalf<DuplexStream>>, Writer<WriteHalf<DuplexStream>>);

    async fn pair(room: usize) -> (Ends, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(room);
        let (read, write) = split(ours);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        ((Reader::new(read, Vec::new()), Writer::new(write)), client)
    }

    fn text(length: usize) -> String {
        (0..length).map(|at| char::from(b'a' + (at % 26) as u8)).collect()
    }

    async fn next<R: AsyncRead + Unpin>(reader: &mut Reader<R>) -> Result<Received, Fault> {
        loop {
            match reader.next().await {
                Ok(Received::Part(_)) => {}
                other => return other,
            }
        }
    }

    #[tokio::test]
    async fn messages_of_every_size_arrive_whole_in_both_directions() {
        for room in [7, 1000, 1 << 20] {
            let ((mut reader, mut writer), client) = pair(room).await;
            let (mut sink, mut stream) = client.split();
            let sends = async {
                for size in SIZES {
                    sink.send(Message::text(text(size))).await.unwrap();
                }
            };
            let receives = async {
                for size in SIZES {
                    let message = next(&mut reader).await;
                    assert_eq!(message, Ok(Received::Text(text(size).into())), "{size}");
                }
            };
            let writes = async {
                for size in SIZES {
                    if writer.is_full() {
                        writer.flush().await.unwrap();
                    }
                    writer.text(text(size).into());
                    writer.pong(b"between");
                }
                writer.close(Some(1001), "bye");
                writer.flush().await.unwrap();
            };
            let reads = async {
                for size in SIZES {
                    let message = stream.next().await.unwrap().unwrap();
                    assert_eq!(message, Message::text(text(size)), "{size}");
                    let pong = stream.next().await.unwrap().unwrap();
                    assert_eq!(pong, Message::Pong(Bytes::from_static(b"between")));
                }
                let frame = CloseFrame { code: 1001.into(), reason: "bye".into() };
                assert_eq!(stream.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
            };
            tokio::join!(sends, receives);
            tokio::join!(writes, reads);
        }
    }

    #[tokio::test]
    async fn a_message_in_frames_is_put_together_and_pings_come_in_between() {
        let ((mut reader, _writer), mut client) = pair(1 << 20).await;
        let part = |text: &str, code, last| {
            Message::Frame(Frame::message(text.to_owned(), OpCode::Data(code), last))
        };
        for message in [
            part("on", Data::Text, false),
            Message::Ping(Bytes::from_static(b"there?")),
            part("", Data::Continue, false),
            part(&text(100_000), Data::Continue, false),
            part("e", Data::Continue, true),
            Message::text("another"),
            Message::Close(Some(CloseFrame { code: 1001.into(), reason: "gone".into() })),
        ] {
            client.send(message).await.unwrap();
        }
        assert_eq!(next(&mut reader).await, Ok(Received::Ping(b"there?".to_vec())));
        let whole = format!("on{}e", text(100_000));
        assert_eq!(next(&mut reader).await, Ok(Received::Text(whole.into())));
        assert_eq!(next(&mut reader).await, Ok(Received::Text("another".into())));
        assert_eq!(next(&mut reader).await, Ok(Received::Close(Some(1001))));
        drop(client);
        assert_eq!(next(&mut reader).await, Err(Fault::Gone));
    }

    #[tokio::test]
    async fn what_breaks_the_rules_is_a_fault() {
        let mask = [0; 4];
        let frame = |first: u8, second: u8, rest: &[u8]| [&[first, second], rest, &mask].concat();
        let long = |length: u64| frame(0x81, 0xFF, &length.to_be_bytes());
        for (bytes, fault) in [
            (vec![0x81, 0x01, b'x'], Fault::BadFrame),
            (frame(0xC1, 0x80, &[]), Fault::BadFrame),
            (frame(0x83, 0x80, &[]), Fault::BadFrame),
            (frame(0x8B, 0x80, &[]), Fault::BadFrame),
            (frame(0x09, 0x80, &[]), Fault::BadFrame),
            (frame(0x89, 0xFE, &[1, 0]), Fault::BadFrame),
            (frame(0x80, 0x80, &[]), Fault::BadFrame),
            (frame(0x82, 0x80, &[]), Fault::NotText),
            ([frame(0x81, 0x81, &[]), vec![0xFF]].concat(), Fault::BadFrame),
            ([frame(0x88, 0x81, &[]), vec![3]].concat(), Fault::BadFrame),
            // 1006 is never sent; a reason is text.
            ([frame(0x88, 0x82, &[]), vec![0x03, 0xEE]].concat(), Fault::BadFrame),
            ([frame(0x88, 0x83, &[]), vec![0x03, 0xE8, 0xFF]].concat(), Fault::BadFrame),
            ([frame(0x01, 0x80, &[]), frame(0x81, 0x80, &[])].concat(), Fault::BadFrame),
            (long(MAX_MESSAGE as u64 + 1), Fault::TooLong),
            (long(1 << 63), Fault::BadFrame),
            (frame(0x81, 0xFE, &[1]), Fault::Gone),
        ] {
            let mut reader = Reader::new(&bytes[..], Vec::new());
            assert_eq!(next(&mut reader).await, Err(fault), "{bytes:x?}");
        }
    }

    #[tokio::test]
    async fn frames_together_are_no_longer_than_one_may_be() {
        let head = |first: u8, length: usize| {
            [&[first, 0xFF], &(length as u64).to_be_bytes()[..], &[0; 4]].concat()
        };
        let first = [head(0x01, 10), vec![b'x'; 10]].concat();
        let mut bytes = [first, head(0x80, MAX_MESSAGE - 9)].concat();
        // What follows is thrown away up to the close frame.
        let rest = Vec::from([0; 200_000]);
        bytes.extend(&rest);
        let mut reader = Reader::new(&bytes[..], Vec::new());
        assert_eq!(next(&mut reader).await, Err(Fault::TooLong));
        let mut reads = 0;
        reader.discard(|| reads += 1).await;
        assert!(reads > 3, "{reads}");
    }

    #[tokio::test]
    async fn discarding_ends_at_the_close_frame() {
        let ((mut reader, _writer), mut client) = pair(1 << 20).await;
        for message in [Message::text(text(200_000)), Message::text("x"), Message::Close(None)] {
            client.send(message).await.unwrap();
        }
        assert_eq!(reader.next().await.map(|part| matches!(part, Received::Part(_))), Ok(true));
        reader.discard(|| ()).await;
    }

    #[test]
    fn the_mask_goes_on_where_it_was() {
        let mask = [1, 2, 3, 4];
        let mut whole = Vec::from_iter(0..=255);
        let mut parts = whole.clone();
        unmask(&mut whole, mask, 0);
        for (at, part) in [(0, 0..3), (3, 3..17), (17, 17..256)] {
            unmask(&mut parts[part], mask, at);
        }
        assert_eq!(whole, parts);
        assert_eq!(whole[..5], [1, 3, 1, 7, 5]);
    }
}
