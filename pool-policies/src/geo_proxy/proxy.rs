use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::{Host, Url};

use crate::PolicyError;

/// The address of a proxy, and the credentials that it requires.
///
/// Neither `Display` nor `Debug` shows the user name or the password.
///
/// # Examples
///
/// ```
/// use pool_policies::Proxy;
///
/// # fn main() -> Result<(), pool_policies::PolicyError> {
/// let proxy = Proxy::parse("http://eu-1.example:8080")?.credentials("user", "secret");
/// assert_eq!(proxy.to_string(), "http://eu-1.example:8080");
/// assert!(!format!("{proxy:?}").contains("secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Proxy {
    scheme: ProxyScheme,
    host: String,
    is_ipv6: bool,
    port: u16,
    username: Option<String>,
    password: Option<SecretString>,
}

/// Protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyScheme {
    /// HTTP, with `CONNECT` for encrypted connections. Default port: 80.
    Http,
    /// SOCKS version 5; names are resolved by the proxy. Default port: 1080.
    Socks5,
}

impl ProxyScheme {
    /// Returns the scheme as it appears in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Socks5 => 1080,
        }
    }
}

impl Proxy {
    /// Reads an address such as `http://host:8080`, `socks5://[::1]:1080` or
    /// `http://user:password@host:8080`.
    ///
    /// # Errors
    ///
    /// [`PolicyError::ProxyUrl`], which does not repeat the address.
    pub fn parse(address: &str) -> Result<Self, PolicyError> {
        let refuse = |why| PolicyError::ProxyUrl { why };
        let url = Url::parse(address).map_err(|_| refuse("it is not a URL"))?;
        let scheme = match url.scheme() {
            "http" => ProxyScheme::Http,
            "socks5" | "socks5h" => ProxyScheme::Socks5,
            _ => return Err(refuse("its scheme must be http or socks5")),
        };
        let host = match url.host() {
            None | Some(Host::Domain("")) => return Err(refuse("it has no host")),
            Some(Host::Domain(host)) if !is_host_name(host) => {
                return Err(refuse("its host has characters that no host name has"));
            }
            Some(Host::Domain(host)) => host.to_ascii_lowercase(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("nothing may follow the port"));
        }
        let port = url.port().unwrap_or(scheme.default_port());
        if port == 0 {
            return Err(refuse("its port is 0"));
        }
        let decode = |text: &str| -> Result<String, PolicyError> {
            let text = percent_decode_str(text).decode_utf8();
            Ok(text.map_err(|_| refuse("its credentials are not UTF-8"))?.into_owned())
        };
        let proxy = Self {
            scheme,
            host,
            is_ipv6: matches!(url.host(), Some(Host::Ipv6(_))),
            port,
            username: None,
            password: None,
        };
        Ok(match (url.username(), url.password()) {
            ("", None) => proxy,
            (username, password) => {
                proxy.credentials(decode(username)?, decode(password.unwrap_or_default())?)
            }
        })
    }

    /// Sets the credentials, replacing those in the address.
    #[must_use]
    pub fn credentials(
        mut self,
        username: impl Into<String>,
        password: impl Into<SecretString>,
    ) -> Self {
        self.username = Some(username.into());
        self.password = Some(password.into());
        self
    }

    /// Returns its protocol.
    #[must_use]
    pub fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// Returns its host name, or its IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the user name that it requires.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Returns the password that it requires. If there is a user name, there is a password, even if
    /// it is empty.
    #[must_use]
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }
}

/// Returns `true` if every character is allowed in a host name. For schemes that it does not know,
/// the URL standard lets others through, and an address may end up in a command line.
fn is_host_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.scheme.as_str(), &self.host, self.port);
        if self.is_ipv6 {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.username.is_some() { " with credentials" } else { "" };
        write!(f, "Proxy({self}{credentials})")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn addresses_are_read() {
        for (address, shown) in [
            ("http://eu-1.example:8080", "http://eu-1.example:8080"),
            ("http://EU-1.example:8080/", "http://eu-1.example:8080"),
            ("http://eu-1.example", "http://eu-1.example:80"),
            ("socks5://Host.example", "socks5://host.example:1080"),
            ("socks5h://h:9", "socks5://h:9"),
            ("http://127.0.0.1:3128", "http://127.0.0.1:3128"),
            ("socks5://[::1]:1081", "socks5://[::1]:1081"),
        ] {
            assert_eq!(Proxy::parse(address).unwrap().to_string(), shown, "{address}");
        }
    }

    #[test]
    fn credentials_are_taken_from_the_address_and_decoded() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw%2Fd@h:1").unwrap();
        assert_eq!(proxy.username(), Some("us@er"));
        assert_eq!(proxy.password().unwrap().expose_secret(), "p:w/d");
        let without = Proxy::parse("socks5://only-user@h:1").unwrap();
        assert_eq!(without.password().unwrap().expose_secret(), "");
    }

    #[test]
    fn what_is_no_proxy_address_is_refused() {
        for address in [
            "",
            "eu-1.example:8080",
            "https://h:1",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h:x",
            "http://h:1/path",
            "http://h:1?q",
            "http://h:1#f",
            "socks5://",
            "socks5://a%20b:1",
            "socks5://a,b:1",
            "socks5://h;--flag:1",
            "http://u:%ff@h:1",
        ] {
            assert!(Proxy::parse(address).is_err(), "{address}");
        }
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        let canary = "kanarienvogel";
        let proxy = Proxy::parse(&format!("http://{canary}:{canary}@h:1")).unwrap();
        let broken = Proxy::parse(&format!("http://u:{canary}@h:1/path")).unwrap_err();
        for text in [format!("{proxy} {proxy:?}"), format!("{broken} {broken:?}")] {
            assert!(!text.contains(canary), "{text}");
        }
    }
}
