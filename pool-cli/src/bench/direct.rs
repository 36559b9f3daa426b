use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter};
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Cdp, Launcher, Transport};
use crate::exit::Failure;

/// Time that it has to open its port, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Chromium with a debugging port, to which a WebSocket goes directly: for the benchmark only.
///
/// `pool-chrome` opens no port, so this one is launched here, with the command line of one that was
/// launched there. It has a pipe besides, of which nothing is asked but that it ends Chromium when
/// it closes, however this process ends.
#[derive(Debug)]
pub(crate) struct Direct {
    child: Child,
    pipe: (PipeWriter, PipeReader),
    url: String,
    /// Keeps reading what Chromium says of itself, or it would stand still.
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
            // The last one of a name counts.
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
        // It holds their ends of the pipes, which must close with the child.
        drop(command);
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let url = timeout(PATIENCE, address(&mut stderr)).await.ok().flatten();
        let url =
            url.ok_or_else(|| Failure::new("a Chromium with a debugging port has not come up"))?;
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

/// The command line that Chromium is launched with, the program first.
async fn command_line(launcher: &Launcher) -> Result<Vec<OsString>, Failure> {
    let launched = launcher.launch().await?;
    let line = std::fs::read(format!("/proc/{}/cmdline", launched.chromium.pid()));
    launched.close().await;
    let mut words: Vec<OsString> =
        line?.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    // Each word is ended by a NUL, the last one too.
    words.pop();
    Ok(words)
}

/// The address that Chromium says its port has; `None` if it ends before.
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
