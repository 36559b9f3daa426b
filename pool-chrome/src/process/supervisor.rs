//! The thread of one Chromium: it starts the process, watches over it until nothing is left, and
//! says how it ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, StatVfs, access};
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    waitid,
};
use tokio::sync::{oneshot, watch};

use super::cgroup::Cgroup;
use super::command_line::{
    SandboxDecision, Surroundings, check_args, chooses_platform, command_line, decide_sandbox,
    find_executable, loads_extensions,
};
use super::state_dir::{BrowserDir, private_dir};
use super::sweep::unlock_profile;
use super::tree::{ProcessId, Tree, reap};
use super::{Engine, LaunchOptions, StateDir, UserData};
use crate::ChromeError;

/// The environment variables that Chromium gets; everything else is withheld, above all secrets.
const ENVIRONMENT: [&str; 11] = [
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TZDIR",
    "LD_LIBRARY_PATH",
    "FONTCONFIG_FILE",
    "FONTCONFIG_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NSS_DEFAULT_DB_TYPE",
];

/// Additional ones that it needs to show a window.
const DISPLAY: [&str; 5] =
    ["DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XDG_SESSION_TYPE"];

/// Size of /dev/shm that Chromium needs, or it crashes on large pages.
const ENOUGH_SHM: u64 = 512 * 1024 * 1024;

/// Size of the pipe in which answers wait while the multiplexer is busy: room for a sizeable
/// screenshot in one piece.
const PIPE_SIZE: usize = 256 * 1024;

/// Difference between the `oom_score_adj` of a browser and the pool's.
const DISPENSABLE: i32 = 100;

/// The highest `oom_score_adj` that the kernel takes.
const MOST_DISPENSABLE: i32 = 1000;

/// A Chromium that has been started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: ProcessId,
    pub(super) engine: Engine,
    pub(super) executable: PathBuf,
    pub(super) user_data_dir: PathBuf,
    pub(super) home: PathBuf,
    pub(super) temp_dir: PathBuf,
    pub(super) commands: OwnedFd,
    pub(super) answers: OwnedFd,
    pub(super) tail: Arc<Mutex<StderrTail>>,
    pub(super) tree: Tree,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) guard: KillOnDrop,
}

/// Starts a Chromium on a thread of its own, which then watches over it until it is gone.
///
/// Cancel safe: a Chromium that nobody waits for any more is killed and removed.
pub(super) async fn launch(
    options: LaunchOptions,
    state: StateDir,
) -> Result<Launched, ChromeError> {
    let (started, launched) = oneshot::channel();
    thread::Builder::new()
        .name("chromium".to_owned())
        .spawn(move || match start(&options, &state) {
            Ok((launched, supervisor)) => {
                // If nobody wants it, it comes back and is dropped here, which kills it.
                drop(started.send(Ok(launched)));
                supervisor.run();
            }
            Err(error) => drop(started.send(Err(error))),
        })
        .map_err(ChromeError::system("start a thread"))?;
    launched.await.map_err(|_| {
        ChromeError::system("start a browser")(io::Error::other("its thread panicked"))
    })?
}

/// A launch that has been prepared as far as possible without launching.
#[derive(Debug)]
struct Prepared {
    executable: PathBuf,
    engine: Engine,
    sandbox: SandboxDecision,
}

impl Prepared {
    /// Determines what to launch; an error here prevents every launch.
    fn new(options: &LaunchOptions) -> Result<Self, ChromeError> {
        check_args(&options.args)?;
        let extensions = loads_extensions(&options.args);
        let (executable, engine) = find_executable(
            options.engine,
            options.executable.as_deref(),
            options.headless && !extensions,
        )?;
        if engine.is_headless_only() && !options.headless {
            return Err(ChromeError::NoWindow { executable });
        }
        if engine.is_headless_only() && extensions {
            return Err(ChromeError::NoExtensions { executable });
        }
        if !options.headless && !chooses_platform(&options.args) && !has_display() {
            return Err(ChromeError::NoDisplay);
        }
        let sandbox = decide_sandbox(options.sandbox, &executable)?;
        Ok(Self { executable, engine, sandbox })
    }
}

