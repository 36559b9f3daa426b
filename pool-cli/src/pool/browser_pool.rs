use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pool_chrome::egress::Requests;
use pool_core::{
    AcquireError, BuildError, Class, DrainReport, Lease, Limits, Load, Meta, Pool, Request,
    ResourceId, ResourceInfo, Stats, WaiterInfo, async_trait,
};

use super::{Browser, BrowserDriver, Version, Vitals};

/// A pool of browsers with any driver: the interface that the gateway, the metrics and the commands
/// work with.
///
/// The methods are those of [`Pool`], where they are documented.
#[async_trait]
pub trait BrowserPool: Send + Sync + 'static {
    /// [`Pool::acquire_with`]; dropping the future leaves the queue.
    async fn acquire(&self, request: Request) -> Result<Arc<dyn Leased>, AcquireError>;
    /// [`Pool::load`].
    fn load(&self) -> Load;
    /// [`Pool::stats`].
    fn stats(&self) -> Stats;
    /// [`Pool::resources`].
    fn resources(&self) -> Vec<ResourceInfo>;
    /// [`Pool::waiters`].
    fn waiters(&self) -> Vec<WaiterInfo>;
    /// [`Pool::resize`].
    fn resize(&self, min: usize, max: usize) -> Result<(), BuildError>;
    /// [`Pool::set_limits`].
    fn set_limits(&self, class: &Class, limits: Limits);
    /// [`Pool::invalidate`].
    fn invalidate(&self, unwanted: &mut dyn FnMut(&Meta) -> bool) -> usize;
    /// [`Pool::retire`], with the number of a resource.
    fn retire(&self, id: u64) -> bool;
    /// [`Pool::flush_idle`].
    fn flush_idle(&self) -> usize;
    /// [`Pool::drain`].
    async fn drain(&self, grace: Duration) -> DrainReport;
    /// [`BrowserDriver::version`].
    fn version(&self) -> Option<Version>;
    /// [`BrowserDriver::vitals`].
    fn vitals(&self, id: ResourceId) -> Option<Vitals>;
    /// [`BrowserDriver::requests`].
    fn requests(&self) -> Requests;
    /// [`BrowserDriver::is_a_browser`].
    fn is_a_browser(&self, peer: SocketAddr) -> bool;
    /// [`BrowserDriver::measure`].
    async fn measure(&self);
}

/// A leased browser; it is given back when the last handle to it is dropped.
pub trait Leased: Send + Sync + 'static {
    /// Returns what the pool knows about it.
    fn meta(&self) -> &Meta;
    /// Returns how long its holder waited for it.
    fn waited(&self) -> Duration;
    /// Returns the browser.
    fn browser(&self) -> &dyn Browser;
}

impl fmt::Debug for dyn Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("meta", self.meta()).finish_non_exhaustive()
    }
}

impl fmt::Debug for dyn BrowserPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserPool").field("load", &self.load()).finish_non_exhaustive()
    }
}

#[async_trait]
impl<D: BrowserDriver> BrowserPool for Pool<D>
where
    D::Resource: Browser,
{
    async fn acquire(&self, request: Request) -> Result<Arc<dyn Leased>, AcquireError> {
        let lease = self.acquire_with(request).await?;
        Ok(Arc::new(lease))
    }

    fn load(&self) -> Load {
        Self::load(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn resources(&self) -> Vec<ResourceInfo> {
        Self::resources(self)
    }

    fn waiters(&self) -> Vec<WaiterInfo> {
        Self::waiters(self)
    }

    fn resize(&self, min: usize, max: usize) -> Result<(), BuildError> {
        Self::resize(self, min, max)
    }

    fn set_limits(&self, class: &Class, limits: Limits) {
        Self::set_limits(self, class, limits);
    }

    fn invalidate(&self, unwanted: &mut dyn FnMut(&Meta) -> bool) -> usize {
        Self::invalidate(self, unwanted)
    }

    fn retire(&self, id: u64) -> bool {
        // An id cannot be made from a number, so it is looked up among those that exist.
        let known = Self::resources(self).into_iter().find(|info| info.id.get() == id);
        known.is_some_and(|info| Self::retire(self, info.id))
    }

    fn flush_idle(&self) -> usize {
        self.driver().renew();
        Self::flush_idle(self)
    }

    async fn drain(&self, grace: Duration) -> DrainReport {
        Self::drain(self, grace).await
    }

    fn version(&self) -> Option<Version> {
        self.driver().version()
    }

    fn vitals(&self, id: ResourceId) -> Option<Vitals> {
        self.driver().vitals(id)
    }

    fn requests(&self) -> Requests {
        self.driver().requests()
    }

    fn is_a_browser(&self, peer: SocketAddr) -> bool {
        self.driver().is_a_browser(peer)
    }

    async fn measure(&self) {
        self.driver().measure().await;
    }
}

impl<D: BrowserDriver> Leased for Lease<D>
where
    D::Resource: Browser,
{
    fn meta(&self) -> &Meta {
        Self::meta(self)
    }

    fn waited(&self) -> Duration {
        Self::waited(self)
    }

    fn browser(&self) -> &dyn Browser {
        &**self
    }
}
