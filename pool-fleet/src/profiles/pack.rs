use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Component, Path, PathBuf};

/// Level of compression: fast, since a client is waiting.
const LEVEL: i32 = 1;

/// Packs directories into files, and back: tar, compressed by zstd.
///
/// Regular files and directories are packed with their modes and times. Sockets, pipes and
/// devices belong to a running program and are left out, as are symbolic links, which could lead
/// out of the directory on the other machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    skipped: Vec<String>,
}

impl Packing {
    /// Returns a packing of everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out files and directories with these names, wherever they are: caches, crash reports.
    #[must_use]
    pub fn without<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.skipped.extend(names.into_iter().map(Into::into));
        self
    }

    /// Packs a directory into a file and returns the file's size.
    ///
    /// Files that vanish in the meantime are left out; nothing else may change in the directory.
    ///
    /// # Errors
    ///
    /// Any error of the file system, such as a full disk. The partial file is left for the caller
    /// to remove.
    pub fn pack(&self, directory: &Path, file: &Path) -> io::Result<u64> {
        let encoder = zstd::Encoder::new(BufWriter::new(File::create(file)?), LEVEL)?;
        let mut archive = tar::Builder::new(encoder);
        archive.follow_symlinks(false);
        self.add(&mut archive, directory, Path::new(""))?;
        let mut written = archive.into_inner()?.finish()?;
        written.flush()?;
        written.get_ref().sync_all()?;
        written.get_ref().metadata().map(|metadata| metadata.len())
    }

    fn add<W: io::Write>(
        &self,
        archive: &mut tar::Builder<W>,
        directory: &Path,
        within: &Path,
    ) -> io::Result<()> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            if self.skips(&name) {
                continue;
            }
            let (path, within) = (entry.path(), within.join(&name));
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if kind.is_dir() {
                archive.append_dir(&within, &path)?;
                self.add(archive, &path, &within)?;
            } else if kind.is_file() {
                match File::open(&path) {
                    Ok(mut file) => append(archive, &within, &mut file)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn skips(&self, name: &OsStr) -> bool {
        self.skipped.iter().any(|skipped| name == OsStr::new(skipped))
    }
}

/// Adds a file with exactly the size in its header, even if it grows or shrinks in the meantime.
fn append<W: io::Write>(
    archive: &mut tar::Builder<W>,
    within: &Path,
    file: &mut File,
) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    // The user and the group of this machine mean nothing on another.
    header.set_uid(0);
    header.set_gid(0);
    let padded = file.chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, within, padded)
}

/// Unpacks a file made by [`Packing::pack`] into an empty or new directory.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if the file has anything other than regular files and directories
/// below the directory; otherwise any error of the file system. What was unpacked is left for the
/// caller to remove.
pub fn unpack(file: &Path, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(BufReader::new(File::open(file)?))?);
    archive.set_preserve_ownerships(false);
    archive.set_overwrite(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir()) || !stays_below(&path) {
            let odd = format!("{} is neither a file nor a directory", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, odd));
        }
        if !entry.unpack_in(directory)? {
            let odd = format!("{} points outside the profile", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, odd));
        }
    }
    Ok(())
}

fn stays_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Removes a directory that may not exist.
pub(super) fn remove_dir(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file that may not exist.
pub(super) fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A file that is removed when it is no longer needed, whichever way that happens.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let file = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "a packed profile was not removed");
            }
        };
        // Freeing the blocks of a large file takes a while.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn write(path: PathBuf, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn tree(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![directory.to_owned()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let shown = path.strip_prefix(directory).unwrap().display().to_string();
                if path.is_dir() {
                    open.push(path);
                }
                found.push(shown);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_directory_comes_back_without_its_caches() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        write(from.join("Default/Cookies"), "login");
        write(from.join("Default/Cache/data_1"), "large");
        write(from.join("Default/Code Cache/js/x"), "large");
        write(from.join("GPUCache/x"), "large");
        write(from.join("a very long name ".repeat(12)).join("b".repeat(120)), "deep");
        fs::create_dir(from.join("empty")).unwrap();
        fs::set_permissions(from.join("Default/Cookies"), fs::Permissions::from_mode(0o600))
            .unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();

        let (file, to) = (dir.path().join("packed"), dir.path().join("to"));
        let packing = Packing::new().without(["Cache", "Code Cache", "GPUCache"]);
        let size = packing.pack(&from, &file).unwrap();
        assert_eq!(size, fs::metadata(&file).unwrap().len());
        unpack(&file, &to).unwrap();
        let long = "a very long name ".repeat(12);
        let mut expected = vec![
            "Default".to_owned(),
            "Default/Cookies".to_owned(),
            long.clone(),
            format!("{long}/{}", "b".repeat(120)),
            "empty".to_owned(),
        ];
        expected.sort();
        assert_eq!(tree(&to), expected);
        assert_eq!(fs::read_to_string(to.join("Default/Cookies")).unwrap(), "login");
        let mode = fs::metadata(to.join("Default/Cookies")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    fn forged(make: impl FnOnce(&mut tar::Builder<zstd::Encoder<'static, File>>)) -> io::Error {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("packed");
        let encoder = zstd::Encoder::new(File::create(&file).unwrap(), LEVEL).unwrap();
        let mut archive = tar::Builder::new(encoder);
        make(&mut archive);
        archive.into_inner().unwrap().finish().unwrap();
        let to = dir.path().join("to");
        let error = unpack(&file, &to).unwrap_err();
        assert!(!dir.path().join("out").exists(), "something was written outside");
        error
    }

    #[test]
    fn what_leads_out_of_the_directory_is_refused() {
        let climbing = forged(|archive| {
            let mut header = tar::Header::new_gnu();
            // The builder itself refuses such a path.
            header.as_mut_bytes()[..6].copy_from_slice(b"../out");
            header.set_size(1);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
        });
        assert_eq!(climbing.kind(), io::ErrorKind::InvalidData);
        let linked = forged(|archive| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, "link", "/etc").unwrap();
        });
        assert_eq!(linked.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (from, file) = (dir.path().join("from"), dir.path().join("packed"));
        write(from.join("data"), &"0123456789".repeat(5_000));
        Packing::new().pack(&from, &file).unwrap();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 9]).unwrap();
        assert!(unpack(&file, &dir.path().join("to")).is_err());
        fs::write(&file, b"no archive at all").unwrap();
        assert!(unpack(&file, &dir.path().join("to")).is_err());
        assert!(Packing::new().pack(&dir.path().join("none"), &file).is_err());
    }
}
