//! A process beside the pool that ends what the pool leaves running when it is killed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;

use super::record::Record;
use super::sweep;

/// The name that the process is started under, and known by.
const NAME: &str = "browser-pool-reaper";

/// Time for a Chromium to exit by itself once its pipe is closed. It takes 0.1 to 1.2 s, in which a
/// profile is written to its disk.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Pause before a reaper that was killed is replaced.
const PAUSE: Duration = Duration::from_secs(1);

/// Byte that the pool writes before the path of a Chromium's directory, which ends with a NUL.
const BEGUN: u8 = b'+';
const GONE: u8 = b'-';

/// Set where this program can be started as a reaper.
static IS_OFFERED: AtomicBool = AtomicBool::new(false);

static REAPER: OnceLock<Option<Reaper>> = OnceLock::new();

/// Ends what a pool of this program has left running, in the process that was started for that;
/// returns false at once in any other.
///
/// Chromium exits by itself when its pipe closes. A wrapper script in front of it need not, and a
/// Chromium that is stopped does not: when the pool is killed, both would stay until the next pool
/// opens the same state directory. So this program starts itself once more, under the name
/// `browser-pool-reaper`, when it launches its first Chromium.
///
/// Call it first in `main`, which must return when it returns true. A program that does not call
/// it has no reaper.
///
/// # Examples
///
/// ```no_run
/// if pool_chrome::process::run_as_reaper() {
///     return;
/// }
/// // The program itself.
/// ```
pub fn run_as_reaper() -> bool {
    if std::env::args_os().next().is_none_or(|name| name != NAME) {
        IS_OFFERED.store(true, Ordering::Relaxed);
        return false;
    }
    end_all(&read_until_death(io::stdin().lock()));
    true
}

/// Returns the directories of the Chromiums that a pool has when its end of the pipe is closed.
fn read_until_death(mut stream: impl Read) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let (mut pending, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return directories,
            Ok(read) => pending.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return directories,
        }
        while let Some(end) = pending.iter().position(|byte| *byte == 0) {
            let message: Vec<u8> = pending.drain(..=end).take(end).collect();
            match message.split_first() {
                Some((&BEGUN, path)) => {
                    directories.insert(PathBuf::from(OsStr::from_bytes(path)));
                }
                Some((&GONE, path)) => {
                    directories.remove(Path::new(OsStr::from_bytes(path)));
                }
                _ => {}
            }
        }
    }
}

/// Ends the Chromiums of a pool that is dead, each as the sweep of the next start would, but not
/// before it could have exited by itself.
fn end_all(directories: &BTreeSet<PathBuf>) {
    let began = Instant::now();
    let leads = |directory: &PathBuf| {
        Record::read(directory).is_some_and(|record| record.process.is_alive())
    };
    while began.elapsed() < PATIENCE && directories.iter().any(leads) {
        thread::sleep(Duration::from_millis(50));
    }
    // Side by side: one that does not die takes its time.
    thread::scope(|scope| {
        for directory in directories {
            scope.spawn(|| sweep::end(directory));
        }
    });
}

/// Notes that a Chromium is going to run in a directory.
pub(super) fn watch(directory: &Path) {
    if !IS_OFFERED.load(Ordering::Relaxed) {
        return;
    }
    let reaper = REAPER.get_or_init(|| match Reaper::start() {
        Ok(reaper) => Some(reaper),
        Err(error) => {
            tracing::warn!(%error, "there is no reaper: what a killed pool leaves may stay until the next start");
            None
        }
    });
    if let Some(reaper) = reaper {
        reaper.state().note(BEGUN, directory);
    }
}

/// Notes that nothing of the Chromium in a directory is left.
pub(super) fn forget(directory: &Path) {
    if let Some(Some(reaper)) = REAPER.get() {
        reaper.state().note(GONE, directory);
    }
}

/// The pool's end of the pipe to its reaper, which closes with the pool, however it dies.
#[derive(Debug)]
struct Reaper(Mutex<State>);

#[derive(Debug)]
struct State {
    pipe: ChildStdin,
    directories: BTreeSet<PathBuf>,
}

impl Reaper {
    fn start() -> io::Result<Self> {
        let (child, pipe) = spawn()?;
        thread::Builder::new().name("reaper".to_owned()).spawn(move || replace(child))?;
        Ok(Self(Mutex::new(State { pipe, directories: BTreeSet::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, what: u8, directory: &Path) {
        if what == BEGUN {
            self.directories.insert(directory.to_owned());
        } else {
            self.directories.remove(directory);
        }
        self.tell(what, directory);
    }

    /// Does not wait: a reaper that is stopped is none, and one that was killed is replaced and
    /// told anew.
    fn tell(&mut self, what: u8, directory: &Path) {
        let path = directory.as_os_str().as_bytes();
        let _ = self.pipe.write_all(&[&[what], path, &[0]].concat());
    }
}

/// Waits for the reaper, which ends only when it is killed, and starts another in its place.
fn replace(mut child: Child) {
    loop {
        // An error means that somebody else has waited for it.
        let _ = child.wait();
        thread::sleep(PAUSE);
        let started = spawn();
        let Some(Some(reaper)) = REAPER.get() else { return };
        match started {
            Ok((next, pipe)) => {
                let mut state = reaper.state();
                state.pipe = pipe;
                for directory in state.directories.clone() {
                    state.tell(BEGUN, &directory);
                }
                child = next;
            }
            Err(error) => {
                tracing::warn!(%error, "the reaper was killed and cannot be started again");
            }
        }
    }
}

/// Starts the program that runs, whatever has become of its file.
fn spawn() -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals from a terminal are for the pool.
        .process_group(0)
        .spawn()?;
    let pipe = child.stdin.take().expect("stdin is piped");
    ioctl_fionbio(&pipe, true)?;
    Ok((child, pipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_ended() {
        let told = b"+/a\0+/b c\n\0-/a\0\0+/d\0-/x\0+/cut off";
        let left = read_until_death(&told[..]);
        assert_eq!(left, [PathBuf::from("/b c\n"), PathBuf::from("/d")].into());
    }
}
