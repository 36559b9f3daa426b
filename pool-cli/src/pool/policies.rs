//! From the configuration to the policies, each wrapped so that a reload can replace it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pool_core::{
    Adjustment, BoxError, Class, Driver, Event, Group, Limits, Meta, Policy, PoolBuilder,
    Rejection, RejectionKind, Request, Stats, Verdict, async_trait,
};
use pool_policies::{
    DynamicSizing, GeoProxy, PolicyError, Priority, Profile, ProfileSpec, Profiles, Proxy,
    ProxyResource, ProxySpec, Region, Tenant, Tenants, Warm, WarmUp, Warming,
};

use crate::config::{
    Config, FleetConfig, LeaseKind, PriorityConfig, ProfileConfig, RegionConfig, SizingConfig,
    WarmingConfig, lease_kind,
};
use crate::fleet::{TravelSpec, TravellingProfiles};
use crate::metrics::Observer;

/// A driver with which all policies work.
pub(super) trait Steerable:
    Driver<Spec: ProfileSpec + ProxySpec + KindSpec + TravelSpec, Resource: Warm + ProxyResource>
{
}

impl<D> Steerable for D where
    D: Driver<
            Spec: ProfileSpec + ProxySpec + KindSpec + TravelSpec,
            Resource: Warm + ProxyResource,
        >
{
}

/// The policies of a pool, kept so that a reload can change them.
#[derive(Debug)]
pub(super) struct Policies<D: Driver> {
    profiles: ReloadablePolicy<D>,
    travelling: TravellingProfiles,
    regions: ReloadablePolicy<D>,
    tenants: ReloadablePolicy<D>,
    priority: ReloadablePolicy<D>,
    sizing: ReloadablePolicy<D>,
    warming: ReloadablePolicy<D>,
}

/// A policy that decides nothing.
struct Nothing;

impl<D: Driver> Policy<D> for Nothing {
    fn watches(&self) -> bool {
        false
    }
}

impl<D: Steerable> Policies<D> {
    /// Makes the policies, and adds them to a pool, with the observer last.
    pub(super) fn add_to(
        builder: PoolBuilder<D>,
        config: &Config,
        observer: &Observer,
    ) -> Result<(PoolBuilder<D>, Self), PolicyError> {
        let policies = Self {
            // First, since a profile may name its region.
            profiles: ReloadablePolicy::new(profiles(config)?),
            travelling: TravellingProfiles::new(config, observer.metrics()),
            regions: ReloadablePolicy::new(regions(config)?),
            tenants: ReloadablePolicy::new(Nothing),
            priority: ReloadablePolicy::new(priority(&config.priority)?),
            sizing: ReloadablePolicy::new(Nothing),
            warming: ReloadablePolicy::new(Nothing),
        };
        policies.put_tenants(config)?;
        policies.put_sizing(&config.sizing)?;
        policies.put_warming(&config.warming);
        let builder = builder
            // Before the profiles, which add a region that the tenant has not asked for.
            .policy(policies.tenants.clone())
            .policy(policies.profiles.clone())
            .policy(policies.travelling.clone())
            .policy(policies.regions.clone())
            .policy(Kinds::new(config.pool.lease))
            .policy(policies.priority.clone())
            .policy(policies.sizing.clone())
            .policy(policies.warming.clone())
            .policy(observer.clone());
        Ok((builder, policies))
    }

    /// Replaces the policies whose configuration has changed. All new ones are made before the
    /// first is installed, so that a mistake changes nothing.
    pub(super) fn change(&self, old: &Config, new: &Config) -> Result<(), PolicyError> {
        let profiles = profiles(new)?;
        let regions = regions(new)?;
        let priority = priority(&new.priority)?;
        tenants(new)?;
        sizing(&new.sizing)?;
        if old.profiles != new.profiles {
            self.profiles.put(profiles);
            self.travelling.change(new);
        }
        if old.regions != new.regions {
            self.regions.put(regions);
        }
        self.put_tenants(new)?;
        if old.priority != new.priority {
            self.priority.put(priority);
        }
        if old.sizing != new.sizing {
            self.put_sizing(&new.sizing)?;
        }
        if old.warming != new.warming {
            self.put_warming(&new.warming);
        }
        Ok(())
    }

    /// Returns the limits of a class according to the present policies, combined as the pool does:
    /// the first answer for each limit.
    pub(super) fn limits(&self, class: &Class) -> Limits {
        let slots = [&self.profiles, &self.regions, &self.sizing, &self.warming];
        slots.into_iter().filter_map(|slot| slot.limit(class)).fold(
            Limits::default(),
            |first, next| Limits {
                min: first.min.or(next.min),
                max: first.max.or(next.max),
                warm: first.warm.or(next.warm),
            },
        )
    }

