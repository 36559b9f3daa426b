use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A small file system on a directory, taken away when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

/// Keeps a disk full, whatever is removed from it, until [`SmallDisk::empty`].
#[derive(Debug)]
#[must_use]
pub struct Filler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl SmallDisk {
    /// Mounts it, unless this user may not mount.
    ///
    /// # Panics
    ///
    /// If the directory cannot be made.
    #[must_use]
    pub fn on(directory: &Path) -> Option<Self> {
        fs::create_dir_all(directory).expect("the home is ours");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"])
            .arg(directory)
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(directory.to_path_buf()))
    }

    /// Fills the disk, and keeps it full.
    ///
    /// # Panics
    ///
    /// If nothing can be written to it.
    pub fn fill(&self) -> Filler {
        let mut file = File::create(self.ballast()).expect("the disk is ours");
        io::copy(&mut io::repeat(1), &mut file).expect_err("it is full at last");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // It ends with an error, as it must: that is when the disk is full.
                if file.write_all(&[1; 4096]).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Filler { stop, thread }
    }

    /// Takes away what has filled the disk.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn empty(&self, filler: Filler) {
        filler.stop.store(true, Ordering::Release);
        filler.thread.join().expect("it only writes");
        fs::remove_file(self.ballast()).expect("it was made");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test something may still run on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
