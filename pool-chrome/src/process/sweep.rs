//! Leftovers of a browser that ended or whose pool was killed: found by their record, ended, and
//! removed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;

use super::cgroup::Cgroup;
use super::tree::{ProcessId, Tree, with_argument};
use crate::ChromeError;

/// The name of the file within a browser's directory.
const FILE: &str = "record";

/// Record of a running browser, for the sweep of the next start.
///
/// The directory exists before the process does, so a pool that is killed in between leaves a
/// directory without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) process: ProcessId,
    /// The boot that the start time belongs to: start times are counted from boot, so they are
    /// meaningless after the next one.
    boot: String,
}

impl Record {
    pub(super) fn new(process: ProcessId) -> Self {
        Self { process, boot: boot_id() }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let ProcessId { pid, started } = self.process;
        fs::write(directory.join(FILE), format!("{pid} {started} {}\n", self.boot))
    }

    /// Returns the record of a browser of this boot; also `None` if it was only half written.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(FILE)).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let process =
            ProcessId { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
        let record = Self { process, boot: words.next()?.to_owned() };
        (record.boot == boot_id()).then_some(record)
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The longest path of a Unix socket, without the ending NUL.
const SOCKET_PATH: usize = 107;

/// Length of the path that Chromium appends to TMPDIR:
/// `/org.chromium.Chromium.XXXXXX/SingletonSocket`.
const SOCKET_SUFFIX: usize = 45;

/// Maximum time a leftover process may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// The remains of a killed pool that were cleaned up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sweep {
    /// Processes killed.
    pub processes: usize,
    /// Directories of browsers removed.
    pub directories: usize,
    /// Directories of browsers that could not be removed; the next sweep tries again.
    pub failed: usize,
}

impl Sweep {
    /// Returns `true` if there was nothing to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends and removes every browser below `run`. The caller holds the lock of the state directory,
/// and has no browsers of its own yet.
pub(super) fn sweep(run: &Path) -> Result<Sweep, ChromeError> {
    let mut done = Sweep::default();
    for entry in fs::read_dir(run).map_err(ChromeError::file("list", run))? {
        let entry = entry.map_err(ChromeError::file("list", run))?;
        let path = entry.path();
        // Anything but a directory is not ours; a link is removed without looking behind it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let killed = end(&path);
            done.processes += killed;
        }
        match remove(&path) {
            Ok(()) => done.directories += 1,
            Err(error) => {
                done.failed += 1;
                tracing::warn!(
                    directory = %path.display(),
                    %error,
                    "cannot remove what a killed pool left behind",
                );
            }
        }
    }
    Ok(done)
}

/// Kills the remaining processes of one browser; returns how many there were.
///
/// The process group is killed only if its leader is the very process that was recorded. Its id
/// alone proves nothing: by now it may belong to another program's Chrome. In addition to the
/// group, processes that carry this directory are killed; no other program's processes do.
pub(super) fn end(directory: &Path) -> usize {
    let leader =
        Record::read(directory).map(|record| record.process).filter(|leader| leader.is_alive());
    let temp_dir = temp_dir(directory);
    let tree = Tree { leader, directory: directory.to_owned(), temp_dir, is_ours: false };
    let members = tree.members().len();
    let cgroup = Cgroup::of(directory);
    if let Some(cgroup) = &cgroup {
        cgroup.kill();
    }
    let is_dead = tree.end(DEATH);
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    if !is_dead {
        tracing::warn!(directory = %directory.display(), "a Chromium of a killed pool does not die");
    }
    if owned_by_us(&tree.temp_dir)
        && let Err(error) = remove(&tree.temp_dir)
    {
        tracing::warn!(directory = %tree.temp_dir.display(), %error, "cannot remove temporary files");
    }
    members
}

fn owned_by_us(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own)
}

