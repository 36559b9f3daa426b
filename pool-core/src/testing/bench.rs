use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::SlotRef;
use crate::shared::Report;
use crate::{Class, Meta, Reporter, ResourceId};

/// Timeout of [`until`].
const PATIENCE: Duration = Duration::from_secs(30);

/// A [`Meta`] as a pool would make it, to call a driver without a pool.
///
/// # Panics
///
/// If the id is zero.
#[must_use]
pub fn meta(id: u64) -> Meta {
    let id = ResourceId(NonZeroU64::new(id).expect("ids start at 1"));
    Meta { id, class: Class::default(), created_at: Instant::now(), uses: 0 }
}

/// A [`Reporter`] without a pool, and what is reported through it.
#[must_use]
pub fn reporter(meta: &Meta) -> (Reporter, Arc<Reports>) {
    let reports = Arc::new(Reports::default());
    let slot = SlotRef { index: 0, id: meta.id };
    let pool = Arc::downgrade(&reports);
    (Reporter::to(pool, slot), reports)
}

/// Reports received through a [`reporter`].
#[derive(Debug, Default)]
pub struct Reports(Mutex<Vec<String>>);

impl Reports {
    /// The reasons given so far.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Report for Reports {
    fn broken(self: Arc<Self>, _: SlotRef, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

/// Lets every task of a current-thread runtime run until all of them wait for something. Paused
/// time stands still meanwhile.
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
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    settle().await;
    let patience = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < patience, "waited {PATIENCE:?} in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}
