//! The pool as a pure state machine.
//!
//! It has no clock, no I/O and no tasks: every method is told what time it is and pushes what
//! must be done into [`Effects`]. The shell locks, calls one method, unlocks, and then acts. So
//! nothing of a user (hook, waker, `Drop`) ever runs under the lock, and every interleaving of
//! the real world is a sequence of calls that a test can write down.

mod acquire;
mod breaker;
mod class;
mod closing;
mod control;
mod effects;
mod grant;
mod group;
mod invariants;
mod line;
mod outcome;
mod queue;
mod quiet;
mod refusal;
mod release;
mod slot;
mod snapshot;
mod supply;
mod sync;
#[cfg(test)]
mod tests;
mod ticket;
mod upkeep;

use std::collections::BTreeSet;
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::time::Instant;

pub(crate) use acquire::{Acquired, Asked};
use class::{ClassId, ClassState, Counts, DEFAULT_CLASS, Leases};
pub(crate) use effects::{Effects, Job};
use group::Groups;
use queue::Waiter;
pub(crate) use release::Return;
pub(crate) use slot::{Pooled, SlotRef};
use slot::{Slot, SlotState};
pub(crate) use sync::Arc;
pub(crate) use ticket::{Outcome, Ticket};

use crate::{Class, Config, Counters, Event, Limits, Meta, ResourceState};

/// All that a pool knows. One mutex holds one of these.
///
/// Fields that every lease changes stand first and together, here and in what the slabs hold: with
/// several cores, a lease costs about as much as the cache lines that move between them. It begins
/// a line of its own, since who spins for the mutex takes that one's line away from its holder.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct State<R> {
    next_sequence: u64,
    /// The latest moment at which a waiter has come.
    latest: Instant,
    /// Every request that waits; each stands in the queue of its class.
    waiters: Slab<Waiter<R>>,
    /// The class that was asked for last, which is often the one that is asked for next.
    recent: ClassId,
    /// Tallies of `slots` by state, changed only where a slot changes its state.
    counts: Counts,
    /// All but what is counted by class.
    counters: Counters,
    /// Totals of classes that are forgotten, and of no class.
    gone: Leases,
    /// Every resource. Its length is the capacity in use: there is no counter to forget.
    slots: Slab<Slot<R>>,
    classes: Slab<ClassState>,
    class_ids: FxHashMap<Class, ClassId>,
    /// Classes with a waiter that only a creation can serve. In no order: which of them has the
    /// best waiter changes with every grant, but is asked only when there is room or contention.
    hungry: BTreeSet<ClassId>,
    /// Classes that have less than they should keep.
    short: BTreeSet<ClassId>,
    phase: Phase,
    next_id: u64,
    /// The next moment at which `tick` has something to do.
    alarm: Option<Instant>,
    /// It came nearer, so that the upkeep task must look again.
    rearm: bool,
    /// Someone reads events; without a reader none are made.
    observed: bool,
    rng: fastrand::Rng,
    groups: Groups,
    config: Config,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No new requests; leases are revoked at the deadline, if there is one.
    Draining {
        deadline: Option<Instant>,
    },
}

