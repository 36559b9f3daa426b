use std::panic::Location;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::sync::{Mutex, MutexGuard};
use super::{Asked, Pooled};
use crate::{AcquireError, Labels};

/// A request that waits, held by its caller and by the engine.
///
/// The engine puts the answer in under the lock of the pool, so that whoever holds that may rely
/// on what is not answered. The caller takes it out without: that lock is what many callers
/// contend for, and so a lease that has waited needs it twice instead of three times.
#[derive(Debug)]
pub(crate) struct Ticket<R> {
    pub(super) priority: Option<u8>,
    /// When it came, less the time that it had waited before.
    pub(super) enqueued_at: Instant,
    /// When the pool gives up on it; `None` where its caller keeps the time.
    pub(super) expires_at: Option<Instant>,
    pub(super) acquired_at: &'static Location<'static>,
    /// The labels of the request, for the events about it.
    pub(crate) labels: Labels,
    answer: Mutex<Answer<R>>,
}

#[derive(Debug)]
enum Answer<R> {
    Awaited(Waker),
    Granted(Box<Pooled<R>>),
    Failed(Box<AcquireError>),
    Fetched,
}

/// The outcome of a request. Both variants are boxed, so that it is passed on in two registers.
pub(crate) type Outcome<R> = Result<Box<Pooled<R>>, Box<AcquireError>>;

impl<R> Ticket<R> {
    pub(crate) fn new(asked: &Asked<'_>, now: Instant, waker: Waker) -> Self {
        Self {
            priority: asked.priority,
            enqueued_at: now.checked_sub(asked.waited).unwrap_or(now),
            expires_at: asked.expires_at,
            acquired_at: asked.acquired_at,
            labels: asked.labels.clone(),
            answer: Mutex::new(Answer::Awaited(waker)),
        }
    }

    /// The answer, if there is one.
    pub(crate) fn fetch(&self) -> Option<Outcome<R>> {
        let mut answer = self.lock();
        match *answer {
            Answer::Awaited(_) => None,
            _ => Some(take(&mut answer)),
        }
    }

    /// As [`fetch`](Self::fetch); if there is no answer yet, this waker is told when it comes.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Outcome<R>> {
        {
            let mut answer = self.lock();
            match &*answer {
                Answer::Awaited(held) if held.will_wake(waker) => return None,
                Answer::Awaited(_) => {}
                _ => return Some(take(&mut answer)),
            }
        }
        // Cloned before the lock is taken and dropped after: both are foreign code.
        let mut waker = waker.clone();
        let mut answer = self.lock();
        match &mut *answer {
            Answer::Awaited(held) => std::mem::swap(held, &mut waker),
            _ => return Some(take(&mut answer)),
        }
        None
    }

    /// Answers; returns whom to wake.
    pub(super) fn grant(&self, pooled: Box<Pooled<R>>) -> Option<Waker> {
        self.answer(Answer::Granted(pooled))
    }

    /// Answers; returns whom to wake.
    pub(super) fn fail(&self, error: AcquireError) -> Option<Waker> {
        self.answer(Answer::Failed(error.into()))
    }

    fn answer(&self, answer: Answer<R>) -> Option<Waker> {
        match std::mem::replace(&mut *self.lock(), answer) {
            Answer::Awaited(waker) => Some(waker),
            _ => None,
        }
    }

    /// Takes back what was granted and has not been fetched; its caller gets an error instead.
    pub(super) fn take_back(&self, error: AcquireError) -> Option<Box<Pooled<R>>> {
        let mut answer = self.lock();
        match std::mem::replace(&mut *answer, Answer::Fetched) {
            Answer::Granted(pooled) => {
                *answer = Answer::Failed(error.into());
                Some(pooled)
            }
            other => {
                *answer = other;
                None
            }
        }
    }

    /// Returns the wait of the caller for a grant that it has not fetched.
    pub(super) fn unfetched(&self) -> Option<Duration> {
        match &*self.lock() {
            Answer::Granted(pooled) => Some(pooled.waited),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answer<R>> {
        // Nothing that can panic runs under it.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<R>(answer: &mut Answer<R>) -> Outcome<R> {
    match std::mem::replace(answer, Answer::Fetched) {
        Answer::Granted(pooled) => Ok(pooled),
        Answer::Failed(error) => Err(error),
        Answer::Awaited(_) | Answer::Fetched => unreachable!("an answer is fetched once"),
    }
}