/// Returns the TMPDIR of the browser with this directory. Chromium makes a socket in it and dies if
/// the path is too long for one; in that case it is in the system's own directory.
pub(super) fn temp_dir(browser_dir: &Path) -> PathBuf {
    let near = browser_dir.join("tmp");
    if near.as_os_str().len() + SOCKET_SUFFIX <= SOCKET_PATH {
        return near;
    }
    let name = browser_dir.file_name().unwrap_or_default().to_string_lossy();
    std::env::temp_dir().join(format!("browser-pool-{name}"))
}

/// Prepares a persistent profile for a new browser: removes the lock that a killed browser left in
/// it, or refuses if somebody is using it.
///
/// `ours` means that the profile is below a state directory whose lock we hold. Then a lock that
/// names another host is stale too: containers get a new host name with every start.
///
/// The headless shell takes no lock at all, so processes that were given this directory are
/// searched for as well.
pub(super) fn unlock_profile(directory: &Path, ours: bool) -> Result<(), ChromeError> {
    let busy = |holder| Err(ChromeError::ProfileBusy { directory: directory.to_owned(), holder });
    let mut argument = b"--user-data-dir=".to_vec();
    argument.extend_from_slice(directory.as_os_str().as_bytes());
    if let Some(pid) = with_argument(&argument) {
        return busy(format!("process {pid}"));
    }
    let Some((host, pid)) = holder(directory) else { return Ok(()) };
    if host != own_host() {
        if !ours {
            return busy(format!("process {pid} on the host {host}"));
        }
    } else if mentions(pid, directory) {
        return busy(format!("process {pid}"));
    }
    tracing::info!(directory = %directory.display(), pid, "unlocked a profile that a dead browser had locked");
    for name in ["SingletonLock", "SingletonCookie", "SingletonSocket"] {
        let path = directory.join(name);
        remove(&path).map_err(ChromeError::file("remove", path))?;
    }
    Ok(())
}

/// Returns the target of Chromium's lock, which is a link to `host-pid`.
fn holder(directory: &Path) -> Option<(String, u32)> {
    let target = fs::read_link(directory.join("SingletonLock")).ok()?;
    let (host, pid) = target.to_str()?.rsplit_once('-')?;
    Some((host.to_owned(), pid.parse().ok()?))
}

/// Returns `true` if a live process could be a browser on this profile. A process whose arguments
/// do not name the directory has only inherited the id, unless it uses the default directory, which
/// is never named.
fn mentions(pid: u32, directory: &Path) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let named = memchr::memmem::find(&arguments, directory.as_os_str().as_bytes()).is_some();
    let any_browser = memchr::memmem::find(&arguments, b"chrom").is_some();
    let names_another = memchr::memmem::find(&arguments, b"--user-data-dir=").is_some();
    named || (any_browser && !names_another)
}

fn own_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Removes what is at `path`, with everything below it. Symlinks are removed, never followed.
///
/// A directory that a dying process is still writing into is tried again for a while.
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

/// The name under which the process is started and recognized.
const NAME: &str = "browser-pool-reaper";

/// Time for a Chromium to exit by itself once its pipe is closed. It takes 0.1 to 1.2 s, in which
/// it writes its profile to disk.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Pause before a reaper that was killed is replaced.
const PAUSE: Duration = Duration::from_secs(1);

/// Byte that the pool writes before the path of a Chromium's directory, which ends with a NUL.
const BEGUN: u8 = b'+';
const GONE: u8 = b'-';

/// Set if this program can be started as a reaper.
static IS_OFFERED: AtomicBool = AtomicBool::new(false);

static REAPER: OnceLock<Option<Reaper>> = OnceLock::new();

/// Ends what a pool of this program has left running, if this process was started for that purpose;
/// otherwise returns `false` at once.
///
/// Chromium exits by itself when its pipe closes. A wrapper script in front of it may not, and a
/// stopped Chromium does not: when the pool is killed, both would stay until the next pool opens
/// the same state directory. So this program starts itself a second time, under the name
/// `browser-pool-reaper`, when it launches its first Chromium.
///
/// Call it first in `main`, which must return when it returns `true`. A program that does not call
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

