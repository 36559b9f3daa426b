use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::cgroup::{Cgroup, Cgroups};
use super::sweep::{Record, Sweep, note_begun, note_gone, remove, sweep, temp_dir};
use super::tree::{ProcessId, Tree};
use crate::ChromeError;

/// The directory in which a pool keeps what must survive it: one directory for each pool.
///
/// It holds a lock, one directory for every running Chromium, and usually the persistent profiles.
/// Clones share the lock, which is released when the last clone and the last browser below it are
/// gone.
#[derive(Clone, Debug)]
pub struct StateDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
    swept: Sweep,
}

impl StateDir {
    /// Makes the directory if necessary, takes its lock, and sweeps away what a killed pool has
    /// left in it: Chromium processes that were recorded there, and directories.
    ///
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`ChromeError::StateDirBusy`] if another pool holds it, [`ChromeError::File`] if it cannot
    /// be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ChromeError> {
        let path = path.into();
        let path = std::path::absolute(&path).map_err(ChromeError::file("resolve", path))?;
        private_dir(&path)?;
        let path = path.canonicalize().map_err(ChromeError::file("resolve", path))?;
        let lock = lock(&path)?;
        let run = path.join("run");
        private_dir(&run)?;
        // Everything below it is going to be removed, so it must be our own and not a link to
        // elsewhere.
        if fs::symlink_metadata(&run).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(ChromeError::file("use", run)(io::ErrorKind::NotADirectory.into()));
        }
        // An existing directory may have been open to others.
        fs::set_permissions(&run, Permissions::from_mode(0o700))
            .map_err(ChromeError::file("protect", &run))?;
        let swept = sweep(&run)?;
        if !swept.is_clean() {
            tracing::info!(directory = %path.display(), ?swept, "swept up after a pool that was killed");
        }
        Ok(Self(Arc::new(Inner { path, _lock: lock, swept })))
    }

    /// Returns the directory used if none is configured: `browser-pool` under `XDG_STATE_HOME`,
    /// which defaults to `~/.local/state`. Returns `None` if the environment has neither that nor
    /// `HOME`.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        let variable =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state =
            variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
        Some(state.join("browser-pool"))
    }

    /// Returns the absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns what had to be cleaned up when it was opened.
    #[must_use]
    pub fn swept(&self) -> &Sweep {
        &self.0.swept
    }

    /// Makes the directory of one browser.
    pub(super) fn browser_dir(&self) -> Result<BrowserDir, ChromeError> {
        let run = self.0.path.join("run");
        loop {
            let path = run.join(format!("{:08x}", fastrand::u32(..)));
            match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ChromeError::file("create", path)(error)),
                Ok(()) => return BrowserDir::furnish(path, self.clone()),
            }
        }
    }
}

/// The directory of one browser and everything below it. Its owner must remove it.
#[derive(Debug)]
pub(super) struct BrowserDir {
    path: PathBuf,
    temp_dir: PathBuf,
    cgroup: Option<Cgroup>,
    /// Keeps the lock as long as anything of ours is below it.
    _state: StateDir,
}

impl BrowserDir {
    fn furnish(path: PathBuf, state: StateDir) -> Result<Self, ChromeError> {
        let directory = Self { temp_dir: temp_dir(&path), path, cgroup: None, _state: state };
        note_begun(&directory.path);
        for part in [directory.profile(), directory.home(), directory.temp_dir.clone()] {
            if let Err(error) = make(&part) {
                // With a full disk there is little else to do.
                let _ = directory.remove();
                return Err(ChromeError::file("create", part)(error));
            }
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the user data directory of a browser without a persistent profile.
    pub(super) fn profile(&self) -> PathBuf {
        self.path.join("profile")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    pub(super) fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }

    /// Makes a control group for the browser.
    pub(super) fn confine(&mut self, cgroups: &Cgroups) -> Result<(), ChromeError> {
        let cgroup = cgroups.create(&self.path);
        self.cgroup = Some(cgroup.map_err(ChromeError::system("make a cgroup"))?);
        Ok(())
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    pub(super) fn tree(&self, leader: ProcessId) -> Tree {
        let (directory, temp_dir) = (self.path.clone(), self.temp_dir.clone());
        Tree { leader: Some(leader), directory, temp_dir, is_ours: true }
    }

    pub(super) fn record(&self, process: ProcessId) -> Result<(), ChromeError> {
        Record::new(process)
            .write(&self.path)
            .map_err(ChromeError::file("write a record to", &self.path))
    }

    /// Removes it, starting with the group and the temporary files, so that the next sweep can
    /// finish a removal that was cut short.
    pub(super) fn remove(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        remove(&self.temp_dir)?;
        remove(&self.path)?;
        note_gone(&self.path);
        Ok(())
    }
}

/// Makes a directory that only its owner may enter, if there is none yet.
pub(super) fn private_dir(path: &Path) -> Result<(), ChromeError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(ChromeError::file("create", parent))?;
    }
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(ChromeError::file("create", path)),
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn lock(directory: &Path) -> Result<File, ChromeError> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(ChromeError::file("open", &path))?;
    // A process that is just being started holds copies of our descriptors until its exec, so a
    // lock that was released a moment ago may seem to be still held.
    let mut tries = 0;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(ChromeError::file("lock", path)(error.into()));
        }
        tries += 1;
        if tries == 10 {
            let mut owner = String::new();
            // Without it the error only says less.
            let _ = file.read_to_string(&mut owner);
            let owner = owner.trim().parse().ok();
            return Err(ChromeError::StateDirBusy { directory: directory.to_owned(), owner });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(ChromeError::file("write", path))?;
    Ok(file)
}
