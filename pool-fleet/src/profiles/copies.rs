use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::claim::Version;
use super::pack::{remove_dir, remove_file};
use crate::subject::{decode, encode};

/// One instance of a profile: the unit that is claimed, saved and moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProfileId {
    /// Name of the profile.
    pub profile: String,
    /// Number of the instance, for profiles that may be leased more than once at a time.
    pub instance: u32,
}

impl ProfileId {
    /// Returns the id of an instance.
    #[must_use]
    pub fn new(profile: impl Into<String>, instance: u32) -> Self {
        Self { profile: profile.into(), instance }
    }

    pub(super) fn key(&self) -> String {
        format!("{}.{}", encode(&self.profile), self.instance)
    }

    /// Returns a name for a new object of this instance.
    pub(super) fn new_object(&self) -> String {
        format!("{}/{}/{:032x}", self.profile, self.instance, fastrand::u128(..))
    }

    /// Returns the instance that an object belongs to.
    pub(super) fn of_object(object: &str) -> Option<Self> {
        let mut parts = object.rsplitn(3, '/').skip(1);
        let instance = parts.next()?.parse().ok()?;
        Some(Self { profile: parts.next()?.to_owned(), instance })
    }

    fn from_key(key: &str) -> Option<Self> {
        let (profile, instance) = key.split_once('.')?;
        Some(Self { profile: decode(profile).ok()?, instance: instance.parse().ok()? })
    }
}

/// The mark of a directory that has exactly the content of an object.
///
/// It is removed before the directory is used, and set when the changes are saved, so a directory
/// that was in use when its node died is never taken for a valid copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    #[serde(flatten)]
    pub(super) version: Version,
    pub(super) object: String,
}

/// The copies of profiles on this node's disk.
#[derive(Debug)]
pub(super) struct Copies {
    root: PathBuf,
}

impl Copies {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn directory(&self, id: &ProfileId) -> PathBuf {
        self.place(id).join("data")
    }

    /// Returns the name of a file for packing and unpacking, next to the directory.
    pub(super) fn scratch(&self, id: &ProfileId, what: &str) -> PathBuf {
        self.place(id).join(format!("{what}-{:016x}", fastrand::u64(..)))
    }

    pub(super) fn mark(&self, id: &ProfileId) -> io::Result<Option<Mark>> {
        match fs::read(self.mark_file(id)) {
            // A mark that was cut off by a crash marks nothing.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_mark(&self, id: &ProfileId, mark: &Mark) -> io::Result<()> {
        let (file, new) = (self.mark_file(id), self.place(id).join("mark.new"));
        fs::write(&new, serde_json::to_vec(mark).expect("a mark has only text and a number"))?;
        fs::rename(new, file)
    }

    pub(super) fn unmark(&self, id: &ProfileId) -> io::Result<()> {
        remove_file(&self.mark_file(id))
    }

    /// Makes the place of an instance, and removes everything that a crash has left there except
    /// its copy.
    pub(super) fn prepare(&self, id: &ProfileId) -> io::Result<()> {
        let place = self.place(id);
        private_dir(&place)?;
        for entry in fs::read_dir(&place)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "data" || name == "mark" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                remove_dir(&entry.path())?;
            } else {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Replaces the copy with a directory, or with an empty one for `None`.
    pub(super) fn replace(&self, id: &ProfileId, with: Option<&Path>) -> io::Result<()> {
        let directory = self.directory(id);
        self.unmark(id)?;
        remove_dir(&directory)?;
        match with {
            Some(unpacked) => fs::rename(unpacked, directory),
            None => private_dir(&directory),
        }
    }

    /// Lists the instances of which this node has a marked copy.
    pub(super) fn list(&self) -> io::Result<Vec<(ProfileId, Mark)>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(ProfileId::from_key) else { continue };
            if let Some(mark) = self.mark(&id)? {
                found.push((id, mark));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    fn place(&self, id: &ProfileId) -> PathBuf {
        // An encoded name has no slash and no dot, so it stays below the root.
        self.root.join(id.key())
    }

    fn mark_file(&self, id: &ProfileId) -> PathBuf {
        self.place(id).join("mark")
    }
}

/// Makes a directory that only this user can look into, since profiles hold logins.
pub(super) fn private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_root() {
        let copies = Copies::new(PathBuf::from("/r"));
        for name in ["..", "../..", "/etc", "a/b", ".", ""] {
            let directory = copies.directory(&ProfileId::new(name, 0));
            let parts: Vec<_> = directory.components().collect();
            assert_eq!(parts.len(), 4, "{}", directory.display());
            assert!(!directory.to_str().unwrap().contains(".."), "{}", directory.display());
        }
    }

    #[test]
    fn only_marked_copies_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::new(dir.path().join("profiles"));
        assert_eq!(copies.list().unwrap(), []);
        let (a, b) = (ProfileId::new("crm@x:1+y.z", 0), ProfileId::new("b", 12));
        let mark = Mark { version: Version { generation: 1, content: 3 }, object: "o".into() };
        for id in [&a, &b] {
            copies.prepare(id).unwrap();
            copies.replace(id, None).unwrap();
        }
        copies.set_mark(&a, &mark).unwrap();
        fs::write(copies.mark_file(&b), "{\"content\":1").unwrap();
        assert_eq!(copies.list().unwrap(), [(a.clone(), mark)]);
        copies.unmark(&a).unwrap();
        assert_eq!(copies.list().unwrap(), []);
    }

    #[test]
    fn what_a_crash_has_left_is_removed_and_the_copy_stays() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::new(dir.path().to_owned());
        let id = ProfileId::new("a", 0);
        copies.prepare(&id).unwrap();
        copies.replace(&id, None).unwrap();
        fs::write(copies.directory(&id).join("login"), "x").unwrap();
        fs::write(copies.scratch(&id, "packed"), "x").unwrap();
        fs::create_dir(copies.scratch(&id, "unpacked")).unwrap();
        copies.prepare(&id).unwrap();
        assert_eq!(fs::read_dir(copies.place(&id)).unwrap().count(), 1);
        assert!(copies.directory(&id).join("login").exists());
    }
}
