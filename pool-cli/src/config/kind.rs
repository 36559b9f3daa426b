//! The kinds of strings, and the rules for each.

use std::net::SocketAddr;

use pool_chrome::egress::Pattern;
use pool_fleet::NatsOptions;
use url::{Host, Url};

use super::finding::{self, nearest, or};
use super::units;

/// The kind of a string; named by `x-kind` in the schema.
///
/// Every rule about a single string is here, so that it applies wherever the string comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Address,
    Duration,
    DurationOrOff,
    Size,
    SizeOrOff,
    Path,
    Name,
    PublicUrl,
    PageUrl,
    ProxyUrl,
    CollectorUrl,
    NatsUrl,
    NodeUrl,
    Origin,
    HostName,
    Flag,
    Filter,
    HostPattern,
}

/// A mistake in a string, and the remedy.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Kind {
    const NAMED: [(&'static str, Self); 18] = [
        ("address", Self::Address),
        ("duration", Self::Duration),
        ("duration or off", Self::DurationOrOff),
        ("size", Self::Size),
        ("size or off", Self::SizeOrOff),
        ("path", Self::Path),
        ("name", Self::Name),
        ("public url", Self::PublicUrl),
        ("page url", Self::PageUrl),
        ("proxy url", Self::ProxyUrl),
        ("collector url", Self::CollectorUrl),
        ("nats url", Self::NatsUrl),
        ("node url", Self::NodeUrl),
        ("origin", Self::Origin),
        ("host", Self::HostName),
        ("flag", Self::Flag),
        ("filter", Self::Filter),
        ("host pattern", Self::HostPattern),
    ];

    /// Returns the kind with this name in the schema; a string without one is plain.
    pub(super) fn named(name: Option<&str>) -> Self {
        let Some(name) = name else { return Self::Plain };
        let found = Self::NAMED.into_iter().find(|(known, _)| *known == name);
        found.expect("the types name no kind that does not exist").1
    }

    /// Returns the description that follows "must be".
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Plain | Self::Path | Self::Name | Self::HostName | Self::Filter => "a string",
            Self::Address => "an address such as \"127.0.0.1:3000\"",
            Self::Duration => "a duration such as \"30s\"",
            Self::DurationOrOff => "a duration such as \"30s\", or \"off\"",
            Self::Size => "a size such as \"256MiB\"",
            Self::SizeOrOff => "a size such as \"512MiB\", or \"off\"",
            Self::PublicUrl => "a url such as \"wss://pool.example\"",
            Self::PageUrl => "a url such as \"about:blank\"",
            Self::ProxyUrl => "a url such as \"http://proxy.example:8080\"",
            Self::CollectorUrl => "a url such as \"http://127.0.0.1:4318\"",
            Self::NatsUrl => "a url such as \"nats://10.0.0.5:4222\"",
            Self::NodeUrl => "a url such as \"wss://worker-7.example:3000\"",
            Self::Origin => "an origin such as \"https://tools.example\"",
            Self::Flag => "a flag such as \"--lang=de\"",
            Self::HostPattern => "a pattern such as \"*.ads.example\"",
        }
    }

    /// Returns the text for the column "type" of the reference.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Plain | Self::Filter => "string",
            Self::Address => "address",
            Self::Duration => "duration",
            Self::DurationOrOff => "duration or \"off\"",
            Self::Size => "size",
            Self::SizeOrOff => "size or \"off\"",
            Self::Path => "path",
            Self::Name => "name",
            Self::PublicUrl
            | Self::PageUrl
            | Self::ProxyUrl
            | Self::CollectorUrl
            | Self::NatsUrl
            | Self::NodeUrl => "url",
            Self::Origin => "origin",
            Self::HostName => "host name",
            Self::Flag => "flag",
            Self::HostPattern => "pattern",
        }
    }

    /// Returns `true` if `"off"` is allowed here.
    pub(super) fn has_off(self) -> bool {
        matches!(self, Self::DurationOrOff | Self::SizeOrOff)
    }

    /// Checks a string of this kind.
    pub(super) fn check(self, text: &str) -> Result<(), Complaint> {
        match self {
            Self::Plain => Ok(()),
            Self::Address => address(text),
            Self::Duration => duration(text),
            Self::DurationOrOff if text == units::OFF => Ok(()),
            Self::DurationOrOff => duration(text),
            Self::SizeOrOff if text == units::OFF => Ok(()),
            Self::Size | Self::SizeOrOff => size(text),
            Self::Path => path(text),
            Self::Name => name(text),
            Self::PublicUrl => public_url(text),
            Self::PageUrl => page_url(text),
            Self::ProxyUrl => proxy_url(text),
            Self::CollectorUrl => collector_url(text),
            Self::NatsUrl => nats_url(text),
            Self::NodeUrl => node_url(text),
            Self::Origin => origin(text),
            Self::HostName => host(text),
            Self::Flag => flag(text),
            Self::Filter => filter(text),
            Self::HostPattern => host_pattern(text),
        }
    }
}

