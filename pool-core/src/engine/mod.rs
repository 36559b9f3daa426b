//! The pool as a pure state machine.
//!
//! It has no clock, no I/O and no tasks: every method is told what time it is, and pushes what must
//! be done into [`Effects`]. The shell locks, calls one method, unlocks, and then acts. So no user
//! code (hook, waker, `Drop`) ever runs under the lock, and every interleaving of the real world is
//! a sequence of calls that a test can write down.

mod acquire;
mod class;
mod control;
mod grant;
mod group;
mod line;
mod queue;
mod release;
mod slot;
mod supply;
#[cfg(test)]
mod tests {
    //! The engine under a fake clock: no runtime, no tasks, every interleaving written down.
    //!
    //! `RUSTFLAGS="--cfg pool_loom" cargo test -p pool-core --lib --release loom` runs the threads
    //! of [`loom`] instead, in every possible order.

    #[cfg(pool_loom)]
    mod loom;
    #[cfg(not(pool_loom))]
    mod model;
    #[cfg(not(pool_loom))]
    mod rig;
}
mod upkeep;

use std::collections::BTreeSet;
use std::task::Waker;
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::time::Instant;

pub(crate) use acquire::Acquired;
use class::{ClassState, Counts, Leases};
use group::Groups;
use queue::Waiter;
pub(crate) use release::Return;
pub(crate) use slot::{Answer, Arc, Asked, Pooled, SlotRef, Ticket};
use slot::{ClassId, DEFAULT_CLASS, Slot, SlotState};

use crate::{
    Class, CloseReason, Config, Counters, Event, Limits, Meta, ResourceState, SharedError,
};

