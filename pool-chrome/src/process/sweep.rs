use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::cgroup::Cgroup;
use super::record::Record;
use super::remove::remove;
use super::state_dir::temp_dir;
use super::tree::Tree;
use crate::ChromeError;

/// Maximum time a leftover process may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// Remains of a pool that was killed, gone now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sweep {
    /// Processes killed.
    pub processes: usize,
    /// Directories of browsers removed.
    pub directories: usize,
    /// Directories of browsers that could not be removed; the next sweep tries again.
    pub failed: usize,
}

impl Sweep {
    /// Returns `true` if there was nothing to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends and removes every browser below `run`. The caller holds the lock of the state directory,
/// and has no browser of its own yet.
pub(super) fn sweep(run: &Path) -> Result<Sweep, ChromeError> {
    let mut done = Sweep::default();
    for entry in fs::read_dir(run).map_err(ChromeError::file("list", run))? {
        let entry = entry.map_err(ChromeError::file("list", run))?;
        let path = entry.path();
        // What is no directory is none of ours; a link is removed without a look behind it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let killed = end(&path);
            done.processes += killed;
        }
        match remove(&path) {
            Ok(()) => done.directories += 1,
            Err(error) => {
                done.failed += 1;
                tracing::warn!(directory = %path.display(), %error, "cannot remove what a killed pool left");
            }
        }
    }
    Ok(done)
}

/// Kills what is left of one browser; how many processes that were.
///
/// The process group is killed only if its leader is the very process that was recorded. Its id
/// alone proves nothing: it may be another program's Chrome by now. Beside the group, processes
/// that carry this directory are killed, which no other program's do.
pub(super) fn end(directory: &Path) -> usize {
    let leader =
        Record::read(directory).map(|record| record.process).filter(|leader| leader.is_alive());
    let temp_dir = temp_dir(directory);
    let tree = Tree { leader, directory: directory.to_owned(), temp_dir, is_ours: false };
    let members = tree.members().len();
    let cgroup = Cgroup::of(directory);
    if let Some(cgroup) = &cgroup {
        cgroup.kill();
    }
    let is_dead = tree.end(DEATH);
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    if !is_dead {
        tracing::warn!(directory = %directory.display(), "a Chromium of a killed pool does not die");
    }
    if owned_by_us(&tree.temp_dir)
        && let Err(error) = remove(&tree.temp_dir)
    {
        tracing::warn!(directory = %tree.temp_dir.display(), %error, "cannot remove temporary files");
    }
    members
}

fn owned_by_us(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own)
}
