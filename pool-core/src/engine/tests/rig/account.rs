//! The comparison of the engine with the account, and the end of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Rig, Toy, Work};
use crate::engine::{Return, State, Ticket};
use crate::{Group, ResourceId, ResourceState, Verdict};

impl Rig {
    pub(super) fn compare(&mut self) {
        self.sort_answers();
        self.compare_load();
        self.compare_queue();
        assert_eq!(self.state.stats(self.now).counters, self.counters, "counters");
        self.compare_limits();
        self.compare_groups();
    }

    /// Sorts out who was answered, and asserts that nobody better was passed over.
    fn sort_answers(&mut self) {
        let (kept, taken_back): (Vec<Ask>, Vec<Ask>) =
            self.granted.drain(..).partition(|ask| ask.ticket.unfetched().is_some());
        self.granted = kept;
        for ask in taken_back {
            let counter =
                if self.draining { &mut self.counters.errors } else { &mut self.counters.timeouts };
            *counter += 1;
            self.failed.push(ask);
        }
        let (still, answered): (Vec<Ask>, Vec<Ask>) =
            self.waiting.drain(..).partition(|ask| self.state.queues(&ask.ticket));
        self.waiting = still;
        for ask in answered {
            if ask.ticket.unfetched().is_some() {
                let passed_over = self.waiting.iter().find(|other| {
                    (other.class, other.group) == (ask.class, ask.group) && other.rank < ask.rank
                });
                assert!(passed_over.is_none(), "{ask:?} was served before {passed_over:?}");
                self.groups.served(ask.class, ask.group);
                self.granted.push(ask);
            } else {
                let late = ask.expires_at.is_some_and(|at| at <= self.now) && !self.draining;
                *if late { &mut self.counters.timeouts } else { &mut self.counters.errors } += 1;
                self.failed.push(ask);
            }
        }
    }

    fn compare_load(&mut self) {
        self.idle.clear();
        for info in self.state.resources() {
            if info.state == ResourceState::Idle {
                let class = self.classes.iter().position(|class| *class == info.class);
                self.idle.insert(info.id, class.expect("only classes of this test exist"));
            }
        }
        let load = self.state.load();
        let jobs = |kind: fn(&Work) -> bool| {
            self.pending.iter().filter(|pending| kind(&pending.work)).count()
        };
        assert_eq!(load.creating, jobs(|work| matches!(work, Work::Create)), "creating");
        assert_eq!(load.recycling, jobs(|work| matches!(work, Work::Recycle(_))), "recycling");
        assert_eq!(load.checking, jobs(|work| matches!(work, Work::Check(_))), "checking");
        let closing = jobs(|work| matches!(work, Work::Close(_) | Work::Revoke));
        assert_eq!(load.closing, closing, "closing");
        let held = self.leases.iter().filter(|(_, held)| !self.revoked.contains(&held.slot.id));
        assert_eq!(load.leased, held.count() + self.granted.len(), "leased");
        assert_eq!(load.waiting, self.waiting.len(), "waiting");
        // Every value is somewhere: idle, with a job, with a holder, or on its way to one.
        let with_jobs = self
            .pending
            .iter()
            .filter(|held| !matches!(held.work, Work::Create | Work::Revoke))
            .count();
        let alive = Arc::strong_count(&self.alive) - 1;
        let known = self.idle.len() + with_jobs + self.leases.len() + self.granted.len();
        assert_eq!(alive, known, "a value was lost or kept");
    }

    fn compare_queue(&self) {
        let mut expected = self.waiting.clone();
        expected.sort_by_key(|ask| ask.rank);
        let expected: Vec<_> = expected.iter().map(|ask| self.classes[ask.class].clone()).collect();
        let queue: Vec<_> =
            self.state.waiters(self.now).into_iter().map(|info| info.class).collect();
        assert_eq!(queue, expected, "the order of the queue");
        for ask in &self.waiting {
            let idle = self.idle.values().filter(|class| **class == ask.class).count();
            let checks = self
                .pending
                .iter()
                .filter(|held| held.class == ask.class && matches!(held.work, Work::Check(_)));
            let served = checks.count() >= self.ready(ask.class) || self.room(ask.group) == 0;
            assert!(idle == 0 || served, "{ask:?} waits beside an idle one");
        }
    }

