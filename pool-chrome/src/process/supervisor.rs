use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};
use tokio::sync::watch;

use super::Exit;
use super::cgroup::Cgroup;
use super::state_dir::BrowserDir;
use super::stderr::StderrTail;
use super::tree::{Tree, reap};

/// Maximum time the tree may take to die of SIGKILL before it is left to the sweep of the next start.
const DEATH: Duration = Duration::from_secs(10);

/// Interval at which dead helpers are looked for where they become our children.
const ADOPTION_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 700_000_000 };

/// Most bytes read of a stderr after the exit: a helper that still floods it must not keep
/// us from killing it.
const LAST_WORDS: usize = 256 * 1024;

/// Stage in the life of a Chromium.
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
    /// The leader until it is reaped. From then on its id may belong to anybody, so the lock is
    /// held over both the kill and the reaping.
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

/// Kills the tree when the last owner of a Chromium is dropped, also one that never got it.
#[derive(Debug)]
pub(super) struct KillOnDrop(pub(super) Arc<Killer>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Watches over one Chromium, on a thread of its own, until nothing of it is left.
///
/// A thread and not a task: it must go on when the runtime is blocked or gone, because a stderr
/// that nobody reads freezes Chromium, and a child that nobody waits for stays a zombie.
#[derive(Debug)]
pub(super) struct Supervisor {
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

        // Before the leader is reaped: as long as its zombie is there, the id of the group is its.
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
                    // Cannot happen with two descriptors of our own; a browser that is not watched
                    // must not live on.
                    tracing::error!(%error, "cannot watch a browser");
                    self.killer.kill();
                    return;
                }
            }
        }
    }

    /// Reads what is there, up to `limit` bytes; false when the stream has ended.
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

    /// Waits for the exit and looks at the status, but leaves the zombie where it is.
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
