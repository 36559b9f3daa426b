use std::fs;

use serde::Serialize;

/// Load of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Machine {
    /// Percent of all cores since the last look.
    pub cpu: Option<u8>,
    /// Percent of memory that is not available.
    pub memory: Option<u8>,
}

/// Looks at `/proc` from time to time; elsewhere than on Linux it sees nothing.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(u64, u64)>,
}

impl Meter {
    pub(super) fn read(&mut self) -> Machine {
        let times = fs::read_to_string("/proc/stat").ok().and_then(|text| cpu_times(&text));
        let cpu = match (self.last, times) {
            (Some((busy, total)), Some((busy_now, total_now))) if total_now > total => {
                Some(percent(busy_now.saturating_sub(busy), total_now - total))
            }
            _ => None,
        };
        self.last = times;
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text));
        Machine { cpu, memory }
    }
}

/// Busy and all ticks of all cores since boot.
fn cpu_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|tick| tick.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is in user already.
    let all: u64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

fn memory(meminfo: &str) -> Option<u8> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let total = field("MemTotal:")?;
    Some(percent(total.saturating_sub(field("MemAvailable:")?), total))
}

fn percent(part: u64, whole: u64) -> u8 {
    (part * 100).checked_div(whole).unwrap_or(0).min(100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(cpu_times("cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1"), Some((30, 100)));
        assert_eq!(memory("MemTotal: 1000 kB\nMemAvailable: 250 kB\n"), Some(75));
    }
}
