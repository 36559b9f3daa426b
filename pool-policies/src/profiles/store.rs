//! The profile directories on disk, and the use of one of them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use super::directory::{Directory, DirectoryEntry, clear_tree, copy_tree, remove_tree};
use super::profile::LABEL;
use crate::PolicyError;
use crate::error::DiskContext;
use crate::part::check_name;

/// Location of copies, and of states being installed or removed. Nothing in it outlives its
/// process.
const COPIES: &str = ".pool-copies";

/// The directories of all profiles.
///
/// ```text
/// <root>/<profile>/0, 1, …          the instances of persistent mode
///                  template         the saved state of template mode
///                  .pool-copies/*   copies of it, each locked by its user
///                  .quarantine/*    what was moved aside
/// ```
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    root: Directory,
}

impl Store {
    /// Opens the root, making it if it does not exist, and sweeps it.
    pub(super) fn open(root: &Path) -> Result<Self, PolicyError> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).at("make directory", root)?;
        // The path to the root is the operator's and may contain symlinks; below the root, none may
        // be followed.
        let path = root.canonicalize().at("find directory", root)?;
        let store = Self { root: Directory::at_path(&path).at("open directory", &path)?, path };
        store.sweep().at("tidy up directory", &store.path)?;
        Ok(store)
    }

    /// Removes the copies that dead processes have left behind: those that nobody has locked.
    fn sweep(&self) -> io::Result<()> {
        for profile in self.root.entries()? {
            if !profile.is_directory || check_name(LABEL, &profile.name).is_err() {
                continue;
            }
            let home = self.root.open(&profile.name)?;
            let Some(copies) = home.open_if_there(COPIES)? else { continue };
            for copy in copies.entries()? {
                if copy.is_directory
                    && is_temporary(&copy.name)
                    && copies
                        .locked(&copy.name, FlockOperation::NonBlockingLockExclusive)?
                        .is_some()
                {
                    remove_tree(&copies, &copy.name)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn path_of(&self, profile: &str) -> PathBuf {
        self.path.join(profile)
    }

    /// Opens the directory of a profile, making it if it does not exist.
    pub(super) fn home(&self, profile: &str) -> Result<Directory, PolicyError> {
        self.root.ensure(profile).at("open directory", self.path_of(profile))
    }

    /// Takes a free one among the first `max` instances of a profile: the one used last, so that a
    /// user finds earlier work again, or a new one if all existing ones are in use.
    pub(super) fn persistent(
        &self,
        profile: &Arc<str>,
        max: usize,
    ) -> Result<ProfileInstance, PolicyError> {
        let home = self.home(profile)?;
        let path = self.path_of(profile);
        let mut there = instances(&home).at("list directory", &path)?;
        there.retain(|(number, _)| (*number as usize) < max);
        there.sort_by_key(|(number, entry)| (Reverse(entry.used), *number));
        let known: BTreeSet<u32> = there.iter().map(|(number, _)| *number).collect();
        let new = (0..=u32::MAX).take(max).filter(|number| !known.contains(number));
        for number in there.iter().map(|(number, _)| *number).chain(new) {
            let name = number.to_string();
            let take = || -> io::Result<Option<Directory>> {
                home.make(&name)?;
                home.locked(&name, FlockOperation::NonBlockingLockExclusive)
            };
            if let Some(directory) = take().at("take directory", path.join(&name))? {
                directory.make_private().at("protect directory", path.join(&name))?;
                // So that the order is right even if this process is killed.
                directory.touch().at("mark directory", path.join(&name))?;
                return Ok(ProfileInstance::kept(profile.clone(), &path, home, directory, number));
            }
        }
        Err(PolicyError::ProfileBusy { profile: profile.to_string(), instances: max })
    }
}

/// Returns the numbered entries of a profile's directory, one for each instance.
fn instances(home: &Directory) -> io::Result<Vec<(u32, DirectoryEntry)>> {
    let number = |entry: DirectoryEntry| {
        let number: u32 = entry.name.parse().ok()?;
        (number.to_string() == entry.name).then_some((number, entry))
    };
    Ok(home.entries()?.into_iter().filter_map(number).collect())
}

/// Makes and locks a new directory for something temporary.
fn temporary(copies: &Directory) -> io::Result<(String, Directory)> {
    loop {
        let name = format!("{:016x}", fastrand::u64(..));
        if copies.make(&name)?
            // A sweep between making and locking may have taken it for a leftover.
            && let Some(directory) =
                copies.locked(&name, FlockOperation::NonBlockingLockExclusive)?
        {
            return Ok((name, directory));
        }
    }
}

/// Returns `true` for a name made by [`temporary`]. Others are not ours to remove.
fn is_temporary(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The saved state from which copies are made.
const TEMPLATE: &str = "template";

/// Maximum number of times that the search for the saved state starts again because the state was
/// replaced in the meantime.
const MAX_ATTEMPTS: usize = 16;

impl Store {
    /// Takes a directory for a copy of a profile's saved state. The copying itself is left to
    /// [`ProfileInstance::open`], since it may take long.
    pub(super) fn copy(&self, profile: &Arc<str>) -> Result<ProfileInstance, PolicyError> {
        let home = self.home(profile)?;
        let path = self.path_of(profile).join(COPIES);
        let make = || -> io::Result<_> {
            let copies = home.ensure(COPIES)?;
            let (name, directory) = temporary(&copies)?;
            Ok((copies, name, directory))
        };
        let (copies, name, directory) = make().at("make a copy in", &path)?;
        Ok(ProfileInstance::copy(profile.clone(), &path, home, copies, directory, name))
    }

    /// Replaces the saved state of an instance's profile with the contents of the instance.
    pub(super) fn save_template(&self, instance: &ProfileInstance) -> Result<(), PolicyError> {
        let home = self.home(instance.profile())?;
        let save = || -> io::Result<()> {
            let copies = home.ensure(COPIES)?;
            let (name, directory) = temporary(&copies)?;
            let saved = copy_tree(instance.directory(), &directory)
                .and_then(|()| install(&home, &copies, &name));
            // By now the name belongs to the copy if it was not installed, or to the state that it
            // replaced. In the latter case, wait for those who still read it.
            drop(directory);
            if let Some(rest) = copies.open_if_there(&name)? {
                rest.lock()?;
                remove_tree(&copies, &name)?;
            }
            saved
        };
        save().at("save the template in", self.path_of(instance.profile()))
    }
}

/// Moves a finished copy from its temporary name to the place of the saved state.
fn install(home: &Directory, copies: &Directory, name: &str) -> io::Result<()> {
    match copies.exchange(name, home, TEMPLATE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            copies.rename(name, home, TEMPLATE)
        }
        result => result,
    }
}

/// Copies the saved state of a profile into an empty directory.
fn fill_from_template(home: &Directory, to: &Directory) -> io::Result<()> {
    let Some(from) = saved_state(home)? else { return Ok(()) };
    let copied = copy_tree(&from, to);
    if copied.is_err() {
        // So that the next try finds it empty. If clearing fails, the next try reports it.
        let _ = clear_tree(to);
    }
    copied
}

/// Opens the saved state, locked against being removed while it is read.
fn saved_state(home: &Directory) -> io::Result<Option<Directory>> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(template) = home.locked(TEMPLATE, FlockOperation::LockShared)? {
            return Ok(Some(template));
        }
        if home.open_if_there(TEMPLATE)?.is_none() {
            break;
        }
    }
    let Some((number, _)) = instances(home)?.into_iter().max_by_key(|(_, entry)| entry.used) else {
        return Ok(None);
    };
    match home.locked(&number.to_string(), FlockOperation::NonBlockingLockShared)? {
        Some(instance) => Ok(Some(instance)),
        None => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "there is no saved template, and the persistent directory is in use",
        )),
    }
}

