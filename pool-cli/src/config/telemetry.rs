use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[telemetry]`: traces for a collector of OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector that gets the traces of leases, by OTLP over HTTP; `/v1/traces` is added.
    ///
    /// By default none are exported. Only in builds with the feature `otlp`; others say that they
    /// cannot. `OTEL_EXPORTER_OTLP_ENDPOINT` is understood.
    #[schemars(example = "http://127.0.0.1:4318")]
    #[schemars(extend("x-kind" = "collector url"))]
    pub otlp_endpoint: Option<String>,
}
