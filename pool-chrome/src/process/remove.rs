use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Removes what is at `path`, with everything below it. Symlinks are removed, never followed.
///
/// A directory that a dying process still writes into is tried again for a while.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let mut last = Ok(());
    for pause in [0, 5, 20, 80, 300] {
        std::thread::sleep(Duration::from_millis(pause));
        last = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_symlink_is_removed_and_its_target_stays() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("precious");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("file"), "kept").unwrap();
        let doomed = root.path().join("doomed");
        fs::create_dir(&doomed).unwrap();
        symlink(&target, doomed.join("inside")).unwrap();
        symlink(&target, root.path().join("beside")).unwrap();

        remove(&doomed).unwrap();
        remove(&root.path().join("beside")).unwrap();

        assert!(!doomed.exists() && !root.path().join("beside").exists());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "kept");
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        remove(&root.path().join("absent")).unwrap();
    }
}
