//! Resources in their slots, and requests on their way to one.

use std::num::NonZeroU32;
use std::panic::Location;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use sync::Arc;
use sync::{Mutex, MutexGuard};

use crate::{
    AcquireError, Class, CloseReason, Group, Labels, Limits, Meta, ResourceId, ResourceState,
};

/// The locks of the standard library, or loom's when loom runs the threads.
mod sync {
    #[cfg(pool_loom)]
    pub(crate) use ::loom::sync::{Arc, Mutex, MutexGuard};
    #[cfg(not(pool_loom))]
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
}

pub(super) type ClassId = usize;

/// The class of requests that ask for nothing in particular; it always exists.
pub(super) const DEFAULT_CLASS: ClassId = 0;

/// Names a group within the engine; a name is reused once its group is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupId(NonZeroU32);

impl GroupId {
    pub(super) fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("memory ends before the numbers do"))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Names a slot from outside the engine; the id tells stale references apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRef {
    pub(crate) index: usize,
    pub(crate) id: ResourceId,
}

/// One resource in any state. As long as a slot exists, it counts towards `max_size`.
///
/// The fields that every lease changes stand in its first cache line, those that every lease reads
/// in the second, and the rest behind them.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot<R> {
    pub(super) state: SlotState<R>,
    /// Time at which it entered this state.
    pub(super) since: Instant,
    pub(super) uses: u64,
    pub(super) id: ResourceId,
    pub(super) class: ClassId,
    pub(super) expires_at: Option<Instant>,
    /// Set when it must be closed as soon as it is back in the pool's hands.
    pub(super) doomed: Option<CloseReason>,
    /// The group of its holder, as long as it is leased.
    pub(super) group: Option<GroupId>,
    /// It counts in the class's `retiring`: it will be closed soon, so it is no longer stock.
    pub(super) retiring: bool,
    pub(super) created_at: Instant,
    pub(super) last_check: Option<(Instant, Duration)>,
}

/// Location of the resource: in the engine while idle, in its waiter's ticket until it is fetched,
/// otherwise with a job or a holder.
#[derive(Debug)]
pub(super) enum SlotState<R> {
    Creating,
    Idle(Box<Pooled<R>>),
    Leased {
        overdue_at: Option<Instant>,
        /// Call site of the acquire, unless it had to wait: then the ticket has it.
        acquired_at: Option<&'static Location<'static>>,
        /// Ticket through which it was granted, if its holder had to wait.
        ticket: Option<Arc<Ticket<R>>>,
    },
    Recycling,
    Checking,
    Closing(CloseReason),
}

impl<R> SlotState<R> {
    pub(super) fn kind(&self) -> ResourceState {
        match self {
            Self::Creating => ResourceState::Creating,
            Self::Idle(_) => ResourceState::Idle,
            Self::Leased { .. } => ResourceState::Leased,
            Self::Recycling => ResourceState::Recycling,
            Self::Checking => ResourceState::Checking,
            Self::Closing(_) => ResourceState::Closing,
        }
    }
}

impl<R> Slot<R> {
    /// Returns how long its holder waited, if the holder has not fetched it yet.
    pub(super) fn unfetched(&self) -> Option<Duration> {
        let SlotState::Leased { ticket, .. } = &self.state else { return None };
        ticket.as_ref()?.unfetched()
    }
}

/// A resource, with everything that its holder and its jobs know of it.
///
/// It is boxed once, when the resource has been created, and stays where it is until the resource
/// is closed: only a pointer moves between the engine, its holders and its jobs.
#[derive(Debug)]
pub(crate) struct Pooled<R> {
    pub(crate) slot: SlotRef,
    pub(crate) meta: Meta,
    pub(crate) resource: R,
    /// Start of its lease; `None` if nobody needs to know.
    pub(crate) leased_at: Option<Instant>,
    /// Time that its holder waited.
    pub(crate) waited: Duration,
    /// End of its creation, its last lease or its last recycling. A check does not count as use, or
    /// a pool that is checked would never shrink.
    pub(super) used_at: Instant,
    /// Time at which it was last known to work: created, leased, recycled or checked.
    pub(super) proven_at: Instant,
}

impl<R> Pooled<R> {
    /// Records the facts of a new lease, for its holder.
    #[inline]
    pub(super) fn lease(&mut self, uses: u64, leased_at: Option<Instant>, waited: Duration) {
        self.meta.uses = uses;
        self.leased_at = leased_at;
        self.waited = waited;
    }

    /// Notes that it has just been used, and so works.
    #[inline]
    pub(super) fn served(&mut self, now: Instant) {
        self.used_at = now;
        self.proven_at = now;
    }
}

/// A request as the engine sees it, after the policies have had their say.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) class: &'a Class,
    /// Limits that the policies give the class; set only if the class is new.
    pub(crate) limits: Option<Option<Limits>>,
    pub(crate) handicap: Duration,
    pub(crate) group: Option<&'a std::sync::Arc<Group>>,
    pub(crate) labels: &'a Labels,
    /// Time that the request had already waited before it came here.
    pub(crate) waited: Duration,
    /// A resource may be created for it.
    pub(crate) creates: bool,
    pub(crate) priority: Option<u8>,
    /// Wait for nothing but the check of an idle resource.
    pub(crate) nowait: bool,
    /// Time at which the pool gives up on it; `None` if the caller keeps the time.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) acquired_at: &'static Location<'static>,
}

