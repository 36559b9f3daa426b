//! Sections that exist once for each name: profiles, regions and tenants.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Serialize};

use super::{LeaseKind, Secret};

pub use pool_policies::ProfileMode;

/// `[profiles]`: browsers that keep their state, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(default)]
pub struct ProfilesConfig {
    /// Create any profile that `?profile=…` asks for; otherwise an unknown one gets a 404.
    pub on_demand: bool,
    /// A profile, by its name.
    #[serde(flatten)]
    pub named: BTreeMap<String, ProfileConfig>,
}

/// `[profiles.NAME]`: one profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// Minimum number of browsers of this profile, leased or idle.
    ///
    /// It is 0 for a profile that travels between the nodes of a fleet.
    pub min_size: usize,
    /// Maximum number of browsers of this profile. Each has its own directory, with its own login.
    ///
    /// By default 2; 1, in the whole fleet, for a profile that travels between its nodes.
    #[schemars(range(min = 1, max = 1000), example = 2)]
    pub max_size: Option<usize>,
    /// State that the next lease starts from.
    pub mode: ProfileMode,
    /// The region of leases that ask for none.
    #[schemars(example = "eu-west")]
    pub region: Option<String>,
    /// The node of a fleet that keeps this profile and serves all of its leases.
    ///
    /// By default a persistent profile travels: it goes to the node that serves a lease, and back into the store of the
    /// fleet when the lease ends.
    #[schemars(example = "worker-7")]
    pub home: Option<String>,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            min_size: 0,
            max_size: None,
            mode: ProfileMode::Persistent,
            region: None,
            home: None,
        }
    }
}

impl ProfileConfig {
    /// Returns the maximum number of its browsers: on this node or, if it travels, in the whole
    /// fleet.
    #[must_use]
    pub fn max(&self, is_in_fleet: bool) -> usize {
        self.max_size.unwrap_or(if self.travels(is_in_fleet) { 1 } else { 2 })
    }

    /// Returns `true` if it travels between the nodes of a fleet.
    #[must_use]
    pub fn travels(&self, is_in_fleet: bool) -> bool {
        is_in_fleet && self.home.is_none() && self.mode == ProfileMode::Persistent
    }
}

impl<'de> Deserialize<'de> for ProfilesConfig {
    /// Written by hand because `#[serde(flatten)]` buffers the values and so loses their positions.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ProfilesConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of profiles")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<ProfilesConfig, A::Error> {
                let mut profiles = ProfilesConfig::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "on_demand" {
                        profiles.on_demand = map.next_value()?;
                    } else {
                        profiles.named.insert(key, map.next_value()?);
                    }
                }
                Ok(profiles)
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// `[regions.NAME]`: the proxies of one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionConfig {
    /// Proxies of this region, as urls or as tables with `url`, `username` and `password`.
    ///
    /// `http://` and `socks5://` are supported. At least one is required.
    #[schemars(example = serde_json::json!([
        "http://eu-1.example:8080",
        { "url": "socks5://eu-2.example:1080", "username": "u", "password": { "env": "EU2" } },
    ]))]
    pub proxies: Vec<ProxyConfig>,
    /// Minimum number of browsers of this region, leased or idle.
    pub min_size: usize,
    /// Maximum number of browsers of this region.
    #[schemars(range(min = 1, max = 1000))]
    pub max_size: usize,
    /// Regions to try, in this order, when every proxy of this one is down.
    ///
    /// Their own fallbacks do not count, so two regions may name each other. Without any, requests
    /// are refused: nothing ever goes out directly.
    #[schemars(example = ["us-east"])]
    pub fallback: Vec<String>,
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self { proxies: Vec::new(), min_size: 0, max_size: 5, fallback: Vec::new() }
    }
}

/// One proxy: `"http://host:port"`, or a table if it requires credentials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxyConfig {
    /// Its address: `http://host:port` or `socks5://host:port`, without credentials.
    pub url: String,
    /// The user name, if it requires one.
    pub username: Option<String>,
    /// The password, if it requires one.
    pub password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct ProxyTable {
    /// Its address, without credentials.
    #[schemars(extend("x-kind" = "proxy url"))]
    url: String,
    /// The user name, if it requires one.
    username: Option<String>,
    /// The password, if it requires one.
    password: Option<Secret>,
}

