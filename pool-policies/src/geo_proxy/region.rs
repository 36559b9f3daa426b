//! The proxies of a region: which of them are in service, and who uses them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pool_core::{Class, Limits};
use tokio::time::Instant;

use super::LABEL;
use super::proxy::Proxy;
use crate::part::Part;

/// The proxies of one region, and how many resources may use them.
///
/// # Examples
///
/// ```
/// use pool_policies::{Proxy, Region};
///
/// # fn main() -> Result<(), pool_policies::PolicyError> {
/// let region = Region::new()
///     .proxy(Proxy::parse("http://eu-1.example:8080")?)
///     .proxy(Proxy::parse("http://eu-2.example:8080")?)
///     .max_size(5)
///     .fallback("us-east");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Region {
    pub(super) proxies: Vec<Proxy>,
    pub(super) fallback: Vec<String>,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    pub(super) warm: Option<usize>,
}

impl Region {
    /// Creates a region without proxies; it needs at least one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a proxy.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxies.push(proxy);
        self
    }

    /// Adds a fallback region, whose proxies are used when all of this region's are out of service.
    /// Fallbacks are tried in the order in which they were added; their own fallbacks do not count.
    /// Default: none, so the creation fails.
    #[must_use]
    pub fn fallback(mut self, region: impl Into<String>) -> Self {
        self.fallback.push(region.into());
        self
    }

    /// Sets the minimum number of resources. Default: 0.
    #[must_use]
    pub fn min_size(mut self, min: usize) -> Self {
        self.min = min;
        self
    }

    /// Sets the maximum number of resources. Default: only the pool's own maximum.
    #[must_use]
    pub fn max_size(mut self, max: usize) -> Self {
        self.max = Some(max);
        self
    }

    /// Sets how many idle resources are kept ready in addition to those in use. Default: 0, or the
    /// number given to [`Warming::keep`](crate::Warming::keep).
    #[must_use]
    pub fn warm(mut self, warm: usize) -> Self {
        self.warm = Some(warm);
        self
    }
}

/// A configured region at runtime: its limits, its fallbacks and its proxies.
#[derive(Debug)]
pub(super) struct RegionState {
    part: Part,
    home: Limits,
    fallback: Vec<Arc<str>>,
    proxies: Arc<Proxies>,
}

/// State of one proxy at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyStatus {
    /// The region that it belongs to.
    pub region: String,
    /// Its address, without credentials.
    pub proxy: String,
    /// Number of resources that use it.
    pub in_use: usize,
    /// It is fully in service: neither taken out nor on trial.
    pub is_serving: bool,
    /// Time until it may be tried again.
    pub out_for: Option<Duration>,
}

/// The proxies of a region. Assignments keep them alive.
#[derive(Debug)]
pub(super) struct Proxies {
    pub(super) region: Arc<str>,
    pub(super) all: Vec<Proxy>,
    backoff: Backoff,
    /// One state for each proxy in `all`.
    states: Mutex<Vec<ProxyState>>,
}

#[derive(Debug, Default)]
struct ProxyState {
    /// Number of live assignments; each adds itself, and subtracts itself when dropped.
    in_use: usize,
    /// Running number of its last assignment: among equals, proxies take turns.
    turn: u64,
    health: Health,
}

impl RegionState {
    pub(super) fn new(name: Arc<str>, region: Region, backoff: Backoff) -> Self {
        let states = Mutex::new(region.proxies.iter().map(|_| ProxyState::default()).collect());
        let all = region.proxies;
        Self {
            part: Part::new(LABEL, name.clone()),
            home: Limits { min: Some(region.min), max: region.max, warm: region.warm },
            fallback: region.fallback.into_iter().map(Into::into).collect(),
            proxies: Arc::new(Proxies { region: name, all, backoff, states }),
        }
    }

    pub(super) fn region(&self) -> &Arc<str> {
        &self.proxies.region
    }

    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    pub(super) fn fallback(&self) -> &[Arc<str>] {
        &self.fallback
    }

    /// Returns the class that keeps the minimum, and its limits.
    pub(super) fn home(&self) -> (Class, Limits) {
        (self.part.alone().clone(), self.home)
    }

    /// Returns the limits of a class of this region. Only the region itself keeps a minimum; its
    /// combinations with profiles do not.
    pub(super) fn limits(&self, class: &Class) -> Limits {
        if class == self.part.alone() {
            self.home
        } else {
            Limits { min: None, max: self.home.max, warm: None }
        }
    }

    /// Assigns the proxy with the fewest users among those in service; if there is none, returns
    /// the time at which the first of them is let back in.
    pub(super) fn assign(
        &self,
        asked: &Arc<str>,
        now: Instant,
    ) -> Result<ProxyAssignment, Instant> {
        let mut states = self.proxies.states();
        let turn = states.iter().map(|state| state.turn).max().unwrap_or(0) + 1;
        let best = states
            .iter_mut()
            .enumerate()
            .filter(|(_, state)| state.health.out_until(now).is_none())
            .min_by_key(|(_, state)| (state.in_use, state.turn));
        let Some((index, state)) = best else {
            let soonest = states.iter().filter_map(|state| state.health.out_until(now)).min();
            return Err(soonest.unwrap_or(now));
        };
        state.in_use += 1;
        state.turn = turn;
        state.health.assigned(now);
        drop(states);
        Ok(ProxyAssignment::new(self.proxies.clone(), index, asked.clone()))
    }

    pub(super) fn status(&self, now: Instant) -> Vec<ProxyStatus> {
        let status = |(proxy, state): (&Proxy, &ProxyState)| ProxyStatus {
            region: self.proxies.region.to_string(),
            proxy: proxy.to_string(),
            in_use: state.in_use,
            is_serving: state.health.is_serving(),
            out_for: state.health.out_until(now).map(|until| until.saturating_duration_since(now)),
        };
        self.proxies.all.iter().zip(self.proxies.states().iter()).map(status).collect()
    }
}

