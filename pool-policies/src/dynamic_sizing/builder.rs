use std::time::Duration;

use super::DynamicSizing;
use crate::PolicyError;

/// Sets the rules of a [`DynamicSizing`] policy.
#[derive(Clone, Debug)]
#[must_use]
pub struct DynamicSizingBuilder {
    rules: Rules,
}

impl DynamicSizingBuilder {
    pub(super) fn new() -> Self {
        Self { rules: Rules::default() }
    }

    /// Sets how often the size is thought over. Default: 30 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// Sets how many samples count, the latest ones; there is one per
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

    /// Sets how long waits must have been short before anything shrinks; it doubles, up to 16
    /// times as long, while shrinks are regretted. Default: 60 s.
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.rules.cooldown = cooldown;
        self
    }

    /// Checks the rules.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Setting`] for one that is zero and must not be, or for a utilization that
    /// is not 0.0 to 1.0.
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

/// The thresholds and steps of a sizer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) interval: Duration,
    pub(super) samples: usize,
    pub(super) scale_up_wait: Duration,
    pub(super) scale_up_by: usize,
    pub(super) scale_down_utilization: f64,
    pub(super) scale_down_by: usize,
    pub(super) cooldown: Duration,
}

impl Default for Rules {
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
