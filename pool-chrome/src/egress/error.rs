use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Refusal;

/// Reasons why an egress proxy does not work. Clones are cheap, and none of it holds credentials.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The address of a proxy cannot be understood. The address itself is not repeated, since it
    /// may hold a password.
    #[error("the address of a proxy is wrong: {0}")]
    BadUrl(&'static str),

    /// The forwarder found no port to listen on.
    #[error("cannot listen on loopback: {0}")]
    Listen(#[source] Arc<io::Error>),

    /// The proxy cannot be reached.
    #[error("cannot connect to the proxy {proxy}: {source}")]
    Connect {
        /// The proxy, without credentials.
        proxy: Arc<str>,
        /// The reason.
        source: Arc<io::Error>,
    },

    /// The proxy did not answer in time.
    #[error("the proxy {proxy} did not answer within {waited:?}")]
    Timeout {
        /// The proxy, without credentials.
        proxy: Arc<str>,
        /// The time limit that was exceeded.
        waited: Duration,
    },

    /// The proxy requires credentials, or others than those that it got: 407, or the equivalent in
    /// SOCKS5.
    #[error("the proxy {proxy} {}", if *given { "refuses the credentials" } else { "requires credentials" })]
    Credentials {
        /// The proxy, without credentials.
        proxy: Arc<str>,
        /// Set if it got any credentials.
        given: bool,
    },

    /// The proxy broke the connection or the protocol.
    #[error("the proxy {proxy} broke off: {source}")]
    Broken {
        /// The proxy, without credentials.
        proxy: Arc<str>,
        /// The observed fault.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// The proxy works, but would not or could not connect to the target.
    #[error("the proxy {proxy} does not connect to {target}: {reason}")]
    Refused {
        /// The proxy, without credentials.
        proxy: Arc<str>,
        /// The target that Chromium wanted to reach, `host:port`.
        target: Arc<str>,
        /// The proxy's status or reply.
        reason: Arc<str>,
    },
}

impl ProxyError {
    /// Returns `true` if the proxy is to blame, rather than the site that a page wanted to reach.
    #[must_use]
    pub fn blames_proxy(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Credentials { .. }
            | Self::Broken { .. } => true,
            Self::Refused { .. } | Self::BadUrl(_) | Self::Listen(_) => false,
        }
    }
}

/// Reasons why a browser's request was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is against the rules.
    Refused(Refusal),
    /// Its target could not be reached.
    Unreachable(Arc<dyn std::error::Error + Send + Sync>),
    /// The proxy does not work, or cannot reach the target.
    Proxy(ProxyError),
}

impl Failure {
    pub(super) fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unreachable(Arc::new(error))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

/// Lets hyper close the connection of a request that ends in an error.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unreachable(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}
