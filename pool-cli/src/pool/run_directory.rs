use std::path::{Path, PathBuf};

use pool_chrome::process::StateDir;

/// A state directory for one run of a command, so that runs stand beside each other and beside a
/// service; removed when it is dropped, which must be after whatever uses it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Chooses one below the configured state directory, for a purpose of the command; nothing is
    /// made yet. Those of runs that were killed are swept up and removed.
    pub(crate) fn choose(state_dir: &Path, purpose: &str) -> Self {
        let runs = state_dir.join(purpose);
        for entry in std::fs::read_dir(&runs).into_iter().flatten().flatten() {
            // One that is in use is locked, and opening it fails.
            if let Ok(abandoned) = StateDir::open(entry.path()) {
                let _ = std::fs::remove_dir_all(abandoned.path());
            }
        }
        Self { path: runs.join(std::process::id().to_string()) }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What is left of it is swept away by the next run.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