/// Location of directories that were moved aside.
const QUARANTINE: &str = ".quarantine";

/// Number of a profile's directories kept in quarantine; older ones are removed, so that a profile
/// that keeps breaking does not fill the disk.
const MAX_QUARANTINED: usize = 3;

/// A profile directory that is yours alone for as long as you keep this, or a clone of it.
///
/// When the last clone is dropped, a persistent directory is given back, and a copy of a template
/// is removed. Both take only local file system calls and need no runtime; to keep the removal of a
/// large copy off a runtime's thread, [`close`](Self::close) it.
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
    fn kept(
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

    fn copy(
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

    /// Returns the profile's name.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.held.profile
    }

    /// Returns the number of the profile's persistent directory, from 0; `None` for a copy of a
    /// template.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match self.held.kind {
            Kind::Persistent { number } => Some(number),
            Kind::Copy { .. } => None,
        }
    }

    /// Returns `true` if the contents of the directory are kept for the next time.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.number().is_some()
    }

    /// Makes the directory ready for use and returns it: the first call makes a copy of a template.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Disk`] if it cannot be copied.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the copying goes on in the background, and the next call waits for
    /// it. If there is no next call, the copy is removed when it is ready.
    pub async fn open(&self) -> Result<&Path, PolicyError> {
        if let Kind::Copy { .. } = self.held.kind {
            let held = self.held.clone();
            tokio::task::spawn_blocking(move || held.fill())
                .await
                .map_err(|_| PolicyError::RuntimeGone)??;
        }
        Ok(&self.held.path)
    }

    /// Moves a directory with broken contents aside, and returns its new path. The next resource of
    /// the profile starts with an empty one, or with a new copy of its template.
    ///
    /// Close whatever uses the directory first. The three that were moved aside last are kept.
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
    /// If the future is dropped, the directory is given back all the same.
    pub async fn close(self) {
        // An error means that the closure was dropped without running, and `self` with it.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    fn directory(&self) -> &Directory {
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
            fill_from_template(&self.home, &self.directory)
                .at("copy the template to", &self.path)?;
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
            remove_tree(&quarantine, old)?;
        }
        Ok(path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let left = match &self.kind {
            _ if *self.quarantined.get_mut() => Ok(()),
            Kind::Persistent { .. } => self.directory.touch(),
            Kind::Copy { copies, .. } => remove_tree(copies, &self.name),
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
