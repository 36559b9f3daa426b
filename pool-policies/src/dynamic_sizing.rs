use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pool_core::{Adjustment, Class, ClassStats, Driver, Limits, Policy, Stats};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::PolicyError;

/// Adjusts the number of kept resources to the waits and the utilization.
///
/// At every [tick](pool_core::Config::tick_interval) it takes a sample of each class: how long the
/// requests served since the last tick had waited, how many are waiting, and how many of the
/// resources are in use. Every [`interval`](DynamicSizingBuilder::interval) it looks at the means:
///
/// - if waits are longer than [`scale_up_wait`](DynamicSizingBuilder::scale_up_wait), it keeps
///   [`scale_up_by`](DynamicSizingBuilder::scale_up_by) more than there are now;
/// - if utilization is below
///   [`scale_down_utilization`](DynamicSizingBuilder::scale_down_utilization) and nobody waits, it
///   keeps [`scale_down_by`](DynamicSizingBuilder::scale_down_by) fewer.
///
/// # What it steers
///
/// It steers the minimum of a class: the number of resources that are kept, in any state. A pool
/// creates up to its maximum on demand, without being told to, so a policy that steered the maximum
/// could only hold it back, and make a burst wait for the next interval. A pool does not get ready
/// ahead of demand by itself, or stay ready through a lull that is longer than
/// [`max_idle_time`](pool_core::Config::max_idle_time). A raised minimum does both. A lowered one
/// closes nothing by itself: it lets idle resources expire again.
///
/// The steered minimum stays between the class's configured minimum and maximum, and the minimums
/// of all classes together stay below the pool's maximum, or the classes would take each other's
/// resources. Where creations fail, nothing grows. If somebody else changes a minimum, that value
/// becomes the configured one.
///
/// # Why it does not flap
///
/// After a change, old samples are forgotten, so that one busy minute is not counted twice. A class
/// shrinks only when waits have been short for the [`cooldown`](DynamicSizingBuilder::cooldown),
/// and never below the number in use at any one moment of the samples. If a shrink is regretted,
/// because the waits soon come back, the next one takes twice as long: a load that comes and goes
/// is followed a few times, and after that the class stays ready for it.
///
/// # Examples
///
/// ```
/// use pool_core::Pool;
/// use pool_core::testing::FakeDriver;
/// use pool_policies::DynamicSizing;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sizing = DynamicSizing::builder()
///     .interval(Duration::from_secs(30))
///     .scale_up_wait(Duration::from_secs(5))
///     .build()?;
/// let pool = Pool::builder(FakeDriver::default())
///     .policy(sizing)
///     .min_size(2)
///     .max_size(20)
///     .build()?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DynamicSizing {
    rules: SizingRules,
    sizers: Mutex<FxHashMap<Class, Sizer>>,
}

impl DynamicSizing {
    /// Starts to build a policy; every setting has a default.
    pub fn builder() -> DynamicSizingBuilder {
        DynamicSizingBuilder::new()
    }

    fn new(rules: SizingRules) -> Self {
        Self { rules, sizers: Mutex::default() }
    }

    fn adjust(&self, stats: &Stats) -> Vec<Adjustment> {
        if stats.draining {
            return Vec::new();
        }
        let mut sizers = self.sizers.lock().unwrap_or_else(PoisonError::into_inner);
        // If the pool has forgotten a class, asking for a minimum would bring it back.
        sizers.retain(|class, _| stats.classes.iter().any(|now| now.class == *class));
        let mut kept: usize = stats.classes.iter().map(|class| class.min).sum();
        let mut adjustments = Vec::new();
        for class in &stats.classes {
            let others = kept - class.min;
            let room = stats.load.max_size.saturating_sub(others);
            let max = class.load.max_size.min(room);
            let sizer = sizers
                .entry(class.class.clone())
                .or_insert_with(|| Sizer::new(stats.at, class, &self.rules));
            if let Some(target) = sizer.tick(stats.at, class, max, &self.rules) {
                kept = others + target;
                adjustments.push(adjustment(class, target));
            }
        }
        adjustments
    }
}

fn adjustment(class: &ClassStats, target: usize) -> Adjustment {
    if class.class.is_default() {
        Adjustment::MinSize(target)
    } else {
        let limits = Limits { min: Some(target), ..Limits::default() };
        Adjustment::Class(class.class.clone(), limits)
    }
}