    fn compare_limits(&mut self) {
        let load = self.state.load();
        self.ceiling = self.config.max_size.max(self.ceiling.min(load.total()));
        assert!(
            load.total() <= self.ceiling,
            "{} resources, {} allowed",
            load.total(),
            self.ceiling
        );
        assert!(load.creating <= self.config.max_creating, "more creations than allowed");
    }

    /// Lets all work succeed and gives everything back, until nobody waits.
    pub(crate) fn serve_everyone(&mut self) {
        // Nothing may ever be created for these.
        for ask in self.waiting.clone().iter().filter(|ask| !ask.creates) {
            self.cancel(ask);
        }
        for round in 0.. {
            assert!(round < 10_000, "somebody waits for ever: {:?}", self.waiting);
            while !self.pending.is_empty() {
                self.finish(0, true);
            }
            for ask in [self.granted.clone(), self.failed.clone()].concat() {
                self.poll(&ask);
            }
            while !self.leases.is_empty() {
                self.release(0, Return::Judged(Verdict::Recycle));
            }
            if self.waiting.is_empty() && self.pending.is_empty() && self.granted.is_empty() {
                return;
            }
            if self.pending.is_empty() {
                self.advance(Duration::from_secs(1));
            }
        }
    }

    /// Drains the pool until it is empty.
    pub(crate) fn end(mut self) {
        self.drain(Some(Duration::ZERO));
        self.advance(Duration::from_millis(1));
        while !self.pending.is_empty() {
            self.finish(0, true);
        }
        assert!(self.state.is_drained(), "something is left: {:?}", self.state.resources());
        while !self.leases.is_empty() {
            self.release(0, Return::Judged(Verdict::Keep));
        }
        for ask in [self.granted.clone(), self.failed.clone()].concat() {
            self.cancel(&ask);
        }
        assert_eq!(Arc::strong_count(&self.alive), 1, "a value outlived the pool");
    }
}

/// Accessors for tests only.
impl State<Toy> {
    fn queues(&self, ticket: &Arc<Ticket<Toy>>) -> bool {
        self.waiters.iter().any(|(_, waiter)| Arc::ptr_eq(&waiter.ticket, ticket))
    }
}

/// The group of a request, if it has one.
type Party = Option<usize>;

#[derive(Debug)]
pub(super) struct Parties {
    groups: Vec<Arc<Group>>,
    /// Most leases that each group may hold: its limit, or what it held when the limit shrank.
    ceilings: Vec<usize>,
    /// Holders by resource, including those of revoked leases.
    pub(super) leases: BTreeMap<ResourceId, Party>,
    /// Parties that had a waiter who could be served, at the last comparison.
    ready: BTreeSet<(usize, Party)>,
    /// Leases that each of two parties got in a class since both have been waiting for it.
    windows: BTreeMap<(usize, Party, Party), (f64, f64)>,
}

impl Parties {
    pub(super) fn new(count: usize) -> Self {
        let limits = [Some(1), None, Some(2)];
        let groups = (0..count).map(|index| {
            let mut group = Group::new(index.to_string()).weight([1.0, 2.0, 0.5][index % 3]);
            group.max_leases = limits[index % 3];
            Arc::new(group)
        });
        Self {
            groups: groups.collect(),
            ceilings: vec![usize::MAX; count],
            leases: BTreeMap::new(),
            ready: BTreeSet::new(),
            windows: BTreeMap::new(),
        }
    }

    pub(super) fn group(&self, index: usize) -> Arc<Group> {
        Arc::clone(&self.groups[index])
    }

    fn weight(&self, party: Party) -> f64 {
        party.map_or(1.0, |index| self.groups[index].weight)
    }

    /// Records that a waiter was granted something.
    pub(super) fn served(&mut self, class: usize, party: Party) {
        let lease = 1.0 / self.weight(party);
        for ((of, one, other), got) in &mut self.windows {
            if *of == class && *one == party {
                got.0 += lease;
            } else if *of == class && *other == party {
                got.1 += lease;
            }
        }
    }

    /// Restarts the comparison: what follows does not depend on shares alone.
    pub(super) fn begin_anew(&mut self) {
        self.windows.clear();
    }
}

