//! Directory trees, walked by descriptors so that a symlink put in the way leads nowhere.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Deeper trees than this are refused rather than followed until the stack ends.
const MAX_DEPTH: usize = 128;

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Copies what a directory holds into an empty one.
///
/// Where the file system can, files share their blocks until one side writes. Symlinks, sockets
/// and pipes are left out: they belong to a process that runs, or ran, in the original.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
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
pub(super) fn clear(directory: impl AsFd) -> io::Result<()> {
    clear_level(directory.as_fd(), MAX_DEPTH)
}

/// Removes an entry of a directory with everything in it; a symlink goes, its target stays.
pub(super) fn remove(parent: impl AsFd, name: &str) -> io::Result<()> {
    let parent = parent.as_fd();
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What unlink says of a directory: the one on Linux, the other elsewhere.
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

/// Calls `f` with the name and kind of each entry; one that is gone by then is passed over.
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
    use crate::profiles::directory::Directory;

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
        copy(&from, &to).unwrap();
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
        copy(&from, &to).unwrap();
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
        remove(&parent, "to").unwrap();
        remove(&parent, "top").unwrap();
        remove(&parent, "not there").unwrap();
        assert!(!path.join("to").exists() && !path.join("top").exists());
        assert_eq!(std::fs::read_to_string(path.join("from/precious")).unwrap(), "precious");
    }
}
