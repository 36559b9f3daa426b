use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Reports, meta, reporter};
use crate::{BoxError, Class, Driver, Lease, Meta, Policy, Pool};

/// Puts a driver through everything that a pool does to one, and panics if the driver breaks the
/// contract of [`Driver`].
///
/// Await the result inside a Tokio runtime; paused time is fine. The `factory` is called at least
/// once and must return a driver that works: the suite is about what a working driver does when its
/// calls are dropped half-way, and when its resources are dropped on a thread without a runtime, or
/// revoked in the hands of their holder.
///
/// # Examples
///
/// ```
/// use pool_core::testing::{FakeDriver, conformance};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// conformance(FakeDriver::new).await;
/// # }
/// ```
pub fn conformance<D: Driver>(factory: impl Fn() -> D + Send + Sync + 'static) -> Conformance<D> {
    Conformance {
        factory: Box::new(factory),
        configure: Box::new(|_| {}),
        leftovers: Box::new(|_| Vec::new()),
        patience: Duration::from_secs(60),
    }
}

/// A run of the suite, from [`conformance`]; await it.
#[must_use = "nothing is tested until it is awaited"]
pub struct Conformance<D: Driver> {
    factory: Box<dyn Fn() -> D + Send + Sync>,
    configure: Configure<D>,
    leftovers: Leftovers<D>,
    patience: Duration,
}

type Configure<D> = Box<dyn Fn(&mut <D as Driver>::Spec) + Send + Sync>;
type Leftovers<D> = Box<dyn Fn(&D) -> Vec<String> + Send + Sync>;

impl<D: Driver> Conformance<D> {
    /// Edits the spec of every resource. Default: the spec's own default.
    pub fn configure(mut self, configure: impl Fn(&mut D::Spec) + Send + Sync + 'static) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Lists what a driver has left behind (processes, directories, sockets) when none of its
    /// resources is alive. The suite waits for an empty list after each rule, and panics if the
    /// list is not empty in time. Default: always empty.
    pub fn leftovers(
        mut self,
        leftovers: impl Fn(&D) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.leftovers = Box::new(leftovers);
        self
    }

    /// Sets the timeout of any one step. Default: 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn run(self) {
        let mut bench = Bench::new(self);
        lifecycle(&mut bench).await;
        cancelled(&mut bench).await;
        revoked(&mut bench).await;
        pooled(&bench).await;
    }
}

impl<D: Driver> IntoFuture for Conformance<D> {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<D: Driver> fmt::Debug for Conformance<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// One driver on the bench, and the resources that the suite makes with it.
struct Bench<D: Driver> {
    driver: D,
    suite: Arc<Conformance<D>>,
    next_id: u64,
    /// Time that a creation took.
    took: Duration,
}

/// A resource, what the pool would know of it, and what it reported.
struct Made<D: Driver> {
    resource: D::Resource,
    meta: Meta,
    reports: Arc<Reports>,
}

impl<D: Driver> Bench<D> {
    fn new(suite: Conformance<D>) -> Self {
        let driver = (suite.factory)();
        Self { driver, suite: Arc::new(suite), next_id: 0, took: Duration::ZERO }
    }

    /// Returns another driver, for a pool, and a policy that applies the suite's changes to the
    /// spec.
    fn another(&self) -> (D, impl Policy<D> + use<D>) {
        ((self.suite.factory)(), Configures(Arc::clone(&self.suite)))
    }

    fn spec(&self) -> D::Spec {
        let mut spec = D::Spec::default();
        (self.suite.configure)(&mut spec);
        spec
    }

    fn meta(&mut self) -> Meta {
        self.next_id += 1;
        meta(self.next_id)
    }

    async fn create(&mut self, rule: &str) -> Made<D> {
        let (meta, spec, began) = (self.meta(), self.spec(), Instant::now());
        let (reporter, reports) = reporter(&meta);
        let created = self.driver.create(&spec, &meta, reporter);
        let resource = self.in_time(rule, "create", created).await;
        let resource = resource.unwrap_or_else(|error| panic!("{rule}: create failed: {error}"));
        self.took = began.elapsed();
        Made { resource, meta, reports }
    }

    async fn check(&self, rule: &str, made: &mut Made<D>) {
        let checked = self.driver.check(&mut made.resource, &made.meta);
        let result = self.in_time(rule, "check", checked).await;
        result.unwrap_or_else(|error| panic!("{rule}: check failed: {error}"));
    }

