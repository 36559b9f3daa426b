use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, pidfd_open, pidfd_send_signal,
    waitid, waitpid,
};

/// A process that cannot be mistaken for another: ids are reused, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProcessId {
    pub(super) pid: u32,
    /// Start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub(super) started: u64,
}

impl ProcessId {
    /// Returns the process that has this id now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, started: stat.started })
    }

    pub(super) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }

    /// Kills exactly this process and returns a descriptor that becomes readable when it is dead.
    fn kill(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The descriptor is bound to whatever process has the id now: only then is it safe to check
        // that it is still the same process.
        if Self::of(self.pid)? != self {
            return None;
        }
        pidfd_send_signal(&pidfd, Signal::KILL).ok()?;
        Some(pidfd)
    }
}

/// The contents of `/proc/PID/stat`.
struct Stat {
    is_crash_handler: bool,
    state: u8,
    parent: u32,
    group: u32,
    threads: u32,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads a line. The name of the program is in brackets and may contain anything, including
    /// brackets.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_whitespace().collect();
        Some(Self {
            is_crash_handler: line.contains("(chrome_crashpad"),
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Returns `true` if nothing of it runs any more. While a process dies, its first thread
    /// becomes a zombie before the others have ended, and its children have not been given to
    /// another parent yet.
    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// All processes of one browser: those of its process group, and those that left the group but
/// carry its directory in their arguments or its TMPDIR in their environment.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// The leader of its process group.
    pub(super) leader: Option<ProcessId>,
    pub(super) directory: PathBuf,
    pub(super) temp_dir: PathBuf,
    /// This process has launched it. A process that left the group is then a child of one in the
    /// group or has been given to one of our own ancestors, so nobody else need be examined: for a
    /// process that is busy with its memory, the kernel makes us wait for its arguments.
    pub(super) is_ours: bool,
}

impl Tree {
    /// Returns the live processes.
    pub(super) fn members(&self) -> Vec<ProcessId> {
        let own = std::process::id();
        let all: HashMap<u32, Stat> = processes().collect();
        let adopters = ancestors(own, &all);
        let group = self.group(&all);
        let in_group = |stat: &Stat| Some(stat.group) == group;
        let may_have_left = |stat: &Stat| {
            !self.is_ours
                || adopters.contains(&stat.parent)
                || all.get(&stat.parent).is_some_and(in_group)
        };
        all.iter()
            .filter(|(pid, stat)| **pid != own && !stat.is_dead())
            .filter(|(pid, stat)| in_group(stat) || may_have_left(stat) && self.carries_mark(**pid))
            .map(|(pid, stat)| ProcessId { pid: *pid, started: stat.started })
            .collect()
    }

    /// Returns the id of the process group, unless it belongs to somebody else by now: it stays
    /// taken as long as any process of the group lives, and whoever gets it later is its leader.
    fn group(&self, all: &HashMap<u32, Stat>) -> Option<u32> {
        let leader = self.leader?;
        let is_it = all.get(&leader.pid).is_none_or(|stat| stat.started == leader.started);
        is_it.then_some(leader.pid)
    }

    fn carries_mark(&self, pid: u32) -> bool {
        let mut argument = b"=".to_vec();
        argument.extend_from_slice(self.directory.as_os_str().as_bytes());
        argument.push(b'/');
        let mut variable = b"TMPDIR=".to_vec();
        variable.extend_from_slice(self.temp_dir.as_os_str().as_bytes());
        let entries = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        memchr::memmem::find(&entries("cmdline"), &argument).is_some()
            || entries("environ").split(|&byte| byte == 0).any(|entry| entry == variable)
    }

    /// Kills every member and waits until the last one is dead; returns `false` if one is still
    /// there at the deadline.
    pub(super) fn end(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut killed = Vec::new();
        loop {
            let members = self.members();
            if members.is_empty() {
                // Not earlier: they can only be ours to reap once their parents are dead.
                killed.iter().for_each(reap);
                self.reap_adopted();
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let dying: Vec<OwnedFd> = members.into_iter().filter_map(ProcessId::kill).collect();
            for pidfd in &dying {
                wait_readable(pidfd, Duration::from_millis(200));
            }
            if dying.is_empty() {
                // Not ours to kill, or in transition: look again, but do not spin.
                std::thread::sleep(Duration::from_millis(5));
            }
            killed.extend(dying);
        }
    }

    /// Reaps dead members that became our children because we are process 1 or a subreaper; the
    /// leader, our own child from the start, is left alone.
    ///
    /// A dead process shows neither arguments nor environment, so a crash handler, which has left
    /// the group, is recognized by its name.
    pub(super) fn reap_adopted(&self) {
        let own = std::process::id();
        let leader = self.leader.map(|leader| leader.pid);
        let adopted = processes().filter(|(pid, stat)| {
            stat.parent == own
                && stat.is_dead()
                && (Some(stat.group) == leader || stat.is_crash_handler)
                && Some(*pid) != leader
        });
        for pid in adopted.filter_map(|(pid, _)| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // An error means that somebody else was quicker.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Returns a process and all its ancestors.
fn ancestors(of: u32, all: &HashMap<u32, Stat>) -> Vec<u32> {
    std::iter::successors(Some(of), |pid| all.get(pid).map(|stat| stat.parent))
        .take_while(|pid| *pid != 0)
        .collect()
}

/// Waits until a process is dead, without reaping its zombie.
fn wait_readable(pidfd: impl AsFd, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Reaps a child that is dead.
pub(super) fn reap(pidfd: impl AsFd) {
    // An error means that it is not our child, or has been reaped.
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn processes() -> impl Iterator<Item = (u32, Stat)> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::read(pid)?))
    })
}

/// Returns all processes that were given exactly this argument.
pub(super) fn with_argument(argument: &[u8]) -> Option<u32> {
    processes().filter(|(_, stat)| !stat.is_dead()).map(|(pid, _)| pid).find(|pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|&byte| byte == 0).any(|held| held == argument)
    })
}

/// Returns the proportional set size of some processes together, in bytes.
///
/// If the kernel does not report it (for a sandboxed renderer, seen by a user other than root), the
/// memory that the process has to itself is used instead: less than the truth, never more.
pub(super) fn proportional_set_size(processes: &[ProcessId]) -> u64 {
    let pids = processes.iter().map(|process| process.pid);
    pids.map(|pid| pss(pid).or_else(|| private(pid)).unwrap_or(0)).sum()
}

fn pss(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn private(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page_size = u64::try_from(rustix::param::page_size()).ok()?;
    Some(resident.saturating_sub(shared) * page_size)
}

/// The work that the processes of a browser have done so far, as counted by the kernel: between two
/// looks it grows while a browser is busy, however little of a loaded machine it gets, but not
/// while it is stopped or waits for something that never comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// CPU time of all processes.
    pub(crate) busy: Duration,
    /// Time for which its threads were runnable but had to wait for a CPU, added up. A page that is
    /// being made passes from thread to thread, each of which works for less time than it waits.
    /// Our own threads are included.
    pub(crate) queued: Duration,
    /// The browser process is stopped, as by SIGSTOP.
    pub(crate) is_stopped: bool,
}

impl Work {
    /// Measures the process tree of the browser process `main`.
    pub(super) fn of(main: u32, tree: &[ProcessId]) -> Self {
        let mut work = Self::default();
        for pid in tree.iter().map(|process| process.pid) {
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((state, ticks)) = parse(&line) else { continue };
            work.busy +=
                Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
            work.is_stopped |= pid == main && matches!(state, b'T' | b't');
            work.queued += queued(pid);
        }
        // It may be waiting for us.
        work.queued += queued(std::process::id());
        work
    }

