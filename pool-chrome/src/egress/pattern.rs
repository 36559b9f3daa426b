use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Host;

use super::target::{Target, embedded};

/// Hosts or a network, with one port or any: an item in a list of rules.
///
/// | written | matches |
/// |---|---|
/// | `intranet.example` | this name, at any port |
/// | `*.ads.example` | every name below it, but not `ads.example` itself |
/// | `10.1.2.0/24`, `fd00::/8`, `10.1.2.3` | addresses, written in an URL or found by name |
/// | `intranet.example:443`, `10.1.2.0/24:443`, `[fd00::/8]:443` | the same at one port |
/// | `*:25` | every host at one port |
///
/// # Examples
///
/// ```
/// use pool_chrome::egress::Pattern;
///
/// let pattern: Pattern = "*.Ads.example:443".parse()?;
/// assert_eq!(pattern.to_string(), "*.ads.example:443");
/// let mistake = "https://ads.example/x".parse::<Pattern>().unwrap_err();
/// assert_eq!(mistake.hint(), "write \"ads.example\"");
/// # Ok::<(), pool_chrome::egress::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    Named(String),
    /// Names that end in this and a dot before it.
    Below(String),
    Network(IpNet),
}

/// A text that is not a [`Pattern`]: the mistake, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    message: String,
    hint: String,
}

impl PatternError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }

    /// Returns what to write instead.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl Pattern {
    /// Reads a list from a query: names, names below others, and addresses, separated by commas and
    /// without ports.
    ///
    /// # Errors
    ///
    /// A [`PatternError`] about the first wrong item.
    pub fn domains(list: &str) -> Result<Vec<Self>, PatternError> {
        let domain = |text: &str| {
            let pattern: Self = text.trim().parse()?;
            match (&pattern.hosts, pattern.port) {
                (_, Some(_)) => Err(PatternError::new(
                    format!("`{text}` has a port"),
                    "write only the host: it applies to every port",
                )),
                (Hosts::All, _) => Err(PatternError::new(
                    format!("`{text}` narrows nothing"),
                    "write the names that may be visited",
                )),
                (Hosts::Named(_) | Hosts::Below(_) | Hosts::Network(_), None) => Ok(pattern),
            }
        };
        list.split(',').map(domain).collect()
    }

    /// Returns `true` if the pattern applies to this target as it is named, which may be by its
    /// address.
    pub(super) fn matches(&self, target: &Target) -> bool {
        self.names(&target.host, target.port)
    }

    /// Returns `true` if the pattern names this host and this port.
    pub(crate) fn names(&self, host: &Host<String>, port: u16) -> bool {
        self.fits(port)
            && match (&self.hosts, host) {
                (Hosts::All, _) => true,
                (Hosts::Named(own), Host::Domain(name)) => own == undotted(name),
                (Hosts::Below(own), Host::Domain(name)) => {
                    let above = undotted(name).strip_suffix(own.as_str());
                    above.is_some_and(|above| above.ends_with('.') && above.len() > 1)
                }
                (Hosts::Network(network), Host::Ipv4(address)) => {
                    network.contains(&IpAddr::from(*address))
                }
                (Hosts::Network(network), Host::Ipv6(address)) => {
                    network.contains(&IpAddr::from(*address).to_canonical())
                }
                (Hosts::Named(_) | Hosts::Below(_), Host::Ipv4(_) | Host::Ipv6(_))
                | (Hosts::Network(_), Host::Domain(_)) => false,
            }
    }

    /// Returns `true` if the pattern applies to an address that a name resolved to.
    pub(super) fn holds(&self, address: IpAddr, port: u16) -> bool {
        let Hosts::Network(network) = &self.hosts else { return false };
        self.fits(port) && network.contains(&address.to_canonical())
    }

    /// Returns `true` if the pattern applies to this address and port, or to an IPv4 address
    /// embedded in it.
    pub(super) fn touches(&self, address: IpAddr, port: u16) -> bool {
        let within = match address.to_canonical() {
            IpAddr::V4(_) => [None, None],
            IpAddr::V6(address) => embedded(address),
        };
        self.holds(address, port)
            || within.into_iter().flatten().any(|address| self.holds(address.into(), port))
    }

    fn fits(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

/// Returns a name without the trailing dot that marks it as fully qualified.
pub(super) fn undotted(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PatternError::new("a pattern must not be empty", "leave it out"));
        }
        if text.contains("://") {
            let host = url::Url::parse(text).ok().and_then(|url| {
                let host = url.host_str()?.to_owned();
                Some(url.port().map(|port| format!("{host}:{port}")).unwrap_or(host))
            });
            let hint = host.map(|host| format!("write \"{host}\""));
            let hint = hint.unwrap_or_else(|| "write its host".to_owned());
            return Err(PatternError::new(format!("`{text}` is a URL"), hint));
        }
        if text.contains([',', ' ']) {
            let hint = "write each as an item of its own";
            return Err(PatternError::new(format!("`{text}` is more than one pattern"), hint));
        }
        // An IPv6 address has colons of its own.
        if let Ok(network) = network(text) {
            return Ok(Self { hosts: Hosts::Network(network?), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, self::port(port)?),
            None => (text, None),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(Self { hosts: hosts(inner.unwrap_or(host))?, port })
    }
}

