use std::sync::Arc;
use std::time::Duration;

use super::health::Backoff;
use super::{GeoProxy, LABEL, ProxyProbe, Region, RegionState, Shared};
use crate::announce::Announce;
use crate::{PolicyError, name};

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
    pub(super) fn new() -> Self {
        Self {
            regions: Vec::new(),
            default: None,
            probe: None,
            probe_timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }

    /// Adds a region, or replaces the one of that name.
    ///
    /// A name has up to 64 letters, digits, dots, dashes and underscores of ASCII, and begins
    /// with a letter or a digit.
    pub fn region(mut self, name: impl Into<String>, region: Region) -> Self {
        let name = name.into();
        self.regions.retain(|(held, _)| *held != name);
        self.regions.push((name, region));
        self
    }

    /// Sets the region of requests that name none. Default: they go through no proxy.
    pub fn default_region(mut self, name: impl Into<String>) -> Self {
        self.default = Some(name.into());
        self
    }

    /// Sets how a new resource finds out, before its first lease, whether its proxy works.
    /// Default: it does not ask. A probe that fails is a failed creation.
    pub fn probe(mut self, probe: impl ProxyProbe) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }

    /// Sets how long a probe may take. Default: 5 s.
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// Sets how long a proxy is taken out when it fails; this doubles with each failure after it
    /// was let back in. Default: 5 s.
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff.first = backoff;
        self
    }

    /// Sets how long a proxy is taken out at most. Default: 5 min.
    pub fn max_backoff(mut self, backoff: Duration) -> Self {
        self.backoff.longest = backoff;
        self
    }

    /// Sets how many failures in a row take a proxy out. Default: 1, since a failure is reported
    /// only where the proxy itself is at fault.
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
    /// is not there.
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
            shared: Arc::new(Shared {
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
            name::check(LABEL, name)?;
            if region.proxies.is_empty() {
                return Err(PolicyError::NoProxies { region: name.clone() });
            }
            if let Some(missing) = region.fallback.iter().find(|name| !is_there(name)) {
                return Err(PolicyError::unknown(LABEL, missing));
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
            Some(default) if !is_there(default) => Err(PolicyError::unknown(LABEL, default)),
            _ => Ok(()),
        }
    }
}
