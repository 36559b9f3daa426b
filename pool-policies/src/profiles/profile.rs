use std::sync::Arc;

use pool_core::{Class, Limits};

use crate::geo_proxy;
use crate::part::Part;

/// The label of requests, and of classes, that names a profile.
pub(super) const LABEL: &str = "profile";

/// Settings of one profile: the number of its resources, and the contents of their directories.
///
/// # Examples
///
/// ```
/// use pool_policies::{Profile, ProfileMode};
///
/// let profile = Profile::new().min_size(1).max_size(2).region("eu-west");
/// let scratch = Profile::new().mode(ProfileMode::Template).max_size(5).warm(1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    pub(super) warm: Option<usize>,
    pub(super) mode: ProfileMode,
    pub(super) region: Option<String>,
    pub(super) kept_elsewhere: bool,
}

/// State that the next lease of a profile finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum ProfileMode {
    /// Keeps what a browser stores (cookies, storage, cache) over leases and restarts.
    #[default]
    Persistent,
    /// Every lease starts from a copy of the saved state and leaves no trace in it.
    Template,
}

impl Profile {
    /// Creates a persistent profile with one directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the minimum number of resources. Default: 0.
    #[must_use]
    pub fn min_size(mut self, min: usize) -> Self {
        self.min = min;
        self
    }

    /// Sets the maximum number of resources, and with it the number of directories of a persistent
    /// profile. Default: 1 in persistent mode, where each additional directory is a state of its
    /// own that somebody has to log in to; in template mode, only the pool's own maximum.
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

    /// Sets what the directories hold. Default: [`ProfileMode::Persistent`].
    ///
    /// [`ProfileMode::Template`] copies the state that
    /// [`Profiles::save_template`](crate::Profiles::save_template) stored last. If nothing was
    /// stored, it copies the directory that persistent mode left behind, and if there is none, the
    /// copy is empty.
    #[must_use]
    pub fn mode(mut self, mode: ProfileMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the region of requests that name none. Default: no region. It needs a
    /// [`GeoProxy`](crate::GeoProxy) behind this policy.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Leaves the directories to another policy, which hands them to the specs of new resources and
    /// takes them back when their leases end; then no resource is kept for a second lease. Default:
    /// `false`.
    #[must_use]
    pub fn kept_elsewhere(mut self, elsewhere: bool) -> Self {
        self.kept_elsewhere = elsewhere;
        self
    }

    /// Returns `true` if a resource ends with its lease.
    pub(super) fn ends_with_lease(&self) -> bool {
        self.kept_elsewhere || self.mode == ProfileMode::Template
    }

    /// Returns the maximum number of resources.
    pub(super) fn limit(&self) -> Option<usize> {
        self.max.or(match self.mode {
            ProfileMode::Persistent => Some(1),
            ProfileMode::Template => None,
        })
    }

    /// Returns the maximum number of directories in persistent mode.
    pub(super) fn instances(&self) -> usize {
        self.max.unwrap_or(1)
    }
}

/// One existing profile, with everything that the hot path needs prepared.
#[derive(Debug)]
pub(super) struct Entry {
    name: Arc<str>,
    pub(super) profile: Profile,
    pub(super) part: Part,
    /// Label and value that a request gets if it names no region.
    region: Option<(Arc<str>, Arc<str>)>,
    /// The class of a request that names this profile and nothing else.
    home: Class,
}

impl Entry {
    pub(super) fn new(name: Arc<str>, profile: Profile) -> Self {
        let part = Part::new(LABEL, name.clone());
        let mut home = part.alone().clone();
        let region = profile.region.as_deref().map(|region| {
            home.insert(geo_proxy::LABEL, region);
            (geo_proxy::LABEL.into(), region.into())
        });
        Self { name, profile, part, region, home }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn region(&self) -> Option<&(Arc<str>, Arc<str>)> {
        self.region.as_ref()
    }

    /// Returns the class that keeps the minimum, and its limits.
    pub(super) fn home(&self) -> (Class, Limits) {
        (self.home.clone(), self.limits(&self.home))
    }

    /// Returns the limits of a class of this profile.
    ///
    /// Only the home class keeps a minimum: its combinations with regions would ask for the same
    /// directories.
    pub(super) fn limits(&self, class: &Class) -> Limits {
        let max = self.profile.limit();
        if *class == self.home {
            Limits { min: Some(self.profile.min), max, warm: self.profile.warm }
        } else {
            Limits { min: Some(0), max, warm: None }
        }
    }
}