/// Returns the directories of the Chromiums that a pool has at the time when its end of the pipe is
/// closed.
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

/// Ends the Chromiums of a dead pool, each as the sweep of the next start would, but not before it
/// had time to exit by itself.
fn end_all(directories: &BTreeSet<PathBuf>) {
    let began = Instant::now();
    let leads = |directory: &PathBuf| {
        Record::read(directory).is_some_and(|record| record.process.is_alive())
    };
    while began.elapsed() < PATIENCE && directories.iter().any(leads) {
        thread::sleep(Duration::from_millis(50));
    }
    // In parallel, since one that does not die takes its time.
    thread::scope(|scope| {
        for directory in directories {
            scope.spawn(|| end(directory));
        }
    });
}

/// Tells the reaper that a Chromium is going to run in a directory.
pub(super) fn note_begun(directory: &Path) {
    if !IS_OFFERED.load(Ordering::Relaxed) {
        return;
    }
    let reaper = REAPER.get_or_init(|| match Reaper::start() {
        Ok(reaper) => Some(reaper),
        Err(error) => {
            tracing::warn!(%error, "there is no reaper: remains of a killed pool may stay until the next start");
            None
        }
    });
    if let Some(reaper) = reaper {
        reaper.state().note(BEGUN, directory);
    }
}

/// Tells the reaper that nothing is left of the Chromium in a directory.
pub(super) fn note_gone(directory: &Path) {
    if let Some(Some(reaper)) = REAPER.get() {
        reaper.state().note(GONE, directory);
    }
}

/// The pool's end of the pipe to its reaper, which closes with the pool, however that dies.
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

    /// It does not wait: a stopped reaper is of no use, and a killed one is replaced and told
    /// everything again.
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

/// Starts the running program again, whatever has become of its file.
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
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_record_is_read_back_and_one_of_another_boot_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(directory.path()), None);
        let mut record = Record::new(ProcessId { pid: 7, started: 99 });
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()), Some(record.clone()));
        record.boot = "another".to_owned();
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()), None);
    }

    fn locked(by: &str) -> tempfile::TempDir {
        let profile = tempfile::tempdir().unwrap();
        symlink(by, profile.path().join("SingletonLock")).unwrap();
        symlink("123", profile.path().join("SingletonCookie")).unwrap();
        profile
    }

    fn is_locked(profile: &tempfile::TempDir) -> bool {
        fs::symlink_metadata(profile.path().join("SingletonLock")).is_ok()
    }

    #[test]
    fn the_lock_of_a_dead_browser_is_removed() {
        let profile = locked(&format!("{}-4194304", own_host()));
        unlock_profile(profile.path(), false).unwrap();
        assert!(!is_locked(&profile));
    }

    #[test]
    fn an_id_that_another_program_has_by_now_keeps_nobody_out() {
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let profile = locked(&format!("{}-{}", own_host(), other.id()));
        let unlocked = unlock_profile(profile.path(), false);
        other.kill().unwrap();
        other.wait().unwrap();
        unlocked.unwrap();
        assert!(!is_locked(&profile));
    }

    #[test]
    fn a_lock_of_another_host_counts_unless_the_profile_is_below_our_own_lock() {
        let profile = locked("elsewhere-7");
        let error = unlock_profile(profile.path(), false).unwrap_err();
        assert!(error.to_string().contains("process 7 on the host elsewhere"), "{error}");
        assert!(is_locked(&profile));
        unlock_profile(profile.path(), true).unwrap();
        assert!(!is_locked(&profile));
    }

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

    #[test]
    fn what_is_gone_is_not_ended() {
        let told = b"+/a\0+/b c\n\0-/a\0\0+/d\0-/x\0+/cut off";
        let left = read_until_death(&told[..]);
        assert_eq!(left, [PathBuf::from("/b c\n"), PathBuf::from("/d")].into());
    }
}
