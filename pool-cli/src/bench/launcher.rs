use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter};
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use pool_chrome::process::{Chromium, LaunchOptions, StateDir};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Cdp, Step, Steps, Transport};
use crate::config::Config;
use crate::exit::Failure;
use crate::pool::{OpenError, RunDirectory};

/// Time that a Chromium has to end by itself, as in the pool.
const GRACE: Duration = Duration::from_secs(2);

/// The contestant that launches a Chromium for each client: with the same flags as the pool's, a
/// user data directory of its own, and over a pipe, which is the fastest way.
#[derive(Debug)]
pub(crate) struct Launcher {
    options: LaunchOptions,
    state_dir: StateDir,
    /// After `state_dir`, which uses it.
    _directory: RunDirectory,
    engine: &'static str,
}

/// A Chromium that was launched for one client.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) chromium: Chromium,
    pub(crate) cdp: Cdp,
}

impl Launcher {
    /// Prepares; nothing is launched yet.
    ///
    /// # Errors
    ///
    /// If there is no Chromium (exit code 78), or its directory cannot be used.
    pub(crate) async fn new(config: &Config) -> Result<Self, Failure> {
        let options = config.driver().launch_options();
        let (_, engine) = options.check().map_err(|error| OpenError::from(error).failure())?;
        let directory = RunDirectory::choose(&config.pool.state_dir, "bench-launches");
        let path = directory.path().to_owned();
        let state_dir = tokio::task::spawn_blocking(|| StateDir::open(path)).await??;
        Ok(Self { options, state_dir, _directory: directory, engine: engine.as_str() })
    }

    /// Returns the engine that is launched: `shell` or `chromium`.
    pub(crate) fn engine(&self) -> &'static str {
        self.engine
    }

    /// Launches a Chromium; it has not answered yet.
    pub(crate) async fn launch(&self) -> Result<Launched, Failure> {
        let (chromium, pipe) = Chromium::launch(self.options.clone(), &self.state_dir).await?;
        Ok(Launched { chromium, cdp: Cdp::new(Transport::from(pipe)) })
    }

    /// Runs one session from its launch to a loaded page.
    pub(crate) async fn session(&self, url: &str) -> Result<(Launched, Steps), Failure> {
        let began = Instant::now();
        let mut launched = self.launch().await?;
        let mut steps = Steps::default();
        match steps.walk_launched(began, &mut launched.cdp, url).await {
            Ok(()) => Ok((launched, steps)),
            // Its exit explains better why nothing came.
            Err(_) if launched.chromium.exit().is_some() => {
                Err(launched.chromium.not_ready().into())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Runs some sessions at once, each to its end.
    pub(crate) async fn round(&self, clients: usize, url: &str) -> Result<Steps, Failure> {
        let sessions = (0..clients).map(|_| self.session(url));
        let sessions = futures_util::future::try_join_all(sessions).await?;
        let mut all = Steps::default();
        let mut closing = Vec::new();
        for (launched, steps) in sessions {
            all.append(steps);
            closing.push(launched.close());
        }
        for took in futures_util::future::join_all(closing).await {
            all.add(Step::Release, took);
        }
        Ok(all)
    }
}

impl Launched {
    /// Ends it, and returns how long it took until no process and no directory of it was left.
    pub(crate) async fn close(self) -> Duration {
        let began = Instant::now();
        drop(self.cdp);
        self.chromium.close(GRACE).await;
        began.elapsed()
    }
}

/// Time that it has to open its port, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Chromium with a debugging port, to which a WebSocket connects directly: for the benchmark
/// only.
///
/// `pool-chrome` opens no port, so this one is launched here, with the command line of one that was
/// launched there. It has a pipe as well, whose only purpose is to end Chromium when it closes,
/// however this process ends.
#[derive(Debug)]
pub(crate) struct Direct {
    child: Child,
    pipe: (PipeWriter, PipeReader),
    url: String,
    /// Keeps reading Chromium's stderr, which would block it otherwise.
    stderr: JoinHandle<()>,
    /// Removed last.
    _directory: TempDir,
}

impl Direct {
    /// Launches it, and returns when its port is open.
    pub(crate) async fn launch(launcher: &Launcher) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let mut arguments = command_line(launcher).await?.into_iter();
        let program = arguments.next().ok_or_else(|| Failure::new("Chromium has no name"))?;
        let mut user_data_dir = OsString::from("--user-data-dir=");
        user_data_dir.push(directory.path().join("profile"));
        let (their_commands, commands) = std::io::pipe()?;
        let (answers, their_answers) = std::io::pipe()?;
        let mut command = Command::new(program);
        command
            // If a switch is given twice, the last one counts.
            .args(arguments)
            .arg(user_data_dir)
            .arg("--remote-debugging-port=0")
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
            .as_std_mut()
            .fd_mappings(vec![
                FdMapping { parent_fd: their_commands.into(), child_fd: 3 },
                FdMapping { parent_fd: their_answers.into(), child_fd: 4 },
            ])
            .expect("the two numbers differ");
        let mut child = command.spawn()?;
        // It holds the child's ends of the pipes, which must close with the child.
        drop(command);
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let url = timeout(PATIENCE, address(&mut stderr)).await.ok().flatten();
        let url =
            url.ok_or_else(|| Failure::new("a Chromium with a debugging port did not start"))?;
        let stderr = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        });
        Ok(Self { child, pipe: (commands, answers), url, stderr, _directory: directory })
    }

    /// Opens a WebSocket to it.
    pub(crate) async fn connect(&self) -> Result<Cdp, Failure> {
        let (transport, _) = Transport::open(self.url.as_str().into_client_request()?).await?;
        Ok(Cdp::new(transport))
    }

    /// Ends it, and returns when its process is gone.
    pub(crate) async fn close(mut self) {
        drop(self.pipe);
        // Killed at the drop if it does not end by itself.
        let _ = timeout(PATIENCE, self.child.wait()).await;
        let _ = self.stderr.await;
    }
}

/// Returns the command line that Chromium is launched with, the program first.
async fn command_line(launcher: &Launcher) -> Result<Vec<OsString>, Failure> {
    let launched = launcher.launch().await?;
    let line = std::fs::read(format!("/proc/{}/cmdline", launched.chromium.pid()));
    launched.close().await;
    let mut words: Vec<OsString> =
        line?.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    // Each word ends with a NUL, including the last one.
    words.pop();
    Ok(words)
}

/// Returns the address of the port that Chromium reports; `None` if it ends before that.
async fn address(stderr: &mut BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    while stderr.read_line(&mut line).await.ok()? > 0 {
        if let Some(url) = line.trim().strip_prefix("DevTools listening on ") {
            return Some(url.to_owned());
        }
        line.clear();
    }
    None
}
