use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::Engine;
use crate::process::{Process, ProcessId, descendants};

/// A Chromium of somebody else, started beside the pool with the same program: nothing that the
/// pool does may touch it.
#[derive(Debug)]
pub struct Canary {
    child: Child,
    process: ProcessId,
    _directory: TempDir,
}

/// The canary of all cases that run at this moment; the last of them ends it.
static SHARED: Mutex<Weak<Canary>> = Mutex::new(Weak::new());

impl Canary {
    /// Returns the one that all cases of this program share, started if none lives.
    ///
    /// # Panics
    ///
    /// If there is no Chromium.
    pub(crate) fn shared() -> Arc<Self> {
        // A case that panicked here has left nothing half done.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(canary) = shared.upgrade().filter(|canary| canary.is_alive()) {
            return canary;
        }
        let canary = Arc::new(Self::start());
        *shared = Arc::downgrade(&canary);
        canary
    }

    /// Starts one.
    ///
    /// # Panics
    ///
    /// If there is no Chromium.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("bp-canary-").tempdir();
        let directory = directory.expect("there is room");
        let user_data = directory.path().to_path_buf();
        Self::start_with(&user_data, directory)
    }

    /// Starts one on a directory of our choice.
    ///
    /// # Panics
    ///
    /// If there is no Chromium.
    #[must_use]
    pub fn on(user_data: impl Into<std::path::PathBuf>) -> Self {
        let keep = tempfile::Builder::new().prefix("bp-canary-").tempdir().expect("there is room");
        Self::start_with(&user_data.into(), keep)
    }

    fn start_with(user_data: &std::path::Path, keep: TempDir) -> Self {
        let child = Command::new(Engine::any_executable())
            .args(["--headless", "--no-sandbox", "--remote-debugging-port=0", "--disable-gpu"])
            .arg(format!("--user-data-dir={}", user_data.display()))
            .arg("about:blank")
            .env("HOME", keep.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium is executable");
        let process = ProcessId::of(child.id()).expect("it was not waited for");
        Self { child, process, _directory: keep }
    }

    /// Its main process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // Where the program was a script before another one, that one is below it.
        for process in descendants(self.process.pid, &Process::all()) {
            process.id.signal(Signal::KILL);
        }
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