impl LaunchOptions {
    /// Checks everything that can be known before a launch, and returns the executable and its
    /// engine.
    ///
    /// If it fails, every launch with these options fails, now and later. It starts no browser and
    /// makes no file; if the sandbox is wanted, it may run `unshare` once.
    ///
    /// # Errors
    ///
    /// The [`ChromeError`] that the launch would end with.
    pub fn check(&self) -> Result<(PathBuf, Engine), ChromeError> {
        Prepared::new(self).map(|prepared| (prepared.executable, prepared.engine))
    }
}

fn start(options: &LaunchOptions, state: &StateDir) -> Result<(Launched, Supervisor), ChromeError> {
    let Prepared { executable, engine, sandbox } = Prepared::new(options)?;
    sandbox.report();
    let mut directory = state.browser_dir()?;
    let confined = options.cgroups.as_ref().map_or(Ok(()), |cgroups| directory.confine(cgroups));
    let user_data_dir = confined.and_then(|()| user_data_dir(options, state, &directory));
    let spawned = user_data_dir.and_then(|user_data_dir| {
        let around = Surroundings {
            engine,
            user_data_dir: &user_data_dir,
            sandboxed: sandbox.is_sandboxed(),
            small_shm: small_shm(),
        };
        let spawned = spawn(options, around, &directory, &executable)?;
        Ok((spawned, user_data_dir))
    });
    let (spawned, user_data_dir) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            if let Err(error) = directory.remove() {
                tracing::warn!(%error, "cannot remove the directory of a browser that did not start");
            }
            return Err(error);
        }
    };

    let Spawned { process, leader, pidfd, stderr, commands, answers } = spawned;
    let cgroup = directory.cgroup().cloned();
    let killer = Arc::new(Killer::new(leader, cgroup.clone()));
    let tree = directory.tree(process);
    let tail = Arc::new(Mutex::new(StderrTail::default()));
    let (stage, watched) = watch::channel(Stage::Running);
    let launched = Launched {
        process,
        engine,
        executable,
        user_data_dir,
        home: directory.home(),
        temp_dir: directory.temp_dir().to_owned(),
        commands,
        answers,
        tail: Arc::clone(&tail),
        tree: tree.clone(),
        cgroup,
        stage: watched,
        guard: KillOnDrop(Arc::clone(&killer)),
    };
    Ok((launched, Supervisor { pidfd, stderr, tail, killer, tree, directory, stage }))
}

/// Returns the user data directory, made and free for us.
fn user_data_dir(
    options: &LaunchOptions,
    state: &StateDir,
    directory: &BrowserDir,
) -> Result<PathBuf, ChromeError> {
    match &options.user_data {
        UserData::Private => Ok(directory.profile()),
        UserData::Persistent(path) => {
            let absolute = std::path::absolute(path).map_err(ChromeError::file("resolve", path))?;
            private_dir(&absolute)?;
            let path = absolute.canonicalize().map_err(ChromeError::file("resolve", absolute))?;
            unlock_profile(&path, path.starts_with(state.path()))?;
            Ok(path)
        }
    }
}

/// A child, and our ends of its pipes.
#[derive(Debug)]
struct Spawned {
    process: ProcessId,
    leader: Pid,
    pidfd: OwnedFd,
    stderr: ChildStderr,
    commands: OwnedFd,
    answers: OwnedFd,
}

