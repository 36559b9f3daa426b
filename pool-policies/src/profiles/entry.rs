use std::sync::Arc;

use pool_core::{Class, Limits};

use super::{LABEL, Profile};
use crate::geo_proxy;
use crate::part::Part;

/// One profile that exists, with what the hot path needs made ready.
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

    /// The class that keeps the minimum, and its limits.
    pub(super) fn home(&self) -> (Class, Limits) {
        (self.home.clone(), self.limits(&self.home))
    }

    /// The limits of a class of this profile.
    ///
    /// Only the home class keeps a minimum: its combinations with other regions would ask for the
    /// same directories.
    pub(super) fn limits(&self, class: &Class) -> Limits {
        let max = self.profile.limit();
        if *class == self.home {
            Limits { min: Some(self.profile.min), max, warm: self.profile.warm }
        } else {
            Limits { min: Some(0), max, warm: None }
        }
    }
}
