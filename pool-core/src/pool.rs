use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::bounded;
use crate::engine::{Acquired, Asked};
use crate::shell::{Shell, set_limits, sleep, unless};
use crate::{
    Acquire, AcquireError, BuildError, Class, CloseReason, Driver, EventStream, Group, Labels,
    Lease, Limits, Load, Meta, Request, ResourceId, ResourceInfo, Stats, WaiterInfo,
};

/// A pool of resources; a handle that is cheap to clone.
///
/// When the last handle is dropped, idle resources are closed at once, and leased ones when they
/// come back. To wait for that, use [`drain`](Self::drain).
///
/// # Examples
///
/// ```
/// use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
/// # struct Numbers;
/// # #[async_trait]
/// # impl Driver for Numbers {
/// #     type Spec = ();
/// #     type Resource = u64;
/// #     type Error = std::io::Error;
/// #     async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<u64, Self::Error> {
/// #         Ok(meta.id.get())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(Numbers).min_size(1).max_size(4).build()?;
/// let lease = pool.acquire().await?;
/// assert_eq!(pool.load().leased, 1);
/// drop(lease);
/// pool.drain(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
pub struct Pool<D: Driver> {
    shell: Arc<Shell<D>>,
}

/// The result of a [`drain`](Pool::drain).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Leases that were still held at the deadline and had to be revoked.
    pub revoked: u64,
    /// Every resource is gone.
    pub complete: bool,
}

impl<D: Driver> Pool<D> {
    pub(crate) fn from_shell(shell: Arc<Shell<D>>) -> Self {
        Self { shell }
    }

