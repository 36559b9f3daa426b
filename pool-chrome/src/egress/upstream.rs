use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

/// An external proxy: HTTP or SOCKS5, with or without credentials.
///
/// Neither `Debug` nor `Display` shows the credentials.
///
/// # Examples
///
/// ```
/// use pool_chrome::egress::Upstream;
///
/// let proxy = Upstream::parse("http://eu-1.example:8080")?
///     .credentials("user".to_owned(), "secret".to_owned());
/// assert_eq!(proxy.to_string(), "http://eu-1.example:8080");
/// assert!(!format!("{proxy:?}").contains("secret"));
/// # Ok::<(), pool_chrome::egress::ProxyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub(super) protocol: Protocol,
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) credentials: Option<Credentials>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    /// Names are resolved by the proxy, as with `socks5h:` elsewhere.
    Socks5,
}

impl Upstream {
    /// Reads an address: `http://host:port` or `socks5://host:port`, with `user:password@` before
    /// the host or without.
    ///
    /// The ports default to 80 and 1080. With both `socks5:` and `socks5h:`, the proxy resolves the
    /// names, so that no name is ever looked up from here.
    ///
    /// # Errors
    ///
    /// [`ProxyError::BadUrl`], which says what is wrong without repeating the address.
    pub fn parse(address: &str) -> Result<Self, ProxyError> {
        const SHAPE: &str = "it must be http://host:port or socks5://host:port";
        let url = Url::parse(address).map_err(|_| ProxyError::BadUrl(SHAPE))?;
        let (protocol, default_port) = match url.scheme() {
            "http" => (Protocol::Http, 80),
            "socks5" | "socks5h" => (Protocol::Socks5, 1080),
            "https" => {
                let reason = "proxies over TLS are not supported, use http:// or socks5://";
                return Err(ProxyError::BadUrl(reason));
            }
            _ => return Err(ProxyError::BadUrl(SHAPE)),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::BadUrl("nothing may follow the host and the port"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => Host::parse(name).map_err(|_| ProxyError::BadUrl(SHAPE))?,
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Ipv6(address)) => Host::Ipv6(address),
            None => return Err(ProxyError::BadUrl(SHAPE)),
        };
        let port = url.port().unwrap_or(default_port);
        let upstream = Self { protocol, host, port, credentials: None };
        if url.username().is_empty() && url.password().is_none() {
            return Ok(upstream);
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        upstream
            .credentials(decoded(url.username()), decoded(url.password().unwrap_or_default()))
            .checked()
    }

    /// Sets the credentials.
    #[must_use]
    pub fn credentials(
        mut self,
        username: impl Into<SecretString>,
        password: impl Into<SecretString>,
    ) -> Self {
        let (username, password) = (username.into(), password.into());
        self.credentials = Some(Credentials { username, password });
        self
    }

    /// Returns the address without credentials, for errors.
    pub(super) fn name(&self) -> Arc<str> {
        self.to_string().into()
    }

    pub(super) fn checked(self) -> Result<Self, ProxyError> {
        self.checked_ref()?;
        Ok(self)
    }

    /// Refuses what the protocols cannot carry, rather than truncate it silently.
    pub(super) fn checked_ref(&self) -> Result<(), ProxyError> {
        use secrecy::ExposeSecret;
        let Some(Credentials { username, password }) = &self.credentials else { return Ok(()) };
        let (username, password) = (username.expose_secret(), password.expose_secret());
        let (is_bad, why) = match self.protocol {
            Protocol::Http => {
                (username.contains(':'), "the user name of an HTTP proxy cannot contain a colon")
            }
            Protocol::Socks5 => (
                username.is_empty() || username.len() > 255 || password.len() > 255,
                "SOCKS5 takes a user name of 1 to 255 bytes and a password of up to 255",
            ),
        };
        if is_bad { Err(ProxyError::BadUrl(why)) } else { Ok(()) }
    }
}

/// The address without the credentials.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Upstream {
    type Err = ProxyError;

    fn from_str(address: &str) -> Result<Self, ProxyError> {
        Self::parse(address)
    }
}

/// A user name and a password. Neither is ever printed.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) username: SecretString,
    pub(super) password: SecretString,
}

impl Credentials {
    /// Returns the value of `Proxy-Authorization`.
    pub(super) fn basic(&self) -> HeaderValue {
        let pair = format!("{}:{}", self.username.expose_secret(), self.password.expose_secret());
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&value).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username.expose_secret() == other.username.expose_secret()
            && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Credentials {}

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

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn addresses_are_read_with_their_default_ports() {
        for (address, shown) in [
            ("http://p.example:8080", "http://p.example:8080"),
            ("http://p.example/", "http://p.example:80"),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080"),
            ("socks5h://[::1]:9", "socks5://[::1]:9"),
        ] {
            assert_eq!(Upstream::parse(address).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn credentials_in_the_address_are_decoded_and_never_shown() {
        for scheme in ["http", "socks5"] {
            let proxy = Upstream::parse(&format!("{scheme}://us%40er:ca%3Anary@p:1")).unwrap();
            let held = proxy.credentials.as_ref().unwrap();
            assert_eq!(held.username.expose_secret(), "us@er");
            assert_eq!(held.password.expose_secret(), "ca:nary");
            let shown = format!("{proxy} {proxy:?} {proxy:#?} {:?}", held.basic());
            for secret in ["us@er", "ca:nary", "ca%3Anary", "dXNAZXI6Y2E6bmFyeQ"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }

    #[test]
    fn wrong_addresses_are_refused_without_repeating_them() {
        for address in [
            "",
            "p.example:8080",
            "ftp://p",
            "https://u:canary@p",
            "http://",
            "http://u:canary@",
            "http://p:99999",
            "http://p/path",
            "http://u:canary@p?x",
            "socks4://p",
            "http://a b",
            "http://u%3Ax:canary@p",
        ] {
            let error = Upstream::parse(address).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}
