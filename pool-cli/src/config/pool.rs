//! The sections about the browsers of a pool: their number, their order and their warm-up.

use std::path::PathBuf;
use std::time::Duration;

use pool_policies::SizingRules;
use schemars::JsonSchema;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Serialize};

use super::machine;
use super::units::{AsCountOrOff, AsDuration, AsDurationOrOff};

pub use pool_chrome::Reset;
pub use pool_chrome::mux::LeaseKind;

/// Returns the kind of lease with this name in the configuration.
#[must_use]
pub fn lease_kind(name: &str) -> Option<LeaseKind> {
    LeaseKind::deserialize(StrDeserializer::<ValueError>::new(name)).ok()
}

/// Maximum number of browsers: no machine has more, so a larger size is a mistake.
pub const MOST_BROWSERS: usize = 1000;

/// `[pool]`: how many browsers there are, how they are leased, and when they are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// The name of the pool, in metrics and in `/browser_pools/{name}`.
    #[schemars(extend("x-kind" = "name"))]
    #[schemars(extend("x-reload" = false))]
    pub name: String,
    /// Minimum number of browsers without a profile or region, leased or idle.
    pub min_size: usize,
    /// Maximum number of browsers, those of all profiles and regions included.
    ///
    /// With shared leases it counts leases, not browsers: up to `leases_per_browser` of them share
    /// a Chromium. With 0, which is only valid in a fleet, a node has no browsers, requires no
    /// Chromium, and passes its clients on to the other nodes. By default 4 per core, but no more
    /// than one per 512 MiB of memory.
    #[schemars(range(min = 0, max = MOST_BROWSERS), example = 8, transform = machine::computed)]
    pub max_size: usize,
    /// Kind of lease that clients get.
    #[schemars(extend("x-reload" = false))]
    pub lease: LeaseKind,
    /// Let clients ask for the other kind with `?lease=…`.
    #[schemars(extend("x-reload" = false))]
    pub lease_choice: bool,
    /// Maximum number of leases in one Chromium; for shared leases only.
    #[schemars(range(min = 1, max = 64))]
    #[schemars(extend("x-reload" = false))]
    pub leases_per_browser: usize,
    /// Clean-up of a browser between exclusive leases.
    #[schemars(extend("x-reload" = false))]
    pub reset: Reset,
    /// Maximum time a client waits for a browser before it is refused (query: `acquire_timeout`).
    ///
    /// The default is shorter than Playwright's own timeout of 30 s, which would hide the reason.
    #[serde(with = "AsDuration")]
    pub acquire_timeout: Duration,
    /// Maximum number of clients that wait; one more is refused at once with 429.
    #[schemars(extend("x-reload" = false))]
    pub max_waiting: usize,
    /// A browser above the minimum that has been idle for this long is closed, or "off".
    #[serde(with = "AsDurationOrOff")]
    #[schemars(extend("x-reload" = false))]
    pub max_idle_time: Option<Duration>,
    /// A browser is replaced when it gets this old, or "off".
    ///
    /// Shortened at random by up to a tenth, so that browsers launched together are not replaced
    /// together.
    #[serde(with = "AsDurationOrOff")]
    #[schemars(extend("x-reload" = false))]
    pub max_lifetime: Option<Duration>,
    /// A browser is replaced after this many leases, or "off".
    #[serde(with = "AsCountOrOff")]
    #[schemars(extend("x-reload" = false))]
    pub max_use_count: Option<u64>,
    /// Maximum number of browsers launched at the same time.
    ///
    /// More than the number of cores gains nothing, because launches share them.
    #[schemars(range(min = 1, max = 64))]
    #[schemars(extend("x-reload" = false))]
    pub max_creating: usize,
    /// Interval at which an idle browser is checked by opening a page, or "off".
    #[serde(with = "AsDurationOrOff")]
    #[schemars(extend("x-reload" = false))]
    pub health_check_interval: Option<Duration>,
    /// Maximum time a lease may last, or "off" (query: `timeout`, in ms, which may only shorten it).
    #[serde(with = "AsDurationOrOff")]
    pub lease_timeout: Option<Duration>,
    /// A lease is ended when its clients have sent nothing for this long, with no command
    /// unanswered and no download in progress, or "off" (query: `idle_timeout`, in ms).
    #[serde(with = "AsDurationOrOff")]
    pub lease_idle_timeout: Option<Duration>,
    /// Maximum time that a lease may go on without a connection (query: `keep`, in ms).
    ///
    /// A lease with a name (query: `session`) is kept for 60 s, or for this time if that is
    /// shorter.
    #[serde(with = "AsDuration")]
    pub keep_limit: Duration,
    /// Directory of the profiles and of the pool's own records.
    ///
    /// By default `$XDG_STATE_HOME/browser-pool`, which is `~/.local/state/browser-pool`. Only one
    /// pool at a time can use it.
    #[schemars(extend("x-kind" = "path"), example = "/var/lib/browser-pool", transform = machine::computed)]
    #[schemars(extend("x-reload" = false))]
    pub state_dir: PathBuf,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            min_size: 2,
            max_size: machine::max_size(),
            lease: LeaseKind::Exclusive,
            lease_choice: false,
            leases_per_browser: 8,
            reset: Reset::Context,
            acquire_timeout: Duration::from_secs(25),
            max_waiting: 1000,
            max_idle_time: Some(Duration::from_secs(5 * 60)),
            max_lifetime: Some(Duration::from_secs(60 * 60)),
            max_use_count: Some(100),
            max_creating: 2,
            health_check_interval: Some(Duration::from_secs(30)),
            lease_timeout: Some(Duration::from_secs(30 * 60)),
            lease_idle_timeout: Some(Duration::from_secs(5 * 60)),
            keep_limit: Duration::from_secs(5 * 60),
            state_dir: machine::state_dir(),
        }
    }
}

