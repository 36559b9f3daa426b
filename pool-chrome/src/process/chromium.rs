use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;

use super::cgroup::Cgroup;
use super::contents::{Contents, DOWNLOADS, Directories};
use super::supervisor::{KillOnDrop, Launched, Stage, StderrTail, last_lines, launch};
use super::sweep::remove;
use super::tree::{ProcessId, Tree, proportional_set_size};
use super::{Engine, Exit, LaunchOptions, StateDir, Work};
use crate::ChromeError;

/// A Chromium that is supervised until nothing of it is left.
///
/// A thread of its own drains its stderr, notices its exit at once (even if somebody else killed
/// it), kills the rest of its process tree, reaps it and removes its directory. Dropping the handle
/// kills the tree before the drop returns; the thread does the rest. Dropping needs no runtime.
///
/// # Examples
///
/// ```no_run
/// use pool_chrome::process::{Chromium, LaunchOptions, StateDir};
/// use std::time::Duration;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let state = StateDir::open("/var/lib/browser-pool")?;
/// let (chromium, mut pipe) = Chromium::launch(LaunchOptions::new(), &state).await?;
/// pipe.writer.write_all(b"{\"id\":1,\"method\":\"Browser.getVersion\"}\0").await?;
/// chromium.close(Duration::from_secs(2)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Chromium {
    process: ProcessId,
    engine: Engine,
    executable: PathBuf,
    user_data_dir: PathBuf,
    home: PathBuf,
    temp_dir: PathBuf,
    launched_at: Instant,
    tree: Tree,
    cgroup: Option<Cgroup>,
    tail: Arc<Mutex<StderrTail>>,
    stage: watch::Receiver<Stage>,
    hangup: Hangup,
    guard: KillOnDrop,
}

impl Chromium {
    /// Starts a Chromium and returns as soon as its process runs, before it answers.
    ///
    /// The caller sends the first command and applies
    /// [`launch_timeout`](LaunchOptions::launch_timeout) to its answer; [`Self::not_ready`] returns
    /// the error for a timeout.
    ///
    /// # Errors
    ///
    /// Any obstacle before the process runs: no executable, a forbidden argument, a sandbox that
    /// cannot work, a profile in use, a full disk.
    ///
    /// # Cancel safety
    ///
    /// A Chromium whose launch is cancelled is killed and removed.
    pub async fn launch(
        options: LaunchOptions,
        state: &StateDir,
    ) -> Result<(Self, Pipe), ChromeError> {
        let launched_at = Instant::now();
        let launched = launch(options, state.clone()).await?;
        let Launched { process, engine, executable, user_data_dir, home, temp_dir, .. } = launched;
        let pipe = ChromeError::system("use a pipe");
        let reader = PipeReader::new(launched.answers).map_err(pipe)?;
        let pipe = ChromeError::system("use a pipe");
        let (writer, hangup) = PipeWriter::new(launched.commands).map_err(pipe)?;
        let chromium = Self {
            process,
            engine,
            executable,
            user_data_dir,
            home,
            temp_dir,
            launched_at,
            tree: launched.tree,
            cgroup: launched.cgroup,
            tail: launched.tail,
            stage: launched.stage,
            hangup,
            guard: launched.guard,
        };
        Ok((chromium, Pipe { reader, writer }))
    }