impl Proxies {
    fn states(&self) -> MutexGuard<'_, Vec<ProxyState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn succeeded(&self, index: usize) {
        if self.states()[index].health.succeeded() {
            let (region, proxy) = (&self.region, &self.all[index]);
            tracing::info!(%region, %proxy, "proxy is back in service");
        }
    }

    pub(super) fn failed(&self, index: usize) {
        let out_for = self.states()[index].health.failed(Instant::now(), &self.backoff);
        if let Some(out_for) = out_for {
            let (region, proxy) = (&self.region, &self.all[index]);
            tracing::warn!(%region, %proxy, ?out_for, "proxy failed and is taken out of service");
        }
    }

    pub(super) fn given_back(&self, index: usize) {
        self.states()[index].in_use -= 1;
    }
}

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

    /// Returns the proxy, with its credentials.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.held.proxies.all[self.held.index]
    }

    /// Returns the region that the proxy belongs to.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.held.proxies.region
    }

    /// Returns the region that was asked for: another one if this proxy stands in for it.
    #[must_use]
    pub fn asked_region(&self) -> &str {
        &self.held.asked
    }

    /// Returns `true` if the proxy stands in for those of the requested region.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.region() != self.asked_region()
    }

    /// Reports that the proxy itself failed: it refused the connection, did not answer, or did not
    /// accept the credentials. It is taken out of service for a while.
    ///
    /// A failure of the site behind it is not a failure of the proxy.
    pub fn report_failure(&self) {
        self.held.proxies.failed(self.held.index);
    }

    /// Reports that the proxy worked. If it was out or on trial, it is back in service.
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

/// Time that a failing proxy stays out of service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// Number of failures in a row that take a proxy out.
    pub(super) threshold: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), longest: Duration::from_secs(5 * 60), threshold: 1 }
    }
}

/// Health of a proxy. It is told the time, so it needs no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Anybody may use it.
    Serving { failures: u32 },
    /// Nobody may use it before `until`; then one may try.
    Out { until: Instant, backoff: Duration },
    /// One resource is trying it. If nothing is heard of that one by `until`, another may try.
    Trial { until: Instant, backoff: Duration },
}

impl Default for Health {
    fn default() -> Self {
        Self::Serving { failures: 0 }
    }
}

impl Health {
    pub(super) fn is_serving(&self) -> bool {
        matches!(self, Self::Serving { .. })
    }

    /// Returns the time until which it must not be used, or `None` if it may be used.
    pub(super) fn out_until(&self, now: Instant) -> Option<Instant> {
        match *self {
            Self::Serving { .. } => None,
            Self::Out { until, .. } | Self::Trial { until, .. } => (now < until).then_some(until),
        }
    }

    /// Notes one more use of it: if it was out of service, that is a trial.
    pub(super) fn assigned(&mut self, now: Instant) {
        if let Self::Out { backoff, .. } | Self::Trial { backoff, .. } = *self {
            *self = Self::Trial { until: now + backoff, backoff };
        }
    }

    /// Notes that it worked. Returns `true` if that let it back in.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_out = !self.is_serving();
        *self = Self::default();
        was_out
    }

    /// Notes that it did not work. If that takes it out of service, returns for how long.
    pub(super) fn failed(&mut self, now: Instant, rules: &Backoff) -> Option<Duration> {
        let backoff = match *self {
            Self::Serving { failures } if failures + 1 < rules.threshold => {
                *self = Self::Serving { failures: failures + 1 };
                return None;
            }
            Self::Serving { .. } => rules.first,
            // Many users of a proxy notice the same failure: only the first of them counts.
            Self::Out { until, .. } if now < until => return None,
            Self::Out { backoff, .. } | Self::Trial { backoff, .. } => {
                backoff.saturating_mul(2).min(rules.longest)
            }
        };
        *self = Self::Out { until: now + backoff, backoff };
        Some(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(threshold: u32) -> Backoff {
        Backoff { first: SECOND, longest: 8 * SECOND, threshold }
    }

    #[test]
    fn the_time_out_doubles_with_each_failed_trial_up_to_the_longest() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut outs = Vec::new();
        for _ in 0..6 {
            let out = health.failed(now, &rules(1)).unwrap();
            outs.push(out.as_secs());
            now += out;
            assert_eq!(health.out_until(now), None);
            health.assigned(now);
        }
        assert_eq!(outs, [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn many_reports_of_one_failure_count_once() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(now, &rules(1)), Some(SECOND));
        for _ in 0..5 {
            assert_eq!(health.failed(now, &rules(1)), None);
        }
        assert_eq!(health.out_until(now), Some(now + SECOND));
    }

    #[test]
    fn one_tries_at_a_time_and_the_next_after_a_while_without_news() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.failed(now, &rules(1));
        now += SECOND;
        health.assigned(now);
        assert!(health.out_until(now).is_some());
        now += SECOND;
        assert!(health.out_until(now).is_none());
    }

    #[test]
    fn success_lets_it_back_in_and_forgets_the_past() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..3 {
            now += health.failed(now, &rules(1)).unwrap();
        }
        assert!(health.succeeded());
        assert!(!health.succeeded());
        assert_eq!(health.failed(now, &rules(1)), Some(SECOND));
    }

    #[test]
    fn below_the_threshold_it_stays_in_and_a_success_starts_the_count_anew() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), None);
        health.succeeded();
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), None);
        assert_eq!(health.failed(now, &rules(3)), Some(SECOND));
    }
}
