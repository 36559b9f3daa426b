//! An error of a driver is a foreign value: to drop it may call anything, the pool itself
//! included, so the pool drops none under its lock.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use pool_core::testing::settle;
use pool_core::{Class, Driver, Meta, Policy, Pool, Reporter, Request, async_trait};
use tokio::time::sleep;

use crate::support::{MINUTE, SECOND, class};

/// What the driver, its errors and the test share.
#[derive(Default)]
struct Common {
    pool: Mutex<Option<Pool<Failing>>>,
    create_fails: AtomicBool,
    recycle_fails: AtomicBool,
    check_fails: AtomicBool,
    /// For each error, in the order of their ends: whether the pool answered during its drop.
    dropped: Mutex<Vec<bool>>,
}

impl Common {
    fn outcome(self: &Arc<Self>, fails: &AtomicBool) -> Result<(), Curious> {
        if fails.load(Ordering::Relaxed) { Err(Curious(Arc::clone(self))) } else { Ok(()) }
    }

    /// The drops since this was asked last.
    fn take_dropped(&self) -> Vec<bool> {
        std::mem::take(&mut *self.dropped.lock().expect("no test panics with it"))
    }
}

/// An error that asks the pool for its load when it is dropped.
struct Curious(Arc<Common>);

impl Drop for Curious {
    fn drop(&mut self) {
        let pool = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(pool) = pool else { return };
        // On a thread of its own, so that the lock fails the test instead of stopping it.
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(pool.load()));
        let answered = told.recv_timeout(Duration::from_secs(5)).is_ok();
        self.0.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
    }
}

impl fmt::Debug for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Curious")
    }
}

impl fmt::Display for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("curious")
    }
}

impl std::error::Error for Curious {}

struct Failing(Arc<Common>);

#[async_trait]
impl Driver for Failing {
    type Spec = ();
    type Resource = ();
    type Error = Curious;

    async fn create(&self, (): &(), _: &Meta, _: Reporter) -> Result<(), Curious> {
        self.0.outcome(&self.0.create_fails)
    }

    async fn check(&self, (): &mut (), _: &Meta) -> Result<(), Curious> {
        self.0.outcome(&self.0.check_fails)
    }

    async fn recycle(&self, (): &mut (), _: &Meta) -> Result<(), Curious> {
        sleep(SECOND).await;
        self.0.outcome(&self.0.recycle_fails)
    }
}

struct ByLabel;

#[async_trait]
impl Policy<Failing> for ByLabel {
    fn classify(&self, request: &Request, class: &mut Class) {
        if let Some(name) = request.get("class") {
            class.insert("class", name);
        }
    }
}

fn build() -> (Pool<Failing>, Arc<Common>) {
    let common = Arc::new(Common::default());
    let builder = Pool::builder(Failing(Arc::clone(&common)))
        .seed(Some(1))
        .max_size(1)
        .policy(ByLabel)
        .acquire_timeout(Some(10 * SECOND))
        .check_after_idle(Some(Duration::ZERO));
    let pool = builder.build().expect("the test's settings are valid");
    *common.pool.lock().expect("no test panics with it") = Some(pool.clone());
    (pool, common)
}

async fn end(pool: Pool<Failing>, common: &Common) {
    assert!(pool.close().await.complete);
    // The driver holds what holds the pool.
    *common.pool.lock().expect("no test panics with it") = None;
}

#[tokio::test(start_paused = true)]
async fn errors_of_creations_are_dropped_outside_of_the_lock() {
    let (pool, common) = build();
    common.create_fails.store(true, Ordering::Relaxed);
    pool.acquire().await.expect_err("it times out");
    let replaced = common.take_dropped();
    assert!(!replaced.is_empty(), "some were replaced by the next");
    assert!(replaced.iter().all(|answered| *answered), "replaced: {replaced:?}");

    common.create_fails.store(false, Ordering::Relaxed);
    sleep(MINUTE).await;
    drop(pool.acquire().await.expect("it succeeds again"));
    assert_eq!(common.take_dropped(), [true], "the last one, when a creation succeeded");

    common.create_fails.store(true, Ordering::Relaxed);
    pool.acquire_with(class("other")).await.expect_err("it times out");
    drop(common.take_dropped());
    sleep(2 * MINUTE).await;
    assert_eq!(common.take_dropped(), [true], "the last one of a class that is forgotten");
    end(pool, &common).await;
}

#[tokio::test(start_paused = true)]
async fn errors_that_end_a_resource_are_dropped_outside_of_the_lock() {
    let (pool, common) = build();
    common.recycle_fails.store(true, Ordering::Relaxed);
    drop(pool.acquire().await.expect("nothing fails yet"));
    sleep(2 * SECOND).await;
    assert_eq!(common.take_dropped(), [true], "of a recycling");

    drop(pool.acquire().await.expect("a new one"));
    settle().await;
    assert_eq!(pool.invalidate_all(), 1, "while it is recycled");
    sleep(2 * SECOND).await;
    assert_eq!(common.take_dropped(), [true], "of a recycling whose resource had to go anyway");

    common.recycle_fails.store(false, Ordering::Relaxed);
    drop(pool.acquire().await.expect("a new one"));
    sleep(2 * SECOND).await;
    common.check_fails.store(true, Ordering::Relaxed);
    drop(pool.acquire().await.expect("a new one instead of that which failed its check"));
    settle().await;
    assert_eq!(common.take_dropped(), [true], "of a check");
    end(pool, &common).await;
}
