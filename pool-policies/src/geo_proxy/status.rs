use std::time::Duration;

/// How one proxy does at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyStatus {
    /// The region that it belongs to.
    pub region: String,
    /// Its address, without credentials.
    pub proxy: String,
    /// How many resources use it.
    pub in_use: usize,
    /// Whether it is fully in service: neither out nor on trial.
    pub is_serving: bool,
    /// How long it takes until it may be tried again.
    pub out_for: Option<Duration>,
}