fn host_pattern(text: &str) -> Result<(), Complaint> {
    let error = text.parse::<Pattern>().err();
    error.map_or(Ok(()), |error| Err(complaint(error.to_string()).hint(error.hint())))
}

/// Returns a complaint without a suggestion.
pub(super) fn complaint(message: impl Into<String>) -> Complaint {
    Complaint { message: message.into(), hint: None }
}

impl Complaint {
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn address(text: &str) -> Result<(), Complaint> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let hint = if text.parse::<u16>().is_ok() {
        format!("write \"127.0.0.1:{text}\"")
    } else if let Some(port) = text.strip_prefix("localhost:") {
        format!("write \"127.0.0.1:{port}\"")
    } else if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        format!("write \"0.0.0.0:{port}\"; beyond loopback a token is required")
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        format!("add a port: \"{text}:3000\"")
    } else {
        "write an IP address and a port, such as \"127.0.0.1:3000\"".to_owned()
    };
    Err(complaint(format!("`{text}` is not an address with a port")).hint(hint))
}

fn path(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(complaint("a path must not be empty"));
    }
    if text == "~" || text.starts_with("~/") {
        let hint = "a shell would expand it, but the pool does not: write the whole path";
        return Err(complaint(format!("`{text}` begins with `~`")).hint(hint));
    }
    Ok(())
}

fn duration(text: &str) -> Result<(), Complaint> {
    let Err(message) = units::duration(text) else { return Ok(()) };
    let complaint = complaint(message);
    Err(if text.parse::<u64>().is_ok_and(|number| number > 0) {
        complaint.hint(format!("add a unit: \"{text}s\" or \"{text}ms\""))
    } else {
        complaint.hint("write numbers with units, such as \"30s\", \"5m\" or \"1h 30m\"")
    })
}

fn size(text: &str) -> Result<(), Complaint> {
    let Err(message) = units::size(text) else { return Ok(()) };
    let complaint = complaint(message);
    Err(if text.parse::<u64>().is_ok_and(|number| number > 0) {
        complaint.hint(format!("add a unit: \"{text}MiB\""))
    } else {
        complaint.hint("write a number with a unit, such as \"512MiB\" or \"1GiB\"")
    })
}

/// Checks a name of a profile or region, which becomes the name of a directory.
pub(super) fn name(text: &str) -> Result<(), Complaint> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let bytes = text.as_bytes();
    if bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.len() <= 64
        && bytes.iter().all(|byte| fits(*byte))
    {
        return Ok(());
    }
    Err(complaint(format!("`{}` is not a name", text.escape_debug())).hint(
        "use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ))
}

/// Levels of the log, loudest last.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn filter(text: &str) -> Result<(), Complaint> {
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let complaint = complaint(format!("`{level}` is not a level of the log"));
            return Err(complaint.hint(match nearest(level, LEVELS) {
                Some(near) => finding::did_you_mean(near),
                None => format!("levels: {}", LEVELS.join(", ")),
            }));
        }
    }
    Ok(())
}

