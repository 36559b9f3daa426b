//! Groups of requests: what each holds and may still get.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::time::Instant;

use super::line::Share;
use super::queue::Rank;
use super::slot::{ClassId, GroupId};
use super::{Effects, State};
use crate::{Group, GroupStats};

/// The groups that hold something, wait, or are remembered by a line.
#[derive(Debug, Default)]
pub(super) struct Groups {
    states: Slab<GroupState>,
    ids: FxHashMap<Arc<str>, GroupId>,
    /// Leases of all groups together.
    leased: usize,
    /// Groups that gave something back in this call; their waiters may now get idle resources.
    relieved: Vec<GroupId>,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) group: Arc<Group>,
    /// Number of leased slots that name this group.
    pub(super) leased: usize,
    /// Number of waiters that name it.
    pub(super) waiting: usize,
    /// The classes whose line it is a member of.
    pub(super) classes: BTreeSet<ClassId>,
}

impl GroupState {
    pub(super) fn share(&self) -> Share {
        let room = self.group.max_leases.map_or(usize::MAX, |max| max.saturating_sub(self.leased));
        Share { room, stride: self.group.stride() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.group.max_leases.is_some_and(|max| self.leased >= max)
    }

    /// Returns `true` if no more of its requests may join the queue.
    pub(super) fn is_crowded(&self) -> bool {
        self.group.max_waiting.is_some_and(|max| self.waiting >= max)
    }

    pub(super) fn stats(&self) -> GroupStats {
        let Group { name, max_leases, max_waiting, weight } = &*self.group;
        GroupStats {
            name: Arc::clone(name),
            leased: self.leased,
            waiting: self.waiting,
            max_leases: *max_leases,
            max_waiting: *max_waiting,
            weight: *weight,
        }
    }
}

impl std::ops::Index<GroupId> for Groups {
    type Output = GroupState;

    fn index(&self, group: GroupId) -> &GroupState {
        &self.states[group.index()]
    }
}

impl std::ops::IndexMut<GroupId> for Groups {
    fn index_mut(&mut self, group: GroupId) -> &mut GroupState {
        &mut self.states[group.index()]
    }
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, &GroupState)> {
        self.states.iter().map(|(index, state)| (GroupId::new(index), state))
    }

    pub(super) fn are_served(&self) -> bool {
        self.relieved.is_empty()
    }

    /// Returns the leases of all groups together.
    pub(super) fn leased(&self) -> usize {
        self.leased
    }
}

/// A class's claim to room that other classes want too; the smallest claim goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// Leases that the group of its best waiter would hold with one more, divided by the group's
    /// weight. Always zero if there are no groups.
    pub(super) held: u64,
    pub(super) rank: Rank,
}

impl<R> State<R> {
    /// Returns the state of a request's group; a new group starts with this request.
    pub(super) fn join_group(
        &mut self,
        group: &Arc<Group>,
        now: Instant,
        fx: &mut Effects<R>,
    ) -> GroupId {
        if let Some(&id) = self.groups.ids.get(&group.name) {
            self.change_group(id, group, now, fx);
            return id;
        }
        let id = GroupId::new(self.groups.states.insert(GroupState {
            group: Arc::clone(group),
            leased: 0,
            waiting: 0,
            classes: BTreeSet::new(),
        }));
        self.groups.ids.insert(Arc::clone(&group.name), id);
        id
    }

    /// Changes the limits and the weight of a known group; an unknown one brings its own with its
    /// next request.
    pub(crate) fn set_group(&mut self, group: &Arc<Group>, now: Instant, fx: &mut Effects<R>) {
        if let Some(&id) = self.groups.ids.get(&group.name) {
            self.change_group(id, group, now, fx);
            self.pump(now, fx);
        }
    }

    fn change_group(&mut self, id: GroupId, group: &Arc<Group>, now: Instant, fx: &mut Effects<R>) {
        let held = &mut self.groups[id].group;
        if Arc::ptr_eq(held, group) {
            return;
        }
        let same = **held == **group;
        *held = Arc::clone(group);
        if !same {
            self.share_anew(id);
            self.serve_group(id, now, fx);
        }
    }

    /// Tells every line that a group is a member of how many leases it may still get.
    fn share_anew(&mut self, id: GroupId) {
        let state = &self.groups[id];
        if state.classes.is_empty() {
            return;
        }
        let share = state.share();
        for class in state.classes.clone() {
            self.classes[class].waiters.set_share(id, share, &self.waiters);
            self.refresh(class);
        }
    }

    /// Counts a lease towards its group.
    pub(super) fn hold(&mut self, index: usize, id: GroupId) {
        self.slots[index].group = Some(id);
        self.groups.leased += 1;
        let state = &mut self.groups[id];
        state.leased += 1;
        if state.group.max_leases.is_some() {
            self.share_anew(id);
        }
    }

    /// Notes that the lease of a slot has ended, so that its group may have another. Idle resources
    /// go to the group at the next [`pump`](Self::pump), once it is decided what becomes of this
    /// one.
    pub(super) fn let_go(&mut self, index: usize) {
        let group = &mut self.slots[index].group;
        // Written only if it changes: any write takes the cache line away from the other cores.
        let Some(id) = *group else { return };
        *group = None;
        self.groups.leased -= 1;
        self.groups.relieved.push(id);
        let state = &mut self.groups[id];
        state.leased -= 1;
        if state.group.max_leases.is_some() {
            self.share_anew(id);
        }
    }

    /// Serves the groups that gave something back.
    #[inline]
    pub(super) fn serve_relieved(&mut self, now: Instant, fx: &mut Effects<R>) {
        while let Some(id) = self.groups.relieved.pop() {
            self.serve_group(id, now, fx);
        }
    }

    /// Grants idle resources to waiters of a group that may have more leases than before.
    fn serve_group(&mut self, id: GroupId, now: Instant, fx: &mut Effects<R>) {
        // It may have been forgotten since, with the last line that remembered it.
        let state = self.groups.states.get(id.index());
        if let Some(state) = state.filter(|state| state.waiting > 0) {
            for class in state.classes.clone() {
                self.serve(class, now, fx);
            }
        }
        self.forget_group(id);
    }

    /// Drops a group that nothing remembers, so that names from outside cannot pile up.
    pub(super) fn forget_group(&mut self, id: GroupId) {
        let unused = |state: &GroupState| {
            state.leased == 0 && state.waiting == 0 && state.classes.is_empty()
        };
        if self.groups.states.get(id.index()).is_some_and(unused) {
            let state = self.groups.states.remove(id.index());
            self.groups.ids.remove(&state.group.name);
        }
    }

    /// Notes which groups the line of a class has forgotten.
    #[inline]
    pub(super) fn settle_groups(&mut self, class: ClassId) {
        if !self.classes[class].waiters.has_gone() {
            return;
        }
        for id in self.classes[class].waiters.take_gone() {
            self.groups[id].classes.remove(&class);
            self.forget_group(id);
        }
    }

    /// Returns the claim of a class's best waiter, if one of them could be served.
    pub(super) fn claim(&self, class: ClassId) -> Option<Claim> {
        let (group, rank) = self.classes[class].waiters.best(&self.waiters)?;
        if self.groups.is_empty() {
            return Some(Claim { held: 0, rank });
        }
        let (leased, stride) = match group {
            Some(id) => (self.groups[id].leased, self.groups[id].group.stride()),
            None => {
                let leased = self.counts.of(crate::ResourceState::Leased);
                (leased - self.groups.leased(), Group::plain_stride())
            }
        };
        Some(Claim { held: stride.saturating_mul(leased as u64 + 1), rank })
    }
}