    async fn recycle(&self, rule: &str, made: &mut Made<D>) {
        let recycled = self.driver.recycle(&mut made.resource, &made.meta);
        let result = self.in_time(rule, "recycle", recycled).await;
        result.unwrap_or_else(|error| panic!("{rule}: recycle failed: {error}"));
    }

    async fn close(&self, rule: &str, made: Made<D>) {
        self.in_time(rule, "close", self.driver.close(made.resource, &made.meta)).await;
    }

    async fn revoke(&self, rule: &str, meta: &Meta) {
        self.in_time(rule, "revoke", self.driver.revoke(meta)).await;
    }

    async fn in_time<T>(&self, rule: &str, step: &str, work: impl Future<Output = T>) -> T {
        let patience = self.suite.patience;
        let done = timeout(patience, work).await;
        done.unwrap_or_else(|_| panic!("{rule}: {step} took longer than {patience:?}"))
    }

    /// Asserts, after a rule, that nothing is left behind and that the driver still makes working
    /// resources.
    async fn ends_well(&mut self, rule: &str) {
        self.nothing_is_left(rule, &self.driver).await;
        let mut made = self.create(rule).await;
        self.check(rule, &mut made).await;
        self.close(rule, made).await;
        self.nothing_is_left(rule, &self.driver).await;
    }

    async fn nothing_is_left(&self, rule: &str, driver: &D) {
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

/// Applies the suite's changes to the spec when a pool makes the resources.
struct Configures<D: Driver>(Arc<Conformance<D>>);

impl<D: Driver> Policy<D> for Configures<D> {
    fn configure(&self, _: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        (self.0.configure)(spec);
        Ok(())
    }
}

async fn lifecycle<D: Driver>(bench: &mut Bench<D>) {
    works_when_new(bench).await;
    works_after_recycling(bench).await;
    lives_beside_others(bench).await;
    cleans_up_when_dropped(bench).await;
}

async fn works_when_new<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a new resource passes its check";
    let mut made = bench.create(RULE).await;
    bench.check(RULE, &mut made).await;
    bench.check(RULE, &mut made).await;
    let reports = made.reports.broken();
    assert!(reports.is_empty(), "{RULE}: it reported {reports:?}");
    bench.close(RULE, made).await;
    bench.ends_well(RULE).await;
}

async fn works_after_recycling<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a recycled resource passes its check, every time";
    let mut made = bench.create(RULE).await;
    for _ in 0..3 {
        bench.recycle(RULE, &mut made).await;
        bench.check(RULE, &mut made).await;
    }
    let reports = made.reports.broken();
    assert!(reports.is_empty(), "{RULE}: it reported {reports:?}");
    bench.close(RULE, made).await;
    bench.ends_well(RULE).await;
}

async fn lives_beside_others<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "the end of one resource does not touch another";
    let first = bench.create(RULE).await;
    let mut second = bench.create(RULE).await;
    bench.close(RULE, first).await;
    bench.check(RULE, &mut second).await;
    let third = bench.create(RULE).await;
    drop(third);
    bench.check(RULE, &mut second).await;
    bench.recycle(RULE, &mut second).await;
    bench.close(RULE, second).await;
    bench.ends_well(RULE).await;
}

async fn cleans_up_when_dropped<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a resource may be dropped without a close, on a thread without a runtime";
    let made = bench.create(RULE).await;
    let resource = made.resource;
    let dropped = std::thread::spawn(move || drop(resource)).join();
    assert!(dropped.is_ok(), "{RULE}: the drop panicked");
    bench.ends_well(RULE).await;
}

async fn cancelled<D: Driver>(bench: &mut Bench<D>) {
    let took = bench.took;
    for part in [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0] {
        drops_create(bench, took.mul_f64(part)).await;
    }
    // A recycling, a check and a close take only a fraction of a creation's time, so they are cut
    // off early.
    for part in [0.0, 0.02, 0.1, 0.3] {
        let after = took.mul_f64(part);
        drops_check(bench, after).await;
        drops_recycle(bench, after).await;
        drops_close(bench, after).await;
    }
}

async fn drops_create<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a creation may be dropped half-way, here after {after:?}");
    let (meta, spec) = (bench.meta(), bench.spec());
    let (reporter, _reports) = reporter(&meta);
    if let Ok(Ok(resource)) = timeout(after, bench.driver.create(&spec, &meta, reporter)).await {
        bench.in_time(&rule, "close", bench.driver.close(resource, &meta)).await;
    }
    bench.ends_well(&rule).await;
}

async fn drops_check<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a check may be dropped half-way, here after {after:?}");
    let mut made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.check(&mut made.resource, &made.meta)).await);
    // The pool closes a resource that it could not check in time.
    bench.close(&rule, made).await;
    bench.ends_well(&rule).await;
}

