use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::binary::workspace;
use crate::patience::GENEROUS;
use crate::process::ProcessId;
use crate::sockets::unused_port;

/// A NATS server of our own; its port and what it has stored outlive a restart.
///
/// Its drop kills it.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    process: ProcessId,
    port: u16,
    directory: TempDir,
}

impl Nats {
    /// Starts one, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("bp-nats-").tempdir();
        let directory = directory.expect("there is room");
        let port = unused_port();
        let (child, process) = serve(port, &directory).await;
        Self { child, process, port, directory }
    }

    /// The port at which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it as the kernel would that is out of memory.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        // It is dead in any case; this only takes its zombie away.
        let _ = self.child.wait().await;
    }

    /// Starts it again on its port, with what it has stored.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.kill().await;
        (self.child, self.process) = serve(self.port, &self.directory).await;
    }

    /// Starts it again on its port, with nothing stored.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn restart_empty(&mut self) {
        self.kill().await;
        fs::remove_dir_all(self.directory.path().join("store")).expect("the directory is ours");
        self.restart().await;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

async fn serve(port: u16, directory: &TempDir) -> (Child, ProcessId) {
    let log_file = directory.path().join("log");
    let log = File::create(&log_file).expect("the directory is ours");
    let child = Command::new(program().await)
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"])
        .arg(directory.path().join("store"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("it is executable");
    crate::eventually("the NATS server is ready", GENEROUS, async || {
        let log = fs::read_to_string(&log_file).unwrap_or_default();
        if log.contains("Server is ready") { Ok(()) } else { Err(log) }
    })
    .await;
    let process = child.id().and_then(ProcessId::of).expect("it was not waited for");
    (child, process)
}

/// The server that `scripts/install-nats` installs, which is run where it is missing.
async fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let target = own.ancestors().nth(3).expect("it is in target/PROFILE/deps");
    let server = target.join("nats/current/nats-server");
    if !server.exists() {
        let mut install = Command::new(workspace().join("scripts/install-nats"));
        let installed = install.arg("current").env("CARGO_TARGET_DIR", target).status().await;
        assert!(installed.is_ok_and(|status| status.success()), "scripts/install-nats failed");
    }
    server
}
