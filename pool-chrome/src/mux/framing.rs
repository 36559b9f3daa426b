//! Frames on the pipe: JSON texts, each ended by a NUL.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once, and the size from which a frame is not copied out of the read buffer.
const CHUNK: usize = 64 * 1024;

/// Splits what Chromium writes into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
    /// How far the buffer has been searched for a NUL, so that a large frame is searched once.
    searched: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::with_capacity(CHUNK), searched: 0 }
    }

    /// Waits for bytes. `false` at the end of the stream.
    ///
    /// Cancel safe: bytes are either in the buffer or still in the pipe.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(CHUNK);
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next whole frame in the buffer, without its NUL.
    pub(crate) fn next_frame(&mut self) -> Option<Bytes> {
        let Some(offset) = memchr::memchr(0, &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + offset;
        self.searched = 0;
        let frame = self.buffer.split_to(end + 1);
        // A small frame in a client's queue must not keep a whole read buffer alive.
        Some(if end < CHUNK {
            Bytes::copy_from_slice(&frame[..end])
        } else {
            frame.freeze().slice(..end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

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
        let mut reader = FrameReader::new(ours);
        let mut frames = Vec::new();
        while reader.fill().await.unwrap() {
            while let Some(frame) = reader.next_frame() {
                frames.push(String::from_utf8(frame.to_vec()).unwrap());
            }
        }
        writer.await.unwrap();
        assert_eq!(frames, expected);
    }
}
