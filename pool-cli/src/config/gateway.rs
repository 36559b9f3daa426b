use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::units::{AsDuration, AsSize, AsUrl};

/// `[gateway]`: the server that clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address and port to listen on.
    ///
    /// Beyond loopback a token is required.
    #[schemars(with = "super::units::AsAddress")]
    pub listen: SocketAddr,
    /// The token that clients must show, as `?token=…` or `Authorization: Bearer …`.
    ///
    /// Optional on loopback. Every route but `/livez`, `/readyz` and `/healthz` wants it.
    #[schemars(example = serde_json::json!({ "env": "POOL_TOKEN" }))]
    pub token: Option<Secret>,
    /// The address under which clients reach the gateway, for what `/json/version` hands out.
    ///
    /// By default it is made from the request's `Host`.
    #[serde(with = "AsUrl")]
    #[schemars(example = "wss://pool.example")]
    pub external_url: Option<String>,
    /// Bytes that may wait in the pool for all clients together: what browsers have said and clients
    /// have not taken yet, and commands on their way to browsers.
    ///
    /// A client with much waiting is held back where it has its browser to itself, and queued for
    /// in a shared one. When all of this is used up, the connection with the most waiting is cut
    /// with close code 1008.
    #[serde(with = "AsSize")]
    pub buffer: ByteSize,
    /// Maximum time leases may go on after SIGTERM before they are ended.
    #[serde(with = "AsDuration")]
    pub drain_timeout: Duration,
    /// Hosts, names or addresses, that requests may be addressed to besides `127.0.0.1`, `[::1]`,
    /// `localhost`, the address in `listen` and the host of `external_url`.
    ///
    /// Others are refused, which stops DNS rebinding. With a token, any host is accepted.
    #[schemars(example = ["pool.internal"])]
    #[schemars(extend("items" = { "type": "string", "x-kind": "host" }))]
    pub allowed_hosts: Vec<String>,
    /// Web origins, such as `https://tools.example`, whose pages may open a WebSocket here.
    ///
    /// CDP clients send no `Origin`; a request that has one comes from a web page.
    #[schemars(example = ["https://tools.example"])]
    #[schemars(extend("items" = { "type": "string", "x-kind": "origin" }))]
    pub allowed_origins: Vec<String>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)),
            token: None,
            external_url: None,
            buffer: ByteSize::mib(256),
            drain_timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}