fn spawn(
    options: &LaunchOptions,
    around: Surroundings<'_>,
    directory: &BrowserDir,
    executable: &Path,
) -> Result<Spawned, ChromeError> {
    let (their_commands, commands) = pipe()?;
    let (answers, their_answers) = pipe()?;
    // Without permission for a larger size, the usual 64 KiB will do.
    let _ = fcntl_setpipe_size(&answers, PIPE_SIZE);
    let mut command = program(executable, directory.cgroup());
    command
        .args(command_line(options, around))
        .env_clear()
        .env("HOME", directory.home())
        .envs(environment(options))
        .env("TMPDIR", directory.temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .fd_mappings(vec![
            FdMapping { parent_fd: their_commands, child_fd: 3 },
            FdMapping { parent_fd: their_answers, child_fd: 4 },
        ])
        .expect("the two numbers differ");
    let mut child = command
        .spawn()
        .map_err(|source| ChromeError::Spawn { executable: executable.to_owned(), source })?;
    // It holds the child's ends of the pipes, which must close with the child.
    drop(command);

    match watch_over(&mut child, directory) {
        Ok((process, leader, pidfd, stderr)) => {
            Ok(Spawned { process, leader, pidfd, stderr, commands, answers })
        }
        Err(error) => {
            // It has not been waited for yet, so the id is still its own.
            if let Some(leader) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process_group(leader, Signal::KILL);
            }
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Returns the command that runs Chromium, from its first instruction in its control group if it
/// has one: anything that it forks before it is moved there would stay outside.
fn program(executable: &Path, cgroup: Option<&Cgroup>) -> Command {
    let Some(cgroup) = cgroup else { return Command::new(executable) };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(cgroup.door()).arg(executable);
    command
}

fn watch_over(
    child: &mut Child,
    directory: &BrowserDir,
) -> Result<(ProcessId, Pid, OwnedFd, ChildStderr), ChromeError> {
    let leader = Pid::from_raw(child.id().cast_signed()).expect("a child's id is positive");
    let pidfd = pidfd_open(leader, PidfdFlags::empty())
        .map_err(|error| ChromeError::system("watch a process")(error.into()))?;
    let process = ProcessId::of(child.id())
        .ok_or(io::ErrorKind::NotFound)
        .map_err(|kind| ChromeError::system("read /proc")(kind.into()))?;
    directory.record(process)?;
    prefer_to_the_pool(child.id());
    let stderr = child.stderr.take().expect("stderr is piped");
    ioctl_fionbio(&stderr, true)
        .map_err(|error| ChromeError::system("read without blocking")(error.into()))?;
    Ok((process, leader, pidfd, stderr))
}

/// Makes the kernel kill a browser before the pool if memory runs out: the one costs its own
/// leases, the other all of them.
fn prefer_to_the_pool(pid: u32) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let own: i32 = own.trim().parse().unwrap_or(0);
    let score = (own.max(0) + DISPENSABLE).min(MOST_DISPENSABLE);
    // It may have ended already. Chromium itself raises the score of its renderers further.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
}

fn pipe() -> Result<(OwnedFd, OwnedFd), ChromeError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| ChromeError::system("make a pipe")(error.into()))
}

fn environment(options: &LaunchOptions) -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        let Some(name) = name.to_str() else { return false };
        ENVIRONMENT.contains(&name)
            || name.starts_with("LC_")
            || (!options.headless && DISPLAY.contains(&name))
            || options.env.iter().any(|allowed| allowed == name)
    })
}

fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// Returns `true` if shared memory should be placed among the temporary files: /dev/shm is too
/// small, does not exist, or cannot be written.
fn small_shm() -> bool {
    let enough = |shm: StatVfs| shm.f_bavail.saturating_mul(shm.f_frsize) >= ENOUGH_SHM;
    let writable = || access("/dev/shm", Access::WRITE_OK | Access::EXEC_OK).is_ok();
    !(rustix::fs::statvfs("/dev/shm").is_ok_and(enough) && writable())
}

/// Maximum time the tree may take to die of SIGKILL before it is left to the sweep of the next
/// start.
const DEATH: Duration = Duration::from_secs(10);