/// `[priority]`: the order in which requests are served when all browsers are leased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityConfig {
    /// One level of priority is worth this much waiting, so that nobody waits forever.
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

/// `[sizing]`: adjustment of the number of browsers to the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SizingConfig {
    /// Add browsers ahead of need, and remove them when they are not used.
    pub enabled: bool,
    /// Interval at which the size is reconsidered.
    #[serde(with = "AsDuration")]
    pub interval: Duration,
    /// Number of the latest waits and utilizations that a decision looks at.
    #[schemars(range(min = 1, max = 100_000))]
    pub samples: usize,
    /// Browsers are added when clients wait longer than this on average.
    #[serde(with = "AsDuration")]
    pub scale_up_wait: Duration,
    /// Browsers added at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub scale_up_by: usize,
    /// Browsers are removed when less than this share of them is leased: 0.0 to 1.0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub scale_down_utilization: f64,
    /// Browsers removed at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub scale_down_by: usize,
}

impl Default for SizingConfig {
    fn default() -> Self {
        let rules = SizingRules::default();
        Self {
            enabled: true,
            interval: rules.interval,
            samples: rules.samples,
            scale_up_wait: rules.scale_up_wait,
            scale_up_by: rules.scale_up_by,
            scale_down_utilization: rules.scale_down_utilization,
            scale_down_by: rules.scale_down_by,
        }
    }
}

/// `[warming]`: preparation of a new browser before its first lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmingConfig {
    /// Warm new browsers up. One that cannot be warmed is never leased.
    pub enabled: bool,
    /// Width and height of the warm-up page, in CSS pixels.
    #[schemars(extend("items" = { "type": "integer", "minimum": 1, "maximum": 16384 }))]
    pub viewport: [u32; 2],
    /// The user agent of the warm-up page, if not Chromium's own.
    #[schemars(example = "Mozilla/5.0 (X11; Linux x86_64) browser-pool")]
    pub user_agent: Option<String>,
    /// The page that is opened.
    #[schemars(extend("x-kind" = "page url"))]
    pub url: String,
    /// JavaScript that is run once in that page.
    #[schemars(example = "document.title")]
    pub script: Option<String>,
    /// Browsers without a profile or region that are kept idle and ready beyond those that are leased.
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
