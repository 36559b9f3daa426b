use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::cgroup::Cgroup;
use super::contents::{Contents, DOWNLOADS, Places};
use super::exit::last_lines;
use super::launch::{Launched, launch};
use super::memory::proportional_set_size;
use super::pipe::Hangup;
use super::remove::remove;
use super::stderr::StderrTail;
use super::supervisor::{KillOnDrop, Stage};
use super::tree::{ProcessId, Tree};
use super::{Engine, Exit, LaunchOptions, Pipe, PipeReader, PipeWriter, StateDir, Work};
use crate::ChromeError;

/// A Chromium that is supervised until nothing of it is left.
///
/// A thread of its own drains its stderr, notices its exit at once (also when somebody else
/// killed it), kills what is left of its process tree, reaps it and removes its directory.
/// Dropping the handle kills the tree before the drop returns; the thread does the rest. Dropping
/// needs no runtime.
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
    /// [`launch_timeout`](LaunchOptions::launch_timeout) to its answer; [`Self::not_ready`] makes
    /// the error.
    ///
    /// # Errors
    ///
    /// Anything that is in the way before the process runs: no executable, an argument that is
    /// not allowed, a sandbox that cannot work, a profile in use, a full disk.
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

    /// The id of the browser process, or of a wrapper script that stays in front of it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// When the process started, in clock ticks since boot, as in `/proc/PID/stat`: with the id
    /// it names this process and no later one.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.process.started
    }

    /// When the launch began.
    #[must_use]
    pub fn launched_at(&self) -> Instant {
        self.launched_at
    }

    /// Which engine it is; never [`Engine::Auto`].
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The program that runs.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Where the profile is.
    #[must_use]
    pub fn user_data_dir(&self) -> &Path {
        &self.user_data_dir
    }

    /// A directory of its own for temporary files, removed with the browser.
    #[must_use]
    pub fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }

    /// The exit, if the browser process has ended.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.stage.borrow().exit().cloned()
    }

    /// Returns whether the kernel has ended it for want of memory, when asked at its end. It does
    /// not borrow the handle.
    pub(crate) fn out_of_memory(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let cgroup = self.cgroup.clone();
        move || cgroup.as_ref().is_some_and(Cgroup::is_out_of_memory)
    }

    /// Waits until the browser process has ended, whoever ended it. The future does not borrow
    /// the handle; it may be kept by another task.
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

    /// The last 8 KiB of what it has written to stderr, without the usual noise.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// The error for a Chromium that did not answer its first command in time: that it has ended,
    /// if it has.
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

    /// The memory of the whole tree, in bytes: the sum of the proportional set sizes, which
    /// counts what processes share once. Takes some milliseconds, on the blocking pool.
    pub async fn memory(&self) -> u64 {
        let tree = self.tree.clone();
        let measured = tokio::task::spawn_blocking(move || proportional_set_size(&tree.members()));
        measured.await.unwrap_or(0)
    }

    /// Returns what its directories hold now, at their top.
    pub(crate) async fn contents(&self) -> Contents {
        let places = self.places();
        tokio::task::spawn_blocking(move || Contents::of(&places)).await.unwrap_or_default()
    }

    /// Removes the directory that downloads go to by default, and looks for anything new that is
    /// not Chromium's.
    pub(crate) async fn tidy(&self, before: &Contents) -> Result<Option<PathBuf>, ChromeError> {
        let (places, before) = (self.places(), before.clone());
        let downloads = places.home.join(DOWNLOADS);
        let tidied = tokio::task::spawn_blocking(move || {
            remove(&downloads).map_err(ChromeError::file("remove", downloads))?;
            Ok(Contents::of(&places).stranger(&before))
        });
        tidied.await.unwrap_or_else(|_| {
            let panicked = std::io::Error::other("it panicked");
            Err(ChromeError::system("look at a browser's directory")(panicked))
        })
    }

    fn places(&self) -> Places {
        let [user_data_dir, home, temp_dir] =
            [&self.user_data_dir, &self.home, &self.temp_dir].map(Clone::clone);
        Places { user_data_dir, home, temp_dir }
    }

    /// Returns what the whole tree has done so far. Takes a millisecond or two, on the blocking pool.
    pub(crate) async fn work(&self) -> Work {
        let (tree, main) = (self.tree.clone(), self.pid());
        let read = tokio::task::spawn_blocking(move || Work::of(main, &tree.members()));
        read.await.unwrap_or_default()
    }

    /// Kills the whole tree now, stopped processes too. [`Self::exited`] tells when it is dead.
    pub fn kill(&self) {
        self.guard.0.kill();
    }

    /// Ends the browser and returns when nothing of it is left: no process, no directory.
    ///
    /// Closes the pipe, which Chromium takes as the order to exit, and kills the tree if it has
    /// not done so within `grace`. A caller who wants a clean exit of a persistent profile sends
    /// `Browser.close` first. A process that does not even die of SIGKILL (one that hangs in the
    /// kernel) is given up after 10 s, with a warning.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the tree.
    pub async fn close(self, grace: Duration) {
        self.end(grace).await;
    }

    /// As [`close`](Self::close), for a handle that others look at meanwhile; dropping the future
    /// kills nothing.
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
