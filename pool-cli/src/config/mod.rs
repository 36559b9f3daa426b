//! The configuration: its types with their defaults, read from flags, environment and file.
//!
//! The types are the only description of a setting. Their JSON schema (see [`schema`]) is derived
//! from them, and the check for unknown keys, the generated file of `init`, the environment
//! variables and `docs/configuration.md` all come from that schema.

mod chrome;
mod conform;
mod finding;
mod fleet;
mod gateway;
mod kind;
mod load;
pub(crate) mod machine;
mod named;
mod overrides;
mod pool;
mod rules;
pub mod schema;
mod secret;
mod source;
pub mod template;
mod units;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use chrome::{ChromeConfig, EgressConfig, Engine, Limits, PrivateAddresses, Sandbox};
pub use finding::{Finding, Findings, Place, Severity};
pub use fleet::FleetConfig;
pub use gateway::{AlertKind, AlertsConfig, GatewayConfig, LogConfig, LogFormat, TelemetryConfig};
pub use load::{ConfigArgs, Loaded, Loader, Setting};
pub use named::{
    ProfileConfig, ProfileMode, ProfilesConfig, ProxyConfig, RegionConfig, Scope, TenantConfig,
    TenantPriority,
};
pub use pool::{
    LeaseKind, MOST_BROWSERS, PoolConfig, PriorityConfig, Reset, SizingConfig, WarmingConfig,
    lease_kind,
};
pub use secret::Secret;

/// Everything that can be configured; every key has a default, so an empty file is a valid one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "pool.toml", inline)]
pub struct Config {
    /// The HTTP and WebSocket server that clients connect to.
    pub gateway: GatewayConfig,
    /// Number of browsers, kind of lease, and replacement.
    pub pool: PoolConfig,
    /// The Chromium that is launched, and its flags, timeouts and limits.
    #[schemars(extend("x-reload" = false))]
    pub chrome: ChromeConfig,
    /// Where browsers may go.
    pub egress: Option<EgressConfig>,
    /// Browsers that keep their state, by name: `?profile=work` is leased from `[profiles.work]`.
    pub profiles: ProfilesConfig,
    /// Order in which requests are served when all browsers are leased.
    pub priority: PriorityConfig,
    /// Teams or customers that use the pool, by name: what each may have and do.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// Proxies by region: `?region=eu-west` is leased from `[regions.eu-west]`.
    pub regions: BTreeMap<String, RegionConfig>,
    /// Adjustment of the number of browsers to the load, between `min_size` and `max_size`.
    pub sizing: SizingConfig,
    /// Preparation of a new browser before its first lease.
    pub warming: WarmingConfig,
    /// Several machines that act as one pool.
    ///
    /// Each of them, a node, runs this program with the same `nats`, `name` and `secret`. A client
    /// connects to any node and gets the first browser that is free, wherever it is. While no NATS
    /// server can be reached, every node continues alone with its own browsers. Without a server in
    /// `nats` the pool is not in a fleet.
    #[schemars(extend("x-reload" = false))]
    pub fleet: Option<FleetConfig>,
    /// Webhooks that are called when clients wait or are refused, or when browsers fail.
    pub alerts: AlertsConfig,
    /// Traces for an OpenTelemetry collector.
    #[schemars(extend("x-reload" = false))]
    pub telemetry: TelemetryConfig,
    /// Log written to stderr.
    #[schemars(extend("x-reload" = false))]
    pub log: LogConfig,
}
