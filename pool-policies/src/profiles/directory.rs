use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// A directory that is open: what is done to it is done to this very directory, whatever its path
/// names by then.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

const PRIVATE: Mode = Mode::RWXU;
const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl Directory {
    /// Opens the directory at a path, which must not be a symlink.
    pub(super) fn at_path(path: &std::path::Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OPEN, Mode::empty())?))
    }

    /// Opens a directory in this one; a symlink is an error.
    pub(super) fn open(&self, name: &str) -> io::Result<Self> {
        Ok(Self(fs::openat(&self.0, name, OPEN, Mode::empty())?))
    }

    /// Opens a directory in this one, if there is something of that name.
    pub(super) fn open_if_there(&self, name: &str) -> io::Result<Option<Self>> {
        match self.open(name) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory in this one; says no if there is something of that name.
    pub(super) fn make(&self, name: &str) -> io::Result<bool> {
        match fs::mkdirat(&self.0, name, PRIVATE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory in this one, made if it is not there, private in any case.
    pub(super) fn ensure(&self, name: &str) -> io::Result<Self> {
        self.make(name)?;
        let directory = self.open(name)?;
        directory.make_private()?;
        Ok(directory)
    }

    /// Takes all rights from everybody but the user.
    pub(super) fn make_private(&self) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, PRIVATE)?)
    }

    /// Opens and locks a directory in this one; nothing if it is not there, or if the operation
    /// does not wait and somebody else has it locked.
    ///
    /// The lock is on the open directory itself, so it needs no file of its own and ends with its
    /// process. It is taken after opening, and by then another directory may stand under the
    /// name: that counts as not there.
    pub(super) fn locked(&self, name: &str, how: FlockOperation) -> io::Result<Option<Self>> {
        let Some(directory) = self.open_if_there(name)? else { return Ok(None) };
        match fs::flock(&directory.0, how) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let held = fs::fstat(&directory.0)?;
        let same = match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino),
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(same.then_some(directory))
    }

    /// Waits until everybody else has let go of this directory.
    pub(super) fn lock(&self) -> io::Result<()> {
        Ok(fs::flock(&self.0, FlockOperation::LockExclusive)?)
    }

    /// Lets go of the lock.
    ///
    /// Closing does so too, but not while a child that is just being spawned has a copy of the
    /// descriptor.
    pub(super) fn unlock(&self) -> io::Result<()> {
        Ok(fs::flock(&self.0, FlockOperation::Unlock)?)
    }

    /// Marks this directory as used just now.
    pub(super) fn touch(&self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
        Ok(fs::futimens(&self.0, &Timestamps { last_access: now, last_modification: now })?)
    }

    /// Renames something in this directory to a name in another one.
    pub(super) fn rename(&self, name: &str, to: &Self, as_name: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, as_name)?)
    }

    /// Swaps something in this directory with something in another one, in one step.
    pub(super) fn exchange(&self, name: &str, with: &Self, its_name: &str) -> io::Result<()> {
        Ok(fs::renameat_with(&self.0, name, &with.0, its_name, fs::RenameFlags::EXCHANGE)?)
    }

    /// Returns the entries of this directory.
    pub(super) fn entries(&self) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            // A name that is not UTF-8 cannot be one of ours.
            let Ok(name) = name.to_str() else { continue };
            entries.push(DirectoryEntry {
                name: name.to_owned(),
                is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                used: Duration::new(
                    stat.st_mtime.try_into().unwrap_or(0),
                    stat.st_mtime_nsec.try_into().unwrap_or(0),
                ),
            });
        }
        Ok(entries)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Something that stands in a [`Directory`].
#[derive(Debug)]
pub(super) struct DirectoryEntry {
    pub(super) name: String,
    /// A directory itself, not a symlink to one.
    pub(super) is_directory: bool,
    /// When it was last used, since the epoch.
    pub(super) used: Duration,
}