fn port(text: &str) -> Result<Option<u16>, PatternError> {
    match text.parse() {
        _ if text == "*" => Ok(None),
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(PatternError::new(
            format!("`{text}` is not a port"),
            "write a number from 1 to 65535, or `*` for every port",
        )),
    }
}

/// Returns a network or an address; the outer error is for text that looks like neither.
fn network(text: &str) -> Result<Result<IpNet, PatternError>, ()> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Ok(address.to_canonical().into()));
    }
    let (address, length) = text.split_once('/').ok_or(())?;
    address.parse::<IpAddr>().map_err(drop)?;
    if length.contains(':') {
        return Err(());
    }
    Ok(match text.parse::<IpNet>() {
        Err(_) => Err(PatternError::new(
            format!("`{length}` is not the length of a network"),
            "write one such as \"10.1.2.0/24\"",
        )),
        Ok(network) if network.addr() != network.network() => Err(PatternError::new(
            format!("`{text}` names an address and not its network"),
            format!("write \"{}\"", network.trunc()),
        )),
        Ok(network) => Ok(network),
    })
}

fn hosts(text: &str) -> Result<Hosts, PatternError> {
    if text == "*" {
        return Ok(Hosts::All);
    }
    if let Ok(network) = network(text) {
        return Ok(Hosts::Network(network?));
    }
    if text.contains('/') {
        let host = text.split('/').next().unwrap_or_default();
        let hint = format!("write \"{host}\": a path cannot be seen in encrypted traffic");
        return Err(PatternError::new(format!("`{text}` has a path"), hint));
    }
    let (name, is_below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains('*') {
        let hint = "a `*` may stand only before the first dot: \"*.ads.example\"";
        return Err(PatternError::new(format!("`{text}` cannot be matched"), hint));
    }
    match Host::parse(undotted(name)) {
        Ok(Host::Domain(name)) if is_below => Ok(Hosts::Below(name)),
        Ok(Host::Domain(name)) => Ok(Hosts::Named(name)),
        Ok(Host::Ipv4(address)) => Err(PatternError::new(
            format!("`{text}` is an address in an unusual spelling"),
            format!("write \"{address}\""),
        )),
        Ok(Host::Ipv6(_)) | Err(_) => Err(PatternError::new(
            format!("`{text}` is not a host"),
            "write a name, \"*.\" and a name, an address or a network, then \":port\" if it is \
             about one",
        )),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.hosts, self.port) {
            (Hosts::All, _) => f.write_str("*")?,
            (Hosts::Named(name), _) => f.write_str(name)?,
            (Hosts::Below(name), _) => write!(f, "*.{name}")?,
            (Hosts::Network(IpNet::V6(network)), Some(_)) => write!(f, "[{network}]")?,
            (Hosts::Network(network), _) => write!(f, "{network}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// As it is written.
impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str, port: u16) -> bool {
        let target = Target { host: Host::parse(host).unwrap(), port };
        pattern.parse::<Pattern>().unwrap().matches(&target)
    }

    #[test]
    fn names_are_matched_whole_or_below_whatever_their_spelling() {
        for host in ["ads.example", "ADS.example", "ads.example."] {
            assert!(matches("Ads.Example", host, 1), "{host}");
            assert!(!matches("*.ads.example", host, 1), "{host}");
        }
        assert!(matches("*.ads.example", "a.b.ads.example", 1));
        assert!(matches("*.bücher.example", "a.xn--bcher-kva.example", 1));
        for host in ["badads.example", "ads.example.org", "example", "a.ads.example.org"] {
            assert!(!matches("*.ads.example", host, 1), "{host}");
            assert!(!matches("ads.example", host, 1), "{host}");
        }
    }

    #[test]
    fn ports_are_matched_where_one_is_named() {
        assert!(matches("a.example:443", "a.example", 443));
        assert!(!matches("a.example:443", "a.example", 80));
        assert!(matches("a.example:*", "a.example", 80));
        assert!(matches("*:25", "10.0.0.1", 25) && matches("*:25", "a.example", 25));
        assert!(!matches("*:25", "a.example", 26));
        assert!(matches("[fd00::/8]:443", "[fd12::1]", 443));
        assert!(!matches("[fd00::/8]:443", "[fd12::1]", 444));
        assert!(matches("10.0.0.0/8:80", "10.9.9.9", 80));
    }

    #[test]
    fn networks_are_matched_in_every_spelling_that_reaches_them() {
        let pattern: Pattern = "10.1.2.0/24".parse().unwrap();
        for address in ["10.1.2.3", "::ffff:10.1.2.3"] {
            assert!(pattern.holds(address.parse().unwrap(), 1), "{address}");
        }
        for address in ["64:ff9b::10.1.2.3", "2002:a01:203::", "::10.1.2.3"] {
            assert!(pattern.touches(address.parse().unwrap(), 1), "{address}");
            assert!(
                !pattern.holds(address.parse().unwrap(), 1),
                "{address}: it may lead elsewhere"
            );
        }
        assert!(!pattern.touches("10.1.3.1".parse().unwrap(), 1));
        assert!(matches("10.1.2.3", "10.1.2.3", 1) && !matches("10.1.2.3", "10.1.2.4", 1));
        assert!(matches("::1", "[::1]", 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        for (text, hint) in [
            ("", "leave it out"),
            ("https://a.example:8443/x", "write \"a.example:8443\""),
            ("a.example, b.example", "item of its own"),
            ("a.example/path", "write \"a.example\""),
            ("10.1.2.3/24", "write \"10.1.2.0/24\""),
            ("10.0.0.0/33", "such as"),
            ("10.1.2", "write \"10.1.0.2\""),
            ("0x7f.1", "write \"127.0.0.1\""),
            ("a.*.example", "before the first dot"),
            ("*example", "before the first dot"),
            ("a.example:0", "1 to 65535"),
            ("a.example:99999", "1 to 65535"),
            ("a.example:http", "1 to 65535"),
            ("a b", "item of its own"),
            ("a%b", "write a name"),
            ("[::1", "write a name"),
        ] {
            let error = text.parse::<Pattern>().expect_err(text);
            assert!(error.hint().contains(hint), "{text}: {error} / {}", error.hint());
        }
    }

    #[test]
    fn patterns_are_printed_as_they_are_written() {
        for text in [
            "*",
            "*:25",
            "a.example",
            "a.example:443",
            "*.a.example:1",
            "10.1.2.0/24",
            "10.1.2.0/24:80",
            "fd00::/8",
            "[fd00::/8]:443",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_query_names_domains_without_ports() {
        assert_eq!(Pattern::domains("a.example,*.b.example, 10.0.0.1").unwrap().len(), 3);
        for list in ["", "a.example,", "*", "a.example:80", "*:80"] {
            assert!(Pattern::domains(list).is_err(), "{list}");
        }
    }
}
