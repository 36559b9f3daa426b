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
    /// How long the browser's main thread could have run and had to wait for a CPU.
    pub(crate) queued: Duration,
    /// The browser process is stopped, as by SIGSTOP.
    pub(crate) is_stopped: bool,
}

impl Work {
    /// Reads it of the process tree of the browser process `main`.
    pub(super) fn of(main: u32, tree: &[ProcessId]) -> Self {
        let read = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let stats = tree.iter().filter_map(|process| {
            let line = read(process.pid, "stat")?;
            Some((process.pid, parse(&line)?))
        });
        let mut work = Self::default();
        for (pid, (state, ticks)) in stats {
            work.busy +=
                Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
            work.is_stopped |= pid == main && matches!(state, b'T' | b't');
        }
        // Empty where the kernel does not count it.
        let schedule = read(main, "schedstat").unwrap_or_default();
        let queued = schedule.split(' ').nth(1).and_then(|text| text.parse().ok());
        work.queued = Duration::from_nanos(queued.unwrap_or(0));
        work
    }

    /// Returns `true` if more than a standing browser's own housekeeping was done since an earlier look,
    /// which is so long ago.
    pub(crate) fn is_progress_since(self, earlier: Self, elapsed: Duration) -> bool {
        let busy = self.busy.saturating_sub(earlier.busy);
        let queued = self.queued.saturating_sub(earlier.queued);
        // The kernel counts in steps of 10 ms.
        !self.is_stopped && busy + queued >= (elapsed / 50).max(Duration::from_millis(20))
    }
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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_that_works_is_told_from_one_that_stands() {
        let own = std::process::id();
        let tree = [ProcessId::of(own).unwrap()];
        let before = Work::of(own, &tree);
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let after = Work::of(own, &tree);
        assert!(after.is_progress_since(before, began.elapsed()), "{before:?} {after:?}");
        assert!(!after.is_progress_since(after, SECOND));
    }

    #[test]
    fn waiting_for_a_cpu_is_progress_and_being_stopped_is_not() {
        let none = Work::default();
        let starved = Work { queued: SECOND / 2, ..none };
        assert!(starved.is_progress_since(none, SECOND));
        let stopped = Work { is_stopped: true, busy: SECOND, ..none };
        assert!(!stopped.is_progress_since(none, SECOND));
        let housekeeping = Work { busy: SECOND / 100, ..none };
        assert!(!housekeeping.is_progress_since(none, SECOND));
    }

    #[test]
    fn the_line_of_a_process_is_read_behind_its_name() {
        let line = "42 (a) R 1 (b)) T 7 8 9 0 -1 0 0 0 0 0 30 12 0 0 20 0 6 0 12345 0 0";
        assert_eq!(parse(line), Some((b'T', 42)));
    }
}
