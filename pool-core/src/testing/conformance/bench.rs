use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Conformance;
use crate::testing::{Reports, meta, reporter};
use crate::{Driver, Meta, Policy};

/// One driver on the bench, and the resources that the suite makes with it.
pub(super) struct Bench<D: Driver> {
    pub(super) driver: D,
    suite: Arc<Conformance<D>>,
    next_id: u64,
    /// Time a creation has taken.
    pub(super) took: Duration,
}

/// A resource, what the pool would know of it, and what it reported.
pub(super) struct Made<D: Driver> {
    pub(super) resource: D::Resource,
    pub(super) meta: Meta,
    pub(super) reports: Arc<Reports>,
}

impl<D: Driver> Bench<D> {
    pub(super) fn new(suite: Conformance<D>) -> Self {
        let driver = (suite.factory)();
        Self { driver, suite: Arc::new(suite), next_id: 0, took: Duration::ZERO }
    }

    /// Another driver, for a pool, and a policy that writes the suite's spec.
    pub(super) fn another(&self) -> (D, impl Policy<D> + use<D>) {
        ((self.suite.factory)(), Configures(Arc::clone(&self.suite)))
    }

    pub(super) fn spec(&self) -> D::Spec {
        let mut spec = D::Spec::default();
        (self.suite.configure)(&mut spec);
        spec
    }

    pub(super) fn meta(&mut self) -> Meta {
        self.next_id += 1;
        meta(self.next_id)
    }

    pub(super) async fn create(&mut self, rule: &str) -> Made<D> {
        let (meta, spec, began) = (self.meta(), self.spec(), Instant::now());
        let (reporter, reports) = reporter(&meta);
        let created = self.driver.create(&spec, &meta, reporter);
        let resource = self.in_time(rule, "create", created).await;
        let resource = resource.unwrap_or_else(|error| panic!("{rule}: create failed: {error}"));
        self.took = began.elapsed();
        Made { resource, meta, reports }
    }

    pub(super) async fn check(&self, rule: &str, made: &mut Made<D>) {
        let checked = self.driver.check(&mut made.resource, &made.meta);
        let result = self.in_time(rule, "check", checked).await;
        result.unwrap_or_else(|error| panic!("{rule}: check failed: {error}"));
    }

    pub(super) async fn recycle(&self, rule: &str, made: &mut Made<D>) {
        let recycled = self.driver.recycle(&mut made.resource, &made.meta);
        let result = self.in_time(rule, "recycle", recycled).await;
        result.unwrap_or_else(|error| panic!("{rule}: recycle failed: {error}"));
    }

    pub(super) async fn close(&self, rule: &str, made: Made<D>) {
        self.in_time(rule, "close", self.driver.close(made.resource, &made.meta)).await;
    }

    pub(super) async fn revoke(&self, rule: &str, meta: &Meta) {
        self.in_time(rule, "revoke", self.driver.revoke(meta)).await;
    }

    pub(super) async fn in_time<T>(
        &self,
        rule: &str,
        step: &str,
        work: impl Future<Output = T>,
    ) -> T {
        let patience = self.suite.patience;
        let done = timeout(patience, work).await;
        done.unwrap_or_else(|_| panic!("{rule}: {step} took longer than {patience:?}"))
    }

    /// After a rule: nothing is left, and the driver still makes resources that work.
    pub(super) async fn ends_well(&mut self, rule: &str) {
        self.nothing_is_left(rule, &self.driver).await;
        let mut made = self.create(rule).await;
        self.check(rule, &mut made).await;
        self.close(rule, made).await;
        self.nothing_is_left(rule, &self.driver).await;
    }

    pub(super) async fn nothing_is_left(&self, rule: &str, driver: &D) {
        let deadline = Instant::now() + self.suite.patience;
        loop {
            let left = (self.suite.leftovers)(driver);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{rule}: the driver left behind {left:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Writes the suite's spec where a pool makes the resources.
struct Configures<D: Driver>(Arc<Conformance<D>>);

impl<D: Driver> Policy<D> for Configures<D> {
    fn configure(&self, _: &crate::Class, spec: &mut D::Spec) -> Result<(), crate::BoxError> {
        (self.0.configure)(spec);
        Ok(())
    }
}
