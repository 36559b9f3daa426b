use std::time::Duration;

use pool_core::ClassStats;
use tokio::time::Instant;

use super::builder::Rules;
use super::window::{Sample, Window};

/// Regretted shrinks double the cooldown at most so many times: 16 × longer.
const MAX_REGRETS: u32 = 4;

/// Long waits that come later after the last ones than this many cooldowns are a new load, not the
/// regret of a shrink.
const MEMORY: u32 = 16;

/// Decides how many resources one class keeps. It is told the time, so that it needs no clock.
#[derive(Debug)]
pub(super) struct Sizer {
    /// The minimum that was configured: never keep fewer.
    base: usize,
    /// Minimum in force: the last that this sizer asked for, or `base`.
    target: usize,
    /// The class's totals at the last tick.
    granted: u64,
    waited: Duration,
    /// Since when requests wait and none is served.
    starving_since: Option<Instant>,
    /// Observations since the last change.
    window: Window,
    next_decision: Instant,
    /// When waits were last too long, whether or not there was room to grow.
    busy_at: Option<Instant>,
    shrunk_since: bool,
    regrets: u32,
}

impl Sizer {
    pub(super) fn new(now: Instant, class: &ClassStats, rules: &Rules) -> Self {
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

    /// Looks at the class, and says how many it shall keep if that is to change.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        class: &ClassStats,
        max: usize,
        rules: &Rules,
    ) -> Option<usize> {
        if class.min != self.target {
            // Somebody else changed it: that is what is configured now.
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

    fn decide(&mut self, now: Instant, class: &ClassStats, max: usize, rules: &Rules) {
        let current = class.load.total() - class.load.closing;
        if self.wait(now) > rules.scale_up_wait {
            self.note_busy(now, rules);
            if class.failing {
                // It has not too few because too few are kept: to ask for more would only make
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

    fn note_busy(&mut self, now: Instant, rules: &Rules) {
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

    fn cooldown(&self, rules: &Rules) -> Duration {
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

    /// Returns the wait of requests. Where nobody is served there is no wait to measure, so the
    /// time without service is used instead.
    fn wait(&self, now: Instant) -> Duration {
        let starving = self.starving_since.map_or(Duration::ZERO, |since| now - since);
        self.window.mean_wait().max(starving)
    }
}
