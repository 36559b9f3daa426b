use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use crate::driver::Report;
use crate::engine::{Effects, Job, Pooled, SlotRef, State};
use crate::error::shared_error;
use crate::policy::{Contained, Policies};
use crate::{
    Aborted, Adjustment, BoxError, Class, CloseReason, Driver, Event, Limits, Meta, Reporter,
    ResourceId, SharedError, TimedOut,
};

/// The async shell around the engine, shared by all handles, leases and tasks of one pool.
///
/// The engine sits behind the one mutex. Everything else happens outside of it, in
/// [`apply`](Self::apply).
pub(crate) struct Shell<D: Driver> {
    state: Mutex<State<D::Resource>>,
    pub(crate) driver: D,
    pub(crate) policies: Policies<D>,
    pub(crate) settings: Settings,
    pub(crate) runtime: Handle,
    /// Notified when the engine's next deadline has come nearer.
    pub(crate) alarm: Arc<Notify>,
    /// Notified when the pool begins to drain.
    ending: Notify,
    /// Notified when the last resource of a draining pool is gone.
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
    /// The configuration needs the time at which each lease begins.
    pub(crate) needs_clock: bool,
}

impl<D: Driver> Shell<D> {
    pub(crate) fn new(
        state: State<D::Resource>,
        driver: D,
        policies: Policies<D>,
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

    /// Locks, calls one method of the engine, unlocks, and only then acts on its effects.
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
            // Nothing else in it owns anything, so it need not be dropped.
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

    /// Does the same as [`apply`](Self::apply), for methods without effects.
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

    /// Begins to drain; without a grace, leases are left alone.
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
        // No user code runs under the lock, so a poisoned one means a bug in the engine, which its
        // panic has already reported; going on is better than failing every later call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn run(self: &Arc<Self>, mut fx: Effects<D::Resource>) {
        // Published before anyone wakes, or `Leased` could come before the `Created` of its
        // resource.
        for event in fx.events {
            self.tell(event);
        }
        for waker in fx.wake.drain() {
            waker.wake();
        }
        for job in fx.jobs {
            spawn(self, job);
        }
        if fx.drained {
            self.drained.notify_waiters();
        }
        drop((fx.drop, fx.spent));
    }

    /// Passes an event to the policies and to everyone who reads the stream.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) {
        if self.policies.watch() && !matches!(event, Event::PolicyPanicked { .. }) {
            self.policies.event(&event, &|panic| self.report(panic));
        }
        self.publish(event);
    }

    fn publish(&self, event: Event) {
        if self.subscribed.load(Ordering::Relaxed) {
            // An error only means that nobody listens any more.
            drop(self.events.send(event));
        }
    }

    /// Returns the event stream from now on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> broadcast::Receiver<Event> {
        let receiver = self.events.subscribe();
        self.subscribed.store(true, Ordering::Relaxed);
        self.apply(|state, _| state.observe());
        receiver
    }

    /// Returns `true` if the time at which a lease begins is needed.
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

    /// Counts a policy's panic and reports it.
    #[cold]
    pub(crate) fn report(self: &Arc<Self>, panic: Event) {
        self.apply(|state, _| state.count_policy_panic());
        tracing::error!(event = ?panic, "a policy panicked; its default was used");
        self.publish(panic);
    }
}

impl<D: Driver> std::fmt::Debug for Shell<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").field("handles", &self.handles.load(Ordering::Relaxed)).finish()
    }
}

impl<D: Driver> Drop for Shell<D> {
    fn drop(&mut self) {
        // The upkeep task sleeps on the alarm, and ends when it finds the pool gone.
        self.alarm.notify_one();
    }
}

impl<D: Driver> Report for Shell<D> {
    fn broken(self: Arc<Self>, id: ResourceId, why: String) {
        let now = Instant::now();
        self.apply(|state, fx| state.doom(id, CloseReason::Broken(why), now, fx));
    }
}

