use std::collections::VecDeque;
use std::time::Duration;

/// Observations of a class between two ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Total wait of the requests that were served.
    pub(super) waited: Duration,
    /// Number of requests served.
    pub(super) granted: u64,
    /// Number of waiters.
    pub(super) queue: usize,
    /// Number of resources in use.
    pub(super) leased: usize,
    /// The same as a share of those that could be, 0.0 to 1.0.
    pub(super) utilization: f64,
}

/// The latest samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<Sample>,
}

impl Window {
    /// Adds a sample, and drops the oldest if there are more than `most`.
    pub(super) fn push(&mut self, sample: Sample, most: usize) {
        self.samples.push_back(sample);
        while self.samples.len() > most {
            self.samples.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Returns the mean wait of a request: of requests, not of samples, so that a quiet tick
    /// does not outweigh a busy one.
    pub(super) fn mean_wait(&self) -> Duration {
        let granted: u64 = self.samples.iter().map(|sample| sample.granted).sum();
        if granted == 0 {
            return Duration::ZERO;
        }
        let waited: Duration = self.samples.iter().map(|sample| sample.waited).sum();
        Duration::from_secs_f64(waited.as_secs_f64() / granted as f64)
    }

    pub(super) fn mean_queue(&self) -> f64 {
        self.mean(|sample| sample.queue as f64)
    }

    pub(super) fn mean_utilization(&self) -> f64 {
        self.mean(|sample| sample.utilization)
    }

    /// The most that were in use at one moment.
    pub(super) fn peak(&self) -> usize {
        self.samples.iter().map(|sample| sample.leased).max().unwrap_or(0)
    }

    fn mean(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        if self.samples.is_empty() {
            return 0.0;
        }
        self.samples.iter().map(value).sum::<f64>() / self.samples.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_wait_is_that_of_the_requests() {
        let mut window = Window::default();
        let sample = |granted, seconds| Sample {
            granted,
            waited: Duration::from_secs(seconds),
            ..Sample::default()
        };
        window.push(sample(9, 90), 100);
        window.push(sample(1, 0), 100);
        window.push(sample(0, 0), 100);
        assert_eq!(window.mean_wait(), Duration::from_secs(9));
    }

    #[test]
    fn only_the_latest_samples_count() {
        let mut window = Window::default();
        for queue in 0..10 {
            window.push(Sample { queue, leased: 9 - queue, ..Sample::default() }, 3);
        }
        assert_eq!(window.mean_queue(), 8.0);
        assert_eq!(window.peak(), 2);
    }

    #[test]
    fn nothing_seen_is_nothing_waited() {
        assert_eq!(Window::default().mean_wait(), Duration::ZERO);
        assert_eq!(Window::default().mean_utilization(), 0.0);
    }
}
