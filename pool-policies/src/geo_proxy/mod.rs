mod proxy;
mod region;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pool_core::{
    Adjustment, BoxError, Class, Driver, Limits, Meta, Policy, Rejection, RejectionKind, Request,
    Stats,
};
pub use proxy::{Proxy, ProxyScheme};
use region::{Backoff, RegionState};
pub use region::{ProxyAssignment, ProxyStatus, Region};
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::PolicyError;
use crate::part::{Announce, check_name, shorten, unknown};

/// The label of requests, and of classes, that names a region.
pub(crate) const LABEL: &str = "region";

/// A spec that can be told which proxy a new resource must go through.
///
/// [`GeoProxy`] calls it before each creation for a request that names a region. Keep the
/// [`ProxyAssignment`] as long as the resource: it counts as load of the proxy until its last clone
/// is dropped. The resource must go through this proxy or fail. The driver reports whether it
/// reached the proxy, by [`ProxyAssignment::report_failure`] or
/// [`report_success`](ProxyAssignment::report_success).
pub trait ProxySpec {
    /// Hands over the proxy that all traffic of the new resource must go through.
    fn set_proxy(&mut self, proxy: ProxyAssignment);
}

/// A resource that knows which proxy it goes through.
///
/// [`GeoProxy`] asks a new resource before its first lease. One that was made for a region but has
/// none of that region's proxies is refused, so that a driver that ignores its spec never lets
/// anything go out directly.
pub trait ProxyResource {
    /// Returns the assignment from its spec.
    fn proxy(&self) -> Option<&ProxyAssignment>;
}

/// A class of resources per region, each resource behind one of the region's proxies.
///
/// A request names its region with the label `region`; one without it gets a resource without a
/// proxy, unless there is a [default region](GeoProxyBuilder::default_region). A request for a
/// region that is not configured is refused with the code `unknown_region`.
///
/// A new resource gets the proxy of its region that the fewest resources use. A proxy that fails is
/// taken out of service for a while, and for twice as long each time it fails again after it was
/// let back in. It comes back with one resource at first, and fully when that one succeeds. If all
/// proxies of a region are out of service, those of its [fallback regions](Region::fallback) are
/// used; if there are none, the creation fails with [`PolicyError::ProxiesDown`]. It never goes out
/// directly.
///
/// The policy learns about a proxy from the [probe](GeoProxyBuilder::probe), which runs for each
/// new resource before its first lease, and from the reports of drivers
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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: FxHashMap<Arc<str>, RegionState>,
    default: Option<Arc<str>>,
    probe: Option<Box<dyn ProxyProbe>>,
    probe_timeout: Duration,
    announce: Announce,
}

impl GeoProxy {
    /// Starts to build a policy without regions.
    pub fn builder() -> GeoProxyBuilder {
        GeoProxyBuilder::new()
    }

    /// Returns the present state of each proxy of each region.
    #[must_use]
    pub fn status(&self) -> Vec<ProxyStatus> {
        let now = Instant::now();
        let mut all: Vec<_> =
            self.inner.regions.values().flat_map(|region| region.status(now)).collect();
        all.sort_by(|a, b| (&a.region, &a.proxy).cmp(&(&b.region, &b.proxy)));
        all
    }

    /// Assigns the best proxy for a region: one of its own, or else one of its fallback regions in
    /// order.
    fn assign(&self, asked: &str) -> Result<ProxyAssignment, PolicyError> {
        let regions = &self.inner.regions;
        let own = regions.get(asked).ok_or_else(|| unknown(LABEL, asked))?;
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
        let Some(probe) = &self.inner.probe else { return Ok(()) };
        let limit = self.inner.probe_timeout;
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
        match (request.get(LABEL), &self.inner.default) {
            (Some(region), _) if self.inner.regions.contains_key(region) => Ok(()),
            (Some(region), _) => {
                let region = shorten(region);
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
        if let Some(region) = request.get(LABEL).and_then(|name| self.inner.regions.get(name)) {
            region.part().join(class);
        }
    }

    fn limit(&self, class: &Class) -> Option<Limits> {
        self.inner.regions.get(class.get(LABEL)?).map(|region| region.limits(class))
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
        self.inner.announce.take()
    }
}

/// Names the regions of a [`GeoProxy`] policy.
#[derive(Debug)]
#[must_use]
pub struct GeoProxyBuilder {
    regions: Vec<(String, Region)>,
    default: Option<String>,
    probe: Option<Box<dyn ProxyProbe>>,
    probe_timeout: Duration,
    backoff: Backoff,
}

impl GeoProxyBuilder {
    fn new() -> Self {
        Self {
            regions: Vec::new(),
            default: None,
            probe: None,
            probe_timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }

    /// Adds a region, or replaces the one with that name.
    ///
    /// A name has up to 64 ASCII letters, digits, dots, dashes and underscores, and begins with a
    /// letter or a digit.
    pub fn region(mut self, name: impl Into<String>, region: Region) -> Self {
        let name = name.into();
        self.regions.retain(|(held, _)| *held != name);
        self.regions.push((name, region));
        self
    }

    /// Sets the region of requests that name none. Default: none, so they go through no proxy.
    pub fn default_region(mut self, name: impl Into<String>) -> Self {
        self.default = Some(name.into());
        self
    }

    /// Sets the probe that tests, before the first lease of a new resource, whether its proxy
    /// works. Default: no probe. A probe that fails is a failed creation.
    pub fn probe(mut self, probe: impl ProxyProbe) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }

    /// Sets how long a probe may take. Default: 5 s.
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// Sets how long a proxy is taken out of service when it fails; this doubles with each failure
    /// after it was let back in. Default: 5 s.
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff.first = backoff;
        self
    }

    /// Sets the longest time that a proxy is taken out of service. Default: 5 min.
    pub fn max_backoff(mut self, backoff: Duration) -> Self {
        self.backoff.longest = backoff;
        self
    }

    /// Sets how many failures in a row take a proxy out of service. Default: 1, since a failure is
    /// only reported if the proxy itself is at fault.
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.backoff.threshold = failures;
        self
    }

