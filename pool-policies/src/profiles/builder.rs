use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use super::{Entry, LABEL, OnDemand, Profile, ProfileMode, Profiles, Shared, Store};
use crate::announce::Announce;
use crate::{PolicyError, geo_proxy, name};

/// Names the profiles of a [`Profiles`] policy.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProfilesBuilder {
    root: PathBuf,
    named: Vec<(String, Profile)>,
    on_demand: Option<Profile>,
    on_demand_limit: usize,
    default: Option<String>,
}

impl ProfilesBuilder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, named: Vec::new(), on_demand: None, on_demand_limit: 256, default: None }
    }

    /// Adds a profile, or replaces the one of that name.
    ///
    /// A name has up to 64 letters, digits, dots, dashes and underscores of ASCII, and begins
    /// with a letter or a digit.
    pub fn profile(mut self, name: impl Into<String>, profile: Profile) -> Self {
        let name = name.into();
        self.named.retain(|(held, _)| *held != name);
        self.named.push((name, profile));
        self
    }

    /// Makes a profile like this one for each new name that somebody asks for. Default: such a
    /// request is refused. A minimum of such a profile is kept from its first request on.
    pub fn on_demand(mut self, like: Profile) -> Self {
        self.on_demand = Some(like);
        self
    }

    /// Sets how many profiles are made on demand; more are refused with the code
    /// `too_many_profiles`, since each of them holds memory and a directory. Default: 256.
    pub fn on_demand_limit(mut self, limit: usize) -> Self {
        self.on_demand_limit = limit;
        self
    }

    /// Sets the profile of requests that name none. Default: they get a resource of no profile.
    pub fn default_profile(mut self, name: impl Into<String>) -> Self {
        self.default = Some(name.into());
        self
    }

    /// Checks the profiles, makes the root if it is not there, and removes copies that a process
    /// which is no longer alive has left under it.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Name`], [`PolicyError::MinAboveMax`], [`PolicyError::Setting`],
    /// [`PolicyError::Unknown`] for a default profile that is not there, or
    /// [`PolicyError::Disk`].
    pub fn build(self) -> Result<Profiles, PolicyError> {
        for (name, profile) in &self.named {
            name::check(LABEL, name)?;
            validate(name, profile)?;
        }
        if let Some(like) = &self.on_demand {
            validate("on_demand", like)?;
        }
        if let Some(default) = &self.default
            && self.named.iter().all(|(name, _)| name != default)
        {
            return Err(PolicyError::unknown(LABEL, default));
        }
        let store = Store::open(&self.root)?;
        let any_template = self
            .named
            .iter()
            .map(|(_, profile)| profile)
            .chain(&self.on_demand)
            .any(|profile| profile.mode == ProfileMode::Template);
        let mut named: Vec<(Arc<str>, Entry)> = self
            .named
            .into_iter()
            .map(|(name, profile)| {
                let name: Arc<str> = name.into();
                (name.clone(), Entry::new(name, profile))
            })
            .collect();
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        let shared = Shared {
            store,
            announce: Announce::new(named.iter().map(|(_, entry)| entry.home())),
            named,
            on_demand: self.on_demand.map(|like| OnDemand {
                like,
                limit: self.on_demand_limit,
                made: RwLock::default(),
            }),
            default: self.default.map(Into::into),
            any_template,
        };
        Ok(Profiles { shared: Arc::new(shared) })
    }
}

fn validate(name: &str, profile: &Profile) -> Result<(), PolicyError> {
    if let Some(region) = &profile.region {
        name::check(geo_proxy::LABEL, region)?;
    }
    match profile.limit() {
        Some(0) => {
            Err(PolicyError::Setting { setting: "max_size of a profile", why: "must not be zero" })
        }
        Some(max) if profile.min > max => Err(PolicyError::MinAboveMax {
            kind: LABEL,
            name: name.to_owned(),
            min: profile.min,
            max,
        }),
        _ => Ok(()),
    }
}
