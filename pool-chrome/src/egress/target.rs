use std::fmt;

use hyper::http::uri::Authority;
use url::Host;

/// Where a browser wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

impl Target {
    /// Reads the target of a request. `None` for a host that is not spelled as Chromium spells it:
    /// whoever is behind us might read another one in it than was judged.
    pub(super) fn read(authority: &Authority, default_port: u16) -> Option<Self> {
        if authority.as_str().contains('@') {
            return None;
        }
        let host = Host::parse(authority.host()).ok()?;
        let port = authority.port_u16();
        // Or it has one that is no number.
        let is_whole = port.is_some() || authority.host().len() == authority.as_str().len();
        let is_canonical = host.to_string().eq_ignore_ascii_case(authority.host());
        let target = Self { host, port: port.unwrap_or(default_port) };
        (is_whole && is_canonical && target.port > 0).then_some(target)
    }

    /// Writes it as the target of a request.
    pub(super) fn authority(&self) -> Authority {
        self.to_string().parse().expect("a host and a port that were read from one")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        Target::read(&text.parse().ok()?, 80).map(|target| target.to_string())
    }

    #[test]
    fn targets_are_read_as_chromium_writes_them() {
        for (text, read_as) in [
            ("a.example", "a.example:80"),
            ("A.example:443", "a.example:443"),
            ("10.0.0.1:8080", "10.0.0.1:8080"),
            ("[::1]", "[::1]:80"),
            ("[::ffff:7f00:1]:81", "[::ffff:7f00:1]:81"),
            ("localhost.", "localhost.:80"),
        ] {
            assert_eq!(read(text).as_deref(), Some(read_as));
        }
    }

    #[test]
    fn spellings_that_could_be_read_in_two_ways_are_no_targets() {
        for text in [
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1.",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:0:0:1]",
            "user@a.example",
            "a.example:0",
            "a.example:",
            "%61.example",
            "１２７.0.0.1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
