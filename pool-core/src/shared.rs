use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::engine::{Effects, SlotRef, State};
use crate::stack::Stack;
use crate::{BoxError, CloseReason, Driver, Event, SharedError, jobs};

/// State shared by all handles, leases and tasks of one pool.
///
/// The engine sits behind the one mutex. Everything else happens outside of it, in
/// [`apply`](Self::apply).
pub(crate) struct Shared<D: Driver> {
    state: Mutex<State<D::Resource>>,
    pub(crate) driver: D,
    pub(crate) policies: Stack<D>,
    pub(crate) settings: Settings,
    pub(crate) runtime: Handle,
    /// Rings when the engine's next deadline came nearer.
    pub(crate) alarm: Arc<Notify>,
    /// Rings when the pool begins to drain.
    ending: Notify,
    /// Rings when the last resource of a draining pool is gone.
    pub(crate) drained: Notify,
    events: broadcast::Sender<Event>,
    /// Someone has asked for the event stream.
    subscribed: AtomicBool,
    /// The last request had to wait, so the next one probably will.
    crowded: AtomicBool,
    /// Number of `Pool` handles; the last one ends the pool.
    pub(crate) handles: AtomicUsize,
}

/// The settings that the shell needs outside of the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) acquire_timeout: Option<Duration>,
    pub(crate) create_timeout: Duration,
    pub(crate) recycle_timeout: Duration,
    pub(crate) check_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) tick_interval: Duration,
    /// The configuration requires the time at which each lease begins.
    pub(crate) needs_clock: bool,
}

impl<D: Driver> Shared<D> {
    pub(crate) fn new(
        state: State<D::Resource>,
        driver: D,
        policies: Stack<D>,
        settings: Settings,
        runtime: Handle,
        event_capacity: usize,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            driver,
            policies,
            settings,
            runtime,
            alarm: Arc::new(Notify::new()),
            ending: Notify::new(),
            drained: Notify::new(),
            events: broadcast::Sender::new(event_capacity),
            subscribed: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
        }
    }

    /// Locks, calls one method of the engine, unlocks, and only then acts on what it said.
    pub(crate) fn apply<T>(
        self: &Arc<Self>,
        method: impl FnOnce(&mut State<D::Resource>, &mut Effects<D::Resource>) -> T,
    ) -> T {
        let mut fx = Effects::default();
        let (out, rearm) = {
            let mut state = self.lock();
            let out = method(&mut state, &mut fx);
            state.debug_check();
            (out, state.take_rearm())
        };
        if rearm {
            self.alarm.notify_one();
        }
        if fx.is_small() {
            let (waker, spent) = (fx.wake.take_first(), fx.spent.take());
            // Nothing else in it owns anything, so it need not be taken apart.
            std::mem::forget(fx);
            if let Some(waker) = waker {
                waker.wake();
            }
            drop(spent);
        } else {
            self.run(fx);
        }
        out
    }

    /// As [`apply`](Self::apply), for the methods that have no effects.
    #[inline]
    pub(crate) fn apply_quietly<T>(&self, method: impl FnOnce(&mut State<D::Resource>) -> T) -> T {
        let (out, rearm) = {
            let mut state = self.lock();
            let out = method(&mut state);
            state.debug_check();
            (out, state.take_rearm())
        };
        if rearm {
            self.alarm.notify_one();
        }
        out
    }

    /// Begins to drain; without a grace, leases are left in peace.
    pub(crate) fn drain(self: &Arc<Self>, grace: Option<Duration>) {
        let now = Instant::now();
        self.apply(|state, fx| state.drain(grace, now, fx));
        self.ending.notify_waiters();
    }

    /// Waits until the pool begins to drain.
    pub(crate) async fn ending(&self) {
        let mut ending = pin!(self.ending.notified());
        // Registered before the engine is asked, so that its change cannot be missed.
        ending.as_mut().enable();
        if !self.look(State::is_draining) {
            ending.await;
        }
    }

    /// Looks at the engine without changing it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State<D::Resource>) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State<D::Resource>> {
        // No user code runs under the lock, so a poisoned one means a bug of the engine that has
        // been reported by its panic; going on is better than failing every later call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn run(self: &Arc<Self>, mut fx: Effects<D::Resource>) {
        // Told before anyone wakes, or a lease could be told of before the creation it is of.
        for event in fx.events {
            self.tell(event);
        }
        for waker in fx.wake.drain() {
            waker.wake();
        }
        for job in fx.jobs {
            jobs::spawn(self, job);
        }
        if fx.drained {
            self.drained.notify_waiters();
        }
        drop((fx.drop, fx.spent));
    }

    /// Shows an event to the policies and to everyone who reads the stream.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) {
        if self.policies.watch() && !matches!(event, Event::PolicyPanicked { .. }) {
            self.policies.event(&event, &|panic| self.report(panic));
        }
        self.publish(event);
    }

    fn publish(&self, event: Event) {
        if self.subscribed.load(Ordering::Relaxed) {
            // An error only says that nobody listens any more.
            drop(self.events.send(event));
        }
    }

    /// The event stream from now on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> broadcast::Receiver<Event> {
        let receiver = self.events.subscribe();
        self.subscribed.store(true, Ordering::Relaxed);
        self.apply(|state, _| state.observe());
        receiver
    }

    /// Returns `true` if the time at which a lease begins is required.
    pub(crate) fn needs_clock(&self) -> bool {
        self.settings.needs_clock || self.is_observed()
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_crowded(&self, crowded: bool) {
        if self.is_crowded() != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    /// Returns `true` if anyone would see an event.
    pub(crate) fn is_observed(&self) -> bool {
        self.policies.watch() || self.subscribed.load(Ordering::Relaxed)
    }

    /// Counts the panic of a policy and tells of it.
    #[cold]
    pub(crate) fn report(self: &Arc<Self>, panic: Event) {
        self.apply(|state, _| state.count_policy_panic());
        tracing::error!(event = ?panic, "a policy panicked; its default was used");
        self.publish(panic);
    }
}

impl<D: Driver> std::fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("handles", &self.handles.load(Ordering::Relaxed)).finish()
    }
}

impl<D: Driver> Drop for Shared<D> {
    fn drop(&mut self) {
        // The upkeep task sleeps on it and ends when it finds the pool gone.
        self.alarm.notify_one();
    }
}

/// Lets a driver tell the pool that a resource broke by itself.
///
/// It holds the pool only weakly and does nothing once the resource is gone. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Reporter {
    pool: Weak<dyn Report>,
    slot: SlotRef,
}

pub(crate) trait Report: Send + Sync + std::fmt::Debug {
    fn broken(self: Arc<Self>, slot: SlotRef, why: String);
}

impl<D: Driver> Report for Shared<D> {
    fn broken(self: Arc<Self>, slot: SlotRef, why: String) {
        let now = Instant::now();
        self.apply(|state, fx| state.doom(slot.id, CloseReason::Broken(why), now, fx));
    }
}

impl Reporter {
    pub(crate) fn new<D: Driver>(shared: &Arc<Shared<D>>, slot: SlotRef) -> Self {
        let pool: Weak<Shared<D>> = Arc::downgrade(shared);
        Self { pool, slot }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn to(pool: Weak<dyn Report>, slot: SlotRef) -> Self {
        Self { pool, slot }
    }

    /// The resource is broken: an idle one is closed and replaced at once, a leased one is closed
    /// when it comes back.
    pub fn broken(&self, why: impl Into<String>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.broken(self.slot, why.into());
        }
    }
}

pub(crate) fn shared_error(error: impl Into<BoxError>) -> SharedError {
    SharedError::from(error.into())
}
