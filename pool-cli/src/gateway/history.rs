use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::machine::Machine;

/// One second of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Point {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Leased browsers.
    pub active: usize,
    /// Idle browsers.
    pub idle: usize,
    /// All browsers.
    pub total: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// Average wait of the last minute's granted requests, in milliseconds.
    pub avg_wait_ms: f64,
    /// 95 of 100 waited no longer.
    pub p95_wait_ms: f64,
    /// Share of the usable browsers that are leased.
    pub utilization: f64,
    /// Requests refused so far.
    #[serde(skip)]
    pub rejected: u64,
    /// Leases ended so far.
    #[serde(skip)]
    pub released: u64,
}

/// An hour, second by second: what the dashboard's plots begin with.
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

    /// The last `seconds`, oldest first.
    #[must_use]
    pub(super) fn last(&self, seconds: usize) -> Vec<Point> {
        let inner = self.lock();
        let skip = inner.points.len().saturating_sub(seconds);
        inner.points.iter().skip(skip).copied().collect()
    }

    /// Returns how busy the machine was in the last second.
    #[must_use]
    pub(super) fn machine(&self) -> Machine {
        self.lock().machine
    }

    /// Requests refused in the last minute.
    #[must_use]
    pub(super) fn rejected_last_minute(&self) -> u64 {
        self.growth(|point| point.rejected).0
    }

    /// Leases that ended per second in the last minute.
    #[must_use]
    pub(super) fn release_rate(&self) -> f64 {
        let (released, seconds) = self.growth(|point| point.released);
        if seconds == 0 { 0.0 } else { released as f64 / seconds as f64 }
    }

    /// By how much a count has grown in the last minute, and how many seconds of it there are.
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
}
