use std::collections::VecDeque;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::api::{Machine, Point};
use crate::config::machine;

/// An hour, second by second, with which the dashboard's plots begin.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    points: VecDeque<Point>,
    machine: Machine,
}

/// Points kept: one hour.
const KEPT: usize = 3600;

impl History {
    /// Adds a second.
    pub(super) fn add(&self, point: Point, machine: Machine) {
        let mut inner = self.lock();
        if inner.points.len() == KEPT {
            inner.points.pop_front();
        }
        inner.points.push_back(point);
        inner.machine = machine;
    }

    /// Returns the last `seconds`, oldest first.
    #[must_use]
    pub(super) fn last(&self, seconds: usize) -> Vec<Point> {
        let inner = self.lock();
        let skip = inner.points.len().saturating_sub(seconds);
        inner.points.iter().skip(skip).copied().collect()
    }

    /// Returns the load of the machine in the last second.
    #[must_use]
    pub(super) fn machine(&self) -> Machine {
        self.lock().machine
    }

    /// Returns the number of requests refused in the last minute.
    #[must_use]
    pub(super) fn rejected_last_minute(&self) -> u64 {
        self.growth(|point| point.rejected).0
    }

    /// Returns the number of leases that ended per second in the last minute.
    #[must_use]
    pub(super) fn release_rate(&self) -> f64 {
        let (released, seconds) = self.growth(|point| point.released);
        if seconds == 0 { 0.0 } else { released as f64 / seconds as f64 }
    }

    /// Returns the growth of a counter in the last minute, and the number of seconds that it
    /// covers.
    fn growth(&self, of: impl Fn(&Point) -> u64) -> (u64, usize) {
        let inner = self.lock();
        let Some(last) = inner.points.back() else { return (0, 0) };
        let seconds = (inner.points.len() - 1).min(60);
        let first = &inner.points[inner.points.len() - 1 - seconds];
        (of(last).saturating_sub(of(first)), seconds)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The readers of `/api/stream`: all get the same text, which is made once a second, and only while
/// somebody is reading.
#[derive(Debug)]
pub(super) struct Watchers(watch::Sender<Arc<str>>);

impl Default for Watchers {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::from("")))
    }
}

impl Watchers {
    pub(super) fn publish(&self, text: impl FnOnce() -> Arc<str>) {
        if self.0.receiver_count() > 0 {
            self.0.send_replace(text());
        }
    }

    /// Adds a reader; one that reads too slowly skips what it has missed.
    pub(super) fn join(&self) -> watch::Receiver<Arc<str>> {
        self.0.subscribe()
    }
}

/// Reads `/proc` at intervals; on systems other than Linux it sees nothing.
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
        Machine { cpu, memory: machine::memory_in_use() }
    }
}

/// Returns the busy and total ticks of all cores since boot.
fn cpu_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|tick| tick.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the values after that are already included in
    // user.
    let all: u64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

fn percent(part: u64, whole: u64) -> u8 {
    (part * 100).checked_div(whole).unwrap_or(0).min(100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_a_minute_is_counted() {
        let history = History::default();
        assert_eq!(history.release_rate(), 0.0);
        for second in 0..4000 {
            let point = Point { rejected: second * 2, released: second, ..Point::default() };
            history.add(point, Machine::default());
        }
        assert_eq!(history.last(usize::MAX).len(), KEPT);
        assert_eq!(history.last(60).len(), 60);
        assert_eq!(history.rejected_last_minute(), 120);
        assert_eq!(history.release_rate(), 1.0);
    }

    #[test]
    fn proc_is_read() {
        assert_eq!(cpu_times("cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1"), Some((30, 100)));
    }
}
