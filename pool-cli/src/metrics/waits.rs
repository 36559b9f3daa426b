use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Samples older than this say nothing about now.
const WINDOW: Duration = Duration::from_secs(60);

/// Enough for exact percentiles, little enough to sort every second.
const CAPACITY: usize = 2048;

/// Waits of the requests granted in the last minute.
#[derive(Debug, Default)]
pub struct Waits(Mutex<VecDeque<(Instant, Duration)>>);

/// Average and percentiles of the waits of the last minute, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WaitSummary {
    /// Granted requests that were looked at.
    pub samples: usize,
    /// Their average wait.
    pub avg_ms: f64,
    /// Half of them waited no longer.
    pub p50_ms: f64,
    /// 95 of 100 waited no longer.
    pub p95_ms: f64,
    /// 99 of 100 waited no longer.
    pub p99_ms: f64,
}

impl Waits {
    /// Adds the wait of a request that was granted now.
    pub fn add(&self, waited: Duration) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == CAPACITY {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), waited));
    }

    /// Looks at the last minute.
    #[must_use]
    pub fn summary(&self) -> WaitSummary {
        let now = Instant::now();
        let mut waits: Vec<f64> = {
            let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            while samples.front().is_some_and(|(at, _)| now - *at > WINDOW) {
                samples.pop_front();
            }
            samples.iter().map(|(_, waited)| waited.as_secs_f64() * 1000.0).collect()
        };
        if waits.is_empty() {
            return WaitSummary::default();
        }
        waits.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| waits[((waits.len() as f64 * share).ceil() as usize).max(1) - 1];
        WaitSummary {
            samples: waits.len(),
            avg_ms: waits.iter().sum::<f64>() / waits.len() as f64,
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn percentiles_are_of_the_last_minute() {
        let waits = Waits::default();
        waits.add(Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(61)).await;
        for ms in 1..=100 {
            waits.add(Duration::from_millis(ms));
        }
        let summary = waits.summary();
        assert_eq!(summary.samples, 100);
        assert_eq!((summary.p50_ms, summary.p95_ms, summary.p99_ms), (50.0, 95.0, 99.0));
    }
}
