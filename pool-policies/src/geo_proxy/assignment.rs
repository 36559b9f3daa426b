use std::fmt;
use std::sync::Arc;

use super::Proxy;
use super::proxies::Proxies;

/// The use of one proxy by one resource. It counts as load of the proxy until its last clone is
/// dropped.
#[derive(Clone)]
pub struct ProxyAssignment {
    held: Arc<Held>,
}

struct Held {
    proxies: Arc<Proxies>,
    index: usize,
    asked: Arc<str>,
}

impl ProxyAssignment {
    pub(super) fn new(proxies: Arc<Proxies>, index: usize, asked: Arc<str>) -> Self {
        Self { held: Arc::new(Held { proxies, index, asked }) }
    }

    /// The proxy, with its credentials.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.held.proxies.all[self.held.index]
    }

    /// The region that the proxy belongs to.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.held.proxies.region
    }

    /// The region that was asked for: another one if this proxy stands in for it.
    #[must_use]
    pub fn asked_region(&self) -> &str {
        &self.held.asked
    }

    /// Returns `true` if the proxy stands in for those of the requested region.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.region() != self.asked_region()
    }

    /// Tells that the proxy itself failed: it refused, did not answer, or did not take the
    /// credentials. It is taken out for a while.
    ///
    /// A failure of the requested site is not a failure of the proxy.
    pub fn report_failure(&self) {
        self.held.proxies.failed(self.held.index);
    }

    /// Tells that the proxy worked. If it was out or on trial, it is back in service.
    pub fn report_success(&self) {
        self.held.proxies.succeeded(self.held.index);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.proxies.given_back(self.index);
    }
}

impl fmt::Debug for ProxyAssignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyAssignment")
            .field("proxy", self.proxy())
            .field("region", &self.region())
            .field("asked_region", &self.asked_region())
            .finish()
    }
}