pub(super) fn public_url(text: &str) -> Result<(), Complaint> {
    const SCHEMES: [&str; 4] = ["ws", "wss", "http", "https"];
    let url = parse(text, "wss://pool.example")?;
    scheme(&url, &SCHEMES)?;
    no_credentials(&url, "clients send their token in the query or in a header")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has a query"))
            .hint("leave it out: the query of each request is kept"));
    }
    Ok(())
}

pub(super) fn page_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "about:blank")?;
    scheme(&url, &["http", "https", "about", "data"])
}

/// Checks the address of a webhook. It appears in no message, since it may be a secret.
pub(super) fn webhook_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "https://hooks.example/pool")?;
    scheme(&url, &["http", "https"])
}

pub(super) fn collector_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "http://127.0.0.1:4318")?;
    scheme(&url, &["http", "https"])?;
    no_credentials(&url, "set OTEL_EXPORTER_OTLP_HEADERS in the environment")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has a query"))
            .hint("leave it out: /v1/traces is added to the address"));
    }
    Ok(())
}

pub(super) fn proxy_url(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "http://proxy.example:8080")?;
    scheme(&url, &["http", "socks5"])?;
    no_credentials(&url, "write { url = \"…\", username = \"…\", password = { env = \"…\" } }")?;
    if url.port_or_known_default().is_none() {
        return Err(
            complaint(format!("`{text}` has no port")).hint(format!("add one: \"{text}:1080\""))
        );
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(complaint(format!("`{text}` has more than a host and a port"))
            .hint("leave out what follows the port"));
    }
    Ok(())
}

/// Checks an address as the transport reads it; whether it may be used depends on several keys.
fn nats_url(text: &str) -> Result<(), Complaint> {
    let checked = NatsOptions::new([text]).allow_insecure(true).check();
    checked.map(drop).map_err(|error| {
        complaint(error.to_string()).hint(
            "write one such as \"nats://10.0.0.5:4222\", and credentials in keys of their own",
        )
    })
}

fn node_url(text: &str) -> Result<(), Complaint> {
    const EXAMPLE: &str = "wss://worker-7.example:3000";
    let url = parse(text, EXAMPLE)?;
    scheme(&url, &["ws", "wss"])?;
    no_credentials(&url, "nodes sign what they send each other: leave them out")?;
    let is_nowhere = match url.host() {
        Some(Host::Ipv4(address)) => address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_unspecified(),
        Some(Host::Domain(_)) | None => false,
    };
    if is_nowhere {
        return Err(complaint(format!("`{text}` is not an address that another node can reach"))
            .hint(format!("write the address of this machine, such as \"{EXAMPLE}\"")));
    }
    let origin = url.origin().ascii_serialization();
    if origin == text {
        return Ok(());
    }
    Err(complaint(format!("`{text}` must be a host and a port, and nothing else"))
        .hint(format!("write \"{origin}\"")))
}

pub(super) fn origin(text: &str) -> Result<(), Complaint> {
    let url = parse(text, "https://tools.example")?;
    scheme(&url, &["http", "https"])?;
    let origin = url.origin().ascii_serialization();
    if origin == text {
        return Ok(());
    }
    Err(complaint(format!("`{text}` is not an origin")).hint(format!("write \"{origin}\"")))
}

