//! A scripted driver, and a suite that any driver can be put through.
//!
//! [`FakeDriver`] stands in for the real thing in tests of policies, gateways and the pool itself.
//! Its [`FakeControl`] decides the outcome of each create, check, recycle, close and revoke, and
//! remembers what happened. [`conformance()`] shows that a driver of your own keeps the contract of
//! [`Driver`](crate::Driver).
//!
//! # Examples
//!
//! ```
//! use pool_core::Pool;
//! use pool_core::testing::{Behaviour, FakeDriver, Step, until};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let driver = FakeDriver::new();
//! let control = driver.control();
//! control.set(Step::Create, Behaviour::Hold);
//! let pool = Pool::builder(driver).max_size(1).build()?;
//!
//! let acquire = tokio::spawn({
//!     let pool = pool.clone();
//!     async move { pool.acquire().await }
//! });
//! until("the creation has begun", || control.held(Step::Create) == 1).await;
//! assert_eq!(pool.load().creating, 1);
//!
//! control.release(Step::Create);
//! let lease = acquire.await??;
//! assert_eq!(lease.id(), lease.meta().id);
//! control.assert_sound();
//! # Ok(())
//! # }
//! ```

mod conformance;
mod fake;
mod ledger;

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use conformance::{Conformance, conformance};
pub use fake::{Behaviour, FakeControl, FakeDriver, FakeError, FakeResource, FakeSpec, Touch};
pub use ledger::{Call, Outcome, Step};

use crate::driver::Report;
use crate::{Class, Meta, Reporter, ResourceId};

/// Timeout of [`until`].
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a [`Meta`] as a pool would, to call a driver without a pool.
///
/// # Panics
///
/// If the id is zero.
#[must_use]
pub fn meta(id: u64) -> Meta {
    let id = ResourceId(NonZeroU64::new(id).expect("ids start at 1"));
    Meta { id, class: Class::default(), created_at: Instant::now(), uses: 0 }
}

/// Makes a [`Reporter`] without a pool, and returns what is reported through it.
#[must_use]
pub fn reporter(meta: &Meta) -> (Reporter, Arc<Reports>) {
    let reports = Arc::new(Reports::default());
    let pool = Arc::downgrade(&reports);
    (Reporter::new(pool, meta.id), reports)
}

/// Reports received through a [`reporter`].
#[derive(Debug, Default)]
pub struct Reports(Mutex<Vec<String>>);

impl Reports {
    /// Returns the reasons given so far.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Report for Reports {
    fn broken(self: Arc<Self>, _: ResourceId, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

/// Lets every task of a current-thread runtime run until all of them wait for something. Paused
/// time stands still in the meantime.
///
/// # Cancel safety
///
/// Nothing is changed if it is dropped early.
pub async fn settle() {
    // Each turn runs every task that is ready; a chain of tasks that start each other needs a
    // turn per link, and the pool's chains are shorter than this.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Waits until a condition holds: first without letting time pass, then a millisecond at a time.
///
/// # Panics
///
/// If it does not hold within 30 s.
///
/// # Cancel safety
///
/// Nothing is changed if it is dropped early.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    settle().await;
    let patience = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < patience, "waited {PATIENCE:?} in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}
