use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pool_core::{
    Adjustment, BoxError, Class, Driver, Event, Limits, Meta, Policy, Rejection, Request, Stats,
    Verdict, async_trait,
};

/// A policy whose place another one can take while the pool runs.
///
/// A pool keeps the policies that it was built with; this one passes every question on to the one
/// that is in it now. Clones are handles to the same place.
pub(super) struct Slot<D: Driver>(Arc<RwLock<Arc<dyn Policy<D>>>>);

impl<D: Driver> Slot<D> {
    pub(super) fn new(policy: impl Policy<D>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(policy))))
    }

    /// Puts another policy in the place of the one that is there. Questions under way are answered
    /// by the old one.
    pub(super) fn put(&self, policy: impl Policy<D>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    fn now(&self) -> Arc<dyn Policy<D>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<D: Driver> Clone for Slot<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Driver> fmt::Debug for Slot<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.now().name()).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<D: Driver> Policy<D> for Slot<D> {
    fn name(&self) -> &str {
        // The name of what is in it would have to outlive the next `put`.
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
