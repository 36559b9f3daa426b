use std::fs;
use std::time::Duration;

use super::tree::ProcessId;

/// Work that the processes of a browser have done so far, as the kernel counts it: between two looks it
/// grows while a browser is busy, however little of a loaded machine it gets, and not while it is
/// stopped or waits for what never comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// CPU time of all processes.
    pub(crate) busy: Duration,
    /// Time for which threads of theirs could have run and had to wait for a CPU, all added up. A page
    /// that is made is handed from thread to thread, each of which works for less than it waits.
    /// Our own threads are among them.
    pub(crate) queued: Duration,
    /// The browser process is stopped, as by SIGSTOP.
    pub(crate) is_stopped: bool,
}

impl Work {
    /// Reads it of the process tree of the browser process `main`.
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
        // We may be what it waits for.
        work.queued += queued(std::process::id());
        work
    }

    /// Returns what was done since an earlier look. What has ended since is counted no more, so
    /// it may be less than the truth.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let busy = self.busy.saturating_sub(earlier.busy);
        let queued = self.queued.saturating_sub(earlier.queued);
        Self { busy, queued, is_stopped: self.is_stopped }
    }
}

/// Returns how long the threads of a process have waited for a CPU; zero where the kernel does not
/// count it.
fn queued(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The state of a process and its CPU time in ticks, from `/proc/PID/stat`.
fn parse(line: &str) -> Option<(u8, u64)> {
    // The name of the program stands in brackets and may hold anything, brackets too.
    let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((*fields.first()?.as_bytes().first()?, number(11)? + number(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
