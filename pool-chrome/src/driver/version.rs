use serde::Deserialize;

/// Version of a Chromium, as `Browser.getVersion` reports it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Version {
    /// The version of the protocol.
    pub protocol_version: String,
    /// Product and version, such as `Chrome/156.0.8078.79`.
    pub product: String,
    /// The revision of the source.
    pub revision: String,
    /// The default user agent.
    pub user_agent: String,
    /// The version of V8.
    pub js_version: String,
}
