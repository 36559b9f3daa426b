use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The directories of one case: whatever the pool leaves behind must be in one of them.
///
/// The path is short, because Chromium makes sockets below it.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// Makes them.
    ///
    /// # Panics
    ///
    /// If there is no room.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("bp-").tempdir().expect("there is room");
        let home = Self(directory);
        for path in [home.temp_dir(), home.user_home()] {
            std::fs::create_dir(path).expect("the directory is ours");
        }
        home
    }

    /// The directory that holds the others.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// `pool.state_dir`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// `TMPDIR` of the service.
    #[must_use]
    pub fn temp_dir(&self) -> PathBuf {
        self.path().join("tmp")
    }

    /// `HOME` of the service.
    #[must_use]
    pub fn user_home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("pool.toml")
    }

    /// What the service has written to stderr, over all of its starts.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.path().join("pool.log")
    }
}