/// Starts a job. Its slot is accounted for, whatever happens to the task.
pub(crate) fn spawn<D: Driver>(shell: &Arc<Shell<D>>, job: Job<D::Resource>) {
    match job {
        Job::Create { slot, meta } => {
            let guard = JobGuard::new(shell, slot);
            shell.runtime.spawn(async move { create(guard, meta).await });
        }
        Job::Recycle(mut pooled) => {
            let guard = JobGuard::new(shell, pooled.slot);
            shell.runtime.spawn(async move {
                let driver = &guard.shell.driver;
                let limit = guard.shell.settings.recycle_timeout;
                let Pooled { resource, meta, .. } = &mut *pooled;
                let result = bounded("recycle", limit, driver.recycle(resource, meta)).await;
                guard.done(|state, _, now, fx| state.recycled(pooled, result, now, fx));
            });
        }
        Job::Check(mut pooled) => {
            let guard = JobGuard::new(shell, pooled.slot);
            shell.runtime.spawn(async move {
                let driver = &guard.shell.driver;
                let limit = guard.shell.settings.check_timeout;
                let Pooled { resource, meta, .. } = &mut *pooled;
                let result = bounded("check", limit, driver.check(resource, meta)).await;
                guard.done(|state, _, now, fx| state.checked(pooled, result, now, fx));
            });
        }
        Job::Close(pooled, reason) => {
            let Pooled { slot, meta, resource, .. } = *pooled;
            let guard = JobGuard::new(shell, slot);
            shell.runtime.spawn(async move {
                tracing::debug!(id = %meta.id, class = %meta.class, reason = reason.code(), "closing");
                close(&guard.shell, resource, &meta).await;
                guard.done(State::closed);
            });
        }
        Job::Revoke { slot, meta } => {
            let guard = JobGuard::new(shell, slot);
            shell.runtime.spawn(async move {
                let limit = guard.shell.settings.close_timeout;
                if timeout(limit, guard.shell.driver.revoke(&meta)).await.is_err() {
                    tracing::warn!(id = %meta.id, ?limit, "revoking took too long");
                }
                guard.done(State::closed);
            });
        }
    }
}

async fn create<D: Driver>(guard: JobGuard<D>, meta: Meta) {
    let shell = &guard.shell;
    let limit = shell.settings.create_timeout;
    // Kept out here, so that the resource is closed if its preparation fails or takes too long.
    let mut made = None;
    let work = timeout(limit, make(shell, &meta, &mut made));
    let result = match unless(shell.ending(), work).await {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(shared_error(TimedOut { step: "create", limit })),
        // Nobody can lease it any more.
        None => Err(shared_error(Aborted)),
    };
    match (result, made) {
        (Ok(()), Some(resource)) => {
            guard.done(|state, slot, now, fx| state.created(slot, resource, now, fx));
        }
        (result, made) => {
            if let Some(resource) = made {
                close(shell, resource, &meta).await;
            }
            let error = result.err().unwrap_or_else(|| shared_error(Aborted));
            guard.done(|state, slot, now, fx| state.create_failed(slot, error, now, fx));
        }
    }
}

async fn make<D: Driver>(
    shell: &Arc<Shell<D>>,
    meta: &Meta,
    made: &mut Option<D::Resource>,
) -> Result<(), SharedError> {
    let mut spec = D::Spec::default();
    let report = |panic| shell.report(panic);
    shell.policies.configure(&meta.class, &mut spec, &report).map_err(SharedError::from)?;
    let pool: Weak<Shell<D>> = Arc::downgrade(shell);
    let reporter = Reporter::new(pool, meta.id);
    let resource = shell.driver.create(&spec, meta, reporter).await.map_err(shared_error)?;
    let prepared = shell.policies.prepare(made.insert(resource), meta, &report).await;
    prepared.map_err(SharedError::from)
}

async fn close<D: Driver>(shell: &Shell<D>, resource: D::Resource, meta: &Meta) {
    let limit = shell.settings.close_timeout;
    if timeout(limit, shell.driver.close(resource, meta)).await.is_err() {
        tracing::warn!(id = %meta.id, ?limit, "closing took too long and was given up");
    }
}

async fn bounded<E: Into<BoxError>>(
    step: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<(), E>> + Send,
) -> Result<(), SharedError> {
    match timeout(limit, Contained::new(work)).await {
        Ok(Ok(result)) => result.map_err(shared_error),
        // The resource has survived the panic and is closed as it should be.
        Ok(Err(_)) => Err(shared_error(Aborted)),
        Err(_) => Err(shared_error(TimedOut { step, limit })),
    }
}

/// A job's claim on its slot. If it is dropped before [`done`](Self::done), because the driver
/// panicked or the runtime is gone, the slot is given up, so capacity always comes back.
struct JobGuard<D: Driver> {
    shell: Arc<Shell<D>>,
    slot: SlotRef,
    open: bool,
}

