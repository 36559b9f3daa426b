use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pool_core::testing::{Behaviour, FakeDriver, FakeError, FakeResource, FakeSpec, Step, settle};
use pool_core::{Aborted, AcquireError, Driver, Meta, Pool, Reporter, async_trait};
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_creation_is_a_failed_creation() {
    let (pool, control) =
        build(|builder| builder.max_size(1).breaker_threshold(1).acquire_timeout(Some(5 * SECOND)));
    control.set(Step::Create, Behaviour::Panic);
    let error = pool.acquire().await.expect_err("the driver panics");
    let AcquireError::Unavailable { last, .. } = error else { panic!("{error}") };
    assert!(last.get().downcast_ref::<Aborted>().is_some());
    assert_eq!(pool.load().total(), 0);
    control.set(Step::Create, Behaviour::Pass);
    sleep(17 * SECOND).await;
    drop(lease(&pool).await);
    settle().await;
    ends_clean(pool, control).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_step_frees_the_place_and_closes_what_is_left() {
    for step in [Step::Check, Step::Recycle, Step::Close] {
        let (pool, control) = build(|builder| {
            builder.max_size(1).check_after_idle(Some(SECOND)).health_check_interval(None)
        });
        drop(lease(&pool).await);
        settle().await;
        sleep(2 * SECOND).await;
        control.next(step, Behaviour::Panic);
        let held = lease(&pool).await;
        if step == Step::Close {
            held.discard();
        } else {
            drop(held);
        }
        settle().await;
        let next = lease(&pool).await;
        assert_eq!(next.id().get(), 2, "{step}: the first is gone");
        assert_eq!(control.peak(), 1, "{step}");
        drop(next);
        settle().await;
        ends_clean(pool, control).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_revocation_frees_the_place() {
    let (pool, control) = build(|builder| builder.max_size(1).hold_limit(Some(SECOND)));
    control.next(Step::Revoke, Behaviour::Panic);
    let held = lease(&pool).await;
    sleep(2 * SECOND).await;
    assert_eq!(pool.load().total(), 0);
    drop(held);
    drop(lease(&pool).await);
    settle().await;
    ends_clean(pool, control).await;
}

/// A fake whose `needs_recycle` and `Spec` panic when told to.
struct Touchy {
    fake: FakeDriver,
    panics: Arc<AtomicBool>,
}

#[async_trait]
impl Driver for Touchy {
    type Spec = FakeSpec;
    type Resource = FakeResource;
    type Error = FakeError;

    async fn create(
        &self,
        spec: &FakeSpec,
        meta: &Meta,
        reporter: Reporter,
    ) -> Result<FakeResource, FakeError> {
        self.fake.create(spec, meta, reporter).await
    }

    fn needs_recycle(&self, _: &FakeResource) -> bool {
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        false
    }

    async fn close(&self, resource: FakeResource, meta: &Meta) {
        self.fake.close(resource, meta).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_needs_recycle_discards_the_resource_and_does_not_reach_the_holder() {
    let (fake, panics) = (FakeDriver::new(), Arc::new(AtomicBool::new(true)));
    let control = fake.control();
    let driver = Touchy { fake, panics: Arc::clone(&panics) };
    let pool = Pool::builder(driver).max_size(1).build().expect("valid");
    drop(pool.acquire().await.expect("it is free"));
    settle().await;
    assert_eq!(pool.load().total(), 0, "nobody knows whether it was clean");
    assert_eq!(control.begun(Step::Close), 1);
    panics.store(false, Ordering::Relaxed);
    let held = pool.acquire().await.expect("the place is free");
    assert_eq!(held.id().get(), 2);
    drop(held);
    assert!(pool.drain(SECOND).await.complete);
    control.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_panics_gives_its_lease_back() {
    let (pool, control) = pool_of(1);
    let holder = tokio::spawn({
        let pool = pool.clone();
        async move {
            let _held = pool.acquire().await.expect("it is free");
            panic!("the job failed");
        }
    });
    assert!(holder.await.is_err());
    drop(lease(&pool).await);
    settle().await;
    ends_clean(pool, control).await;
}
