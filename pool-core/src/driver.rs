use std::error::Error;
use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::{Meta, ResourceId};

/// The async, fallible side of a pool: how a resource is made, checked, cleaned and closed.
///
/// The pool calls a driver from tasks of its own, never from the task that acquires and never
/// under its lock. Each call on one resource has that resource to itself, and each is bounded by
/// a timeout of the [`Config`](crate::Config); a call that runs out of time is dropped at its
/// current await point, and so is a creation when the pool drains. Every method must therefore be
/// **cancel safe** in this sense: dropping its future must leave nothing behind that the drop of
/// the resource does not clean up. A panic in any of them is contained and counts as an error.
/// [`testing::conformance`](https://docs.rs/pool-core/latest/pool_core/testing/fn.conformance.html)
/// puts a driver through all of this.
///
/// # Examples
///
/// ```
/// use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
///
/// struct Connections;
///
/// #[async_trait]
/// impl Driver for Connections {
///     type Spec = ();
///     type Resource = String;
///     type Error = std::io::Error;
///
///     async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<String, Self::Error> {
///         Ok(format!("connection {}", meta.id))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Connections).max_size(2).build()?;
/// let lease = pool.acquire().await?;
/// assert_eq!(*lease, "connection 1");
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Description of a new resource; policies edit it before [`create`](Self::create).
    ///
    /// It is made afresh from `Default` for every creation and describes a class, not a request:
    /// resources of one class must be interchangeable.
    type Spec: Default + Send + Sync + 'static;

    /// The thing that is pooled.
    type Resource: Send + 'static;

    /// Error of a creation, a check or a recycling.
    type Error: Error + Send + Sync + 'static;

    /// Makes a resource, within [`create_timeout`](crate::Config::create_timeout).
    ///
    /// The `reporter` may be kept as long as the resource lives. Through it the driver tells the
    /// pool at once that the resource broke by itself; otherwise that would only show at its next
    /// lease.
    async fn create(
        &self,
        spec: &Self::Spec,
        meta: &Meta,
        reporter: Reporter,
    ) -> Result<Self::Resource, Self::Error>;

    /// Proves that an idle resource still works, within
    /// [`check_timeout`](crate::Config::check_timeout). An error closes it.
    async fn check(&self, resource: &mut Self::Resource, meta: &Meta) -> Result<(), Self::Error> {
        let _ = (resource, meta);
        Ok(())
    }

    /// Returns `true` if a released resource must go through [`recycle`](Self::recycle) first.
    ///
    /// It is called in the drop of the lease, so it must be quick. If it returns `false`, the
    /// release hands the resource to the next waiter without a task in between. Default: `true`.
    fn needs_recycle(&self, resource: &Self::Resource) -> bool {
        let _ = resource;
        true
    }

    /// Makes a used resource as good as new, within
    /// [`recycle_timeout`](crate::Config::recycle_timeout). An error closes it: a resource that
    /// could not be cleaned is never leased again.
    async fn recycle(&self, resource: &mut Self::Resource, meta: &Meta) -> Result<(), Self::Error> {
        let _ = (resource, meta);
        Ok(())
    }

    /// Ends a resource, within [`close_timeout`](crate::Config::close_timeout). It counts towards
    /// `max_size` until this returns.
    async fn close(&self, resource: Self::Resource, meta: &Meta) {
        let _ = meta;
        drop(resource);
    }

    /// Ends a resource that its holder still has: its lease passed the hold limit, or the pool is
    /// draining and its deadline has come.
    ///
    /// The pool cannot take the value out of the holder's hands, so a driver with something behind
    /// the value (a process, a socket) ends that by [`Meta::id`]. When the holder releases the
    /// resource later, its value is just dropped. Default: nothing.
    async fn revoke(&self, meta: &Meta) {
        let _ = meta;
    }
}

/// Lets a driver tell the pool that a resource broke by itself.
///
/// It holds the pool only weakly and does nothing once the resource is gone. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Reporter {
    pool: Weak<dyn Report>,
    id: ResourceId,
}

/// Receives the reports of a [`Reporter`]: a pool, or a test.
pub(crate) trait Report: Send + Sync + std::fmt::Debug {
    fn broken(self: Arc<Self>, id: ResourceId, why: String);
}

impl Reporter {
    pub(crate) fn new(pool: Weak<dyn Report>, id: ResourceId) -> Self {
        Self { pool, id }
    }

    /// Reports the resource as broken: an idle one is closed and replaced at once, a leased one is
    /// closed when it comes back.
    pub fn broken(&self, why: impl Into<String>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.broken(self.id, why.into());
        }
    }
}
