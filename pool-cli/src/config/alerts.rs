use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::units::AsDuration;

/// `[alerts]`: webhooks that are called when clients are not served well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Called when a client has to wait for a browser.
    ///
    /// The address of a webhook, `http` or `https`, is often its own password, so that it is kept
    /// as one. It gets a POST with JSON.
    #[schemars(example = serde_json::json!({ "env": "QUEUE_WEBHOOK" }))]
    pub queue_url: Option<Secret>,
    /// Called when a client is refused at once, because the queue is full or a policy says so.
    #[schemars(example = serde_json::json!({ "env": "REJECT_WEBHOOK" }))]
    pub reject_url: Option<Secret>,
    /// Called when a client has waited for a browser in vain.
    #[schemars(example = serde_json::json!({ "env": "TIMEOUT_WEBHOOK" }))]
    pub timeout_url: Option<Secret>,
    /// Called when a browser cannot be launched, crashes or hangs.
    #[schemars(example = serde_json::json!({ "env": "ERROR_WEBHOOK" }))]
    pub error_url: Option<Secret>,
    /// Called when an idle browser fails its check.
    #[schemars(example = serde_json::json!({ "env": "FAILED_HEALTH_WEBHOOK" }))]
    pub failed_health_url: Option<Secret>,
    /// Calls of one webhook are at least this far apart. What happens meanwhile is counted, and
    /// told by the next call.
    #[serde(with = "AsDuration")]
    pub interval: Duration,
    /// Maximum time a call may take.
    #[serde(with = "AsDuration")]
    pub request_timeout: Duration,
    /// Number of attempts at a call, the first included, before it is given up.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: usize,
}

impl AlertsConfig {
    /// The addresses that are set, by their keys.
    pub(super) fn urls(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let urls = [
            ("queue_url", &self.queue_url),
            ("reject_url", &self.reject_url),
            ("timeout_url", &self.timeout_url),
            ("error_url", &self.error_url),
            ("failed_health_url", &self.failed_health_url),
        ];
        urls.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?)))
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            queue_url: None,
            reject_url: None,
            timeout_url: None,
            error_url: None,
            failed_health_url: None,
            interval: Duration::from_secs(60),
            request_timeout: Duration::from_secs(5),
            attempts: 3,
        }
    }
}
