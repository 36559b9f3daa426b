use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[profiles]`: browsers that keep their state, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(default)]
pub struct ProfilesConfig {
    /// Whether an unknown name in `?profile=…` makes a profile of that name; else it is a 404.
    pub on_demand: bool,
    /// A profile, by its name.
    #[serde(flatten)]
    pub named: BTreeMap<String, ProfileConfig>,
}

/// `[profiles.NAME]`: one profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// Browsers of this profile that are kept at least, leased or idle.
    pub min_size: usize,
    /// Browsers of this profile, at most. Each is a directory of its own.
    #[schemars(range(min = 1, max = 1000))]
    pub max_size: usize,
    /// What of a lease is there in the next one.
    pub mode: ProfileMode,
    /// The region of leases that ask for none.
    #[schemars(example = "eu-west")]
    pub region: Option<String>,
}

/// What of a lease of a profile is there in the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProfileMode {
    /// Keeps what a browser stores (cookies, storage, cache) over leases and restarts.
    #[default]
    Persistent,
    /// Every lease starts from a copy of the saved state and leaves no trace in it.
    Template,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self { min_size: 0, max_size: 2, mode: ProfileMode::Persistent, region: None }
    }
}

impl<'de> Deserialize<'de> for ProfilesConfig {
    /// By hand because `#[serde(flatten)]` buffers the values and so loses where they stand.
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
