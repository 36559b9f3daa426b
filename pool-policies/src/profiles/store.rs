use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::directory::{Directory, DirectoryEntry};
use super::{ProfileInstance, tree};
use crate::error::DiskContext;
use crate::{PolicyError, name};

/// Location of the copies, and of what is on its way in or out. Nothing in it outlives its process.
pub(super) const COPIES: &str = ".pool-copies";

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
    /// Opens the root, made if it is not there, and sweeps it.
    pub(super) fn open(root: &Path) -> Result<Self, PolicyError> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).at("make directory", root)?;
        // The way to the root is the operator's and may go through symlinks; below it none may be.
        let path = root.canonicalize().at("find directory", root)?;
        let store = Self { root: Directory::at_path(&path).at("open directory", &path)?, path };
        store.sweep().at("tidy up directory", &store.path)?;
        Ok(store)
    }

    /// Removes the copies that dead processes have left: those that nobody has locked.
    fn sweep(&self) -> io::Result<()> {
        for profile in self.root.entries()? {
            if !profile.is_directory || name::check(super::LABEL, &profile.name).is_err() {
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
                    tree::remove(&copies, &copy.name)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn path_of(&self, profile: &str) -> PathBuf {
        self.path.join(profile)
    }

    /// The directory of a profile, made if it is not there.
    pub(super) fn home(&self, profile: &str) -> Result<Directory, PolicyError> {
        self.root.ensure(profile).at("open directory", self.path_of(profile))
    }

    /// Takes one of the first `max` instances of a profile that nobody has: the one used last, so
    /// that what was done there is found again; a new one if all that exist are in use.
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
pub(super) fn instances(home: &Directory) -> io::Result<Vec<(u32, DirectoryEntry)>> {
    let number = |entry: DirectoryEntry| {
        let number: u32 = entry.name.parse().ok()?;
        (number.to_string() == entry.name).then_some((number, entry))
    };
    Ok(home.entries()?.into_iter().filter_map(number).collect())
}

/// Makes and locks a new directory for something temporary.
pub(super) fn temporary(copies: &Directory) -> io::Result<(String, Directory)> {
    loop {
        let name = format!("{:016x}", fastrand::u64(..));
        if copies.make(&name)?
            // A sweep that came between making and locking may have taken it for a leftover.
            && let Some(directory) =
                copies.locked(&name, FlockOperation::NonBlockingLockExclusive)?
        {
            return Ok((name, directory));
        }
    }
}

/// Returns `true` for a name that [`temporary`] gives. Others are not ours to remove.
fn is_temporary(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
