use std::task::Waker;

use super::slot::{Pooled, SlotRef};
use super::sync::Arc;
use super::ticket::Ticket;
use crate::{CloseReason, Event, Meta, SharedError};

/// Work for the shell once the lock is released.
#[derive(Debug)]
pub(crate) struct Effects<R> {
    /// Whom to wake: their requests have been answered.
    pub(crate) wake: Wakers,
    /// Work for tasks.
    pub(crate) jobs: Vec<Job<R>>,
    /// Transitions to tell of, in order.
    pub(crate) events: Vec<Event>,
    /// A value to drop: the pool has no claim on it any more.
    pub(crate) drop: Option<Box<Pooled<R>>>,
    /// Errors of drivers that nobody needs any more: to drop one is foreign code.
    pub(crate) errors: Vec<SharedError>,
    /// A ticket that has done its work: to free it here would only take time.
    pub(crate) spent: Option<Arc<Ticket<R>>>,
    /// The last resource of a draining pool is gone.
    pub(crate) drained: bool,
}

impl<R> Default for Effects<R> {
    fn default() -> Self {
        Self {
            wake: Wakers::default(),
            jobs: Vec::new(),
            events: Vec::new(),
            drop: None,
            errors: Vec::new(),
            spent: None,
            drained: false,
        }
    }
}

impl<R> Effects<R> {
    /// Returns `true` if all there is to do is to wake one waiter and free a ticket, as after most
    /// calls.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.wake.more.is_empty()
            && self.jobs.is_empty()
            && self.events.is_empty()
            && self.drop.is_none()
            && self.errors.is_empty()
            && !self.drained
    }
}

/// Some wakers, of which there is seldom more than one.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakers {
    #[inline]
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else {
            self.more.extend(waker);
        }
    }

    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<Waker> {
        self.first.take()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Waker> {
        self.first.take().into_iter().chain(self.more.drain(..))
    }
}

/// A piece of asynchronous work on one resource.
#[derive(Debug)]
pub(crate) enum Job<R> {
    Create { slot: SlotRef, meta: Meta },
    Recycle(Box<Pooled<R>>),
    Check(Box<Pooled<R>>),
    Close(Box<Pooled<R>>, CloseReason),
    Revoke { slot: SlotRef, meta: Meta },
}