impl Asked<'_> {
    /// Returns `at`, minus the time that the request had waited before it came here.
    #[inline]
    pub(super) fn backdate(&self, at: Instant) -> Instant {
        if self.waited.is_zero() { at } else { at.checked_sub(self.waited).unwrap_or(at) }
    }
}

/// A waiting request, shared by its caller and the engine.
///
/// The engine puts the answer in under the pool's lock, so whoever holds that lock can rely on an
/// unanswered ticket staying unanswered. The caller takes the answer out without the lock, which is
/// what many callers contend for: a lease that has waited needs it twice instead of three times.
#[derive(Debug)]
pub(crate) struct Ticket<R> {
    pub(super) priority: Option<u8>,
    /// Time at which it came, minus the time that it had waited before.
    pub(super) enqueued_at: Instant,
    /// Time at which the pool gives up on it; `None` if its caller keeps the time.
    pub(super) expires_at: Option<Instant>,
    pub(super) acquired_at: &'static Location<'static>,
    /// The labels of the request, for the events about it.
    pub(crate) labels: Labels,
    answer: Mutex<Progress<R>>,
}

#[derive(Debug)]
enum Progress<R> {
    Awaited(Waker),
    Granted(Box<Pooled<R>>),
    Failed(Box<AcquireError>),
    Fetched,
}

/// The answer to a request. Both variants are boxed, so that it fits into two registers.
pub(crate) type Answer<R> = Result<Box<Pooled<R>>, Box<AcquireError>>;

impl<R> Ticket<R> {
    pub(crate) fn new(asked: &Asked<'_>, now: Instant, waker: Waker) -> Self {
        Self {
            priority: asked.priority,
            enqueued_at: asked.backdate(now),
            expires_at: asked.expires_at,
            acquired_at: asked.acquired_at,
            labels: asked.labels.clone(),
            answer: Mutex::new(Progress::Awaited(waker)),
        }
    }

    /// Returns the answer, if there is one.
    pub(crate) fn fetch(&self) -> Option<Answer<R>> {
        let mut answer = self.lock();
        let awaited = matches!(*answer, Progress::Awaited(_));
        (!awaited).then(|| take(&mut answer))
    }

    /// Returns the answer, as [`fetch`](Self::fetch) does; if there is none yet, the waker is woken
    /// when it comes.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Answer<R>> {
        {
            let mut answer = self.lock();
            match &*answer {
                Progress::Awaited(held) if held.will_wake(waker) => return None,
                Progress::Awaited(_) => {}
                Progress::Granted(_) | Progress::Failed(_) | Progress::Fetched => {
                    return Some(take(&mut answer));
                }
            }
        }
        // Cloned before the lock is taken and dropped after: both are foreign code.
        let mut waker = waker.clone();
        let mut answer = self.lock();
        let Progress::Awaited(held) = &mut *answer else { return Some(take(&mut answer)) };
        std::mem::swap(held, &mut waker);
        None
    }

    /// Answers with a resource; returns the waker to wake.
    pub(super) fn grant(&self, pooled: Box<Pooled<R>>) -> Option<Waker> {
        self.answer(Progress::Granted(pooled))
    }

    /// Answers with an error; returns the waker to wake.
    pub(super) fn fail(&self, error: AcquireError) -> Option<Waker> {
        self.answer(Progress::Failed(error.into()))
    }

    fn answer(&self, answer: Progress<R>) -> Option<Waker> {
        match std::mem::replace(&mut *self.lock(), answer) {
            Progress::Awaited(waker) => Some(waker),
            Progress::Granted(_) | Progress::Failed(_) | Progress::Fetched => None,
        }
    }

    /// Takes back a grant that has not been fetched; its caller gets an error instead.
    pub(super) fn take_back(&self, error: AcquireError) -> Option<Box<Pooled<R>>> {
        let mut answer = self.lock();
        match std::mem::replace(&mut *answer, Progress::Fetched) {
            Progress::Granted(pooled) => {
                *answer = Progress::Failed(error.into());
                Some(pooled)
            }
            other => {
                *answer = other;
                None
            }
        }
    }

    /// Returns how long the caller waited for a grant that it has not fetched.
    pub(super) fn unfetched(&self) -> Option<Duration> {
        match &*self.lock() {
            Progress::Granted(pooled) => Some(pooled.waited),
            Progress::Awaited(_) | Progress::Failed(_) | Progress::Fetched => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress<R>> {
        // Nothing that can panic runs under it.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<R>(answer: &mut Progress<R>) -> Answer<R> {
    match std::mem::replace(answer, Progress::Fetched) {
        Progress::Granted(pooled) => Ok(pooled),
        Progress::Failed(error) => Err(error),
        Progress::Awaited(_) | Progress::Fetched => unreachable!("an answer is fetched once"),
    }
}
