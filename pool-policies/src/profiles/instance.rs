use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::directory::Directory;
use super::{template, tree};
use crate::PolicyError;
use crate::error::DiskContext;

/// Location of directories that were moved aside.
const QUARANTINE: &str = ".quarantine";

/// Number of directories of a profile kept in quarantine; older ones are removed, so that a
/// profile that breaks again and again does not fill the disk.
const MAX_QUARANTINED: usize = 3;

/// A profile directory that is yours alone for as long as you keep this, or a clone of it.
///
/// When the last clone is dropped, a persistent directory is given back, and a copy of a template
/// is removed. Both take only local file system calls and need no runtime; to keep the removal of
/// a large copy off a runtime's thread, [`close`](Self::close) it.
#[derive(Clone)]
pub struct ProfileInstance {
    held: Arc<Held>,
}

struct Held {
    profile: Arc<str>,
    path: PathBuf,
    /// The last part of `path`.
    name: String,
    /// The profile's own directory.
    home: Directory,
    /// The directory itself; it is locked.
    directory: Directory,
    kind: Kind,
    quarantined: AtomicBool,
}

enum Kind {
    Persistent { number: u32 },
    Copy { copies: Directory, filled: Mutex<bool> },
}

impl ProfileInstance {
    pub(super) fn kept(
        profile: Arc<str>,
        parent: &Path,
        home: Directory,
        directory: Directory,
        number: u32,
    ) -> Self {
        let name = number.to_string();
        let path = parent.join(&name);
        Self::new(profile, path, name, home, directory, Kind::Persistent { number })
    }

    pub(super) fn copy(
        profile: Arc<str>,
        parent: &Path,
        home: Directory,
        copies: Directory,
        directory: Directory,
        name: String,
    ) -> Self {
        let path = parent.join(&name);
        let kind = Kind::Copy { copies, filled: Mutex::new(false) };
        Self::new(profile, path, name, home, directory, kind)
    }

    fn new(
        profile: Arc<str>,
        path: PathBuf,
        name: String,
        home: Directory,
        directory: Directory,
        kind: Kind,
    ) -> Self {
        let quarantined = AtomicBool::new(false);
        Self { held: Arc::new(Held { profile, path, name, home, directory, kind, quarantined }) }
    }

    /// The profile's name.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.held.profile
    }

    /// Returns the number of the profile's persistent directory, from 0; none for a copy of a
    /// template.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match self.held.kind {
            Kind::Persistent { number } => Some(number),
            Kind::Copy { .. } => None,
        }
    }

    /// Returns `true` if what is left in the directory is there next time.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.number().is_some()
    }

    /// The directory, ready for use: a copy of a template is made by the first call.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Disk`] if it cannot be copied.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the copying goes on in the background and the next call waits for it; if
    /// there is none, the copy is removed when it is ready.
    pub async fn open(&self) -> Result<&Path, PolicyError> {
        if let Kind::Copy { .. } = self.held.kind {
            let held = self.held.clone();
            tokio::task::spawn_blocking(move || held.fill())
                .await
                .map_err(|_| PolicyError::RuntimeGone)??;
        }
        Ok(&self.held.path)
    }

    /// Moves a directory aside whose content is broken, and says where to. The next resource of
    /// the profile starts with an empty one, or with a new copy of its template.
    ///
    /// Close what uses the directory before. The three that were moved last are kept.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Disk`]; the directory may then still be in its place.
    pub fn quarantine(&self) -> Result<PathBuf, PolicyError> {
        self.held.quarantine().at("move aside directory", &self.held.path)
    }

    /// Gives the directory back as a drop does, but off the runtime's threads.
    ///
    /// # Cancel safety
    ///
    /// When dropped, it is given back all the same.
    pub async fn close(self) {
        // An error means that the closure was dropped without running, and `self` with it.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.held.directory
    }
}

impl Held {
    fn parent(&self) -> &Directory {
        match &self.kind {
            Kind::Persistent { .. } => &self.home,
            Kind::Copy { copies, .. } => copies,
        }
    }

    fn fill(&self) -> Result<(), PolicyError> {
        let Kind::Copy { filled, .. } = &self.kind else { return Ok(()) };
        let mut filled = filled.lock().unwrap_or_else(PoisonError::into_inner);
        if !*filled {
            template::fill(&self.home, &self.directory).at("copy the template to", &self.path)?;
            *filled = true;
        }
        Ok(())
    }

    fn quarantine(&self) -> std::io::Result<PathBuf> {
        let quarantine = self.home.ensure(QUARANTINE)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = format!("{:014}-{}", now.as_millis(), self.name);
        self.parent().rename(&self.name, &quarantine, &aside)?;
        self.quarantined.store(true, Ordering::Release);
        let path = match &self.kind {
            Kind::Persistent { .. } => self.path.parent(),
            Kind::Copy { .. } => self.path.parent().and_then(Path::parent),
        };
        let path = path.expect("it is in a directory of ours").join(QUARANTINE).join(&aside);
        tracing::warn!(profile = %self.profile, to = %path.display(), "profile directory moved aside");
        let mut names: Vec<String> =
            quarantine.entries()?.into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        for old in &names[..names.len().saturating_sub(MAX_QUARANTINED)] {
            tree::remove(&quarantine, old)?;
        }
        Ok(path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let left = match &self.kind {
            _ if *self.quarantined.get_mut() => Ok(()),
            Kind::Persistent { .. } => self.directory.touch(),
            Kind::Copy { copies, .. } => tree::remove(copies, &self.name),
        };
        if let Err(error) = left.and_then(|()| self.directory.unlock()) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "could not give a profile directory back properly");
        }
    }
}

impl fmt::Debug for ProfileInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileInstance")
            .field("profile", &self.profile())
            .field("path", &self.held.path)
            .finish_non_exhaustive()
    }
}