impl Rig {
    /// Returns the number of leases that a party holds or has been granted.
    fn held(&self, party: Party) -> usize {
        let held = self.groups.leases.iter().filter(|(_, holder)| **holder == party);
        let held = held.filter(|(id, _)| !self.revoked.contains(id)).count();
        held + self.granted.iter().filter(|ask| ask.group == party).count()
    }

    /// Returns the number of leases that it may still get.
    pub(super) fn room(&self, party: Party) -> usize {
        let limit = party.and_then(|index| self.groups.groups[index].max_leases);
        limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.held(party)))
    }

    fn parties(&self) -> Vec<Party> {
        [None].into_iter().chain((0..self.groups.groups.len()).map(Some)).collect()
    }

    fn waiters_of(&self, class: usize, party: Party) -> usize {
        self.waiting.iter().filter(|ask| (ask.class, ask.group) == (class, party)).count()
    }

    /// Returns the number of waiters of a class that could be served.
    pub(super) fn ready(&self, class: usize) -> usize {
        let ready = |party: &Party| self.waiters_of(class, *party).min(self.room(*party));
        self.parties().iter().map(ready).sum()
    }

    pub(super) fn compare_groups(&mut self) {
        self.compare_held();
        self.compare_shares();
    }

    fn compare_held(&mut self) {
        let told = self.state.stats(self.now).groups;
        for (index, group) in self.groups.groups.clone().into_iter().enumerate() {
            let held = self.held(Some(index));
            let waiting = self.waiting.iter().filter(|ask| ask.group == Some(index)).count();
            let stats = told.iter().find(|stats| stats.name == group.name);
            let engine = stats.map_or((0, 0), |stats| (stats.leased, stats.waiting));
            assert_eq!(engine, (held, waiting), "leases and waiters of group {index}");
            let limit = group.max_leases.unwrap_or(usize::MAX);
            let ceiling = limit.max(self.groups.ceilings[index].min(held));
            self.groups.ceilings[index] = ceiling;
            assert!(held <= ceiling, "group {index} has {held} leases, {ceiling} allowed");
        }
    }

    /// Asserts that what two parties got for their weights differs by at most one lease of each, if
    /// both have waited all the time.
    fn compare_shares(&mut self) {
        let parties = self.parties();
        let mut ready = BTreeSet::new();
        for class in 0..self.classes.len() {
            for party in &parties {
                if self.waiters_of(class, *party) > 0 && self.room(*party) > 0 {
                    ready.insert((class, *party));
                }
            }
        }
        let before = std::mem::replace(&mut self.groups.ready, ready.clone());
        for class in 0..self.classes.len() {
            for (at, one) in parties.iter().enumerate() {
                for other in &parties[at + 1..] {
                    let both = |set: &BTreeSet<_>| {
                        set.contains(&(class, *one)) && set.contains(&(class, *other))
                    };
                    let pair = (class, *one, *other);
                    if !both(&before) || !both(&ready) {
                        self.groups.windows.remove(&pair);
                    }
                    if !both(&ready) {
                        continue;
                    }
                    let allowed = 1.0 / self.groups.weight(*one) + 1.0 / self.groups.weight(*other);
                    let got = *self.groups.windows.entry(pair).or_default();
                    assert!(
                        (got.0 - got.1).abs() <= allowed + 0.001,
                        "{one:?} got {} and {other:?} {} of class {class}",
                        got.0,
                        got.1
                    );
                }
            }
        }
    }

    pub(crate) fn set_group(
        &mut self,
        index: usize,
        max_leases: Option<usize>,
        max_waiting: Option<usize>,
        weight: f64,
    ) {
        let mut group = Group::new(index.to_string()).weight(weight);
        (group.max_leases, group.max_waiting) = (max_leases, max_waiting);
        let group = Arc::new(group);
        self.groups.groups[index] = Arc::clone(&group);
        self.groups.ceilings[index] = usize::MAX;
        self.groups.begin_anew();
        self.call(|state, now, fx| state.set_group(&group, now, fx));
        self.compare();
    }

    /// Asserts that nothing is left of groups that hold nothing and do not wait.
    pub(crate) fn has_forgotten_all_groups(&self) {
        assert_eq!(self.state.stats(self.now).groups, [], "groups of nobody");
    }
}
