mod assignment;
mod builder;
mod health;
mod probe;
mod proxies;
mod proxy;
mod region;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pool_core::{
    Adjustment, BoxError, Class, Driver, Limits, Meta, Policy, Rejection, RejectionKind, Request,
    Stats,
};
use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout};

use crate::announce::Announce;
use crate::{PolicyError, name};
pub use assignment::ProxyAssignment;
pub use builder::GeoProxyBuilder;
pub use probe::{ConnectProbe, ProxyProbe};
pub use proxies::ProxyStatus;
use proxies::RegionState;
pub use proxy::{Proxy, ProxyScheme};
pub use region::Region;

/// The label of requests, and of classes, that names a region.
pub(crate) const LABEL: &str = "region";

/// A spec that can be told through which proxy a new resource shall go.
///
/// [`GeoProxy`] calls it before each creation for a request that names a region. Keep the
/// [`ProxyAssignment`] as long as the resource: it counts as load of the proxy until its last
/// clone is dropped. The resource must go through this proxy or fail; where it cannot reach the
/// proxy, it says so by [`ProxyAssignment::report_failure`], and by
/// [`report_success`](ProxyAssignment::report_success) where it can.
pub trait ProxySpec {
    /// The new resource goes through this proxy and nowhere else.
    fn set_proxy(&mut self, proxy: ProxyAssignment);
}

/// A resource that knows through which proxy it goes.
///
/// [`GeoProxy`] asks a new resource before its first lease: one that was made for a region and
/// has no proxy of it is refused, so that a driver which overlooked its spec never lets anything
/// go out directly.
pub trait ProxyResource {
    /// The assignment that its spec had.
    fn proxy(&self) -> Option<&ProxyAssignment>;
}

/// A class of resources per region, each resource behind one of the region's proxies.
///
/// A request names its region with the label `region`; one without it gets a resource that goes
/// through no proxy, unless there is a [default region](GeoProxyBuilder::default_region). A region
/// that is not configured is refused with the code `unknown_region`.
///
/// A new resource gets the proxy of its region that the fewest resources use. A proxy that fails
/// is taken out for a while, which doubles with each failure after it was let back in; it comes
/// back with one resource at first, and fully when that one succeeds. Where all proxies of a region
/// are out, those of its [fallback regions](Region::fallback) are taken; without any the creation
/// fails with [`PolicyError::ProxiesDown`]. It never goes out directly.
///
/// Knowledge of a proxy comes from the [probe](GeoProxyBuilder::probe), which each new resource
/// runs before its first lease, and from the reports of the drivers
/// ([`ProxyAssignment::report_failure`]).
///
/// Clones are handles to the same proxies: keep one to ask for the [`status`](Self::status).
///
/// # Examples
///
/// ```
/// use pool_core::{Driver, Meta, Pool, Reporter, Request, async_trait};
/// use pool_policies::{GeoProxy, Proxy, ProxyAssignment, ProxyResource, ProxySpec, Region};
///
/// #[derive(Default)]
/// struct Spec(Option<ProxyAssignment>);
///
/// impl ProxySpec for Spec {
///     fn set_proxy(&mut self, proxy: ProxyAssignment) {
///         self.0 = Some(proxy);
///     }
/// }
///
/// struct Client(Option<ProxyAssignment>);
///
/// impl ProxyResource for Client {
///     fn proxy(&self) -> Option<&ProxyAssignment> {
///         self.0.as_ref()
///     }
/// }
///
/// struct Clients;
///
/// #[async_trait]
/// impl Driver for Clients {
///     type Spec = Spec;
///     type Resource = Client;
///     type Error = std::io::Error;
///
///     async fn create(&self, spec: &Spec, _: &Meta, _: Reporter) -> Result<Client, Self::Error> {
///         Ok(Client(spec.0.clone()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let regions = GeoProxy::builder()
///     .region("eu-west", Region::new().proxy(Proxy::parse("http://u:secret@eu-1.example:8080")?))
///     .region("us-east", Region::new().proxy(Proxy::parse("socks5://us-1.example:1080")?))
///     .build()?;
/// let pool = Pool::builder(Clients).policy(regions).build()?;
/// let lease = pool.acquire_with(Request::new().label("region", "eu-west")).await?;
/// let proxy = lease.proxy().unwrap();
/// assert_eq!(proxy.proxy().to_string(), "http://eu-1.example:8080");
/// # drop(lease);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GeoProxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    regions: FxHashMap<Arc<str>, RegionState>,
    default: Option<Arc<str>>,
    probe: Option<Box<dyn ProxyProbe>>,
    probe_timeout: Duration,
    announce: Announce,
}