impl<D: Driver> JobGuard<D> {
    fn new(shell: &Arc<Shell<D>>, slot: SlotRef) -> Self {
        Self { shell: Arc::clone(shell), slot, open: true }
    }

    fn done(
        mut self,
        report: impl FnOnce(&mut State<D::Resource>, SlotRef, Instant, &mut Effects<D::Resource>),
    ) {
        self.open = false;
        let (slot, now) = (self.slot, Instant::now());
        self.shell.apply(|state, fx| report(state, slot, now, fx));
    }
}

impl<D: Driver> Drop for JobGuard<D> {
    fn drop(&mut self) {
        if self.open {
            let (slot, now) = (self.slot, Instant::now());
            self.shell.apply(|state, fx| state.lost(slot, shared_error(Aborted), now, fx));
        }
    }
}

/// Sleeps until the engine's next deadline and calls the policies' `tick`, in turns; this is the
/// pool's one standing task. It holds the pool weakly and ends with it, and the pool ends with the
/// task.
pub(crate) async fn upkeep<D: Driver>(pool: Standing<D>) {
    let mut next_tick = None;
    loop {
        let Some(shell) = pool.0.upgrade() else { return };
        let now = Instant::now();
        let mut wake_at = shell.apply(|state, fx| state.tick(now, fx));
        if !shell.policies.is_empty() {
            let mut at = next_tick.unwrap_or(now);
            if at <= now {
                tick(&shell);
                at = now + shell.settings.tick_interval;
            }
            next_tick = Some(at);
            wake_at = Some(wake_at.map_or(at, |deadline| deadline.min(at)));
        }
        // Only the alarm is held while asleep, or the pool would never end.
        let alarm = Arc::clone(&shell.alarm);
        drop(shell);
        match wake_at {
            Some(at) => drop(timeout_at(at, alarm.notified()).await),
            None => alarm.notified().await,
        }
    }
}

/// The standing task's hold on its pool. When the task is dropped because its runtime shuts down,
/// nothing can be made, closed or timed out any more, so requests must fail rather than wait for
/// ever.
pub(crate) struct Standing<D: Driver>(Weak<Shell<D>>);

impl<D: Driver> Standing<D> {
    pub(crate) fn new(shell: &Arc<Shell<D>>) -> Self {
        Self(Arc::downgrade(shell))
    }
}

impl<D: Driver> Drop for Standing<D> {
    fn drop(&mut self) {
        if let Some(shell) = self.0.upgrade() {
            shell.drain(None);
        }
    }
}

fn tick<D: Driver>(shell: &Arc<Shell<D>>) {
    let stats = shell.look(|state| state.stats(Instant::now()));
    for adjustment in shell.policies.tick(&stats, &|panic| shell.report(panic)) {
        if let Adjustment::Class(class, limits) = &adjustment {
            set_limits(shell, class, *limits);
            continue;
        }
        let now = Instant::now();
        shell.apply(|state, fx| {
            let (min, max) = state.size();
            match &adjustment {
                Adjustment::MaxSize(size) if *size > 0 => {
                    state.resize(min.min(*size), *size, now, fx);
                }
                Adjustment::MinSize(size) => state.resize((*size).min(max), max, now, fx),
                Adjustment::MaxSize(_) | Adjustment::Class(..) => {}
            }
        });
    }
}

/// Sets the limits of a class. If that makes the class known, the policies are asked for the limits
/// that are not set: they are asked once per class, and this is that occasion.
pub(crate) fn set_limits<D: Driver>(shell: &Arc<Shell<D>>, class: &Class, limits: Limits) {
    let mut all = limits;
    if !shell.look(|state| state.knows(class)) {
        let told = shell.policies.limit(class, &|panic| shell.report(panic)).unwrap_or_default();
        all.min = all.min.or(told.min);
        all.max = all.max.or(told.max);
        all.warm = all.warm.or(told.warm);
    }
    let now = Instant::now();
    shell.apply(|state, fx| state.set_limits(class, all, now, fx));
}

/// Returns a timer on the caller's runtime, or on `spare` if the caller has none: a caller that
/// only waits for the pool need not be a tokio task.
///
/// # Panics
///
/// If the caller has no runtime and the spare one has ended.
pub(crate) fn sleep(until: Instant, spare: &Handle) -> Sleep {
    let _guard = Handle::try_current().is_err().then(|| spare.enter());
    sleep_until(until)
}

/// Returns the result of `work`, or `None` if `end` completes first.
pub(crate) async fn unless<T>(
    end: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}
