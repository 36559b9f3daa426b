use std::collections::BTreeMap;

use super::Step;
use super::ledger::Ledger;
use crate::{Class, Meta, ResourceId};

/// Description of a [`FakeResource`]: whatever policies wrote into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeSpec {
    /// Anything.
    pub labels: BTreeMap<String, String>,
}

/// The resource of the [`FakeDriver`](super::FakeDriver).
#[derive(Debug)]
pub struct FakeResource {
    id: ResourceId,
    class: Class,
    labels: BTreeMap<String, String>,
    ledger: Ledger,
}

impl FakeResource {
    pub(super) fn new(meta: &Meta, spec: &FakeSpec, ledger: &Ledger) -> Self {
        Self {
            id: meta.id,
            class: meta.class.clone(),
            labels: spec.labels.clone(),
            ledger: ledger.clone(),
        }
    }

    /// Its identity, as the pool gave it.
    #[must_use]
    pub fn id(&self) -> ResourceId {
        self.id
    }

    /// The class that it was made for.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The value of a label that its spec had.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Marks it as being used until the guard is dropped. Use by two at once, or after its close,
    /// is found by [`FakeControl::assert_sound`](super::FakeControl::assert_sound).
    #[must_use = "it is in use as long as the guard lives"]
    pub fn touch(&self) -> Touch<'_> {
        self.ledger.enter(self.id);
        Touch { resource: self }
    }
}

impl Drop for FakeResource {
    fn drop(&mut self) {
        self.ledger.dropped(self.id);
    }
}

/// A [`FakeResource`] in use, from [`FakeResource::touch`].
#[derive(Debug)]
pub struct Touch<'a> {
    resource: &'a FakeResource,
}

impl Drop for Touch<'_> {
    fn drop(&mut self) {
        self.resource.ledger.exit(self.resource.id);
    }
}

/// A failure that a test has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} of resource {id} was told to fail")]
pub struct FakeError {
    /// The call that failed.
    pub step: Step,
    /// The resource that it was about.
    pub id: ResourceId,
}