    /// Returns the profiles that travel.
    pub(super) fn travelling(&self) -> &TravellingProfiles {
        &self.travelling
    }

    /// Sets the policy for tenants. Without tenants, the label `tenant` is what a client says of
    /// itself, and any is accepted.
    fn put_tenants(&self, config: &Config) -> Result<(), PolicyError> {
        if config.tenants.is_empty() {
            self.tenants.put(Nothing);
        } else {
            self.tenants.put(tenants(config)?);
        }
        Ok(())
    }

    fn put_sizing(&self, config: &SizingConfig) -> Result<(), PolicyError> {
        if config.enabled {
            self.sizing.put(sizing(config)?);
        } else {
            self.sizing.put(Nothing);
        }
        Ok(())
    }

    fn put_warming(&self, config: &WarmingConfig) {
        if config.enabled {
            self.warming.put(warming(config));
        } else {
            self.warming.put(Nothing);
        }
    }
}

fn profiles(config: &Config) -> Result<Profiles, PolicyError> {
    let is_in_fleet = config.fleet.as_ref().is_some_and(FleetConfig::is_on);
    let mut builder = Profiles::builder(config.pool.state_dir.join("profiles"));
    for (name, config) in &config.profiles.named {
        builder = builder.profile(name, profile(config, is_in_fleet));
    }
    if config.profiles.on_demand {
        builder = builder.on_demand(profile(&ProfileConfig::default(), is_in_fleet));
    }
    builder.build()
}

fn profile(config: &ProfileConfig, is_in_fleet: bool) -> Profile {
    // No profile keeps browsers ready in addition to those in use, whatever the anonymous browsers
    // do: each directory is a login of its own.
    let profile = Profile::new()
        .mode(config.mode)
        .min_size(config.min_size)
        .max_size(config.max(is_in_fleet))
        .kept_elsewhere(config.travels(is_in_fleet))
        .warm(0);
    match &config.region {
        Some(region) => profile.region(region),
        None => profile,
    }
}

fn regions(config: &Config) -> Result<GeoProxy, PolicyError> {
    // It has no probe of its own: each new browser probes its proxy, with the credentials.
    let mut builder = GeoProxy::builder();
    for (name, config) in &config.regions {
        builder = builder.region(name, region(config)?);
    }
    builder.build()
}

fn region(config: &RegionConfig) -> Result<Region, PolicyError> {
    let mut region = Region::new().min_size(config.min_size).max_size(config.max_size).warm(0);
    for proxy in &config.proxies {
        let mut parsed = Proxy::parse(&proxy.url)?;
        if let Some(username) = &proxy.username {
            let password = proxy.password.as_ref().map_or("", |password| password.expose());
            parsed = parsed.credentials(username.as_str(), password);
        }
        region = region.proxy(parsed);
    }
    for fallback in &config.fallback {
        region = region.fallback(fallback);
    }
    Ok(region)
}

fn priority(config: &PriorityConfig) -> Result<Priority, PolicyError> {
    Priority::new().step(config.step).default_priority(config.default)
}

fn sizing(config: &SizingConfig) -> Result<DynamicSizing, PolicyError> {
    DynamicSizing::builder()
        .interval(config.interval)
        .samples(config.samples)
        .scale_up_wait(config.scale_up_wait)
        .scale_up_by(config.scale_up_by)
        .scale_down_utilization(config.scale_down_utilization)
        .scale_down_by(config.scale_down_by)
        .build()
}

/// Returns the policy of the tenants of a configuration.
///
/// # Errors
///
/// If a setting makes no sense, which cannot happen with a checked configuration.
pub fn tenants(config: &Config) -> Result<Tenants, PolicyError> {
    let parts = waiting_parts(config);
    let tenants = config.tenants.iter().map(|(name, tenant)| {
        let priority = tenant.priority.default.unwrap_or(config.priority.default);
        let mut built = Tenant::new(name.as_str())
            .share(tenant.share)
            .max_waiting(parts[name.as_str()])
            .default_priority(priority)?
            .highest_priority(tenant.priority.highest)?;
        if let Some(max) = tenant.max_leases {
            built = built.max_leases(max);
        }
        if let Some(profiles) = &tenant.profiles {
            built = built.profiles(profiles);
        }
        if let Some(regions) = &tenant.regions {
            built = built.regions(regions);
        }
        Ok(built)
    });
    Tenants::new(tenants.collect::<Result<Vec<_>, PolicyError>>()?)
}

