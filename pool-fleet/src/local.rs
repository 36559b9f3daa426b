use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pool_core::{AcquireError, Driver, Lease, Pool, RejectionKind, Request};

use crate::engine::Acquire;
use crate::message::{Cannot, ClassLoad, Load, Reason};

/// The pool of one node, in which the fleet places its requests.
///
/// [`pool_core::Pool`] is one. The fleet waits in it for its own clients and for those of other
/// nodes, many at a time, and expects it to serve by age: an [`Acquire`] says how long its client
/// had waited before it came here.
#[async_trait]
pub trait LocalPool: Send + Sync + 'static {
    /// A leased resource. Dropping it gives it back as used.
    type Lease: Send + 'static;

    /// Waits for a resource, for at most [`Acquire::left`].
    ///
    /// It is polled once before the fleet asks elsewhere: if a resource is at hand, that poll must
    /// return it.
    ///
    /// # Errors
    ///
    /// A [`Cannot`] with the reason, in the words that this node's own clients get.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future must leave the queue, and must not lose a resource.
    async fn acquire(&self, asked: &Acquire) -> Result<Self::Lease, Cannot>;

    /// Gives back a resource that nobody has touched: it goes to the next request as it is.
    fn return_untouched(&self, lease: Self::Lease);

    /// Returns `true` if, as far as anyone can tell, a resource is being created for this request,
    /// which is waiting by now. Returns `false` if all resources under way will go to others that
    /// also wait.
    fn is_launching(&self, asked: &Acquire) -> bool;

    /// Returns the present load of the pool. Called several times a second.
    fn load(&self) -> Load;
}

#[async_trait]
impl<D: Driver> LocalPool for Pool<D> {
    type Lease = Lease<D>;

    async fn acquire(&self, asked: &Acquire) -> Result<Lease<D>, Cannot> {
        self.acquire_with(Request::from(asked)).await.map_err(|error| cannot(&error))
    }

    fn return_untouched(&self, lease: Lease<D>) {
        lease.return_untouched();
    }

    fn is_launching(&self, asked: &Acquire) -> bool {
        let class = &*asked.request.class;
        let enough = |load: &pool_core::Load| load.creating > 0 && load.creating >= load.waiting;
        asked.creates
            && self
                .stats()
                .classes
                .iter()
                .any(|held| enough(&held.load) && held.class.to_string() == class)
    }

    fn load(&self) -> Load {
        let stats = self.stats();
        let (total, idle) = (stats.load.total(), stats.load.idle);
        let free = stats.load.max_size.saturating_sub(total);
        let mut classes = BTreeMap::new();
        for held in &stats.classes {
            let load = &held.load;
            // An idle resource of another class can be closed to make room.
            let room = (free + idle - load.idle).min(load.max_size.saturating_sub(load.total()));
            let counted = ClassLoad {
                idle: count(load.idle),
                leased: count(load.leased),
                creating: count(load.creating),
                waiting: count(load.waiting),
                room: if held.failing { 0 } else { count(room) },
            };
            classes.insert(Arc::from(held.class.to_string()), counted);
        }
        Load {
            places: count(stats.load.max_size),
            room: count(free + idle),
            kept: count(stats.classes.iter().map(|class| class.min).sum()),
            memory: None,
            classes,
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The request as [`Pool::acquire_with`] takes it.
impl From<&Acquire> for Request {
    fn from(asked: &Acquire) -> Self {
        let mut request = Self::new().timeout(asked.left).waited(asked.waited);
        for (label, value) in &asked.request.labels {
            request.set(Arc::clone(label), Arc::clone(value));
        }
        request.priority = asked.request.priority;
        if asked.creates { request } else { request.without_creating() }
    }
}

/// Translates an error of the pool into the terms of the fleet.
fn cannot(error: &AcquireError) -> Cannot {
    let (reason, code) = match error {
        AcquireError::Timeout { .. } => (Reason::Timeout, "acquire_timeout"),
        AcquireError::QueueFull { .. } => (Reason::Full, "queue_full"),
        AcquireError::GroupFull { .. } => (Reason::Exhausted, "group_full"),
        AcquireError::GroupQueueFull { .. } => (Reason::Exhausted, "group_queue_full"),
        AcquireError::Unavailable { .. } => (Reason::Unavailable, "unavailable"),
        AcquireError::Rejected(rejection) => {
            let reason = match rejection.kind {
                RejectionKind::Invalid | RejectionKind::Forbidden => Reason::Refused,
                RejectionKind::Unknown => Reason::Unknown,
                RejectionKind::Exhausted => Reason::Exhausted,
                RejectionKind::Unavailable => Reason::Unavailable,
            };
            (reason, rejection.code)
        }
        AcquireError::Closed => (Reason::Draining, "draining"),
        // The enum may grow; a variant that is not known here is not the request's fault.
        other => {
            tracing::warn!(error = %other, "the pool refused for a reason that the fleet does not know");
            (Reason::Unavailable, "unavailable")
        }
    };
    let after = match error {
        AcquireError::Unavailable { retry_after, .. } => Some(*retry_after),
        AcquireError::Rejected(rejection) => rejection.retry_after,
        _ => None,
    };
    let mut cannot = Cannot::new(reason, code, &error.to_string());
    cannot.retry_after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    cannot
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pool_core::testing::FakeDriver;

    use super::*;
    use crate::message::Wanted;

    fn asked(left: Duration) -> Acquire {
        let request = Wanted { class: "default".into(), ..Wanted::default() };
        Acquire { request: Arc::new(request), waited: Duration::ZERO, left, creates: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_says_what_it_has_and_why_not() {
        let pool = Pool::builder(FakeDriver::new()).max_size(2).build().unwrap();
        let empty = LocalPool::load(&pool);
        assert_eq!((empty.places, empty.room), (2, 2));
        let second = Duration::from_secs(1);
        let first = LocalPool::acquire(&pool, &asked(second)).await.unwrap();
        let _second = LocalPool::acquire(&pool, &asked(second)).await.unwrap();
        let default = LocalPool::load(&pool).classes["default"];
        assert_eq!((default.leased, default.room), (2, 0));
        let refused = LocalPool::acquire(&pool, &asked(second)).await.unwrap_err();
        assert_eq!((refused.reason, &*refused.code), (Reason::Timeout, "acquire_timeout"));

        pool.return_untouched(first);
        assert_eq!(LocalPool::load(&pool).classes["default"].idle, 1);
        pool.close().await;
        let refused = LocalPool::acquire(&pool, &asked(second)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ask_that_does_not_create_waits_for_what_there_is() {
        let pool = Pool::builder(FakeDriver::new()).max_size(1).build().unwrap();
        let ask = Acquire { creates: false, ..asked(Duration::from_secs(1)) };
        let refused = LocalPool::acquire(&pool, &ask).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Timeout);
        assert_eq!(pool.stats().counters.created, 0);
    }
}
