//! Open directories, and the trees below them.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// An open directory: operations apply to this very directory, whatever its path names by then.
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

    /// Opens a directory in this one, or returns `None` if nothing has that name.
    pub(super) fn open_if_there(&self, name: &str) -> io::Result<Option<Self>> {
        match self.open(name) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory in this one; returns `false` if something already has that name.
    pub(super) fn make(&self, name: &str) -> io::Result<bool> {
        match fs::mkdirat(&self.0, name, PRIVATE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory in this one, making it if it does not exist, and makes it private in any
    /// case.
    pub(super) fn ensure(&self, name: &str) -> io::Result<Self> {
        self.make(name)?;
        let directory = self.open(name)?;
        directory.make_private()?;
        Ok(directory)
    }

    /// Takes all permissions from everybody but the owner.
    pub(super) fn make_private(&self) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, PRIVATE)?)
    }

    /// Opens and locks a directory in this one; returns `None` if it does not exist, or if the
    /// operation does not wait and somebody else holds the lock.
    ///
    /// The lock is on the open directory itself, so it needs no file of its own and ends with its
    /// process. It is taken after opening, and by then the name may belong to another directory:
    /// that counts as not existing.
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

    /// Waits until nobody else has this directory locked, then locks it.
    pub(super) fn lock(&self) -> io::Result<()> {
        Ok(fs::flock(&self.0, FlockOperation::LockExclusive)?)
    }

    /// Releases the lock.
    ///
    /// Closing does so too, but not while a child that is just being spawned has a copy of the
    /// descriptor.
    pub(super) fn unlock(&self) -> io::Result<()> {
        Ok(fs::flock(&self.0, FlockOperation::Unlock)?)
    }

    /// Marks this directory as just used.
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

/// An entry of a [`Directory`].
#[derive(Debug)]
pub(super) struct DirectoryEntry {
    pub(super) name: String,
    /// A directory itself, not a symlink to one.
    pub(super) is_directory: bool,
    /// Time at which it was last used, since the epoch.
    pub(super) used: Duration,
}

/// Maximum depth of a tree; deeper ones are refused rather than followed until the stack overflows.
const MAX_DEPTH: usize = 128;

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Copies the contents of a directory into an empty one.
///
/// If the file system supports it, files share their blocks until one side writes. Symlinks,
/// sockets and pipes are left out: they belong to a process that runs, or ran, in the original.
pub(super) fn copy_tree(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    copy_level(from.as_fd(), to.as_fd(), MAX_DEPTH)
}

fn copy_level(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    for_each(from, |name, kind| match kind {
        FileType::Directory => {
            let depth = deeper(depth)?;
            fs::mkdirat(to, name, Mode::RWXU)?;
            let from = open_directory(from, name)?;
            let to = open_directory(to, name)?;
            copy_level(from.as_fd(), to.as_fd(), depth)
        }
        FileType::RegularFile => copy_file(from, to, name),
        _ => Ok(()),
    })
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut source = File::from(fs::openat(from, name, READ, Mode::empty())?);
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(fs::fstat(&source)?.st_mode) & Mode::RWXU;
    let mut target = File::from(fs::openat(to, name, create, mode)?);
    #[cfg(target_os = "linux")]
    if fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    io::copy(&mut source, &mut target)?;
    Ok(())
}

/// Removes everything in a directory.
pub(super) fn clear_tree(directory: impl AsFd) -> io::Result<()> {
    clear_level(directory.as_fd(), MAX_DEPTH)
}

/// Removes an entry of a directory with everything in it; a symlink is removed, but not its target.
pub(super) fn remove_tree(parent: impl AsFd, name: &str) -> io::Result<()> {
    let parent = parent.as_fd();
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // The error of unlink for a directory: the former on Linux, the latter elsewhere.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = fs::openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty())?;
    clear_level(directory.as_fd(), MAX_DEPTH)?;
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn clear_level(directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    for_each(directory, |name, kind| {
        if kind != FileType::Directory {
            return Ok(fs::unlinkat(directory, name, AtFlags::empty())?);
        }
        let depth = deeper(depth)?;
        clear_level(open_directory(directory, name)?.as_fd(), depth)?;
        Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
    })
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<std::os::fd::OwnedFd> {
    Ok(fs::openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty())?)
}

fn deeper(depth: usize) -> io::Result<usize> {
    depth.checked_sub(1).ok_or_else(|| io::Error::other("the directories are nested too deeply"))
}

/// Calls `f` with the name and kind of each entry; an entry that is gone by then is skipped.
fn for_each(
    directory: BorrowedFd<'_>,
    mut f: impl FnMut(&CStr, FileType) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        f(name, kind)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn fixture() -> (tempfile::TempDir, Directory, Directory) {
        let root = tempfile::tempdir().unwrap();
        for name in ["from", "to"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let open = |name: &str| Directory::at_path(&root.path().join(name)).unwrap();
        let (from, to) = (open("from"), open("to"));
        (root, from, to)
    }

    #[test]
    fn a_copy_has_the_files_and_directories_and_is_private() {
        let (root, from, to) = fixture();
        let path = root.path();
        std::fs::create_dir_all(path.join("from/Default/deep")).unwrap();
        std::fs::write(path.join("from/Default/deep/Cookies"), vec![7; 300_000]).unwrap();
        std::fs::write(path.join("from/Local State"), "").unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(std::fs::read(path.join("to/Default/deep/Cookies")).unwrap(), vec![7; 300_000]);
        assert!(path.join("to/Local State").exists());
        let mode = |name: &str| path.join(name).metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode("to/Default"), 0);
        assert_eq!(mode("to/Default/deep/Cookies"), 0);
    }

    #[test]
    fn a_copy_leaves_out_symlinks_and_sockets() {
        let (root, from, to) = fixture();
        let path = root.path();
        std::fs::write(path.join("secret"), "secret").unwrap();
        symlink(path.join("secret"), path.join("from/SingletonLock")).unwrap();
        symlink("..", path.join("from/up")).unwrap();
        let _socket =
            std::os::unix::net::UnixListener::bind(path.join("from/SingletonSocket")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(std::fs::read_dir(path.join("to")).unwrap().count(), 0);
    }

    #[test]
    fn removing_takes_the_symlinks_and_leaves_their_targets() {
        let (root, ..) = fixture();
        let path = root.path();
        std::fs::write(path.join("from/precious"), "precious").unwrap();
        std::fs::create_dir_all(path.join("to/a/b")).unwrap();
        symlink(path.join("from"), path.join("to/a/b/link")).unwrap();
        symlink(path.join("from"), path.join("top")).unwrap();
        let parent = Directory::at_path(path).unwrap();
        remove_tree(&parent, "to").unwrap();
        remove_tree(&parent, "top").unwrap();
        remove_tree(&parent, "not there").unwrap();
        assert!(!path.join("to").exists() && !path.join("top").exists());
        assert_eq!(std::fs::read_to_string(path.join("from/precious")).unwrap(), "precious");
    }
}
