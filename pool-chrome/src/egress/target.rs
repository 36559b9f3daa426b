//! The targets of browsers, and the addresses that belong to the public Internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::http::uri::Authority;
use url::Host;

/// The host and port that a browser wants to reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

impl Target {
    /// Reads the target of a request. Returns `None` for a host that is not spelled as Chromium
    /// spells it: a server behind us might read another host in it than the one that was judged.
    pub(super) fn read(authority: &Authority, default_port: u16) -> Option<Self> {
        if authority.as_str().contains('@') {
            return None;
        }
        let host = Host::parse(authority.host()).ok()?;
        let port = authority.port_u16();
        // Otherwise it has one that is not a number.
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

/// IPv4 networks that IANA's registry of special purposes lists as not globally reachable, together
/// with multicast, reserved addresses, and the relays of 6to4.
const SPECIAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Address that serves metadata, including credentials, to every machine in Azure, although it
/// looks public.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Returns `true` if an address is public, and so is every IPv4 address embedded in it.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            is_public_v6(address) && embedded(address).into_iter().flatten().all(is_public_v4)
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    let within = |(network, length): &([u8; 4], u32)| {
        (bits ^ u32::from_be_bytes(*network)) >> (32 - length) == 0
    };
    address != AZURE && !SPECIAL_V4.iter().any(within)
}

/// Only 2000::/3 is allocated, apart from the prefix by which NAT64 reaches IPv4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => true,
        // Protocols (Teredo among them), documentation twice.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [0x2000..0x4000, ..] => true,
        _ => false,
    }
}

/// Returns the IPv4 addresses that something on the way could read out of an IPv6 address: embedded
/// in it, translated (SIIT, NAT64), tunnelled (6to4, ISATAP, both ends of Teredo).
pub(super) fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let v4 =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            [v4(high, low), None]
        }
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [v4(high, low), None],
        [0x2002, high, low, ..] => [v4(high, low), None],
        [0x2001, 0, high, low, _, _, client, rest] => [v4(high, low), v4(!client, !rest)],
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [v4(high, low), None],
        _ => [None, None],
    }
}

/// Returns `true` if this machine has the address. The system is asked each time, since interfaces
/// come and go.
pub(super) fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_unspecified()
        || address.is_loopback()
        || std::net::UdpSocket::bind((address, 0)).is_ok()
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

    #[test]
    fn private_addresses_are_found_in_every_embedding() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "203.0.113.9",
            "224.0.0.251",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:a9fe:a9fe",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:0a00:1::1",
            "2002:a9fe:a9fe::",
            "2001:0:5ef5:79fd::1",
            "2001:4860::5efe:10.0.0.1",
            "2001:4860::200:5efe:192.168.0.1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::fb",
            "100::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_public_in_every_embedding() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
            "3fff:1000::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_addresses_of_this_machine_are_known() {
        for address in ["127.0.0.1", "127.8.8.8", "0.0.0.0", "::1"] {
            assert!(is_of_this_machine(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "2001:4860:4860::8888", "192.0.2.1"] {
            assert!(!is_of_this_machine(address.parse().unwrap()), "{address}");
        }
    }
}
