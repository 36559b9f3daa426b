//! Proxies that a client may name for contexts of its own.

use url::Host;

use crate::egress::Pattern;

/// Which proxies the clients of a lease may give to the contexts that they make.
///
/// What goes through a proxy of the pool's, a region's or the guard's, must not be led round it:
/// `direct://`, an empty name, and any bypass list would do that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientProxies {
    /// Any, with any bypass list. The default.
    #[default]
    Any,
    /// One proxy that matches one of these patterns, for everything, loopback included. Without any
    /// pattern no client proxy is allowed.
    Only(Vec<Pattern>),
}

impl ClientProxies {
    /// Returns whether a proxy may be named, in the syntax of `--proxy-server`.
    #[must_use]
    pub fn allows(&self, server: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(patterns) => address(server).is_some_and(|(host, port)| {
                patterns.iter().any(|pattern| pattern.names(&host, port))
            }),
        }
    }
}

/// Reads the one proxy that a server names. Lists, rules for single schemes, `direct://` and
/// whatever Chromium might read in another way are no such thing.
fn address(server: &str) -> Option<(Host, u16)> {
    let (scheme, rest) = server.split_once("://").unwrap_or(("http", server));
    let default = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        "socks" | "socks4" | "socks5" => 1080,
        _ => return None,
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let number = |port: &str| digits(port).then(|| port.parse().ok())?;
    let port = port.map_or(Some(default), number)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if !host.bytes().all(plain) {
        return None;
    }
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some((Host::parse(&bracketed).ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(patterns: &[&str]) -> ClientProxies {
        ClientProxies::Only(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
    }

    #[test]
    fn without_patterns_none_is_allowed() {
        for server in ["proxy.example:8080", "http://proxy.example", "direct://", "", "*"] {
            assert!(!only(&[]).allows(server), "{server}");
            assert!(ClientProxies::Any.allows(server), "{server}");
        }
    }

    #[test]
    fn a_pattern_names_hosts_and_ports() {
        let some = only(&["proxy.example:*", "*.pool.example:3128", "[::1]:8080"]);
        for server in [
            "proxy.example:8080",
            "PROXY.example",
            "socks5://proxy.example:1",
            "http://a.pool.example:3128",
            "https://a.b.pool.example:3128",
            "[::1]:8080",
        ] {
            assert!(some.allows(server), "{server}");
        }
        for server in [
            "other.example:8080",
            "proxy.example.evil:8080",
            "pool.example:3128",
            "evilpool.example:3128",
            "a.pool.example:3129",
            "[::2]:8080",
        ] {
            assert!(!some.allows(server), "{server}");
        }
        assert!(only(&["*:3128"]).allows("any.example:3128"));
    }

    #[test]
    fn what_leads_elsewhere_as_well_is_no_proxy_of_a_pattern() {
        let any = only(&["*:*"]);
        for server in [
            "",
            "direct://",
            "proxy.example:8080,direct://",
            "http=proxy.example:8080",
            "http=proxy.example:8080;https=direct://",
            "proxy.example:8080;socks=other.example",
            "user:secret@proxy.example:8080",
            "quic://proxy.example:443",
            "proxy.example:8080/x",
            " proxy.example:8080",
            "proxy.example:99999",
            "proxy.example:+8080",
            "http://",
            "[::1",
        ] {
            assert!(!any.allows(server), "{server}");
        }
    }
}