/// Interval at which dead helpers are looked for if they become our children.
const ADOPTION_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 700_000_000 };

/// Maximum number of bytes read from stderr after the exit: a helper that still floods it must not
/// keep us from killing it.
const LAST_WORDS: usize = 256 * 1024;

/// A stage in the life of a Chromium.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Running,
    /// The browser process has ended; helpers and directories may still be there.
    Exited(Exit),
    /// Nothing of it is left.
    Gone(Exit),
}

impl Stage {
    pub(super) fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Running => None,
            Self::Exited(exit) | Self::Gone(exit) => Some(exit),
        }
    }
}

/// Kills the process group of a Chromium, from any thread.
#[derive(Debug)]
pub(super) struct Killer {
    /// The leader until it is reaped. After that its id may belong to anybody, so the lock is held
    /// during both the kill and the reaping.
    leader: Mutex<Option<Pid>>,
    cgroup: Option<Cgroup>,
}

impl Killer {
    pub(super) fn new(leader: Pid, cgroup: Option<Cgroup>) -> Self {
        Self { leader: Mutex::new(Some(leader)), cgroup }
    }

    pub(super) fn kill(&self) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = *leader {
            // An error means that the whole group is dead already.
            let _ = kill_process_group(leader, Signal::KILL);
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill();
            }
        }
    }

    fn reap(&self, pidfd: &OwnedFd) {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        reap(pidfd);
        *leader = None;
    }
}

/// Kills the tree when the last owner of a Chromium is dropped, or if there never was one.
#[derive(Debug)]
pub(super) struct KillOnDrop(pub(super) Arc<Killer>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Watches over one Chromium, on a thread of its own, until nothing of it is left.
///
/// It is a thread and not a task, since it must go on when the runtime is blocked or gone: a stderr
/// that nobody reads freezes Chromium, and a child that nobody waits for stays a zombie.
#[derive(Debug)]
struct Supervisor {
    pub(super) pidfd: OwnedFd,
    pub(super) stderr: ChildStderr,
    pub(super) tail: Arc<Mutex<StderrTail>>,
    pub(super) killer: Arc<Killer>,
    pub(super) tree: Tree,
    pub(super) directory: BrowserDir,
    pub(super) stage: watch::Sender<Stage>,
}

impl Supervisor {
    pub(super) fn run(mut self) {
        self.watch();
        self.read_stderr(LAST_WORDS);
        let is_out_of_memory = self.directory.cgroup().is_some_and(Cgroup::is_out_of_memory);
        let exit = Exit::new(self.status(), self.text()).out_of_memory(is_out_of_memory);
        self.stage.send_replace(Stage::Exited(exit.clone()));

        // Before the leader is reaped: as long as its zombie exists, the group keeps its id.
        self.killer.kill();
        self.killer.reap(&self.pidfd);
        if self.tree.end(DEATH) {
            if let Err(error) = self.directory.remove() {
                let directory = self.directory.path().display();
                tracing::warn!(%directory, %error, "cannot remove the directory of a browser");
            }
        } else {
            let directory = self.directory.path().display();
            tracing::warn!(%directory, "processes of a browser do not die; the next start will sweep them up");
        }
        let Self { directory, stage, .. } = self;
        // Whoever waits for the end may open the same state directory next.
        drop(directory);
        stage.send_replace(Stage::Gone(exit));
    }

    /// Drains stderr until the process is dead.
    fn watch(&mut self) {
        let adopts = adopts_orphans();
        let timeout = adopts.then_some(ADOPTION_CHECK);
        let mut has_stderr = true;
        loop {
            let mut fds =
                [PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.stderr, PollFlags::IN)];
            let polled = if has_stderr { &mut fds[..] } else { &mut fds[..1] };
            match poll(polled, timeout.as_ref()) {
                Ok(0) => self.tree.reap_adopted(),
                Ok(_) if !fds[0].revents().is_empty() => return,
                Ok(_) => has_stderr = self.read_stderr(64 * 1024),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Cannot happen with two descriptors of our own; but a browser that is not
                    // watched must not live on.
                    tracing::error!(%error, "cannot watch a browser");
                    self.killer.kill();
                    return;
                }
            }
        }
    }

    /// Reads the available bytes, up to `limit`; returns `false` when the stream has ended.
    fn read_stderr(&mut self, limit: usize) -> bool {
        let mut chunk = [0; 16 * 1024];
        let mut read = 0;
        while read < limit {
            match self.stderr.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    read += n;
                    self.tail.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..n]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn text(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// Waits for the exit and reads the status, but leaves the zombie in place.
    fn status(&self) -> Option<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.pidfd));
        let status = rustix::io::retry_on_intr(|| waitid(id.clone(), options)).ok()??;
        exit_status(&status)
    }
}

fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    let code = status.exit_status().map(|code| code << 8);
    code.or_else(|| status.terminating_signal()).map(ExitStatus::from_raw)
}

/// Returns `true` if the children of dead descendants become our children.
fn adopts_orphans() -> bool {
    std::process::id() == 1
        || rustix::process::child_subreaper().is_ok_and(|subreaper| subreaper.is_some())
}

/// The end of a Chromium's process. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Exit {
    status: Option<ExitStatus>,
    stderr: Arc<str>,
    is_out_of_memory: bool,
}

impl Exit {
    pub(super) fn new(status: Option<ExitStatus>, stderr: impl Into<Arc<str>>) -> Self {
        Self { status, stderr: stderr.into(), is_out_of_memory: false }
    }

    pub(super) fn out_of_memory(mut self, is_out_of_memory: bool) -> Self {
        self.is_out_of_memory = is_out_of_memory;
        self
    }

    /// Returns `true` if the kernel has killed it because it needed more memory than its
    /// [limit](super::KernelLimits::memory).
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }

    /// Returns the exit status of the process; `None` if the operating system would not report it.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Returns the last 8 KiB of what it wrote to stderr, without the usual noise.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr
    }
}

/// The status and the last three lines of stderr: short enough for an error message.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("its status is unknown")?,
        }
        if self.is_out_of_memory {
            f.write_str(", out of memory")?;
        }
        let last = last_lines(&self.stderr);
        if last.is_empty() { Ok(()) } else { write!(f, "; it wrote: {last}") }
    }
}

pub(super) fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// Number of bytes kept of a Chromium's stderr.
const KEPT: usize = 8 * 1024;

/// Complaints of every Chromium on a server, which do not explain why it ended.
const NOISE: [&str; 4] =
    ["dbus/bus.cc", "dbus/object_proxy.cc", "scaling_cur_freq", "scaling_max_freq"];

/// The end of a stream of text, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct StderrTail(VecDeque<u8>);

impl StderrTail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(KEPT);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }

    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_message_ends_with_the_last_lines_of_stderr() {
        let exit = Exit::new(Some(ExitStatus::from_raw(21 << 8)), "a\nb\n\nc\nno display\n");
        assert_eq!(exit.to_string(), "exit status: 21; it wrote: b | c | no display");
    }

    #[test]
    fn a_flood_leaves_its_end() {
        let mut tail = StderrTail::default();
        for i in 0..10_000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        assert!(tail.0.len() <= KEPT);
        assert!(tail.text().ends_with("line 9998\nline 9999"));
        tail.push(&[b'x'; 3 * KEPT]);
        assert_eq!(tail.text(), "x".repeat(KEPT));
    }

    #[test]
    fn the_usual_noise_is_left_out() {
        let mut tail = StderrTail::default();
        tail.push(b"[1:2:ERROR:dbus/bus.cc:405] Failed to connect\nno usable sandbox!\n");
        assert_eq!(tail.text(), "no usable sandbox!");
    }
}
