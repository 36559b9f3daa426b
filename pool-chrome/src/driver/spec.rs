use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ChromeError;
use crate::egress::Upstream;
use crate::mux::{DefaultContext, LeaseKind};

/// Description of a virtual browser to create; policies edit it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BrowserSpec {
    /// Alone in its Chromium, or one of many. Default: as the driver is configured. With a profile
    /// it is always alone.
    pub lease: Option<LeaseKind>,
    /// The directory of a persistent profile, whose real default context the client gets. Default:
    /// a fresh context that ends with the lease.
    pub profile: Option<PathBuf>,
    /// The proxy that everything goes through. Default: direct connections.
    pub proxy: Option<Upstream>,
    /// Values that must outlive the Chromium's process.
    held: Vec<Held>,
    #[cfg(feature = "policies")]
    pub(super) instance: Option<pool_policies::ProfileInstance>,
    #[cfg(feature = "policies")]
    pub(super) assignment: Option<pool_policies::ProxyAssignment>,
}

#[derive(Clone)]
struct Held(Arc<dyn Any + Send + Sync>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl BrowserSpec {
    /// Returns the spec of a browser as the driver is configured.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`lease`](Self::lease).
    #[must_use]
    pub fn lease(mut self, kind: LeaseKind) -> Self {
        self.lease = Some(kind);
        self
    }

    /// Sets [`profile`](Self::profile).
    #[must_use]
    pub fn profile(mut self, directory: impl Into<PathBuf>) -> Self {
        self.profile = Some(directory.into());
        self
    }

    /// Sets [`proxy`](Self::proxy).
    #[must_use]
    pub fn proxy(mut self, proxy: Upstream) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Keeps a value until the Chromium's process is gone, such as the lock of a profile.
    pub fn hold(&mut self, value: impl Any + Send + Sync) {
        self.held.push(Held(Arc::new(value)));
    }

    /// Returns the first value of a type that it [holds](Self::hold).
    #[must_use]
    pub fn held<T: Any>(&self) -> Option<&T> {
        self.held.iter().find_map(|Held(value)| value.downcast_ref())
    }

    /// Returns `true` if it has a profile that is not discarded with its process.
    pub(super) fn has_profile(&self) -> bool {
        #[cfg(feature = "policies")]
        if self.instance.is_some() {
            return true;
        }
        self.profile.is_some()
    }

    pub(super) fn kind(&self, default: LeaseKind) -> LeaseKind {
        if self.has_profile() { LeaseKind::Exclusive } else { self.lease.unwrap_or(default) }
    }

    pub(super) fn default_context(&self) -> DefaultContext {
        if self.has_profile() { DefaultContext::Real } else { DefaultContext::Fresh }
    }

    /// Returns a key of everything that leases in one Chromium must have in common.
    pub(super) fn key(&self) -> String {
        #[cfg(feature = "policies")]
        if let Some(assignment) = &self.assignment {
            let proxy = assignment.proxy();
            return format!("{proxy} {}", proxy.username().unwrap_or_default());
        }
        self.proxy.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Returns the directory of the profile, ready for use.
    pub(super) async fn directory(&self) -> Result<Option<PathBuf>, ChromeError> {
        #[cfg(feature = "policies")]
        if let Some(instance) = &self.instance {
            let opened = instance.open().await.map_err(ChromeError::profile)?;
            return Ok(Some(opened.to_owned()));
        }
        Ok(self.profile.clone())
    }

    /// The proxy, with its credentials.
    #[cfg_attr(
        not(feature = "policies"),
        expect(clippy::unnecessary_wraps, reason = "an assigned proxy may be refused")
    )]
    pub(super) fn upstream(&self) -> Result<Option<Upstream>, ChromeError> {
        #[cfg(feature = "policies")]
        if let Some(assignment) = &self.assignment {
            return Ok(Some(assigned(assignment.proxy())?));
        }
        Ok(self.proxy.clone())
    }

    /// Returns `true` if it uses a profile directory that is kept for the next time.
    #[cfg(feature = "policies")]
    pub(super) fn is_persistent(&self) -> bool {
        self.instance.as_ref().is_some_and(pool_policies::ProfileInstance::is_persistent)
    }

    /// Returns a copy without the profile.
    #[cfg(feature = "policies")]
    pub(super) fn without_profile(&self) -> Self {
        Self { instance: None, profile: None, ..self.clone() }
    }

    /// Moves the profile's directory aside and returns its new path.
    #[cfg(feature = "policies")]
    pub(super) async fn quarantine(&self) -> Result<PathBuf, ChromeError> {
        let instance = self.instance.clone().expect("only a profile is moved aside");
        let moved = tokio::task::spawn_blocking(move || instance.quarantine()).await;
        moved.map_err(ChromeError::profile)?.map_err(ChromeError::profile)
    }

    /// Gives back what was held, now that the process is gone.
    #[cfg_attr(
        not(feature = "policies"),
        expect(clippy::unused_async, reason = "a profile is given back off the runtime")
    )]
    pub(super) async fn give_back(self) {
        #[cfg(feature = "policies")]
        if let Some(instance) = self.instance {
            instance.close().await;
        }
    }

    /// Reports to whoever assigned the proxy how it works.
    #[cfg_attr(
        not(feature = "policies"),
        expect(clippy::unused_self, reason = "nobody assigns proxies")
    )]
    pub(super) fn report_proxy(&self, works: bool) {
        #[cfg(feature = "policies")]
        if let Some(assignment) = &self.assignment {
            if works { assignment.report_success() } else { assignment.report_failure() }
        }
        #[cfg(not(feature = "policies"))]
        let _ = works;
    }
}

/// Returns a region's proxy as an upstream of ours.
#[cfg(feature = "policies")]
fn assigned(proxy: &pool_policies::Proxy) -> Result<Upstream, ChromeError> {
    let host = proxy.host();
    // In a URL, an IPv6 address is in brackets.
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let address = format!("{}://{host}:{}", proxy.scheme().as_str(), proxy.port());
    let upstream = Upstream::parse(&address)?;
    Ok(match (proxy.username(), proxy.password()) {
        (Some(username), Some(password)) => {
            upstream.credentials(username.to_owned(), password.clone())
        }
        _ => upstream,
    })
}

#[cfg(feature = "policies")]
impl pool_policies::ProfileSpec for BrowserSpec {
    fn set_profile(&mut self, instance: pool_policies::ProfileInstance) {
        self.instance = Some(instance);
    }
}

#[cfg(feature = "policies")]
impl pool_policies::ProxySpec for BrowserSpec {
    fn set_proxy(&mut self, proxy: pool_policies::ProxyAssignment) {
        self.assignment = Some(proxy);
    }
}