    /// Returns the work done since an earlier look. Processes that have ended since are no longer
    /// counted, so it may be less than the truth.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let busy = self.busy.saturating_sub(earlier.busy);
        let queued = self.queued.saturating_sub(earlier.queued);
        Self { busy, queued, is_stopped: self.is_stopped }
    }
}

/// Returns how long the threads of a process have waited for a CPU; zero if the kernel does not
/// count it.
fn queued(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Returns the state of a process and its CPU time in ticks, from `/proc/PID/stat`.
fn parse(line: &str) -> Option<(u8, u64)> {
    // The name of the program is in brackets and may contain anything, including brackets.
    let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((*fields.first()?.as_bytes().first()?, number(11)? + number(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_is_read_past() {
        let line = "42 (a) Z 1 (b)) S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 6 0 12345 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.started), (b'S', 7, 8, 12345));
        assert!(!stat.is_dead());
    }

    #[test]
    fn a_zombie_with_threads_is_not_yet_dead() {
        let stat = |threads: u32| {
            Stat::parse(&format!("4 (a) Z 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 1 0 0"))
        };
        assert!(!stat(2).unwrap().is_dead());
        assert!(stat(1).unwrap().is_dead());
    }

    #[test]
    fn our_ancestors_go_up_to_the_first_process() {
        let stat = |parent| {
            Stat::parse(&format!("4 (a) S {parent} 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0"))
        };
        let all =
            [(1, 0), (7, 1), (9, 7), (8, 1)].map(|(pid, parent)| (pid, stat(parent).unwrap()));
        assert_eq!(ancestors(9, &all.into()), [9, 7, 1]);
    }

    #[test]
    fn a_group_whose_id_was_taken_by_another_is_left_alone() {
        let stat = |started| {
            let line = format!("4 (a) S 1 4 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0");
            Stat::parse(&line).unwrap()
        };
        let leader = ProcessId { pid: 4, started: 50 };
        let path = || PathBuf::from("/nowhere");
        let tree =
            Tree { leader: Some(leader), directory: path(), temp_dir: path(), is_ours: false };
        assert_eq!(tree.group(&[(4, stat(50))].into()), Some(4));
        assert_eq!(tree.group(&HashMap::new()), Some(4), "others of it may be left");
        assert_eq!(tree.group(&[(4, stat(51))].into()), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn both_ways_tell_something_about_ourselves() {
        let own = std::process::id();
        assert!(pss(own).is_some_and(|bytes| bytes > 1024 * 1024));
        assert!(private(own).is_some_and(|bytes| bytes > 0));
        assert_eq!(proportional_set_size(&[]), 0);
    }

    #[test]
    fn a_process_that_works_is_told_from_one_that_stands() {
        let own = std::process::id();
        let tree = [ProcessId::of(own).unwrap()];
        let before = Work::of(own, &tree);
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let done = Work::of(own, &tree).since(before);
        assert!(done.busy + done.queued >= Duration::from_millis(200), "{done:?}");
        assert!(!done.is_stopped);
        assert_eq!(Work::default().since(before), Work::default());
    }

    #[test]
    fn the_line_of_a_process_is_read_behind_its_name() {
        let line = "42 (a) R 1 (b)) T 7 8 9 0 -1 0 0 0 0 0 30 12 0 0 20 0 6 0 12345 0 0";
        assert_eq!(parse(line), Some((b'T', 42)));
    }
}