impl<'de> Deserialize<'de> for ProxyConfig {
    /// Written by hand because `#[serde(untagged)]` answers every mistake with "did not match any
    /// variant".
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ProxyConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a proxy url or a table with url, username and password")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<ProxyConfig, E> {
                Ok(ProxyConfig { url: url.to_owned(), username: None, password: None })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<ProxyConfig, A::Error> {
                let ProxyTable { url, username, password } =
                    ProxyTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ProxyConfig { url, username, password })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ProxyConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Proxy".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<ProxyTable>();
        json_schema!({ "anyOf": [{ "type": "string", "x-kind": "proxy url" }, table] })
    }
}

/// `[tenants.NAME]`: a team or a customer that uses the pool, and how much of it.
///
/// A tenant is known by its token. Without tenants, anybody who has the pool's token may do everything.
/// With them `[gateway] token` is the operator's, and is required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantConfig {
    /// The token that its clients send, as `?token=…` or `Authorization: Bearer …`.
    #[schemars(example = serde_json::json!({ "env": "SCRAPERS_TOKEN" }))]
    pub token: Option<Secret>,
    /// Further tokens that are valid as well, so that one can be replaced while clients run.
    #[schemars(example = serde_json::json!([{ "env": "SCRAPERS_OLD" }]))]
    pub tokens: Vec<Secret>,
    /// Maximum number of leases at the same time. A client beyond that waits, and clients of other
    /// tenants may pass it.
    ///
    /// By default as many as the pool has.
    #[schemars(range(min = 1), example = 20)]
    pub max_leases: Option<usize>,
    /// Maximum number of its clients that wait; one more is refused at once with 429.
    ///
    /// By default its portion, according to `share`, of `max_waiting` in `[pool]`.
    #[schemars(example = 50)]
    pub max_waiting: Option<usize>,
    /// Its part of the leases while other tenants wait too, relative to their `share`. Time in
    /// which it does not wait earns no credit.
    #[schemars(range(min = 0.001, max = 1000))]
    pub share: f64,
    /// The priorities that its clients may have: `default` for those that state none, by default that
    /// of the pool, and `highest`, the most urgent that it gets whatever it asks for.
    ///
    /// By default any.
    #[schemars(example = serde_json::json!({ "default": 4, "highest": 3 }))]
    pub priority: TenantPriority,
    /// Profiles that it may ask for; one `*` in a name stands for anything.
    ///
    /// By default all of them.
    #[schemars(example = ["crm-*"])]
    pub profiles: Option<Vec<String>>,
    /// Regions that it may ask for, in the same way.
    ///
    /// By default all of them.
    #[schemars(example = ["eu-*"])]
    pub regions: Option<Vec<String>>,
    /// Kinds of lease that it may have.
    ///
    /// By default those that the pool gives.
    #[schemars(example = ["shared"])]
    pub leases: Option<Vec<LeaseKind>>,
    /// Parts of the pool that it may use.
    pub allow: Vec<Scope>,
}

/// The priorities of a tenant's clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantPriority {
    /// The priority of its requests that state none; by default that of the pool.
    #[schemars(range(min = 1, max = 10))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<u8>,
    /// The most urgent one that it gets, whatever it asks for.
    #[schemars(range(min = 1, max = 10))]
    pub highest: u8,
}

impl Default for TenantPriority {
    fn default() -> Self {
        Self { default: None, highest: 1 }
    }
}

/// A part of the pool that a tenant may use.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scope {
    /// To lease browsers, and to find and end its own leases.
    Lease,
    /// To get a page's content, screenshot, PDF or elements with one HTTP request.
    Work,
    /// To see its own leases: the dashboard, the API and its usage.
    View,
    /// The metrics of the whole pool.
    Metrics,
    /// To resize, flush, reload and drain the pool.
    Operate,
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self {
            token: None,
            tokens: Vec::new(),
            max_leases: None,
            max_waiting: None,
            share: 1.0,
            priority: TenantPriority::default(),
            profiles: None,
            regions: None,
            leases: None,
            allow: vec![Scope::Lease, Scope::Work, Scope::View],
        }
    }
}

impl TenantConfig {
    /// Iterates over all valid tokens.
    pub fn all_tokens(&self) -> impl Iterator<Item = &Secret> {
        self.token.iter().chain(&self.tokens)
    }
}