    /// Leases a resource of the default class.
    ///
    /// # Errors
    ///
    /// An [`AcquireError`](crate::AcquireError), at the latest when the pool's acquire timeout
    /// has passed.
    ///
    /// # Cancel safety
    ///
    /// See [`Acquire`].
    #[track_caller]
    pub fn acquire(&self) -> Acquire<'_, D> {
        Acquire::new(&self.shell, Request::new(), Location::caller())
    }

    /// Leases a resource that fits a request.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and any [`Rejection`](crate::Rejection) of a policy.
    ///
    /// # Cancel safety
    ///
    /// See [`Acquire`].
    #[track_caller]
    pub fn acquire_with(&self, request: Request) -> Acquire<'_, D> {
        Acquire::new(&self.shell, request, Location::caller())
    }

    /// Leases a resource of the default class if one is idle and needs no check first.
    #[track_caller]
    #[must_use]
    pub fn try_acquire(&self) -> Option<Lease<D>> {
        let asked = Asked {
            class: &Class::default(),
            limits: None,
            handicap: Duration::ZERO,
            group: None,
            labels: &Labels::default(),
            waited: Duration::ZERO,
            creates: false,
            priority: None,
            nowait: true,
            expires_at: None,
            acquired_at: Location::caller(),
        };
        let now = Instant::now();
        match self.shell.apply(|state, fx| state.acquire(&asked, None, now, fx)) {
            Acquired::Granted(grant) => Some(Lease::new(&self.shell, grant, asked.labels)),
            Acquired::Queued(_)
            | Acquired::Refused(_)
            | Acquired::UnknownClass
            | Acquired::NeedsTicket => None,
        }
    }

    /// Asks the policies about a request without acquiring anything, for a caller that also lets it
    /// wait elsewhere.
    ///
    /// Returns its class and the handicap with which it is ranked, see
    /// [`Policy::rank`](crate::Policy::rank). Additions that policies make to the request, such as
    /// its group, are then in `request`.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Rejected`], as an acquire would return it.
    #[track_caller]
    pub fn decide(&self, request: &mut Request) -> Result<(Class, Duration), AcquireError> {
        self.acquire().decide(request).map_err(|error| *error)
    }

    /// Returns the driver.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.shell.driver
    }

    /// Returns the pool's current occupancy.
    #[must_use]
    pub fn load(&self) -> Load {
        self.shell.look(|state| state.load())
    }

    /// Returns load, counters, classes and groups in one consistent snapshot.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let now = Instant::now();
        self.shell.look(|state| state.stats(now))
    }

    /// Returns every resource, oldest first.
    #[must_use]
    pub fn resources(&self) -> Vec<ResourceInfo> {
        self.shell.look(|state| state.resources())
    }

    /// Returns all waiting requests, best first within each group.
    #[must_use]
    pub fn waiters(&self) -> Vec<WaiterInfo> {
        let now = Instant::now();
        self.shell.look(|state| state.waiters(now))
    }

    /// Returns a stream of every transition from now on.
    ///
    /// The events of one lease come in order. Threads that act at the same time report
    /// independently of each other, so a lease may begin in the stream before the previous lease of
    /// its resource has ended there.
    #[must_use]
    pub fn events(&self) -> EventStream {
        EventStream::new(self.shell.subscribe())
    }

    /// Sets the minimum of the default class and the maximum of the whole pool.
    ///
    /// Leased resources are never taken away: a surplus one is closed when it comes back.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if `max` is zero or less than `min`; nothing is changed then.
    pub fn resize(&self, min: usize, max: usize) -> Result<(), BuildError> {
        if max == 0 {
            return Err(BuildError::Zero { setting: "max_size" });
        }
        if min > max {
            return Err(BuildError::MinAboveMax { min, max });
        }
        let now = Instant::now();
        self.shell.apply(|state, fx| state.resize(min, max, now, fx));
        Ok(())
    }

    /// Sets the limits of a class; fields that are `None` stay as they are.
    pub fn set_limits(&self, class: &Class, limits: Limits) {
        set_limits(&self.shell, class, limits);
    }

    /// Changes the limits and the weight of a group from now on. Leases are never taken away. A
    /// group that is not known yet is not created: its first request brings its own numbers.
    pub fn set_group(&self, group: &Arc<Group>) {
        let now = Instant::now();
        self.shell.apply(|state, fx| state.set_group(group, now, fx));
    }

    /// Closes the resources that `unwanted` picks: idle ones at once, others when they come back.
    /// Returns how many.
    pub fn invalidate(&self, mut unwanted: impl FnMut(&Meta) -> bool) -> usize {
        // The predicate is foreign code, so it gets a copy, outside of the lock.
        let metas = self.shell.look(|state| state.metas());
        let ids = metas.into_iter().filter(|meta| unwanted(meta)).map(|meta| meta.id);
        ids.filter(|id| self.doom(*id, CloseReason::Invalidated)).count()
    }

    /// Closes every resource made so far: idle ones at once, others when they come back.
    pub fn invalidate_all(&self) -> usize {
        self.invalidate(|_| true)
    }

    /// Closes one resource: at once if it is idle, otherwise when it comes back. Returns `false` if
    /// there is no resource with that id.
    pub fn retire(&self, id: ResourceId) -> bool {
        self.doom(id, CloseReason::Invalidated)
    }

    /// Closes all idle resources and creates the minimums anew. Returns how many were closed.
    pub fn flush_idle(&self) -> usize {
        let now = Instant::now();
        self.shell.apply(|state, fx| state.flush_idle(now, fx))
    }

    /// Ends the pool: refuses new requests, fails those that wait, closes idle resources, drops
    /// creations, lets leases finish for `grace`, then revokes them.
    ///
    /// Returns when every resource is gone, or when the time allowed for the drivers' revocations
    /// is up.
    ///
    /// # Cancel safety
    ///
    /// The pool goes on draining when the future is dropped; call it again to wait again. A
    /// second call may shorten the grace, never lengthen it.
    pub async fn drain(&self, grace: Duration) -> DrainReport {
        let grace = bounded(grace);
        let revoked_before = self.shell.look(|state| state.stats(Instant::now()).counters.revoked);
        let drained = self.shell.drained.notified();
        tokio::pin!(drained);
        // Registered before the engine is told, so that its answer cannot be missed.
        drained.as_mut().enable();
        self.shell.drain(Some(grace));
        let complete = self.shell.look(|state| state.is_drained()) || {
            let settings = &self.shell.settings;
            // A recycling or a check may have to time out before its resource is closed.
            let longest = grace.max(settings.recycle_timeout).max(settings.check_timeout);
            let patience = longest + settings.close_timeout * 2;
            let late = sleep(Instant::now() + patience, &self.shell.runtime);
            unless(late, drained).await.is_some()
        };
        let revoked = self.shell.look(|state| state.stats(Instant::now()).counters.revoked);
        DrainReport { revoked: revoked - revoked_before, complete }
    }

    /// Ends the pool without grace: leases are revoked at once.
    ///
    /// # Cancel safety
    ///
    /// As [`drain`](Self::drain).
    pub async fn close(&self) -> DrainReport {
        self.drain(Duration::ZERO).await
    }

    fn doom(&self, id: ResourceId, reason: CloseReason) -> bool {
        let now = Instant::now();
        self.shell.apply(|state, fx| state.doom(id, reason, now, fx))
    }
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        self.shell.handles.fetch_add(1, Ordering::Relaxed);
        Self { shell: Arc::clone(&self.shell) }
    }
}

impl<D: Driver> Drop for Pool<D> {
    fn drop(&mut self) {
        if self.shell.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shell.drain(None);
        }
    }
}

impl<D: Driver> std::fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("load", &self.load()).finish_non_exhaustive()
    }
}
