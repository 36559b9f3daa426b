use std::io;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::directory::Directory;
use super::store::{COPIES, Store, instances, temporary};
use super::{ProfileInstance, tree};
use crate::PolicyError;
use crate::error::DiskContext;

/// The saved state that copies are made of.
const TEMPLATE: &str = "template";

/// Maximum number of times that the search for the saved state begins anew because it was replaced
/// meanwhile.
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

    /// Replaces the saved state of an instance's profile by what the instance holds.
    pub(super) fn save_template(&self, instance: &ProfileInstance) -> Result<(), PolicyError> {
        let home = self.home(instance.profile())?;
        let save = || -> io::Result<()> {
            let copies = home.ensure(COPIES)?;
            let (name, directory) = temporary(&copies)?;
            let saved = tree::copy(instance.directory(), &directory)
                .and_then(|()| install(&home, &copies, &name));
            // By now the name is that of the copy if it was not installed, or of the state that
            // it replaced. Whoever still reads the latter is waited for.
            drop(directory);
            if let Some(rest) = copies.open_if_there(&name)? {
                rest.lock()?;
                tree::remove(&copies, &name)?;
            }
            saved
        };
        save().at("save the template in", self.path_of(instance.profile()))
    }
}

/// Puts what is ready under a temporary name in the place of the saved state.
fn install(home: &Directory, copies: &Directory, name: &str) -> io::Result<()> {
    match copies.exchange(name, home, TEMPLATE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            copies.rename(name, home, TEMPLATE)
        }
        result => result,
    }
}

/// Copies the saved state of a profile into an empty directory.
pub(super) fn fill(home: &Directory, to: &Directory) -> io::Result<()> {
    let Some(from) = saved_state(home)? else { return Ok(()) };
    let copied = tree::copy(&from, to);
    if copied.is_err() {
        // So that the next try finds it empty; what keeps it from that is said by the next try.
        let _ = tree::clear(to);
    }
    copied
}

/// The saved state, locked against being removed while it is read.
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
