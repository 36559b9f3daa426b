//! The text that `run` prints when it is ready.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Config, LeaseKind};

/// The address that clients connect to: one line for scripts.
pub(crate) fn url(config: &Config, address: SocketAddr) -> String {
    match &config.gateway.external_url {
        Some(url) => url.replacen("http", "ws", 1),
        None => format!("ws://{}", reachable(address)),
    }
}

/// Where it listens and how each client connects: lines to copy.
pub(crate) fn text(config: &Config, address: SocketAddr) -> String {
    let pool = &config.pool;
    let kind = match pool.lease {
        LeaseKind::Exclusive => "exclusive",
        LeaseKind::Shared => "shared",
    };
    // The token itself is never printed.
    let query = if config.gateway.token.is_some() { "/?token=YOUR_TOKEN" } else { "" };
    let url = format!("{}{query}", url(config, address));
    let mut text = String::new();
    let _ = write!(
        text,
        "\
browser pool {version} listens on http://{at} ({min} to {max} browsers, {kind} leases)

  Playwright  const browser = await chromium.connectOverCDP('{url}');
  Puppeteer   const browser = await puppeteer.connect({{ browserWSEndpoint: '{url}' }});
  Python      browser = playwright.chromium.connect_over_cdp(\"{url}\")

Ctrl-C lets leases finish for {grace} and ends; what happens is at http://{at}
",
        version = env!("CARGO_PKG_VERSION"),
        at = reachable(address),
        min = pool.min_size,
        max = pool.max_size,
        grace = humantime::format_duration(config.gateway.drain_timeout),
    );
    text
}

/// An address that can be connected to, where the one listened on stands for all.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_token_is_not_printed_and_every_client_has_a_line() {
        let mut config = Config::default();
        config.gateway.token = Some(Secret::new("s3cret"));
        let text = text(&config, SocketAddr::from(([0, 0, 0, 0], 3000)));
        assert!(!text.contains("s3cret"));
        for part in
            ["connectOverCDP('ws://127.0.0.1:3000/?token=", "browserWSEndpoint", "connect_over_cdp"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
