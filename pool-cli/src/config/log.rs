use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`: what is written to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Format of a line.
    pub format: LogFormat,
    /// Filter: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by target,
    /// as in `info,pool_chrome=debug`.
    #[schemars(extend("x-kind" = "filter"))]
    pub filter: String,
}

/// Format of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}
