use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pool_core::{Class, Limits};
use tokio::time::Instant;

use super::health::{Backoff, Health};
use super::{LABEL, Proxy, ProxyAssignment, Region};
use crate::part::Part;

/// A configured region at work: its limits, its fallback and its proxies.
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
    /// It is fully in service: neither out nor on trial.
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
    /// One for each of `all`.
    slots: Mutex<Vec<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Number of live assignments; each adds itself, and subtracts itself when dropped.
    in_use: usize,
    /// When it was assigned last, as a running number: among equals it is their turn in a circle.
    turn: u64,
    health: Health,
}

impl RegionState {
    pub(super) fn new(name: Arc<str>, region: Region, backoff: Backoff) -> Self {
        let slots = Mutex::new(region.proxies.iter().map(|_| Slot::default()).collect());
        let all = region.proxies;
        Self {
            part: Part::new(LABEL, name.clone()),
            home: Limits { min: Some(region.min), max: region.max, warm: region.warm },
            fallback: region.fallback.into_iter().map(Into::into).collect(),
            proxies: Arc::new(Proxies { region: name, all, backoff, slots }),
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

    /// The class that keeps the minimum, and its limits.
    pub(super) fn home(&self) -> (Class, Limits) {
        (self.part.alone().clone(), self.home)
    }

    /// The limits of a class of this region. Only the region itself keeps a minimum, not each of
    /// its combinations with a profile.
    pub(super) fn limits(&self, class: &Class) -> Limits {
        if class == self.part.alone() {
            self.home
        } else {
            Limits { min: None, max: self.home.max, warm: None }
        }
    }

    /// Assigns the proxy that the fewest use, of those in service; else says when the first of
    /// them is let back in.
    pub(super) fn assign(
        &self,
        asked: &Arc<str>,
        now: Instant,
    ) -> Result<ProxyAssignment, Instant> {
        let mut slots = self.proxies.slots();
        let turn = slots.iter().map(|slot| slot.turn).max().unwrap_or(0) + 1;
        let best = slots
            .iter_mut()
            .enumerate()
            .filter(|(_, slot)| slot.health.out_until(now).is_none())
            .min_by_key(|(_, slot)| (slot.in_use, slot.turn));
        let Some((index, slot)) = best else {
            let soonest = slots.iter().filter_map(|slot| slot.health.out_until(now)).min();
            return Err(soonest.unwrap_or(now));
        };
        slot.in_use += 1;
        slot.turn = turn;
        slot.health.assigned(now);
        drop(slots);
        Ok(ProxyAssignment::new(self.proxies.clone(), index, asked.clone()))
    }

    pub(super) fn status(&self, now: Instant) -> Vec<ProxyStatus> {
        let status = |(proxy, slot): (&Proxy, &Slot)| ProxyStatus {
            region: self.proxies.region.to_string(),
            proxy: proxy.to_string(),
            in_use: slot.in_use,
            is_serving: slot.health.is_serving(),
            out_for: slot.health.out_until(now).map(|until| until.saturating_duration_since(now)),
        };
        self.proxies.all.iter().zip(self.proxies.slots().iter()).map(status).collect()
    }
}

impl Proxies {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn succeeded(&self, index: usize) {
        if self.slots()[index].health.succeeded() {
            let (region, proxy) = (&self.region, &self.all[index]);
            tracing::info!(%region, %proxy, "proxy is back in service");
        }
    }

    pub(super) fn failed(&self, index: usize) {
        let out_for = self.slots()[index].health.failed(Instant::now(), &self.backoff);
        if let Some(out_for) = out_for {
            let (region, proxy) = (&self.region, &self.all[index]);
            tracing::warn!(%region, %proxy, ?out_for, "proxy failed and is taken out");
        }
    }

    pub(super) fn given_back(&self, index: usize) {
        self.slots()[index].in_use -= 1;
    }
}
