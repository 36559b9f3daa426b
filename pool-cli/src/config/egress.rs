use pool_chrome::egress::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[egress]`: where browsers may go.
///
/// With this section, an empty one too, everything that a browser asks for goes through the pool,
/// which resolves each name once, judges all its addresses, and connects to one that it has judged.
/// No browser reaches the pool itself then. Without it browsers go out by themselves.
///
/// A pattern is a name (`intranet.example`), all names below one (`*.ads.example`), an address or a
/// network (`10.1.2.0/24`), each with `:port` behind it or not; `*:25` is one port of every host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-optional" = true))]
pub struct EgressConfig {
    /// Treatment of addresses that are not of the public Internet.
    pub private: PrivateAddresses,
    /// Patterns of what may be visited, whatever `private` and `deny` say.
    #[schemars(example = ["10.1.2.0/24", "intranet.example:443"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    pub allow: Vec<Pattern>,
    /// Patterns of what may not be visited.
    #[schemars(example = ["*.ads.example", "*:25"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    pub deny: Vec<Pattern>,
    /// Patterns of proxies that clients may name for contexts of their own.
    ///
    /// What such a context asks for goes to that proxy, and past these rules and past the proxy of
    /// a region. Others are refused.
    #[schemars(example = ["proxy.example:*"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    pub client_proxies: Vec<Pattern>,
}

/// Treatment of addresses that are not of the public Internet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrivateAddresses {
    /// They may be visited.
    #[default]
    Allow,
    /// They may not: this machine, private networks, and metadata services of clouds.
    Deny,
}
