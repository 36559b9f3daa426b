use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::AsDuration;

/// `[priority]`: who is served first when all browsers are leased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityConfig {
    /// One level of priority is worth this much waiting, so that nobody waits for ever.
    #[serde(with = "AsDuration")]
    pub step: Duration,
    /// The priority of requests that state none: 1 is served first, 10 last.
    #[schemars(range(min = 1, max = 10))]
    pub default: u8,
}

impl Default for PriorityConfig {
    fn default() -> Self {
        Self { step: Duration::from_secs(10), default: 5 }
    }
}
