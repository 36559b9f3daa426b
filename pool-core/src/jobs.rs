//! The pool's asynchronous work: one task per creation, recycling, check and close.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::engine::{Effects, Job, Pooled, SlotRef, State};
use crate::shared::{Shared, shared_error};
use crate::stack::Contained;
use crate::wait::unless;
use crate::{BoxError, Driver, Meta, Reporter, SharedError};

/// A step of a driver or a policy took longer than the pool's configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} took longer than {limit:?}")]
pub struct TimedOut {
    /// The step: `create`, `recycle` or `check`.
    pub step: &'static str,
    /// The limit that it exceeded.
    pub limit: Duration,
}

/// A task of the pool ended without a result: its driver panicked, or the runtime shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task was ended before it was done")]
pub struct Aborted;

/// Starts a job. Its slot is accounted for whatever becomes of the task.
pub(crate) fn spawn<D: Driver>(shared: &Arc<Shared<D>>, job: Job<D::Resource>) {
    match job {
        Job::Create { slot, meta } => {
            let ticket = Ticket::new(shared, slot);
            shared.runtime.spawn(async move { create(ticket, meta).await });
        }
        Job::Recycle(mut pooled) => {
            let ticket = Ticket::new(shared, pooled.slot);
            shared.runtime.spawn(async move {
                let driver = &ticket.shared.driver;
                let limit = ticket.shared.settings.recycle_timeout;
                let Pooled { resource, meta, .. } = &mut *pooled;
                let result = bounded("recycle", limit, driver.recycle(resource, meta)).await;
                ticket.done(|state, _, now, fx| state.recycled(pooled, result, now, fx));
            });
        }
        Job::Check(mut pooled) => {
            let ticket = Ticket::new(shared, pooled.slot);
            shared.runtime.spawn(async move {
                let driver = &ticket.shared.driver;
                let limit = ticket.shared.settings.check_timeout;
                let Pooled { resource, meta, .. } = &mut *pooled;
                let result = bounded("check", limit, driver.check(resource, meta)).await;
                ticket.done(|state, _, now, fx| state.checked(pooled, result, now, fx));
            });
        }
        Job::Close(pooled, reason) => {
            let Pooled { slot, meta, resource, .. } = *pooled;
            let ticket = Ticket::new(shared, slot);
            shared.runtime.spawn(async move {
                tracing::debug!(id = %meta.id, class = %meta.class, reason = reason.code(), "closing");
                close(&ticket.shared, resource, &meta).await;
                ticket.done(State::closed);
            });
        }
        Job::Revoke { slot, meta } => {
            let ticket = Ticket::new(shared, slot);
            shared.runtime.spawn(async move {
                let limit = ticket.shared.settings.close_timeout;
                if timeout(limit, ticket.shared.driver.revoke(&meta)).await.is_err() {
                    tracing::warn!(id = %meta.id, ?limit, "revoking took too long");
                }
                ticket.done(State::closed);
            });
        }
    }
}

async fn create<D: Driver>(ticket: Ticket<D>, meta: Meta) {
    let shared = &ticket.shared;
    let limit = shared.settings.create_timeout;
    // Kept out here, so that what was made is closed if its preparation fails or takes too long.
    let mut made = None;
    let work = timeout(limit, make(shared, ticket.slot, &meta, &mut made));
    let result = match unless(shared.ending(), work).await {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(shared_error(TimedOut { step: "create", limit })),
        // Nobody can lease it any more.
        None => Err(shared_error(Aborted)),
    };
    match (result, made) {
        (Ok(()), Some(resource)) => {
            ticket.done(|state, slot, now, fx| state.created(slot, resource, now, fx));
        }
        (result, made) => {
            if let Some(resource) = made {
                close(shared, resource, &meta).await;
            }
            let error = result.err().unwrap_or_else(|| shared_error(Aborted));
            ticket.done(|state, slot, now, fx| state.create_failed(slot, error, now, fx));
        }
    }
}

async fn make<D: Driver>(
    shared: &Arc<Shared<D>>,
    slot: SlotRef,
    meta: &Meta,
    made: &mut Option<D::Resource>,
) -> Result<(), SharedError> {
    let mut spec = D::Spec::default();
    let report = |panic| shared.report(panic);
    shared.policies.configure(&meta.class, &mut spec, &report).map_err(SharedError::from)?;
    let reporter = Reporter::new(shared, slot);
    let resource = shared.driver.create(&spec, meta, reporter).await.map_err(shared_error)?;
    let prepared = shared.policies.prepare(made.insert(resource), meta, &report).await;
    prepared.map_err(SharedError::from)
}

async fn close<D: Driver>(shared: &Shared<D>, resource: D::Resource, meta: &Meta) {
    let limit = shared.settings.close_timeout;
    if timeout(limit, shared.driver.close(resource, meta)).await.is_err() {
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
        // The resource has outlived the panic and is closed as it should be.
        Ok(Err(_)) => Err(shared_error(Aborted)),
        Err(_) => Err(shared_error(TimedOut { step, limit })),
    }
}

/// A job's claim on its slot. If it is dropped before [`done`](Self::done), because the driver
/// panicked or the runtime is gone, the slot is given up, so capacity always comes back.
struct Ticket<D: Driver> {
    shared: Arc<Shared<D>>,
    slot: SlotRef,
    open: bool,
}

impl<D: Driver> Ticket<D> {
    fn new(shared: &Arc<Shared<D>>, slot: SlotRef) -> Self {
        Self { shared: Arc::clone(shared), slot, open: true }
    }

    fn done(
        mut self,
        report: impl FnOnce(&mut State<D::Resource>, SlotRef, Instant, &mut Effects<D::Resource>),
    ) {
        self.open = false;
        let (slot, now) = (self.slot, Instant::now());
        self.shared.apply(|state, fx| report(state, slot, now, fx));
    }
}

impl<D: Driver> Drop for Ticket<D> {
    fn drop(&mut self) {
        if self.open {
            let (slot, now) = (self.slot, Instant::now());
            self.shared.apply(|state, fx| state.lost(slot, shared_error(Aborted), now, fx));
        }
    }
}
