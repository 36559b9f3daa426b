//! The sections about the service: its address, its alerts, its traces and its log.

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
    #[schemars(extend("x-reload" = false))]
    pub listen: SocketAddr,
    /// The token that clients must send, as `?token=…` or `Authorization: Bearer …`.
    ///
    /// Optional on loopback. Every route but `/livez`, `/readyz` and `/healthz` requires it.
    #[schemars(example = serde_json::json!({ "env": "POOL_TOKEN" }))]
    pub token: Option<Secret>,
    /// The address under which clients reach the gateway; `/json/version` hands it out.
    ///
    /// By default it is made from the request's `Host`.
    #[serde(with = "AsUrl")]
    #[schemars(example = "wss://pool.example")]
    pub external_url: Option<String>,
    /// Maximum number of bytes that wait in the pool for all clients together: messages of browsers
    /// that clients have not taken yet, and commands on their way to browsers.
    ///
    /// When a client falls behind, the pool stops reading from its browser if that is exclusive; if
    /// it is shared, the messages are queued. When the whole buffer is used up, the connection with
    /// the most waiting bytes is closed with code 1008.
    #[serde(with = "AsSize")]
    pub buffer: ByteSize,
    /// Maximum time that leases may continue after SIGTERM before they are ended.
    #[serde(with = "AsDuration")]
    pub drain_timeout: Duration,
    /// Hosts (names or addresses) that requests may be addressed to, in addition to `127.0.0.1`,
    /// `[::1]`, `localhost`, the address in `listen` and the host of `external_url`.
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

/// `[alerts]`: webhooks that are called when clients wait, are refused, or browsers fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Called when a client has to wait for a browser.
    ///
    /// The address of a webhook, `http` or `https`, is often its own password, so it is treated as
    /// a secret. It receives a POST with JSON.
    #[schemars(example = serde_json::json!({ "env": "QUEUE_WEBHOOK" }))]
    pub queue_url: Option<Secret>,
    /// Called when a client is refused at once, because the queue is full or a policy says so.
    #[schemars(example = serde_json::json!({ "env": "REJECT_WEBHOOK" }))]
    pub reject_url: Option<Secret>,
    /// Called when a client times out waiting for a browser.
    #[schemars(example = serde_json::json!({ "env": "TIMEOUT_WEBHOOK" }))]
    pub timeout_url: Option<Secret>,
    /// Called when a browser cannot be launched, crashes or hangs.
    #[schemars(example = serde_json::json!({ "env": "ERROR_WEBHOOK" }))]
    pub error_url: Option<Secret>,
    /// Called when an idle browser fails its check.
    #[schemars(example = serde_json::json!({ "env": "FAILED_HEALTH_WEBHOOK" }))]
    pub failed_health_url: Option<Secret>,
    /// Minimum time between two calls of one webhook. Events in between are counted, and reported by
    /// the next call.
    #[serde(with = "AsDuration")]
    pub interval: Duration,
    /// Maximum time a call may take.
    #[serde(with = "AsDuration")]
    pub request_timeout: Duration,
    /// Number of attempts at a call, including the first, before the pool gives up on it.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: usize,
}

/// Subject of an alert; each has a webhook of its own, `{word}_url` in `[alerts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// A client has to wait for a browser.
    Queue,
    /// A client was refused at once.
    Reject,
    /// A client has waited in vain.
    Timeout,
    /// A browser could not be launched, crashed or hung.
    Error,
    /// An idle browser failed its check.
    FailedHealth,
}

impl AlertKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Queue, Self::Reject, Self::Timeout, Self::Error, Self::FailedHealth];

    /// Returns a stable word for the body of a call and for logs, in snake case.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Reject => "reject",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::FailedHealth => "failed_health",
        }
    }
}

impl AlertsConfig {
    /// Returns the address of a webhook, if it is set.
    pub(crate) fn url(&self, kind: AlertKind) -> Option<&Secret> {
        match kind {
            AlertKind::Queue => self.queue_url.as_ref(),
            AlertKind::Reject => self.reject_url.as_ref(),
            AlertKind::Timeout => self.timeout_url.as_ref(),
            AlertKind::Error => self.error_url.as_ref(),
            AlertKind::FailedHealth => self.failed_health_url.as_ref(),
        }
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

/// `[telemetry]`: traces for an OpenTelemetry collector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector that gets the traces of leases, by OTLP over HTTP; `/v1/traces` is added.
    ///
    /// By default none are exported. Requires a build with the feature `otlp`; others log a warning. `OTEL_EXPORTER_OTLP_ENDPOINT` is understood.
    #[schemars(example = "http://127.0.0.1:4318")]
    #[schemars(extend("x-kind" = "collector url"))]
    pub otlp_endpoint: Option<String>,
}

/// `[log]`: the log on stderr.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_webhook_has_its_subject() {
        let config = serde_json::to_value(AlertsConfig::default()).expect("it is plain data");
        let keys = config.as_object().expect("a section is an object").keys();
        let urls: BTreeSet<_> = keys.filter(|key| key.ends_with("_url")).cloned().collect();
        let known = AlertKind::ALL.map(|kind| format!("{}_url", kind.code()));
        assert_eq!(urls, BTreeSet::from(known));
    }
}