impl<R> State<R> {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let rng = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let mut classes = Slab::new();
        let mut default = ClassState::new(Class::default());
        default.limited = true;
        default.min = config.min_size;
        classes.insert(default);
        Self {
            next_sequence: 0,
            latest: now,
            counts: Counts::default(),
            waiters: Slab::new(),
            counters: Counters::default(),
            gone: Leases::default(),
            slots: Slab::new(),
            classes,
            class_ids: FxHashMap::default(),
            recent: DEFAULT_CLASS,
            hungry: BTreeSet::new(),
            short: BTreeSet::new(),
            phase: Phase::Running,
            next_id: 0,
            alarm: None,
            rearm: false,
            observed: false,
            rng,
            groups: Groups::default(),
            config,
        }
    }

    /// Fills the pool to its minimum for the first time.
    pub(crate) fn start(&mut self, now: Instant, fx: &mut Effects<R>) {
        self.refresh(DEFAULT_CLASS);
        self.pump(now, fx);
    }

    /// From now on events are made.
    pub(crate) fn observe(&mut self) {
        self.observed = true;
    }

    pub(crate) fn count_policy_panic(&mut self) {
        self.counters.policy_panics += 1;
    }

    pub(crate) fn count_rejection(&mut self) {
        self.counters.rejected += 1;
    }

    /// Runs [`check`](Self::check) in debug builds, as long as the pool is small enough for a
    /// full look after every call.
    #[inline]
    pub(crate) fn debug_check(&self) {
        if cfg!(debug_assertions) && self.slots.len() + self.waiters.len() <= 64 {
            self.check();
        }
    }

    fn emit(&self, fx: &mut Effects<R>, event: impl FnOnce() -> Event) {
        if self.observed {
            fx.events.push(event());
        }
    }

    #[inline]
    fn class_id(&self, class: &Class) -> Option<ClassId> {
        if class.is_default() {
            return Some(DEFAULT_CLASS);
        }
        // Clones of one class are equal at a glance, without hashing its words.
        match self.classes.get(self.recent) {
            Some(recent) if recent.class == *class => Some(self.recent),
            _ => self.class_ids.get(class).copied(),
        }
    }

    fn intern(&mut self, class: &Class, limits: Option<Limits>) -> ClassId {
        if let Some(id) = self.class_id(class) {
            return id;
        }
        let mut state = ClassState::new(class.clone());
        if let Some(limits) = limits {
            state.set_limits(limits);
        }
        let id = self.classes.insert(state);
        self.class_ids.insert(class.clone(), id);
        self.refresh(id);
        id
    }

    /// The slot that a reference names, unless that resource is gone.
    fn slot(&mut self, slot: SlotRef) -> Option<&mut Slot<R>> {
        self.slots.get_mut(slot.index).filter(|held| held.id == slot.id)
    }

    fn meta(&self, index: usize) -> Meta {
        let slot = &self.slots[index];
        let class = self.classes[slot.class].class.clone();
        Meta { id: slot.id, class, created_at: slot.created_at, uses: slot.uses }
    }

    /// Puts a slot into another state; returns the one before.
    fn set_state(&mut self, index: usize, state: SlotState<R>, now: Instant) -> SlotState<R> {
        std::mem::replace(self.enter(index, state.kind(), now), state)
    }

    /// Counts a slot as being in another state, and gives the place where its caller puts that at
    /// once. No state changes in another way, so that the tallies cannot drift.
    ///
    /// It is not handed the state, as [`set_state`](Self::set_state) is: to copy the two of each
    /// lease once more is a tenth of what that costs.
    #[inline]
    fn enter(&mut self, index: usize, new: ResourceState, now: Instant) -> &mut SlotState<R> {
        let slot = &mut self.slots[index];
        let class = &mut self.classes[slot.class];
        let old = slot.state.kind();
        if old != new {
            self.counts.remove(old);
            class.counts.remove(old);
            self.counts.add(new);
            class.counts.add(new);
        }
        if new == ResourceState::Closing && slot.retiring {
            slot.retiring = false;
            class.retiring -= 1;
        }
        slot.since = now;
        &mut slot.state
    }

    /// The resource of an idle slot.
    #[inline]
    fn idle(&self, index: usize) -> &Pooled<R> {
        match &self.slots[index].state {
            SlotState::Idle(pooled) => pooled,
            _ => unreachable!("only idle resources are listed as idle"),
        }
    }

    /// Takes the resource out of an idle slot, which gets another state.
    #[inline]
    fn take_idle(&mut self, index: usize, state: SlotState<R>, now: Instant) -> Box<Pooled<R>> {
        match self.set_state(index, state, now) {
            SlotState::Idle(pooled) => pooled,
            _ => unreachable!("only idle resources are listed as idle"),
        }
    }

    /// Brings `tick` forward to `at` if it would come later.
    #[inline]
    fn arm(&mut self, at: Instant) {
        if self.alarm.is_none_or(|alarm| at < alarm) {
            self.alarm = Some(at);
            self.rearm = true;
        }
    }

    /// Returns `true`, once, if the upkeep task must be woken because the next deadline came
    /// nearer.
    pub(crate) fn take_rearm(&mut self) -> bool {
        // Not written unless it changes, as it lies among what every call only reads.
        self.rearm && std::mem::take(&mut self.rearm)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase != Phase::Running
    }
}

/// Returns the time since `then`, never negative.
fn since(now: Instant, then: Instant) -> Duration {
    now.saturating_duration_since(then)
}
