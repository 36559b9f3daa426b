//! Terms of leases: their kind, what is made ahead, what clients may name, and who answers for the
//! holder.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};
use url::Host;

use crate::egress::Pattern;

/// Kind of a lease: alone in its Chromium, or one of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum LeaseKind {
    /// A Chromium of its own.
    #[default]
    Exclusive,
    /// A virtual browser: one of several clients in a Chromium, each unaware of the others.
    Shared,
}

impl LeaseKind {
    /// Returns the name used in configuration: `exclusive` or `shared`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// The browser context that a lease's client takes for the default one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DefaultContext {
    /// A fresh one, off the record, that is disposed with the lease. The default.
    #[default]
    Fresh,
    /// The Chromium's real one, which a persistent profile stores on disk.
    Real,
}

/// Options for a new lease.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// Alone in its Chromium, or one of many. Default: exclusive.
    pub kind: LeaseKind,
    /// Its default context. Default: a fresh one.
    pub default_context: DefaultContext,
    /// Makes the lease's [first page](LeaseTerms::first_page) ahead; if the lease begins without
    /// one, it serves the client's first `newPage`. Default: true.
    pub warm_page: bool,
    /// The proxy of its fresh default context and of contexts that its clients make, in the syntax
    /// of `--proxy-server`, instead of the Chromium's own. Default: none.
    pub proxy: Option<String>,
    /// Proxies that its clients may give to contexts that they make. Default: any.
    pub client_proxies: ClientProxies,
    /// Directories that a shared lease may download to and upload from, its own first; an exclusive
    /// lease may use any. Default: none.
    pub directories: Vec<PathBuf>,
    /// Directories that are the pool's own: no lease may download into them, except for the first
    /// of a shared lease's [`directories`](Self::directories). Default: none.
    pub reserved: Vec<PathBuf>,
    /// Lets pages be sent to `file:` addresses. Default: yes for exclusive leases.
    pub file_urls: Option<bool>,
}

/// The terms of a lease, set once it is known who it is for.
///
/// [`LeaseOptions`] say what is made ahead; these terms are set when it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseTerms {
    /// Begins with a page in its default context, as a newly launched browser does. Default: true.
    pub first_page: bool,
    /// Domains that its pages may visit, among those that the rules of the driver's
    /// [`guard`](crate::ChromeDriver::guard) allow. Without a guard or a proxy it has no effect.
    /// Default: all.
    pub allow_domains: Option<Vec<Pattern>>,
    /// Its name in the log. Default: none.
    pub holder: Option<String>,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self { first_page: true, allow_domains: None, holder: None }
    }
}

impl LeaseTerms {
    /// Returns the terms of a client that asked for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the lease begins with a page.
    #[must_use]
    pub fn first_page(mut self, first_page: bool) -> Self {
        self.first_page = first_page;
        self
    }

    /// Sets [`allow_domains`](Self::allow_domains).
    #[must_use]
    pub fn allow_domains(mut self, domains: impl Into<Option<Vec<Pattern>>>) -> Self {
        self.allow_domains = domains.into();
        self
    }

    /// Sets [`holder`](Self::holder).
    #[must_use]
    pub fn holder(mut self, holder: impl Into<Option<String>>) -> Self {
        self.holder = holder.into();
        self
    }
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            kind: LeaseKind::default(),
            default_context: DefaultContext::default(),
            warm_page: true,
            proxy: None,
            client_proxies: ClientProxies::default(),
            directories: Vec::new(),
            reserved: Vec::new(),
            file_urls: None,
        }
    }
}

impl LeaseOptions {
    /// Returns the defaults for a lease of this kind.
    #[must_use]
    pub fn new(kind: LeaseKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Sets the default context.
    #[must_use]
    pub fn default_context(mut self, context: DefaultContext) -> Self {
        self.default_context = context;
        self
    }

    /// Sets whether a page is made ahead.
    #[must_use]
    pub fn warm_page(mut self, warm: bool) -> Self {
        self.warm_page = warm;
        self
    }

    /// Adds a directory for downloads and uploads.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }
}

/// Proxies that the clients of a lease may give to the contexts that they make.
///
/// Requests that go through a proxy of the pool's (a region's or the guard's) must not bypass it:
/// `direct://`, an empty name, and any bypass list would do that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientProxies {
    /// Any, with any bypass list. The default.
    #[default]
    Any,
    /// One proxy that matches one of these patterns, for everything including loopback. Without any
    /// pattern, no client proxy is allowed.
    Only(Vec<Pattern>),
}

impl ClientProxies {
    /// Returns `true` if a proxy may be named, in the syntax of `--proxy-server`.
    #[must_use]
    pub fn allows(&self, server: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(patterns) => proxy_address(server).is_some_and(|(host, port)| {
                patterns.iter().any(|pattern| pattern.names(&host, port))
            }),
        }
    }
}

/// Reads the single proxy that a server names. Lists, rules for single schemes, `direct://` and
/// anything that Chromium might read differently are not accepted.
fn proxy_address(server: &str) -> Option<(Host, u16)> {
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

/// Answers the commands that no Chromium has and that clients of hosted browsers send, such as
/// `Browserless.reconnect`: the holder of the lease knows what they mean.
///
/// It is asked for each command of the domain `Browserless`, on any session, in the order of the
/// client's commands.
pub trait HolderCommands: fmt::Debug + Send + Sync {
    /// Returns the result of a command, or the message of a refusal; `None` for an unknown command,
    /// which is answered as Chromium answers unknown commands.
    ///
    /// It is called while the multiplexer is locked: it must return at once and not use it.
    fn call(&self, method: &str, params: &Map<String, Value>) -> Option<Result<Value, String>>;

    /// Reports that a client of a shared lease has named a file outside of the lease's
    /// [directories](super::LeaseOptions::directories), once for each use and path.
    ///
    /// It is called without a lock, on whichever task has noticed it, and must return at once. If
    /// it panics, that is logged and affects nobody else.
    fn file_refused(&self, file: FileUse, path: &str) {
        let _ = (file, path);
    }
}

/// Uses of a file that a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileUse {
    /// A page was to read it.
    Upload,
    /// A download was to go there; it was canceled.
    Download,
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
