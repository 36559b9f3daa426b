use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

/// The two halves of the pipe to a Chromium: JSON messages, each ended by a NUL byte.
#[derive(Debug)]
pub struct Pipe {
    /// Messages from Chromium; ends when Chromium does.
    pub reader: PipeReader,
    /// Messages to Chromium.
    pub writer: PipeWriter,
}

/// The half of the pipe that messages from Chromium are read from.
#[derive(Debug)]
pub struct PipeReader(Receiver);

impl PipeReader {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd(fd).map(Self)
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

/// The half of the pipe that messages to Chromium are written to.
///
/// Dropping it makes Chromium exit, as closing the last DevTools connection of a pipe does. The
/// handle of the Chromium closes it too, after which writes fail with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe).
#[derive(Debug)]
pub struct PipeWriter(Hangup);

impl PipeWriter {
    pub(super) fn new(fd: OwnedFd) -> io::Result<(Self, Hangup)> {
        let end = End { sender: Some(Sender::from_owned_fd(fd)?), waiting: None };
        let hangup = Hangup(Arc::new(Mutex::new(end)));
        Ok((Self(hangup.clone()), hangup))
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.with_sender(cx, |sender, cx| Pin::new(sender).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with_sender(cx, |sender, cx| Pin::new(sender).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.hang_up();
        Poll::Ready(Ok(()))
    }
}

/// Closes our write end of the pipe from outside of the task that writes.
#[derive(Clone, Debug)]
pub(super) struct Hangup(Arc<Mutex<End>>);

#[derive(Debug)]
struct End {
    sender: Option<Sender>,
    /// The writing task, if it waits: closing the pipe under it would not wake it.
    waiting: Option<Waker>,
}

impl Hangup {
    pub(super) fn hang_up(&self) {
        let (sender, waiting) = {
            let mut end = self.lock();
            (end.sender.take(), end.waiting.take())
        };
        drop(sender);
        if let Some(task) = waiting {
            task.wake();
        }
    }

    fn with_sender<T>(
        &self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut Sender, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut end = self.lock();
        let Some(sender) = &mut end.sender else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let result = operation(sender, cx);
        end.waiting = result.is_pending().then(|| cx.waker().clone());
        result
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
    }

    #[tokio::test]
    async fn hanging_up_ends_a_write_that_waits_for_a_reader() {
        let (theirs, ours) = pipe();
        let (mut writer, hangup) = PipeWriter::new(ours).unwrap();
        let writing = tokio::spawn(async move { writer.write_all(&vec![0; 1 << 20]).await });
        tokio::task::yield_now().await;
        hangup.hang_up();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(theirs);
    }

    #[tokio::test]
    async fn dropping_the_writer_ends_the_stream() {
        let (theirs, ours) = pipe();
        let (mut writer, _hangup) = PipeWriter::new(ours).unwrap();
        writer.write_all(b"hello\0").await.unwrap();
        drop(writer);
        let mut read = Vec::new();
        PipeReader::new(theirs).unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello\0");
    }
}