/// Returns how many clients of each tenant may wait: the configured number, or its part by share of
/// the total, so that nobody fills the queue for the others.
fn waiting_parts(config: &Config) -> BTreeMap<&str, usize> {
    let shares: f64 = config.tenants.values().map(|tenant| tenant.share).sum();
    let part = |share: f64| (config.pool.max_waiting as f64 * share / shares) as usize;
    let parts = config.tenants.iter().map(|(name, tenant)| {
        (name.as_str(), tenant.max_waiting.unwrap_or_else(|| part(tenant.share).max(1)))
    });
    parts.collect()
}

/// Returns the groups of the pool according to a configuration.
pub(super) fn groups(config: &Config) -> Result<Vec<Arc<Group>>, PolicyError> {
    Ok(tenants(config)?.groups().cloned().collect())
}

fn warming(config: &WarmingConfig) -> Warming {
    let [width, height] = config.viewport;
    let mut warm_up = WarmUp::new().viewport(width, height).url(&config.url);
    if let Some(user_agent) = &config.user_agent {
        warm_up = warm_up.user_agent(user_agent);
    }
    if let Some(script) = &config.script {
        warm_up = warm_up.script(script);
    }
    Warming::new(warm_up).keep(config.min_idle)
}

/// A policy that can be replaced while the pool runs.
///
/// A pool keeps the policies that it was built with; this one passes every question on to the
/// policy that is in it at the time. Clones are handles to the same one.
pub(super) struct ReloadablePolicy<D: Driver>(Arc<RwLock<Arc<dyn Policy<D>>>>);

impl<D: Driver> ReloadablePolicy<D> {
    pub(super) fn new(policy: impl Policy<D>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(policy))))
    }

    /// Replaces the present policy. Questions under way are answered by the old one.
    pub(super) fn put(&self, policy: impl Policy<D>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    fn now(&self) -> Arc<dyn Policy<D>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<D: Driver> Clone for ReloadablePolicy<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Driver> fmt::Debug for ReloadablePolicy<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadablePolicy").field(&self.now().name()).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<D: Driver> Policy<D> for ReloadablePolicy<D> {
    fn name(&self) -> &str {
        // The name of the inner policy would have to outlive the next `put`.
        "reloadable"
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        self.now().admit(request)
    }

    fn classify(&self, request: &Request, class: &mut Class) {
        self.now().classify(request, class);
    }

    fn rank(&self, request: &Request) -> Option<Duration> {
        self.now().rank(request)
    }

    fn limit(&self, class: &Class) -> Option<Limits> {
        self.now().limit(class)
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        self.now().configure(class, spec)
    }

    async fn prepare(&self, resource: &mut D::Resource, meta: &Meta) -> Result<(), BoxError> {
        self.now().prepare(resource, meta).await
    }

    fn released(&self, meta: &Meta) -> Verdict {
        self.now().released(meta)
    }

    fn tick(&self, stats: &Stats) -> Vec<Adjustment> {
        self.now().tick(stats)
    }

    fn watches(&self) -> bool {
        self.now().watches()
    }

    fn event(&self, event: &Event) {
        self.now().event(event);
    }
}

/// The label of requests, and of classes, that names the kind of lease.
const LABEL: &str = "lease";

/// A spec that holds the kind of lease that a new browser is for.
pub trait KindSpec {
    /// Sets the kind of lease that the new browser is for.
    fn set_kind(&mut self, kind: LeaseKind);
}

/// Adds a class for each kind of lease, if clients may choose: `?lease=shared`.
///
/// A browser of a profile is always exclusive, whatever is requested.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    default: LeaseKind,
}

impl Kinds {
    /// Creates the policy; requests that name no kind get this one.
    #[must_use]
    pub fn new(default: LeaseKind) -> Self {
        Self { default }
    }
}

#[async_trait]
impl<D> Policy<D> for Kinds
where
    D: Driver,
    D::Spec: KindSpec,
{
    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let Some(word) = request.get(LABEL) else { return Ok(()) };
        if lease_kind(word).is_none() {
            let message = "lease must be exclusive or shared";
            return Err(Rejection::new(RejectionKind::Invalid, "invalid_lease", message));
        }
        Ok(())
    }

    fn classify(&self, request: &Request, class: &mut Class) {
        // The default kind is the default class: it has the minimum, and no name of its own.
        if let Some(word) = request.get(LABEL)
            && lease_kind(word) != Some(self.default)
            && request.get("profile").is_none()
        {
            class.insert(LABEL, word);
        }
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        spec.set_kind(class.get(LABEL).and_then(lease_kind).unwrap_or(self.default));
        Ok(())
    }

    fn watches(&self) -> bool {
        false
    }
}
