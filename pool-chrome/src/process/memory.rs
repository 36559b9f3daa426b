use std::fs;

use super::tree::ProcessId;

/// The proportional set size of some processes together, in bytes.
///
/// Where the kernel does not tell it (a sandboxed renderer, seen by another user than root), what
/// the process has for itself alone is taken instead: less than the truth, never more.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_tell_something_about_ourselves() {
        let own = std::process::id();
        assert!(pss(own).is_some_and(|bytes| bytes > 1024 * 1024));
        assert!(private(own).is_some_and(|bytes| bytes > 0));
        assert_eq!(proportional_set_size(&[]), 0);
    }
}
