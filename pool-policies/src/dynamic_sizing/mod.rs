mod builder;
mod sizer;
mod window;

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use pool_core::{Adjustment, Class, ClassStats, Driver, Limits, Policy, Stats};
use rustc_hash::FxHashMap;

pub use builder::DynamicSizingBuilder;
use builder::Rules;
use sizer::Sizer;

/// Lets the number of resources that are kept follow the waits and the utilization.
///
/// At every [tick](pool_core::Config::tick_interval) it takes a sample of each class: how long
/// the requests that were served since the last one had waited, how many wait, how many of the
/// resources are in use. Every [`interval`](DynamicSizingBuilder::interval) it looks at the mean:
///
/// - waits longer than [`scale_up_wait`](DynamicSizingBuilder::scale_up_wait): keep
///   [`scale_up_by`](DynamicSizingBuilder::scale_up_by) more than there are now;
/// - utilization below [`scale_down_utilization`](DynamicSizingBuilder::scale_down_utilization)
///   and nobody waits: keep [`scale_down_by`](DynamicSizingBuilder::scale_down_by) fewer.
///
/// # What it steers
///
/// The number *kept at least*, in any state: the minimum of a class. A pool creates on demand up to
/// its maximum without being told, so a policy that steered the maximum could only take that away,
/// and make a burst wait for the next interval. What a pool does not do by itself is to be ready
/// before the demand, and to stay ready through a lull that is longer than
/// [`max_idle_time`](pool_core::Config::max_idle_time). That is what a raised minimum does. A
/// lowered one closes nothing by itself: it lets idle resources expire again.
///
/// It stays between the class's configured minimum and maximum, and the minima of all classes
/// together stay below the pool's maximum, or else they would take each other's resources.
/// Where creations fail, nothing grows. A minimum that somebody else changes becomes the configured
/// one.
///
/// # Why it does not flap
///
/// After a change, old samples are forgotten, so that one busy minute is not counted twice.
/// It shrinks only when waits have been short for the [`cooldown`](DynamicSizingBuilder::cooldown),
/// and never below what was in use at any one moment of the samples. If a shrink is regretted,
/// since the waits come back soon, the next one takes twice as long: a load that comes and goes
/// is followed a few times, and then kept up for.
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
    rules: Rules,
    sizers: Mutex<FxHashMap<Class, Sizer>>,
}

impl DynamicSizing {
    /// The guide's rules; every setting has a default.
    pub fn builder() -> DynamicSizingBuilder {
        DynamicSizingBuilder::new()
    }

    fn new(rules: Rules) -> Self {
        Self { rules, sizers: Mutex::default() }
    }

    fn adjust(&self, stats: &Stats) -> Vec<Adjustment> {
        if stats.draining {
            return Vec::new();
        }
        let mut sizers = self.sizers.lock().unwrap_or_else(PoisonError::into_inner);
        // A class that the pool has forgotten, it would ask for again with a new minimum.
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
