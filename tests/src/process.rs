//! Processes as the kernel shows them, read by code that shares nothing with the pool's own.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::GENEROUS;

/// A process that cannot be taken for another: ids are used again, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// The id.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Process::read(pid).map(|process| process.id)
    }

    /// Whether it exists, as more than a zombie.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.id == self && !now.is_zombie())
    }

    /// Sends it a signal, if it is still the same process. Returns `true` if there was one to signal.
    ///
    /// A process that is told to stop has stopped when this returns: its threads take a moment, in which they
    /// would still serve a request.
    ///
    /// # Panics
    ///
    /// If it does not stop.
    pub fn signal(self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        let sent = Self::of(self.pid) == Some(self) && kill_process(pid, signal).is_ok();
        if sent && signal == Signal::STOP {
            let deadline = Instant::now() + GENEROUS;
            while self.is_alive() && !self.has_stopped() {
                assert!(Instant::now() < deadline, "{} does not stop", self.pid);
                sleep(Duration::from_millis(1));
            }
        }
        sent
    }

    /// Returns `true` if none of its threads runs.
    fn has_stopped(self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        let states = threads.flatten().filter_map(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        });
        states.into_iter().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    }

    /// Its open descriptors.
    #[must_use]
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// A number out of its `/proc/PID/status`, such as `Threads`, or `VmRSS` in KiB.
    #[must_use]
    pub fn status(self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// CPU time used so far, in seconds.
    #[must_use]
    pub fn cpu_seconds(self) -> f64 {
        Process::read(self.pid).map_or(0.0, |process| process.ticks as f64 / 100.0)
    }
}

/// A process at one moment.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which one.
    pub id: ProcessId,
    /// The id of its parent.
    pub parent: u32,
    /// The id of its process group.
    pub group: u32,
    /// The name of its program, cut at 15 bytes.
    pub name: String,
    state: char,
    ticks: u64,
}

impl Process {
    /// Reads one process.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold anything, brackets too.
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            id: ProcessId { pid, started: number(19)? },
            parent: u32::try_from(number(1)?).ok()?,
            group: u32::try_from(number(2)?).ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            ticks: number(11)? + number(12)?,
        })
    }

    /// All processes there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let pids = fs::read_dir("/proc").expect("a Linux has it").flatten();
        pids.filter_map(|entry| Self::read(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// Whether it is dead and not waited for.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Its arguments; none of a kernel thread or a zombie.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        self.strings("cmdline")
    }

    /// Its environment as it was at its start.
    #[must_use]
    pub fn environment(&self) -> Vec<String> {
        self.strings("environ")
    }

    fn strings(&self, file: &str) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/{file}", self.id.pid)).unwrap_or_default();
        let parts = bytes.split(|&byte| byte == 0).filter(|part| !part.is_empty());
        parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// Whether a path below this directory stands in its arguments or its environment.
    #[must_use]
    pub fn mentions(&self, directory: &Path) -> bool {
        let directory = directory.to_string_lossy();
        [self.arguments(), self.environment()]
            .iter()
            .flatten()
            .any(|text| text.contains(&*directory))
    }

    /// Whether it is the main process of a Chromium, rather than one of its helpers.
    #[must_use]
    pub fn is_browser(&self) -> bool {
        let arguments = self.arguments();
        let has = |prefix: &str| arguments.iter().any(|argument| argument.starts_with(prefix));
        has("--user-data-dir=") && !has("--type=")
    }

    /// Whether it is a Chromium's helper of this type, such as `renderer`.
    #[must_use]
    pub fn is_helper(&self, kind: &str) -> bool {
        // A renderer's arguments may have become one string.
        let text = self.arguments().join(" ");
        text.split(' ').any(|argument| argument.strip_prefix("--type=") == Some(kind))
    }
}

/// The processes below this one, itself not among them.
#[must_use]
pub fn descendants(of: u32, among: &[Process]) -> Vec<Process> {
    let mut below = HashSet::from([of]);
    let mut found: Vec<Process> = Vec::new();
    loop {
        let more: Vec<&Process> = among
            .iter()
            .filter(|process| below.contains(&process.parent) && !below.contains(&process.id.pid))
            .collect();
        if more.is_empty() {
            return found;
        }
        below.extend(more.iter().map(|process| process.id.pid));
        found.extend(more.into_iter().cloned());
    }
}
