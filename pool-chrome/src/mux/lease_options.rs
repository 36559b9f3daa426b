use std::path::PathBuf;

use super::client_proxies::ClientProxies;
use crate::egress::Pattern;

/// Whether a lease has its Chromium to itself.
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
    /// The name used in configuration: `exclusive` or `shared`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// Which browser context a lease's client takes for the default one.
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
    /// Whether it has the Chromium to itself. Default: exclusive.
    pub kind: LeaseKind,
    /// Its default context. Default: a fresh one.
    pub default_context: DefaultContext,
    /// Whether the lease's [first page](LeaseTerms::first_page) is made ahead; it is the client's
    /// first `newPage` where a lease begins with none. Default: yes.
    pub warm_page: bool,
    /// The proxy of its fresh default context and of contexts that its clients make, in the syntax
    /// of `--proxy-server`, instead of the Chromium's own. Default: none.
    pub proxy: Option<String>,
    /// Which proxies its clients may give to contexts that they make. Default: any.
    pub client_proxies: ClientProxies,
    /// Directories that a shared lease may download to and upload from, its own first; an exclusive
    /// lease may use any. Default: none.
    pub directories: Vec<PathBuf>,
    /// Directories that are the pool's own: no lease may download into them, but for the first of
    /// a shared lease's [`directories`](Self::directories). Default: none.
    pub reserved: Vec<PathBuf>,
    /// Whether pages may be sent to `file:` addresses. Default: yes for exclusive leases.
    pub file_urls: Option<bool>,
}

/// The terms that a lease is granted on, once it is known for whom it is.
///
/// [`LeaseOptions`] say what is made ahead; these are set when it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseTerms {
    /// Whether it begins with a page in its default context, as a browser that was just launched
    /// does. Default: yes.
    pub first_page: bool,
    /// What its pages may ask for, of what the rules of the driver's
    /// [`guard`](crate::ChromeDriver::guard) allow. Without a guard or a proxy it has no effect.
    /// Default: all of it.
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
    /// The terms of a client that asked for nothing.
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
    /// The defaults for a lease of this kind.
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
