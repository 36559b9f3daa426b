mod sizer;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pool_core::{Adjustment, Class, ClassStats, Driver, Limits, Policy, Stats};
use rustc_hash::FxHashMap;
use sizer::Sizer;

use crate::PolicyError;

pub use sizer::SizingRules;

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
