/// Why an egress proxy does not work.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The address of a proxy cannot be understood.
    #[error("{0}")]
    BadUrl(&'static str),
}
