use std::collections::VecDeque;
use std::time::Duration;

use pool_core::ClassStats;
use tokio::time::Instant;

/// Thresholds and steps of a [`DynamicSizing`](crate::DynamicSizing) policy, set by its builder.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SizingRules {
    /// Interval between two decisions.
    pub interval: Duration,
    /// Number of latest samples that count.
    pub samples: usize,
    /// Mean wait above which more are kept.
    pub scale_up_wait: Duration,
    /// Number added at a time.
    pub scale_up_by: usize,
    /// Mean utilization, 0.0 to 1.0, below which fewer are kept.
    pub scale_down_utilization: f64,
    /// Number taken away at a time.
    pub scale_down_by: usize,
    /// Time for which waits must have been short before anything shrinks.
    pub cooldown: Duration,
}

impl Default for SizingRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            samples: 100,
            scale_up_wait: Duration::from_secs(5),
            scale_up_by: 2,
            scale_down_utilization: 0.3,
            scale_down_by: 1,
            cooldown: Duration::from_secs(60),
        }
    }
}

/// Maximum number of regretted shrinks that double the cooldown: 16 times as long.
const MAX_REGRETS: u32 = 4;

/// Number of cooldowns after which new long waits are a new load rather than the regret of a
/// shrink.
const MEMORY: u32 = 16;

/// Decides how many resources one class keeps. It is told the time, so it needs no clock.
#[derive(Debug)]
pub(super) struct Sizer {
    /// The configured minimum: never keep fewer.
    base: usize,
    /// Minimum in force: the last one that this sizer asked for, or `base`.
    target: usize,
    /// The class's totals at the last tick.
    granted: u64,
    waited: Duration,
    /// Time since which requests have been waiting without any being served.
    starving_since: Option<Instant>,
    /// Observations since the last change.
    window: Window,
    next_decision: Instant,
    /// Time at which waits were last too long, whether or not there was room to grow.
    busy_at: Option<Instant>,
    shrunk_since: bool,
    regrets: u32,
}

impl Sizer {
    pub(super) fn new(now: Instant, class: &ClassStats, rules: &SizingRules) -> Self {
        Self {
            base: class.min,
            target: class.min,
            granted: class.granted,
            waited: class.waited,
            starving_since: None,
            window: Window::default(),
            next_decision: now + rules.interval,
            busy_at: None,
            shrunk_since: false,
            regrets: 0,
        }
    }

    /// Looks at the class, and returns how many it should keep if that changes.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        class: &ClassStats,
        max: usize,
        rules: &SizingRules,
    ) -> Option<usize> {
        if class.min != self.target {
            // Somebody else changed it: this is the configured value now.
            self.base = class.min;
            self.target = class.min;
        }
        let sample = self.sample(now, class);
        self.window.push(sample, rules.samples);
        let max = max.max(self.base);
        let before = self.target;
        if self.target > max {
            self.target = max;
        } else if now >= self.next_decision {
            self.next_decision = now + rules.interval;
            self.decide(now, class, max, rules);
        }
        (self.target != before).then(|| {
            self.window.clear();
            self.target
        })
    }

    fn decide(&mut self, now: Instant, class: &ClassStats, max: usize, rules: &SizingRules) {
        let current = class.load.total() - class.load.closing;
        if self.wait(now) > rules.scale_up_wait {
            self.note_busy(now, rules);
            if class.failing {
                // The shortage does not come from a low minimum: asking for more would only make
                // more creations fail.
                return;
            }
            let target = self.target.max(current).saturating_add(rules.scale_up_by);
            self.target = target.min(max).max(self.target);
        } else if self.window.mean_utilization() < rules.scale_down_utilization
            && self.window.mean_queue() == 0.0
            && self.busy_at.is_none_or(|at| now >= at + self.cooldown(rules))
        {
            let needed = self.base.max(self.window.peak());
            let target = self.target.saturating_sub(rules.scale_down_by).max(needed);
            if target < self.target {
                self.target = target;
                self.shrunk_since = true;
            }
        }
    }

    fn note_busy(&mut self, now: Instant, rules: &SizingRules) {
        if let Some(last) = self.busy_at {
            if now > last + self.cooldown(rules) * MEMORY {
                self.regrets = 0;
            } else if self.shrunk_since {
                self.regrets = (self.regrets + 1).min(MAX_REGRETS);
            }
        }
        self.busy_at = Some(now);
        self.shrunk_since = false;
    }

    fn cooldown(&self, rules: &SizingRules) -> Duration {
        rules.cooldown * 2_u32.pow(self.regrets)
    }

    fn sample(&mut self, now: Instant, class: &ClassStats) -> Sample {
        let queue = class.load.waiting;
        let granted = class.granted.saturating_sub(self.granted);
        let waited = class.waited.saturating_sub(self.waited);
        (self.granted, self.waited) = (class.granted, class.waited);
        if granted == 0 && queue > 0 {
            self.starving_since.get_or_insert(now);
        } else {
            self.starving_since = None;
        }
        let (leased, utilization) = (class.load.leased, class.load.utilization());
        Sample { waited, granted, queue, leased, utilization }
    }

    /// Returns the wait of requests. If nobody is served, there is no wait to measure, so the time
    /// without service is used instead.
    fn wait(&self, now: Instant) -> Duration {
        let starving = self.starving_since.map_or(Duration::ZERO, |since| now - since);
        self.window.mean_wait().max(starving)
    }
}

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
    /// The same as a share of all that could be in use, 0.0 to 1.0.
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

    /// Returns the mean wait of a request. The mean is over requests, not samples, so that a quiet
    /// tick does not outweigh a busy one.
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

    /// Returns the largest number in use at one moment.
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