#[async_trait]
impl<D: Driver> Policy<D> for DynamicSizing {
    fn watches(&self) -> bool {
        false
    }

    fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
        self.adjust(stats)
    }
}

/// Sets the rules of a [`DynamicSizing`] policy.
#[derive(Clone, Debug)]
#[must_use]
pub struct DynamicSizingBuilder {
    rules: SizingRules,
}

impl DynamicSizingBuilder {
    fn new() -> Self {
        Self { rules: SizingRules::default() }
    }

    /// Sets how often the size is reconsidered. Default: 30 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// Sets how many of the latest samples count; there is one per
    /// [tick](pool_core::Config::tick_interval). Default: 100.
    pub fn samples(mut self, samples: usize) -> Self {
        self.rules.samples = samples;
        self
    }

    /// Sets the mean wait above which more are kept. Default: 5 s.
    pub fn scale_up_wait(mut self, wait: Duration) -> Self {
        self.rules.scale_up_wait = wait;
        self
    }

    /// Sets how many more are kept at a time. Default: 2.
    pub fn scale_up_by(mut self, by: usize) -> Self {
        self.rules.scale_up_by = by;
        self
    }

    /// Sets the mean utilization, 0.0 to 1.0, below which fewer are kept. Default: 0.3.
    pub fn scale_down_utilization(mut self, utilization: f64) -> Self {
        self.rules.scale_down_utilization = utilization;
        self
    }

    /// Sets how many fewer are kept at a time. Default: 1.
    pub fn scale_down_by(mut self, by: usize) -> Self {
        self.rules.scale_down_by = by;
        self
    }

    /// Sets how long waits must have been short before anything shrinks. It doubles each time a
    /// shrink is regretted, up to 16 times as long. Default: 60 s.
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.rules.cooldown = cooldown;
        self
    }

    /// Checks the rules.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Setting`] for a setting that must not be zero and is, or for a utilization
    /// that is not between 0.0 and 1.0.
    pub fn build(self) -> Result<DynamicSizing, PolicyError> {
        let rules = self.rules;
        let zero = [
            ("interval", rules.interval.is_zero()),
            ("samples", rules.samples == 0),
            ("scale_up_by", rules.scale_up_by == 0),
            ("scale_down_by", rules.scale_down_by == 0),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(PolicyError::Setting { setting, why: "must not be zero" });
        }
        if !(0.0..=1.0).contains(&rules.scale_down_utilization) {
            let setting = "scale_down_utilization";
            return Err(PolicyError::Setting { setting, why: "must be 0.0 to 1.0" });
        }
        Ok(DynamicSizing::new(rules))
    }
}

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
struct Sizer {
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
    fn new(now: Instant, class: &ClassStats, rules: &SizingRules) -> Self {
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
    fn tick(
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
struct Sample {
    /// Total wait of the requests that were served.
    waited: Duration,
    /// Number of requests served.
    granted: u64,
    /// Number of waiters.
    queue: usize,
    /// Number of resources in use.
    leased: usize,
    /// The same as a share of all that could be in use, 0.0 to 1.0.
    utilization: f64,
}

/// The latest samples.
#[derive(Clone, Debug, Default)]
struct Window {
    samples: VecDeque<Sample>,
}

impl Window {
    /// Adds a sample, and drops the oldest if there are more than `most`.
    fn push(&mut self, sample: Sample, most: usize) {
        self.samples.push_back(sample);
        while self.samples.len() > most {
            self.samples.pop_front();
        }
    }

    fn clear(&mut self) {
        self.samples.clear();
    }

    /// Returns the mean wait of a request. The mean is over requests, not samples, so that a quiet
    /// tick does not outweigh a busy one.
    fn mean_wait(&self) -> Duration {
        let granted: u64 = self.samples.iter().map(|sample| sample.granted).sum();
        if granted == 0 {
            return Duration::ZERO;
        }
        let waited: Duration = self.samples.iter().map(|sample| sample.waited).sum();
        Duration::from_secs_f64(waited.as_secs_f64() / granted as f64)
    }

    fn mean_queue(&self) -> f64 {
        self.mean(|sample| sample.queue as f64)
    }

    fn mean_utilization(&self) -> f64 {
        self.mean(|sample| sample.utilization)
    }

    /// Returns the largest number in use at one moment.
    fn peak(&self) -> usize {
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
