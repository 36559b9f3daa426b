//! Outcomes of jobs: creations, recyclings, checks and closes.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effects, Pooled, SlotRef, SlotState, State, since};
use crate::{CloseReason, Event, ResourceState, SharedError};

impl<R> State<R> {
    pub(crate) fn created(
        &mut self,
        slot: SlotRef,
        resource: R,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = since(now, self.slots[index].since);
        self.counters.created += 1;
        fx.errors.extend(self.classes[class].breaker.succeeded());
        self.limit_lifetime(index, now);
        self.emit(fx, || Event::Created {
            id: slot.id,
            class: self.classes[class].class.clone(),
            took,
        });
        let pooled = Pooled {
            slot,
            meta: self.meta(index),
            resource,
            leased_at: None,
            waited: Duration::ZERO,
            used_at: now,
            proven_at: now,
        };
        self.arrived(Box::new(pooled), now, fx);
        if !matches!(self.slots[index].state, SlotState::Closing(_)) {
            self.retire_replaced(class, now, fx);
        }
        self.pump(now, fx);
    }

    /// A life begins when the resource is ready: one that took longer to make than it may live
    /// would go before it was ever leased, and be made again at once.
    fn limit_lifetime(&mut self, index: usize, now: Instant) {
        let Some(lifetime) = self.config.max_lifetime else { return };
        let shorter = self.config.lifetime_jitter * self.rng.f64();
        let expires_at = now + lifetime.mul_f64(1.0 - shorter);
        self.slots[index].expires_at = Some(expires_at);
        self.arm(expires_at);
    }

    pub(crate) fn create_failed(
        &mut self,
        slot: SlotRef,
        error: SharedError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let class = self.slots[slot.index].class;
        let took = since(now, self.slots[slot.index].since);
        self.counters.create_failed += 1;
        self.remove(slot.index, fx);
        let breaker = &mut self.classes[class].breaker;
        let (retry_after, before) = breaker.failed(now, error.clone(), &self.config, &mut self.rng);
        fx.errors.extend(before);
        let consecutive = breaker.failures();
        self.arm(now + retry_after);
        self.emit(fx, || Event::CreateFailed {
            id: slot.id,
            class: self.classes[class].class.clone(),
            took,
            error,
            consecutive,
            retry_after,
        });
        self.fail_hopeless(class, now, fx);
        self.refresh(class);
        self.pump(now, fx);
    }

    pub(crate) fn recycled(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let SlotRef { index, id } = pooled.slot;
        let took = since(now, self.slots[index].since);
        let failed = match result {
            Ok(()) => {
                self.counters.recycled += 1;
                pooled.served(now);
                let class = &self.classes[self.slots[index].class].class;
                self.emit(fx, || Event::Recycled { id, class: class.clone(), took });
                None
            }
            Err(error) => {
                self.counters.recycle_failed += 1;
                Some(CloseReason::RecycleFailed(error))
            }
        };
        self.handed_back(pooled, failed, now, fx);
        self.pump(now, fx);
    }

    pub(crate) fn checked(
        &mut self,
        mut pooled: Box<Pooled<R>>,
        result: Result<(), SharedError>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let SlotRef { index, id } = pooled.slot;
        let took = since(now, self.slots[index].since);
        let class = self.slots[index].class;
        self.counters.checks += 1;
        let failed = match result {
            Ok(()) => {
                pooled.proven_at = now;
                self.slots[index].last_check = Some((now, took));
                self.classes[class].breaker.proved();
                let class = &self.classes[class].class;
                self.emit(fx, || Event::Checked { id, class: class.clone(), took });
                None
            }
            Err(error) => {
                self.counters.checks_failed += 1;
                Some(CloseReason::CheckFailed(error))
            }
        };
        self.handed_back(pooled, failed, now, fx);
        // A waiter may have counted on this one: it is the next one's turn to be checked.
        self.serve(class, now, fx);
        self.pump(now, fx);
    }

    /// A job gives its resource back, in good order or with a reason to close it. What the pool
    /// wanted to close it for meanwhile comes first.
    fn handed_back(
        &mut self,
        pooled: Box<Pooled<R>>,
        failed: Option<CloseReason>,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        match failed {
            None => self.arrived(pooled, now, fx),
            Some(reason) => match self.slots[pooled.slot.index].doomed.clone() {
                Some(doomed) => {
                    fx.errors.extend(reason.into_error());
                    self.close(pooled, doomed, now, fx);
                }
                None => self.close(pooled, reason, now, fx),
            },
        }
    }

    /// A close or a revocation has ended: the place is free.
    pub(crate) fn closed(&mut self, slot: SlotRef, now: Instant, fx: &mut Effects<R>) {
        let index = slot.index;
        let class = self.slots[index].class;
        let took = since(now, self.slots[index].since);
        self.counters.closed += 1;
        if let SlotState::Closing(reason) = &self.slots[index].state {
            let reason = reason.clone();
            self.emit(fx, || Event::Closed {
                id: slot.id,
                class: self.classes[class].class.clone(),
                reason,
                took,
            });
        }
        self.remove(index, fx);
        self.fail_hopeless(class, now, fx);
        self.refresh(class);
        self.pump(now, fx);
        self.forget(class, now, fx);
    }

    /// A job died with its resource (its driver panicked, or the runtime shut down).
    pub(crate) fn lost(
        &mut self,
        slot: SlotRef,
        error: SharedError,
        now: Instant,
        fx: &mut Effects<R>,
    ) {
        let Some(held) = self.slot(slot) else { return };
        match held.state.kind() {
            ResourceState::Creating => return self.create_failed(slot, error, now, fx),
            ResourceState::Closing => {}
            kind => {
                let reason = match kind {
                    ResourceState::Checking => {
                        self.counters.checks += 1;
                        self.counters.checks_failed += 1;
                        CloseReason::CheckFailed(error)
                    }
                    _ => {
                        self.counters.recycle_failed += 1;
                        CloseReason::RecycleFailed(error)
                    }
                };
                self.closing(slot.index, &reason, now, fx);
                self.set_state(slot.index, SlotState::Closing(reason), now);
                self.serve(self.slots[slot.index].class, now, fx);
            }
        }
        self.closed(slot, now, fx);
    }
}
