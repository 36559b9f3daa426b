//! F34, F37: a machine that has nothing left.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use browser_pool_tests::{Case, Home, Setup, case, case_in, eventually};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::{kill_idle, until_full, works};

/// A small file system on a directory, taken away when this is dropped.
#[derive(Debug)]
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` for whoever may not mount.
    fn on(directory: &Path) -> Option<Self> {
        fs::create_dir_all(directory).expect("the home is ours");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"])
            .arg(directory)
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(directory.to_path_buf()))
    }

    /// Fills the disk and keeps it full, whatever is removed from it, until it is
    /// [emptied](Self::empty).
    fn fill(&self) -> Filler {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (self.ballast(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut file = File::create(path).expect("the disk is ours");
            while !stopped.load(Ordering::Acquire) {
                // It ends with an error, as it must: that is when the disk is full.
                if file.write_all(&[1; 4096]).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Filler { stop, thread }
    }

    fn empty(&self, filler: Filler) {
        filler.stop.store(true, Ordering::Release);
        filler.thread.join().expect("it only writes");
        fs::remove_file(self.ballast()).expect("it was made");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

/// What keeps a disk full.
#[derive(Debug)]
struct Filler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test something may still run on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f34_disk_full() {
    let home = Home::new();
    let Some(disk) = SmallDisk::on(&home.state_dir()) else {
        eprintln!("not tested: a file system can only be mounted by root");
        return;
    };
    case_in(home, Setup::new(), async |case| {
        let filler = disk.fill();
        kill_idle(case).await;
        let began = Instant::now();
        let refused = eventually_refused(case).await;
        println!("refused after {:?}: {refused}", began.elapsed());
        assert!(
            refused.contains("No space left on device") || refused.contains("launch"),
            "{refused}"
        );
        disk.empty(filler);
        eventually("it heals by itself", Duration::from_secs(90), async || {
            let load = case.service.state().await["load"].clone();
            if load["idle"] == load["min_size"] { Ok(()) } else { Err(load) }
        })
        .await;
    })
    .await;
    drop(disk);
}

/// The sentence of a refusal for want of a browser. What still comes up, in the room that another
/// has left, is killed.
async fn eventually_refused(case: &Case) -> String {
    let mut told = String::new();
    eventually("a lease is refused", Duration::from_secs(30), async || {
        match case.service.try_connect("/?acquire_timeout=5000").await {
            Err(refused) if [408, 503].contains(&refused.status) => {
                told = refused.detail().to_owned();
                Ok(())
            }
            Err(refused) => Err(format!("{refused:?}")),
            Ok(client) => {
                case.service.browser_of(&client).await.signal(Signal::KILL);
                Err("there was a browser".to_owned())
            }
        }
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_descriptors_exhausted() {
    // Enough for two Chromiums and a few clients.
    let setup = Setup::new().wrapper(["prlimit", "--nofile=90:90"]);
    case(setup, async |case| {
        let mut crowd = Vec::new();
        for _ in 0..150 {
            crowd
                .push(TcpStream::connect(&case.service.address).await.expect("the kernel accepts"));
        }
        sleep(Duration::from_millis(500)).await;
        let held = case.service.process.descriptors();
        assert!(held >= 80, "they are not exhausted: {held}");
        let used = case.service.process.cpu_seconds();
        sleep(Duration::from_secs(3)).await;
        let used = case.service.process.cpu_seconds() - used;
        assert!(used < 1.0, "it spins: {used} s of CPU in 3 s");
        // Launches that fail for want of descriptors are not to end anything else.
        kill_idle(case).await;
        sleep(Duration::from_secs(1)).await;
        drop(crowd);
        eventually("it serves again", Duration::from_secs(60), async || {
            match case.service.try_connect("/?acquire_timeout=5000").await {
                Ok(client) => works(&client).await,
                Err(refused) => Err(format!("{refused:?}")),
            }
        })
        .await;
        until_full(&case.service).await;
    })
    .await;
}
