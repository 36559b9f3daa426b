//! The account of groups: what each holds, and what it got while it waited beside another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Rig;
use crate::{Group, ResourceId};

/// Of a group, or of none.
type Party = Option<usize>;

#[derive(Debug)]
pub(super) struct Parties {
    groups: Vec<Arc<Group>>,
    /// Leases of each at most: its limit, or what was left when that shrank.
    ceilings: Vec<usize>,
    /// Who holds what; the revoked too.
    pub(super) leases: BTreeMap<ResourceId, Party>,
    /// Parties that had a waiter who could be served, at the last comparison.
    ready: BTreeSet<(usize, Party)>,
    /// What two parties got of a class since both have waited for it.
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

    /// A waiter was granted something.
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

    /// Begins to compare anew: what follows is no matter of shares alone.
    pub(super) fn begin_anew(&mut self) {
        self.windows.clear();
    }
}

impl Rig {
    /// Leases that a party holds, or has been granted.
    fn held(&self, party: Party) -> usize {
        let held = self.groups.leases.iter().filter(|(_, holder)| **holder == party);
        let held = held.filter(|(id, _)| !self.revoked.contains(id)).count();
        held + self.granted.iter().filter(|ask| ask.group == party).count()
    }

    /// Leases that it may still get.
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

    /// Waiters of a class that could be served.
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

    /// Between two parties that have both waited all the time, what they got for their weights
    /// differs by one lease of each at most.
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

    /// Nothing is left of groups that hold nothing and do not wait.
    pub(crate) fn has_forgotten_all_groups(&self) {
        assert_eq!(self.state.stats(self.now).groups, [], "groups of nobody");
    }
}
