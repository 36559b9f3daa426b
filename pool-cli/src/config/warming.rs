use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[warming]`: what is done to a new browser before its first lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmingConfig {
    /// Whether new browsers are warmed. One that cannot be warmed is never leased.
    pub enabled: bool,
    /// Width and height of the page that warms, in CSS pixels.
    #[schemars(extend("items" = { "type": "integer", "minimum": 1, "maximum": 16384 }))]
    pub viewport: [u32; 2],
    /// The user agent of the page that warms, if not Chromium's own.
    #[schemars(example = "Mozilla/5.0 (X11; Linux x86_64) browser-pool")]
    pub user_agent: Option<String>,
    /// The page that is opened.
    #[schemars(extend("x-kind" = "page url"))]
    pub url: String,
    /// JavaScript that is run once in that page.
    #[schemars(example = "document.title")]
    pub script: Option<String>,
    /// Anonymous browsers kept idle and ready beyond those that are leased.
    pub min_idle: usize,
}

impl Default for WarmingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            viewport: [1280, 720],
            user_agent: None,
            url: "about:blank".to_owned(),
            script: None,
            min_idle: 1,
        }
    }
}
