use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Serialize};

use super::Secret;

/// `[regions.NAME]`: the proxies of one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegionConfig {
    /// Proxies of this region, as urls or as tables with `url`, `username` and `password`.
    ///
    /// `http://` and `socks5://` are spoken. At least one is needed.
    #[schemars(example = serde_json::json!([
        "http://eu-1.example:8080",
        { "url": "socks5://eu-2.example:1080", "username": "u", "password": { "env": "EU2" } },
    ]))]
    pub proxies: Vec<ProxyConfig>,
    /// Browsers of this region that are kept at least, leased or idle.
    pub min_size: usize,
    /// Browsers of this region, at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_size: usize,
    /// Regions to try, in this order, when every proxy of this one is down.
    ///
    /// Their own fallbacks do not count, so two regions may name each other. With none it is an
    /// error: nothing ever goes out directly.
    #[schemars(example = ["us-east"])]
    pub fallback: Vec<String>,
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self { proxies: Vec::new(), min_size: 0, max_size: 5, fallback: Vec::new() }
    }
}

/// One proxy: `"http://host:port"`, or a table when it wants credentials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxyConfig {
    /// Its address: `http://host:port` or `socks5://host:port`, without credentials.
    pub url: String,
    /// The user name that it wants.
    pub username: Option<String>,
    /// The password that it wants.
    pub password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct ProxyTable {
    /// Its address, without credentials.
    #[schemars(extend("x-kind" = "proxy url"))]
    url: String,
    /// The user name that it wants.
    username: Option<String>,
    /// The password that it wants.
    password: Option<Secret>,
}

impl<'de> Deserialize<'de> for ProxyConfig {
    /// By hand because `#[serde(untagged)]` answers every mistake with "did not match any variant".
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