pub(super) fn host(text: &str) -> Result<(), Complaint> {
    let bare = text
        .rsplit_once(':')
        .map_or(text, |(host, port)| if port.parse::<u16>().is_ok() { host } else { text });
    match Host::parse(text) {
        Ok(_) => Ok(()),
        Err(_) if Host::parse(bare).is_ok() => Err(complaint(format!("`{text}` has a port"))
            .hint(format!("write \"{bare}\": it applies to every port"))),
        Err(_) => {
            match Url::parse(text).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
                Some(host) => Err(complaint(format!("`{text}` is not a host name"))
                    .hint(format!("write \"{host}\""))),
                None => Err(complaint(format!("`{text}` is not a host name"))
                    .hint("write a name such as \"pool.example\"")),
            }
        }
    }
}

fn parse(text: &str, example: &str) -> Result<Url, Complaint> {
    Url::parse(text).map_err(|_| {
        complaint("this is not a url").hint(format!("write one such as \"{example}\""))
    })
}

fn scheme(url: &Url, allowed: &[&str]) -> Result<(), Complaint> {
    if allowed.contains(&url.scheme()) {
        return Ok(());
    }
    // `host:8080` parses as the scheme `host`.
    let hint = if !url.has_host() {
        format!("begin with {}", list(allowed))
    } else {
        format!("use {}", list(allowed))
    };
    Err(complaint(format!("`{}:` is not a scheme that can be used here", url.scheme())).hint(hint))
}

fn list(schemes: &[&str]) -> String {
    let schemes: Vec<String> = schemes
        .iter()
        .map(|scheme| match *scheme {
            "about" | "data" => format!("{scheme}:"),
            _ => format!("{scheme}://"),
        })
        .collect();
    or(&schemes)
}

fn no_credentials(url: &Url, hint: &str) -> Result<(), Complaint> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    // The url is not repeated: it holds a secret.
    Err(complaint("credentials do not belong in a url").hint(hint))
}

const PIPE: &str = "the pool talks to browsers over a pipe: no port is ever opened";
const PROFILE: &str = "use a profile: [profiles.NAME]";
const REGION: &str = "use a region: `proxies` in [regions.NAME]";
const WEBRTC: &str = "WebRTC is confined wherever a region has proxies";

/// Flags that the pool sets itself, with the setting to use instead; pool-chrome refuses them too,
/// but does not know where in the configuration they are.
const OWN_FLAGS: [(&str, &str); 18] = [
    ("--remote-debugging-port", PIPE),
    ("--remote-debugging-address", PIPE),
    ("--remote-debugging-pipe", PIPE),
    ("--remote-debugging-io-pipes", PIPE),
    ("--remote-debugging-socket-name", PIPE),
    ("--user-data-dir", PROFILE),
    ("--profile-directory", PROFILE),
    ("--proxy-server", REGION),
    ("--proxy-pac-url", REGION),
    ("--proxy-auto-detect", REGION),
    ("--proxy-bypass-list", REGION),
    ("--no-proxy-server", REGION),
    ("--force-webrtc-ip-handling-policy", WEBRTC),
    ("--webrtc-ip-handling-policy", WEBRTC),
    ("--no-sandbox", "use `sandbox = \"off\"` in [chrome]"),
    ("--headless", "use `headless` in [chrome]"),
    ("--no-startup-window", "the pool sets it itself"),
    ("--type", "it would make Chromium something other than a browser"),
];

/// Checks one of `args`.
pub(super) fn flag(text: &str) -> Result<(), Complaint> {
    let Some(bare) = text.strip_prefix("--").filter(|bare| !bare.is_empty()) else {
        return Err(complaint(format!("`{text}` is not a flag"))
            .hint(format!("flags begin with two dashes: \"--{}\"", text.trim_start_matches('-'))));
    };
    if text.contains(['\0', '\n', '\r']) {
        return Err(complaint("a flag must be one line"));
    }
    let name = &text[..2 + bare.find('=').unwrap_or(bare.len())];
    match OWN_FLAGS.iter().find(|(own, _)| *own == name) {
        Some((own, instead)) => {
            Err(complaint(format!("`{own}` cannot be set here")).hint(*instead))
        }
        None => Ok(()),
    }
}