/// Everything that a pool knows; it lives behind the one mutex.
///
/// Fields that every lease changes stand first and together, here and in what the slabs hold: with
/// several cores, a lease costs about as much as the cache lines that move between them. The struct
/// begins on a cache line of its own, since a thread that spins for the mutex takes the mutex's
/// line away from its holder.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct State<R> {
    next_sequence: u64,
    /// The latest moment at which a waiter has joined.
    latest: Instant,
    /// Every request that waits; each stands in the queue of its class.
    waiters: Slab<Waiter<R>>,
    /// The class that was asked for last, which often is the one asked for next.
    recent: ClassId,
    /// Tallies of `slots` by state, changed only where a slot changes its state.
    counts: Counts,
    /// Counters of everything that is not counted by class.
    counters: Counters,
    /// Lease totals of forgotten classes, and of leases that no class counts.
    gone: Leases,
    /// Every resource. Its length is the capacity in use: there is no counter to forget.
    slots: Slab<Slot<R>>,
    classes: Slab<ClassState>,
    class_ids: FxHashMap<Class, ClassId>,
    /// Classes with a waiter that only a creation can serve. They are in no order: which of them
    /// has the best waiter changes with every grant, but only matters when there is room or
    /// contention.
    hungry: BTreeSet<ClassId>,
    /// Classes that have fewer resources than they should keep.
    short: BTreeSet<ClassId>,
    phase: Phase,
    next_id: u64,
    /// The next moment at which `tick` has something to do.
    alarm: Option<Instant>,
    /// The alarm has come nearer, so the upkeep task must look again.
    rearm: bool,
    /// Someone reads events; without a reader, none are made.
    observed: bool,
    rng: fastrand::Rng,
    groups: Groups,
    config: Config,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// New requests are refused; leases are revoked at the deadline, if there is one.
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

    /// Starts making events.
    pub(crate) fn observe(&mut self) {
        self.observed = true;
    }

    pub(crate) fn count_policy_panic(&mut self) {
        self.counters.policy_panics += 1;
    }

    pub(crate) fn count_rejection(&mut self) {
        self.counters.rejected += 1;
    }

    /// Runs [`check`](Self::check) in debug builds, as long as the pool is small enough to be
    /// checked in full after every call.
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
        // Clones of one class compare equal by pointer, without hashing their words.
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

    /// Returns the slot that a reference names, unless that resource is gone.
    fn slot(&mut self, slot: SlotRef) -> Option<&mut Slot<R>> {
        self.slots.get_mut(slot.index).filter(|held| held.id == slot.id)
    }

    fn meta(&self, index: usize) -> Meta {
        let slot = &self.slots[index];
        let class = self.classes[slot.class].class.clone();
        Meta { id: slot.id, class, created_at: slot.created_at, uses: slot.uses }
    }

    /// Puts a slot into another state; returns the previous one.
    fn set_state(&mut self, index: usize, state: SlotState<R>, now: Instant) -> SlotState<R> {
        std::mem::replace(self.enter(index, state.kind(), now), state)
    }

    /// Counts a slot as being in another state, and returns the place where the caller must put
    /// that state at once. States change in no other way, so the tallies cannot drift.
    ///
    /// It is not handed the state, as [`set_state`](Self::set_state) is: copying the two states of
    /// each lease once more would add a tenth to its cost.
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

    /// Returns the resource of an idle slot.
    #[inline]
    fn idle(&self, index: usize) -> &Pooled<R> {
        let SlotState::Idle(pooled) = &self.slots[index].state else {
            unreachable!("only idle resources are listed as idle")
        };
        pooled
    }

    /// Takes the resource out of an idle slot and puts the slot into another state.
    #[inline]
    fn take_idle(&mut self, index: usize, state: SlotState<R>, now: Instant) -> Box<Pooled<R>> {
        let SlotState::Idle(pooled) = self.set_state(index, state, now) else {
            unreachable!("only idle resources are listed as idle")
        };
        pooled
    }

    /// Brings `tick` forward to `at` if it would come later.
    #[inline]
    fn arm(&mut self, at: Instant) {
        if self.alarm.is_none_or(|alarm| at < alarm) {
            self.alarm = Some(at);
            self.rearm = true;
        }
    }

    /// Returns `true`, once, if the upkeep task must be woken because the next deadline has come
    /// nearer.
    pub(crate) fn take_rearm(&mut self) -> bool {
        // Written only if it changes, as its neighbours are only read by every call.
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

/// Work for the shell once the lock is released.
#[derive(Debug)]
pub(crate) struct Effects<R> {
    /// Callers to wake because their requests have been answered.
    pub(crate) wake: Wakers,
    /// Work for tasks.
    pub(crate) jobs: Vec<Job<R>>,
    /// Transitions to publish, in order.
    pub(crate) events: Vec<Event>,
    /// A value to drop: the pool no longer has a claim on it.
    pub(crate) drop: Option<Box<Pooled<R>>>,
    /// Drivers' errors that nobody needs any more; dropping one is foreign code.
    pub(crate) errors: Vec<SharedError>,
    /// A ticket that is no longer needed; freeing it under the lock would only take time.
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
    /// Returns `true` if there is nothing to do but wake one waiter and free a ticket, as after
    /// most calls.
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

/// A few wakers, seldom more than one.
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

impl<R> State<R> {
    /// Asserts all invariants that hold between two calls; runs after each in debug builds.
    ///
    /// # Panics
    ///
    /// If one does not hold: that is a bug in the engine.
    pub(crate) fn check(&self) {
        self.check_tallies();
        self.check_waiters();
        self.check_groups();
        for (id, class) in &self.classes {
            let idle_served = class.idle.is_empty()
                || class.waiters.ready() <= class.counts.of(ResourceState::Checking);
            assert!(idle_served, "{}: a waiter stands beside an idle resource", class.class);
            assert_eq!(self.hungry.contains(&id), class.hungry, "{}: hungry set", class.class);
            assert_eq!(self.short.contains(&id), class.short, "{}: short set", class.class);
            let hungry = class.is_hungry() && !self.is_draining();
            assert_eq!(class.hungry, hungry, "{}: hungry is out of date", class.class);
            let short = class.is_short() && !self.is_draining();
            assert_eq!(class.short, short, "{}: short is out of date", class.class);
        }
        let can_create = self.slots.len() < self.config.max_size
            && self.counts.of(ResourceState::Creating) < self.config.max_creating;
        assert!(
            !can_create || (self.hungry.is_empty() && self.short.is_empty()),
            "there is room, and a class is left without the creation that it needs"
        );
        self.check_evictions();
    }

    /// Asserts that a class that needs room takes it from another class's idle resource.
    fn check_evictions(&self) {
        if let Some((_, hungry)) = self.hungriest()
            && self.needs_room(None)
        {
            let idle = self.least_recently_used(hungry);
            assert!(idle.is_none(), "a waiter stands beside an idle resource of another class");
        }
    }

    fn check_tallies(&self) {
        let mut counts = Counts::default();
        let mut by_class: Vec<(Counts, usize)> = Vec::new();
        for (index, slot) in &self.slots {
            counts.add(slot.state.kind());
            if by_class.len() <= slot.class {
                by_class.resize(slot.class + 1, Default::default());
            }
            by_class[slot.class].0.add(slot.state.kind());
            by_class[slot.class].1 += usize::from(slot.retiring);
            let listed = self.classes[slot.class].idle.contains(&index);
            let idle = matches!(slot.state, SlotState::Idle(_));
            assert_eq!(listed, idle, "an idle resource is listed, and only that");
        }
        assert_eq!(counts, self.counts, "tallies by state");
        assert_eq!(counts.total(), self.slots.len(), "every slot is in one state");
        assert!(
            counts.of(ResourceState::Creating) <= self.config.max_creating,
            "more creations at once than allowed"
        );
        for (id, class) in &self.classes {
            let (counts, retiring) = by_class.get(id).copied().unwrap_or_default();
            assert_eq!(counts, class.counts, "{}: tallies by state", class.class);
            assert_eq!(retiring, class.retiring, "{}: retiring", class.class);
            let waiters = self.waiters.iter().filter(|(_, waiter)| waiter.class == id).count();
            assert_eq!(waiters, class.waiters.len(), "{}: length of the queue", class.class);
            assert!(
                !class.is_empty()
                    || id == DEFAULT_CLASS
                    || class.breaker.remembers_until().is_some(),
                "{}: nothing is left of it",
                class.class
            );
        }
    }

    fn check_groups(&self) {
        let mut members = Vec::new();
        for (id, class) in &self.classes {
            let share = |group| self.groups[group].share();
            let groups = class.waiters.check(&self.waiters, share);
            members.extend(groups.into_iter().map(|group| (group, id)));
        }
        let mut leased = 0;
        for (id, state) in self.groups.iter() {
            let name = &state.group.name;
            let held = self.slots.iter().filter(|(_, slot)| slot.group == Some(id)).count();
            assert_eq!(held, state.leased, "{name}: leases");
            let waiting = self.waiters.iter().filter(|(_, waiter)| waiter.group == Some(id));
            assert_eq!(waiting.count(), state.waiting, "{name}: waiters");
            let classes = members.iter().filter(|(group, _)| *group == id).map(|(_, class)| *class);
            assert!(classes.eq(state.classes.iter().copied()), "{name}: lines");
            assert!(held > 0 || !state.classes.is_empty(), "{name}: nothing is left of it");
            leased += held;
        }
        assert_eq!(leased, self.groups.leased(), "leases of all groups");
        assert!(self.groups.are_served(), "a group gave something back, and was not served");
        let others = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.group.is_some() && slot.state.kind() != ResourceState::Leased);
        assert_eq!(others.count(), 0, "only a lease belongs to a group");
    }

    fn check_waiters(&self) {
        for (_, class) in &self.classes {
            let sorted = class.waiters.sorted(&self.waiters);
            assert_eq!(sorted.len(), class.waiters.len(), "{}: length of the queue", class.class);
        }
        // One waiter for each resource may have been let in for a check.
        let places = self.config.max_size.max(self.slots.len());
        let allowed = self.config.max_waiting.saturating_add(places);
        assert!(self.waiters.len() <= allowed, "the queue is longer than allowed");
    }
}
