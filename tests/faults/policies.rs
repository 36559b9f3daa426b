//! F53: a policy that panics, blocks, or answers nonsense. There is no such policy in the service,
//! so it is put into a pool of fake browsers; `pool-core` has a test for each hook.

use std::time::Duration;

use pool_core::testing::{FakeDriver, FakeResource, FakeSpec};
use pool_core::{
    Adjustment, BoxError, Class, Event, Limits, Meta, Policy, Pool, Rejection, Request, Stats,
    Verdict, async_trait,
};

/// Panics wherever it is asked anything.
struct Panics;

#[async_trait]
impl Policy<FakeDriver> for Panics {
    fn admit(&self, _: &mut Request) -> Result<(), Rejection> {
        panic!("admit")
    }

    fn classify(&self, _: &Request, _: &mut Class) {
        panic!("classify")
    }

    fn rank(&self, _: &Request) -> Option<Duration> {
        panic!("rank")
    }

    fn limit(&self, _: &Class) -> Option<Limits> {
        panic!("limit")
    }

    fn configure(&self, _: &Class, _: &mut FakeSpec) -> Result<(), BoxError> {
        Ok(())
    }

    fn released(&self, _: &Meta) -> Verdict {
        panic!("released")
    }

    fn tick(&self, _: &Stats) -> Vec<Adjustment> {
        panic!("tick")
    }

    fn event(&self, _: &Event) {
        panic!("event")
    }
}

/// Never ends to prepare the first resource.
struct Blocks(std::sync::atomic::AtomicBool);

#[async_trait]
impl Policy<FakeDriver> for Blocks {
    async fn prepare(&self, _: &mut FakeResource, _: &Meta) -> Result<(), BoxError> {
        if !self.0.swap(true, std::sync::atomic::Ordering::AcqRel) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Wants more than there can be.
struct Nonsense;

#[async_trait]
impl Policy<FakeDriver> for Nonsense {
    fn rank(&self, _: &Request) -> Option<Duration> {
        Some(Duration::MAX)
    }

    fn limit(&self, _: &Class) -> Option<Limits> {
        Some(Limits { min: Some(usize::MAX), max: Some(1), warm: Some(7) })
    }
}

/// Leases come and go with this policy as without it.
async fn leases_go_on(policy: impl Policy<FakeDriver>) {
    let driver = FakeDriver::new();
    let control = driver.control();
    let pool = Pool::builder(driver)
        .policy(policy)
        .max_size(2)
        .create_timeout(Duration::from_secs(5))
        .build()
        .expect("the sizes are right");
    for _ in 0..20 {
        let lease = pool.acquire().await.expect("the default is taken");
        drop(lease);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(pool.load().leased, 0);
    pool.close().await;
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn f53_policy_panics() {
    leases_go_on(Panics).await;
}

#[tokio::test(start_paused = true)]
async fn f53_policy_blocks() {
    leases_go_on(Blocks(false.into())).await;
}

#[tokio::test(start_paused = true)]
async fn f53_policy_answers_nonsense() {
    leases_go_on(Nonsense).await;
}
