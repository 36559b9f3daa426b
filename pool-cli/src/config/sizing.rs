use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::AsDuration;

/// `[sizing]`: how the number of browsers follows the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SizingConfig {
    /// Whether browsers are added ahead of need and taken away when they are not used.
    pub enabled: bool,
    /// Interval at which the size is decided anew.
    #[serde(with = "AsDuration")]
    pub interval: Duration,
    /// The latest waits and utilizations that a decision looks at.
    #[schemars(range(min = 1, max = 100_000))]
    pub samples: usize,
    /// Browsers are added when clients wait longer than this on average.
    #[serde(with = "AsDuration")]
    pub scale_up_wait: Duration,
    /// Browsers added at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub scale_up_by: usize,
    /// Browsers are taken away when less than this share of them is leased: 0.0 to 1.0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub scale_down_utilization: f64,
    /// Browsers taken away at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub scale_down_by: usize,
}

impl Default for SizingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(30),
            samples: 100,
            scale_up_wait: Duration::from_secs(5),
            scale_up_by: 2,
            scale_down_utilization: 0.3,
            scale_down_by: 1,
        }
    }
}
