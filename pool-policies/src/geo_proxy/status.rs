use std::time::Duration;

/// State of one proxy at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyStatus {
    /// The region that it belongs to.
    pub region: String,
    /// Its address, without credentials.
    pub proxy: String,
    /// Number of resources that use it.
    pub in_use: usize,
    /// It is fully in service: neither out nor on trial.
    pub is_serving: bool,
    /// Time until it may be tried again.
    pub out_for: Option<Duration>,
}