    /// Returns the id of the browser process, or of a wrapper script that stays in front of it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Returns when the process started, in clock ticks since boot, as in `/proc/PID/stat`:
    /// together with the id, this identifies the process.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.process.started
    }

    /// Returns when the launch began.
    #[must_use]
    pub fn launched_at(&self) -> Instant {
        self.launched_at
    }

    /// Returns which engine it is; never [`Engine::Auto`].
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Returns the program that runs.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Returns the path of the profile.
    #[must_use]
    pub fn user_data_dir(&self) -> &Path {
        &self.user_data_dir
    }

    /// Returns its own directory for temporary files, which is removed with the browser.
    #[must_use]
    pub fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }

    /// Returns the exit, if the browser process has ended.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.stage.borrow().exit().cloned()
    }

    /// Returns a function that tells, when it is called at the browser's end, whether the kernel
    /// has killed it for lack of memory. It does not borrow the handle.
    pub(crate) fn out_of_memory(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let cgroup = self.cgroup.clone();
        move || cgroup.as_ref().is_some_and(Cgroup::is_out_of_memory)
    }

    /// Waits until the browser process has ended, for whatever reason. The future does not borrow
    /// the handle, so another task may keep it.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut stage = self.stage.clone();
        async move {
            let stage = stage.wait_for(|stage| stage.exit().is_some()).await;
            let exit = stage.ok().and_then(|stage| stage.exit().cloned());
            exit.unwrap_or_else(|| Exit::new(None, ""))
        }
    }

    /// Returns the last 8 KiB of what it has written to stderr, without the usual noise.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// Returns the error for a Chromium that did not answer its first command in time, or for its
    /// exit if it has ended.
    #[must_use]
    pub fn not_ready(&self) -> ChromeError {
        match self.exit() {
            Some(exit) => ChromeError::Exited(exit),
            None => ChromeError::LaunchTimeout {
                waited: self.launched_at.elapsed(),
                stderr: last_lines(&self.stderr()),
            },
        }
    }

    /// Returns the memory of the whole tree in bytes: the sum of the proportional set sizes, which
    /// count shared memory once. It takes some milliseconds, on the blocking pool.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
    pub async fn memory(&self) -> u64 {
        let tree = self.tree.clone();
        let measured = tokio::task::spawn_blocking(move || proportional_set_size(&tree.members()));
        measured.await.unwrap_or(0)
    }

    /// Returns the present contents of its directories, at their top level.
    pub(crate) async fn contents(&self) -> Contents {
        let directories = self.directories();
        tokio::task::spawn_blocking(move || Contents::of(&directories)).await.unwrap_or_default()
    }

    /// Removes the default directory for downloads, and looks for anything new that is not
    /// Chromium's.
    pub(crate) async fn tidy(&self, before: &Contents) -> Result<Option<PathBuf>, ChromeError> {
        let (directories, before) = (self.directories(), before.clone());
        let downloads = directories.home.join(DOWNLOADS);
        let tidied = tokio::task::spawn_blocking(move || {
            remove(&downloads).map_err(ChromeError::file("remove", downloads))?;
            Ok(Contents::of(&directories).stranger(&before))
        });
        tidied.await.unwrap_or_else(|_| {
            let panicked = std::io::Error::other("it panicked");
            Err(ChromeError::system("look at a browser's directory")(panicked))
        })
    }

    fn directories(&self) -> Directories {
        let [user_data_dir, home, temp_dir] =
            [&self.user_data_dir, &self.home, &self.temp_dir].map(Clone::clone);
        Directories { user_data_dir, home, temp_dir }
    }

    /// Returns the work that the whole tree has done so far. It takes a millisecond or two, on the
    /// blocking pool.
    pub(crate) async fn work(&self) -> Work {
        let (tree, main) = (self.tree.clone(), self.pid());
        let read = tokio::task::spawn_blocking(move || Work::of(main, &tree.members()));
        read.await.unwrap_or_default()
    }

    /// Kills the whole tree now, including stopped processes. [`Self::exited`] tells when it is
    /// dead.
    pub fn kill(&self) {
        self.guard.0.kill();
    }

    /// Ends the browser and returns when nothing of it is left: no process, no directory.
    ///
    /// It closes the pipe, which Chromium takes as the order to exit, and kills the tree if that
    /// has not happened within `grace`. For a clean exit of a persistent profile, send
    /// `Browser.close` first. If a process survives even SIGKILL (because it hangs in the kernel),
    /// it is given up after 10 s, with a warning.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the tree.
    pub async fn close(self, grace: Duration) {
        self.end(grace).await;
    }

    /// As [`close`](Self::close), for a handle that others look at in the meantime; dropping the
    /// future kills nothing.
    pub(crate) async fn end(&self, grace: Duration) {
        self.hangup.hang_up();
        if tokio::time::timeout(grace, self.exited()).await.is_err() {
            self.kill();
        }
        let mut stage = self.stage.clone();
        // An error means that the supervisor is gone, and it goes last.
        let _ = stage.wait_for(|stage| matches!(stage, Stage::Gone(_))).await;
    }
}

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

/// Closes our write end of the pipe from outside the task that writes.
#[derive(Clone, Debug)]
pub(super) struct Hangup(Arc<Mutex<End>>);

#[derive(Debug)]
struct End {
    sender: Option<Sender>,
    /// The waker of the writing task, if that waits: closing the pipe would not wake it.
    waiting: Option<Waker>,
}

impl Hangup {
    fn hang_up(&self) {
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
