use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::{Meta, ResourceId};

/// A method of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// [`Driver::create`](crate::Driver::create).
    Create,
    /// [`Driver::check`](crate::Driver::check).
    Check,
    /// [`Driver::recycle`](crate::Driver::recycle).
    Recycle,
    /// [`Driver::close`](crate::Driver::close).
    Close,
    /// [`Driver::revoke`](crate::Driver::revoke).
    Revoke,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 5] =
        [Self::Create, Self::Check, Self::Recycle, Self::Close, Self::Revoke];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Check => "check",
            Self::Recycle => "recycle",
            Self::Close => "close",
            Self::Revoke => "revoke",
        })
    }
}

/// One entry of the log: a call to the driver began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The method.
    pub step: Step,
    /// The resource.
    pub id: ResourceId,
    /// The call's outcome.
    pub outcome: Outcome,
    /// The time.
    pub at: Instant,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It began.
    Begun,
    /// It succeeded.
    Done,
    /// It returned an error.
    Failed,
    /// Its future was dropped before it finished.
    Dropped,
    /// It panicked.
    Panicked,
}

/// The life of every fake resource, and every violation of the rules for using one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    log: Vec<Call>,
    lives: BTreeMap<ResourceId, Life>,
    existing: usize,
    peak: usize,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Life {
    state: LifeState,
    /// Its user: a step of the driver, or its holder (the inner `None`).
    user: Option<Option<Step>>,
    revoked: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LifeState {
    Creating,
    Alive,
    Gone,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // If a test panicked while it held the book, that test has already failed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call, which ends when the entry is closed or dropped.
    pub(super) fn begin(&self, step: Step, meta: &Meta) -> Entry {
        let mut book = self.book();
        book.note(step, meta.id, Outcome::Begun);
        match step {
            Step::Create => book.born(meta.id),
            Step::Revoke => book.revoke(meta.id),
            Step::Check | Step::Recycle | Step::Close => book.use_begins(meta.id, Some(step)),
        }
        if step == Step::Close {
            let twice = book
                .lives
                .get_mut(&meta.id)
                .is_some_and(|life| std::mem::replace(&mut life.closed, true));
            book.expect(!twice, || format!("resource {} was closed twice", meta.id));
        }
        Entry { ledger: self.clone(), step, id: meta.id, open: true }
    }

    pub(super) fn enter(&self, id: ResourceId) {
        self.book().use_begins(id, None);
    }

    pub(super) fn exit(&self, id: ResourceId) {
        self.book().use_ends(id);
    }

    /// Notes that the value of a resource is gone.
    pub(super) fn dropped(&self, id: ResourceId) {
        self.book().ends(id);
    }

    pub(super) fn log(&self) -> Vec<Call> {
        self.book().log.clone()
    }

    pub(super) fn count(&self, step: Step, outcome: Outcome) -> usize {
        let book = self.book();
        book.log.iter().filter(|call| call.step == step && call.outcome == outcome).count()
    }

    pub(super) fn existing(&self) -> BTreeSet<ResourceId> {
        let book = self.book();
        let existing = book.lives.iter().filter(|(_, life)| life.state != LifeState::Gone);
        existing.map(|(id, _)| *id).collect()
    }

    pub(super) fn unclosed(&self) -> BTreeSet<ResourceId> {
        let book = self.book();
        let unclosed = book.lives.iter().filter(|(_, life)| {
            life.state == LifeState::Gone && life.user.is_none() && !life.closed && !life.revoked
        });
        unclosed.map(|(id, _)| *id).collect()
    }

    pub(super) fn peak(&self) -> usize {
        self.book().peak
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.book().violations.clone()
    }
}

impl Book {
    fn note(&mut self, step: Step, id: ResourceId, outcome: Outcome) {
        self.log.push(Call { step, id, outcome, at: Instant::now() });
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(otherwise());
        }
    }

    fn born(&mut self, id: ResourceId) {
        let life = Life { state: LifeState::Creating, user: None, revoked: false, closed: false };
        let twice = self.lives.insert(id, life).is_some();
        self.expect(!twice, || format!("resource {id} was created twice"));
        self.existing += 1;
        self.peak = self.peak.max(self.existing);
    }

    fn made(&mut self, id: ResourceId) {
        if let Some(life) = self.lives.get_mut(&id) {
            life.state = LifeState::Alive;
        }
    }

    fn ends(&mut self, id: ResourceId) {
        if let Some(life) = self.lives.get_mut(&id)
            && life.state != LifeState::Gone
        {
            life.state = LifeState::Gone;
            life.user = None;
            self.existing -= 1;
        }
    }

    fn revoke(&mut self, id: ResourceId) {
        let (state, twice) = match self.lives.get_mut(&id) {
            Some(life) => (Some(life.state), std::mem::replace(&mut life.revoked, true)),
            None => (None, false),
        };
        self.expect(state.is_some(), || format!("resource {id} was revoked, but never made"));
        self.expect(!twice, || format!("resource {id} was revoked twice"));
    }

    fn use_begins(&mut self, id: ResourceId, user: Option<Step>) {
        let what = user.map_or_else(|| "its holder".to_string(), |step| step.to_string());
        let Some(life) = self.lives.get_mut(&id) else {
            return self
                .violations
                .push(format!("{what} used resource {id}, which was never made"));
        };
        let state = life.state;
        let before = life.user.replace(user);
        self.expect(state == LifeState::Alive, || format!("{what} used resource {id} ({state:?})"));
        self.expect(before.is_none(), || {
            format!("{what} used resource {id} at the same time as {before:?}")
        });
    }

    fn use_ends(&mut self, id: ResourceId) {
        if let Some(life) = self.lives.get_mut(&id) {
            life.user = None;
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    step: Step,
    id: ResourceId,
    open: bool,
}

impl Entry {
    pub(super) fn end(mut self, outcome: Outcome) {
        self.open = false;
        self.close(outcome);
    }

    fn close(&self, outcome: Outcome) {
        let mut book = self.ledger.book();
        book.note(self.step, self.id, outcome);
        match (self.step, outcome) {
            (Step::Create, Outcome::Done) => book.made(self.id),
            (
                Step::Create,
                Outcome::Begun | Outcome::Failed | Outcome::Dropped | Outcome::Panicked,
            ) => {
                // Nothing was made, so nothing can have been closed.
                if let Some(life) = book.lives.get_mut(&self.id) {
                    life.closed = true;
                }
                book.ends(self.id);
            }
            (Step::Revoke, _) => {}
            (Step::Check | Step::Recycle | Step::Close, _) => book.use_ends(self.id),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            let panicked = std::thread::panicking();
            self.close(if panicked { Outcome::Panicked } else { Outcome::Dropped });
        }
    }
}