impl GeoProxy {
    /// No regions yet.
    pub fn builder() -> GeoProxyBuilder {
        GeoProxyBuilder::new()
    }

    /// Returns the state of each proxy of each region at this moment.
    #[must_use]
    pub fn status(&self) -> Vec<ProxyStatus> {
        let now = Instant::now();
        let mut all: Vec<_> =
            self.shared.regions.values().flat_map(|region| region.status(now)).collect();
        all.sort_by(|a, b| (&a.region, &a.proxy).cmp(&(&b.region, &b.proxy)));
        all
    }

    /// Assigns the best proxy for a region: of its own, or else of its fallback regions in order.
    fn assign(&self, asked: &str) -> Result<ProxyAssignment, PolicyError> {
        let regions = &self.shared.regions;
        let own = regions.get(asked).ok_or_else(|| PolicyError::unknown(LABEL, asked))?;
        let fallback = own.fallback().iter().filter_map(|name| regions.get(name));
        let now = Instant::now();
        let mut soonest: Option<Instant> = None;
        for region in std::iter::once(own).chain(fallback) {
            match region.assign(own.region(), now) {
                Ok(assignment) => return Ok(assignment),
                Err(at) => soonest = Some(soonest.map_or(at, |held| held.min(at))),
            }
        }
        Err(PolicyError::ProxiesDown {
            region: own.region().to_string(),
            retry_after: soonest.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
        })
    }

    /// Asks the probe whether a proxy works, and notes its answer.
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), PolicyError> {
        let Some(probe) = &self.shared.probe else { return Ok(()) };
        let limit = self.shared.probe_timeout;
        let source = match timeout(limit, probe.probe(proxy)).await {
            Ok(Ok(())) => {
                proxy.report_success();
                return Ok(());
            }
            Ok(Err(source)) => source,
            Err(_) => PolicyError::TookTooLong { what: "the probe", limit }.into(),
        };
        proxy.report_failure();
        Err(PolicyError::ProbeFailed {
            region: proxy.region().to_owned(),
            proxy: proxy.proxy().to_string(),
            source,
        })
    }
}

#[async_trait]
impl<D> Policy<D> for GeoProxy
where
    D: Driver,
    D::Spec: ProxySpec,
    D::Resource: ProxyResource,
{
    fn watches(&self) -> bool {
        false
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        match (request.get(LABEL), &self.shared.default) {
            (Some(region), _) if self.shared.regions.contains_key(region) => Ok(()),
            (Some(region), _) => {
                let region = name::shorten(region);
                let message = format!("there is no region {region:?}");
                Err(Rejection::new(RejectionKind::Unknown, "unknown_region", message))
            }
            (None, None) => Ok(()),
            (None, Some(default)) => {
                request.set(LABEL, default.clone());
                Ok(())
            }
        }
    }

    fn classify(&self, request: &Request, class: &mut Class) {
        if let Some(region) = request.get(LABEL).and_then(|name| self.shared.regions.get(name)) {
            region.part().join(class);
        }
    }

    fn limit(&self, class: &Class) -> Option<Limits> {
        self.shared.regions.get(class.get(LABEL)?).map(|region| region.limits(class))
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        if let Some(region) = class.get(LABEL) {
            spec.set_proxy(self.assign(region)?);
        }
        Ok(())
    }

    async fn prepare(&self, resource: &mut D::Resource, meta: &Meta) -> Result<(), BoxError> {
        let Some(region) = meta.class.get(LABEL) else { return Ok(()) };
        let proxy = resource.proxy().filter(|proxy| proxy.asked_region() == region).cloned();
        let proxy = proxy.ok_or_else(|| PolicyError::ProxyNotUsed { region: region.to_owned() })?;
        Ok(self.probe(&proxy).await?)
    }

    fn tick(&self, _: &Stats) -> Vec<Adjustment> {
        self.shared.announce.take()
    }
}