async fn drops_recycle<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a recycling may be dropped half-way, here after {after:?}");
    let mut made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.recycle(&mut made.resource, &made.meta)).await);
    // The pool closes a resource that it could not recycle in time.
    bench.close(&rule, made).await;
    bench.ends_well(&rule).await;
}

async fn drops_close<D: Driver>(bench: &mut Bench<D>, after: Duration) {
    let rule = format!("a close may be dropped half-way, here after {after:?}");
    let made = bench.create(&rule).await;
    drop(timeout(after, bench.driver.close(made.resource, &made.meta)).await);
    bench.ends_well(&rule).await;
}

async fn revoked<D: Driver>(bench: &mut Bench<D>) {
    revokes_under_its_holder(bench).await;
    revokes_one_alone(bench).await;
    revokes_the_unknown(bench).await;
    drops_revoke(bench).await;
}

async fn revokes_under_its_holder<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revoked resource may be dropped by its holder later, anywhere";
    let made = bench.create(RULE).await;
    bench.revoke(RULE, &made.meta).await;
    let resource = made.resource;
    let dropped = std::thread::spawn(move || drop(resource)).join();
    assert!(dropped.is_ok(), "{RULE}: the drop panicked");
    bench.ends_well(RULE).await;
}

async fn revokes_one_alone<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revocation ends one resource and no other";
    let revoked = bench.create(RULE).await;
    let mut other = bench.create(RULE).await;
    bench.revoke(RULE, &revoked.meta).await;
    bench.check(RULE, &mut other).await;
    drop(revoked);
    bench.check(RULE, &mut other).await;
    bench.close(RULE, other).await;
    bench.ends_well(RULE).await;
}

async fn revokes_the_unknown<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "revoking what is gone, or never was, does nothing";
    let made = bench.create(RULE).await;
    let gone = made.meta.clone();
    bench.close(RULE, made).await;
    bench.revoke(RULE, &gone).await;
    let never = bench.meta();
    bench.revoke(RULE, &never).await;
    bench.ends_well(RULE).await;
}

async fn drops_revoke<D: Driver>(bench: &mut Bench<D>) {
    const RULE: &str = "a revocation may be dropped half-way";
    let made = bench.create(RULE).await;
    drop(timeout(Duration::ZERO, bench.driver.revoke(&made.meta)).await);
    drop(made);
    bench.ends_well(RULE).await;
}

async fn pooled<D: Driver>(bench: &Bench<D>) {
    goes_round(bench).await;
    drains_with_a_holder(bench).await;
}

fn pool<D: Driver>(bench: &Bench<D>) -> Pool<D> {
    let (driver, policy) = bench.another();
    let pool = Pool::builder(driver).policy(policy).max_size(2).build();
    pool.expect("the suite's settings are valid and a runtime is here")
}

async fn lease<D: Driver>(bench: &Bench<D>, pool: &Pool<D>, rule: &str) -> Lease<D> {
    let leased = bench.in_time(rule, "acquire", pool.acquire()).await;
    leased.unwrap_or_else(|error| panic!("{rule}: acquire failed: {error}"))
}

async fn goes_round<D: Driver>(bench: &Bench<D>) {
    const RULE: &str = "in a pool, resources go round, are discarded and made anew";
    let pool = pool(bench);
    for _ in 0..3 {
        let first = lease(bench, &pool, RULE).await;
        let second = lease(bench, &pool, RULE).await;
        drop(first);
        let third = lease(bench, &pool, RULE).await;
        second.discard();
        drop(third);
    }
    let counters = pool.stats().counters;
    let report = bench.in_time(RULE, "drain", pool.drain(Duration::from_secs(30))).await;
    assert!(report.complete, "{RULE}: the drain left resources behind");
    assert_eq!(counters.create_failed, 0, "{RULE}: a creation failed");
    assert_eq!(counters.recycle_failed, 0, "{RULE}: a recycling failed");
    bench.nothing_is_left(RULE, pool.driver()).await;
}

async fn drains_with_a_holder<D: Driver>(bench: &Bench<D>) {
    const RULE: &str = "in a pool, a drain ends what a holder keeps";
    let pool = pool(bench);
    let held = lease(bench, &pool, RULE).await;
    let report = bench.in_time(RULE, "close", pool.close()).await;
    assert!(report.complete, "{RULE}: the drain left resources behind");
    assert_eq!(report.revoked, 1, "{RULE}: the lease was not revoked");
    drop(held);
    bench.nothing_is_left(RULE, pool.driver()).await;
}