    /// Checks the regions.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Name`], [`PolicyError::NoProxies`], [`PolicyError::MinAboveMax`],
    /// [`PolicyError::Setting`], or [`PolicyError::Unknown`] for a fallback or default region that
    /// does not exist.
    pub fn build(self) -> Result<GeoProxy, PolicyError> {
        self.validate()?;
        let backoff = self.backoff;
        let states: rustc_hash::FxHashMap<Arc<str>, RegionState> = self
            .regions
            .into_iter()
            .map(|(name, region)| {
                let name: Arc<str> = name.into();
                (name.clone(), RegionState::new(name, region, backoff))
            })
            .collect();
        Ok(GeoProxy {
            inner: Arc::new(Inner {
                announce: Announce::new(states.values().map(RegionState::home)),
                regions: states,
                default: self.default.map(Into::into),
                probe: self.probe,
                probe_timeout: self.probe_timeout,
            }),
        })
    }

    fn validate(&self) -> Result<(), PolicyError> {
        let zero = [
            ("probe_timeout", self.probe_timeout.is_zero()),
            ("backoff", self.backoff.first.is_zero()),
            ("failure_threshold", self.backoff.threshold == 0),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(PolicyError::Setting { setting, why: "must not be zero" });
        }
        if self.backoff.longest < self.backoff.first {
            let why = "must not be shorter than backoff";
            return Err(PolicyError::Setting { setting: "max_backoff", why });
        }
        let is_there = |name: &String| self.regions.iter().any(|(held, _)| held == name);
        for (name, region) in &self.regions {
            check_name(LABEL, name)?;
            if region.proxies.is_empty() {
                return Err(PolicyError::NoProxies { region: name.clone() });
            }
            if let Some(missing) = region.fallback.iter().find(|name| !is_there(name)) {
                return Err(unknown(LABEL, missing));
            }
            match region.max {
                Some(0) => {
                    let setting = "max_size of a region";
                    return Err(PolicyError::Setting { setting, why: "must not be zero" });
                }
                Some(max) if region.min > max => {
                    let (name, min) = (name.clone(), region.min);
                    return Err(PolicyError::MinAboveMax { kind: LABEL, name, min, max });
                }
                _ => {}
            }
        }
        match &self.default {
            Some(default) if !is_there(default) => Err(unknown(LABEL, default)),
            _ => Ok(()),
        }
    }
}

/// Finds out whether a proxy works.
///
/// [`GeoProxy`] calls it from the pool's creating task, for each new resource of a region before
/// its first lease, and gives it the [probe timeout](GeoProxyBuilder::probe_timeout). An error
/// takes the proxy out of service and fails the creation; the next one goes through another proxy.
/// The future may be dropped at any await.
///
/// An async closure is a probe too.
///
/// # Examples
///
/// ```
/// use pool_policies::{GeoProxy, Proxy, ProxyAssignment, Region};
///
/// # fn main() -> Result<(), pool_policies::PolicyError> {
/// let policy = GeoProxy::builder()
///     .region("eu", Region::new().proxy(Proxy::parse("http://eu-1.example:8080")?))
///     .probe(|proxy: ProxyAssignment| async move {
///         match proxy.proxy().host() {
///             "eu-1.example" => Ok(()),
///             other => Err(format!("{other} is not known here").into()),
///         }
///     })
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ProxyProbe: Send + Sync + 'static {
    /// Proves that the proxy works, or returns the reason why it does not.
    ///
    /// # Cancel safety
    ///
    /// The policy drops the future when the probe timeout is up, and the pool drops it when it
    /// drains: anything that was opened must be closed with it.
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError>;
}

#[async_trait]
impl<F, R> ProxyProbe for F
where
    F: Fn(ProxyAssignment) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), BoxError>> + Send,
{
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError> {
        self(proxy.clone()).await
    }
}

impl fmt::Debug for dyn ProxyProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyProbe")
    }
}

/// A probe that opens a TCP connection to the proxy, and closes it.
///
/// It finds proxies that are down or unreachable, but not those that refuse the credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectProbe;

#[async_trait]
impl ProxyProbe for ConnectProbe {
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError> {
        let proxy = proxy.proxy();
        let connected: io::Result<TcpStream> =
            TcpStream::connect((proxy.host(), proxy.port())).await;
        Ok(connected.map(drop)?)
    }
}
