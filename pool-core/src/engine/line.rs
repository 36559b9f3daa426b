use std::cmp::Reverse;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use priority_queue::PriorityQueue;
use rustc_hash::{FxHashMap, FxHasher};
use slab::Slab;
use tokio::time::Instant;

use super::queue::{Queue, Rank, Waiter, WaiterId};
use super::slot::GroupId;
use crate::Group;

/// The waiters of one class.
#[expect(clippy::large_enum_variant, reason = "a box would be one more cache line for each lease")]
#[derive(Debug)]
pub(super) enum Line {
    /// One queue, as long as no group has a waiter or is remembered.
    Plain(Queue),
    /// A queue for each group.
    Shared(Box<Shares>),
}

impl Default for Line {
    fn default() -> Self {
        Self::Plain(Queue::default())
    }
}

/// Room and stride of a group in a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Leases that it may still get.
    pub(super) room: usize,
    /// Virtual time that each of them takes.
    pub(super) stride: u64,
}

impl Share {
    /// Returns the share of requests that belong to no group.
    fn plain() -> Self {
        Self { room: usize::MAX, stride: Group::plain_stride() }
    }
}

impl Line {
    /// Returns the number of all waiters.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(queue) => queue.len(),
            Self::Shared(shares) => shares.len,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of waiters that could be served now: from each group, as many as it may
    /// still get leases.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        match self {
            Self::Plain(queue) => queue.len(),
            Self::Shared(shares) => shares.ready,
        }
    }

    /// Returns the number of those for which a resource may be created.
    #[inline]
    pub(super) fn creators(&self) -> usize {
        match self {
            Self::Plain(queue) => queue.creators(),
            Self::Shared(shares) => shares.creators,
        }
    }

    /// Returns the group of the waiter that is served next, and the waiter's rank.
    #[inline]
    pub(super) fn best<R>(&self, waiters: &Slab<Waiter<R>>) -> Option<(Option<GroupId>, Rank)> {
        match self {
            Self::Plain(queue) => Some((None, queue.best(waiters)?)),
            Self::Shared(shares) => {
                let (group, _) = shares.order.peek()?;
                Some((*group, shares.members[group].queue.best(waiters)?))
            }
        }
    }

    /// Adds a waiter: with a handicap, to the place for that handicap; without one, at any rank.
    #[inline]
    pub(super) fn push<R>(
        &mut self,
        waiters: &mut Slab<Waiter<R>>,
        waiter: WaiterId,
        handicap: Option<Duration>,
        share: Option<Share>,
    ) {
        match (&mut *self, share) {
            (Self::Plain(queue), None) => queue.add(waiters, waiter, handicap),
            (Self::Plain(queue), Some(share)) => {
                let mut shares = Shares::new(std::mem::take(queue), waiters);
                shares.push(waiters, waiter, handicap, share);
                *self = Self::Shared(Box::new(shares));
            }
            (Self::Shared(shares), share) => {
                let share = share.unwrap_or_else(Share::plain);
                shares.push(waiters, waiter, handicap, share);
            }
        }
    }

    /// Takes out the waiter that is served next; also returns its handicap, unless the waiter
    /// brought an age along.
    #[inline]
    pub(super) fn pop<R>(
        &mut self,
        waiters: &mut Slab<Waiter<R>>,
    ) -> Option<(WaiterId, Option<Duration>)> {
        match self {
            Self::Plain(queue) => queue.pop(waiters),
            Self::Shared(shares) => shares.pop(waiters),
        }
    }

    /// Takes a waiter out, wherever it stands.
    #[inline]
    pub(super) fn remove<R>(&mut self, waiters: &mut Slab<Waiter<R>>, waiter: WaiterId) {
        match self {
            Self::Plain(queue) => queue.remove(waiters, waiter),
            Self::Shared(shares) => shares.remove(waiters, waiter),
        }
    }

    /// Returns every waiter with its rank, best first, whatever their groups.
    pub(super) fn sorted<R>(&self, waiters: &Slab<Waiter<R>>) -> Vec<(Rank, WaiterId)> {
        let mut all: Vec<_> = self
            .queues()
            .flat_map(|queue| queue.iter(waiters))
            .map(|id| (waiters[id].rank, id))
            .collect();
        all.sort_unstable();
        all
    }

    /// Returns waiters that the pool itself must time out, the earliest of all among them.
    pub(super) fn first_timed<R>(&self, waiters: &Slab<Waiter<R>>) -> Vec<(Instant, WaiterId)> {
        self.queues().flat_map(|queue| queue.first_timed(waiters)).collect()
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        let (plain, shares) = match self {
            Self::Plain(queue) => (Some(queue), None),
            Self::Shared(shares) => (None, Some(shares)),
        };
        let members = shares.into_iter().flat_map(|shares| shares.members.values());
        plain.into_iter().chain(members.map(|member| &member.queue))
    }

    /// Returns the number of a group's waiters.
    pub(super) fn len_of(&self, group: GroupId) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Shared(shares) => {
                shares.members.get(&Some(group)).map_or(0, |member| member.queue.len())
            }
        }
    }

    /// Notes how many leases a group may still get, and how much each costs it.
    pub(super) fn set_share<R>(&mut self, group: GroupId, share: Share, waiters: &Slab<Waiter<R>>) {
        if let Self::Shared(shares) = self {
            shares.set_share(group, share, waiters);
        }
    }

    /// Returns `true` if the line has forgotten groups since it was last asked.
    #[inline]
    pub(super) fn has_gone(&self) -> bool {
        matches!(self, Self::Shared(shares) if !shares.gone.is_empty())
    }

    /// Returns the groups that the line has forgotten since it was last asked, and turns the line
    /// back into one queue if no group is left. Called after every change.
    pub(super) fn take_gone(&mut self) -> Vec<GroupId> {
        let Self::Shared(shares) = self else { return Vec::new() };
        let gone = std::mem::take(&mut shares.gone);
        if !gone.is_empty() && shares.members.keys().all(Option::is_none) {
            let plain = shares.members.remove(&None);
            *self = Self::Plain(plain.map(|member| member.queue).unwrap_or_default());
        }
        gone
    }
}

/// The waiters of one class by group: weighted fair queueing between the groups, each of which has
/// a queue like that of a class without groups.
///
/// It is start-time fair queueing. Each group has a turn, the virtual time at which its next lease
/// begins; the group with the earliest turn is served, and its turn advances by its stride. A group
/// that begins to wait gets a turn no earlier than the one served last: it saves up neither the
/// time in which it did not wait nor the time in which it was full. So between two groups that both
/// wait, the numbers of leases, each divided by its group's weight, differ by at most one lease of
/// each.
#[derive(Debug, Default)]
pub(super) struct Shares {
    len: usize,
    ready: usize,
    creators: usize,
    /// The turn that was served last.
    time: u64,
    /// The latest turn that any group was given.
    latest: u64,
    /// Waiters by group; those of no group are the member without an id.
    members: FxHashMap<Option<GroupId>, Member>,
    /// Members with a waiter that could be served; if turns are equal, the better waiter decides.
    order: PriorityQueue<Option<GroupId>, Reverse<(u64, Rank)>, BuildHasherDefault<FxHasher>>,
    /// Members without a waiter, remembered until the virtual time reaches their turn: otherwise a
    /// group that asks anew each time would never be charged for what it has had.
    resting: PriorityQueue<Option<GroupId>, Reverse<u64>, BuildHasherDefault<FxHasher>>,
    /// Groups that are no longer remembered.
    gone: Vec<GroupId>,
}

#[derive(Debug)]
struct Member {
    queue: Queue,
    turn: u64,
    share: Share,
}

impl Member {
    /// Returns the number of its waiters that could be served, and of those for which a resource
    /// may be created.
    fn ready(&self) -> (usize, usize) {
        let room = self.share.room;
        (self.queue.len().min(room), self.queue.creators().min(room))
    }
}

impl Shares {
    fn new<R>(plain: Queue, waiters: &Slab<Waiter<R>>) -> Self {
        let mut shares = Self::default();
        if let Some(rank) = plain.best(waiters) {
            shares.len = plain.len();
            shares.ready = plain.len();
            shares.creators = plain.creators();
            let member = Member { queue: plain, turn: 0, share: Share::plain() };
            shares.members.insert(None, member);
            shares.order.push(None, Reverse((0, rank)));
        }
        shares
    }

    fn push<R>(
        &mut self,
        waiters: &mut Slab<Waiter<R>>,
        waiter: WaiterId,
        handicap: Option<Duration>,
        share: Share,
    ) {
        let group = waiters[waiter].group;
        let turn = self.time;
        self.members.entry(group).or_insert_with(|| Member {
            queue: Queue::default(),
            turn,
            share,
        });
        self.len += 1;
        let is_first = self.change(group, |member| {
            member.queue.add(waiters, waiter, handicap);
            member.queue.len() == 1
        });
        if is_first {
            self.resting.remove(&group);
            self.line_up(group, waiters);
        }
    }

    /// Gives a member with a waiter its place in the order, if it may have another lease.
    fn line_up<R>(&mut self, group: Option<GroupId>, waiters: &Slab<Waiter<R>>) {
        let member = self.members.get_mut(&group).expect("who waits is a member");
        if member.share.room > 0 {
            member.turn = member.turn.max(self.time);
            self.latest = self.latest.max(member.turn);
            let rank = member.queue.best(waiters).expect("it has a waiter");
            self.order.push(group, Reverse((member.turn, rank)));
        }
    }

    fn pop<R>(&mut self, waiters: &mut Slab<Waiter<R>>) -> Option<(WaiterId, Option<Duration>)> {
        let (&group, &Reverse((turn, _))) = self.order.peek()?;
        let (popped, next, rank) = self.change(group, |member| {
            let popped = member.queue.pop(waiters).expect("a member in the order has a waiter");
            member.turn = turn.saturating_add(member.share.stride);
            (popped, member.turn, member.queue.best(waiters))
        });
        self.len -= 1;
        self.time = turn;
        self.latest = self.latest.max(next);
        match rank {
            Some(rank) => {
                self.order.change_priority(&group, Reverse((next, rank)));
            }
            None => self.rest(group, next),
        }
        self.forget();
        Some(popped)
    }

    fn remove<R>(&mut self, waiters: &mut Slab<Waiter<R>>, waiter: WaiterId) {
        let group = waiters[waiter].group;
        let (turn, is_empty) = self.change(group, |member| {
            member.queue.remove(waiters, waiter);
            (member.turn, member.queue.is_empty())
        });
        self.len -= 1;
        if is_empty {
            self.rest(group, turn);
        }
        self.forget();
    }

    fn set_share<R>(&mut self, group: GroupId, share: Share, waiters: &Slab<Waiter<R>>) {
        let group = Some(group);
        let Some(member) = self.members.get(&group) else { return };
        let (was_full, waits) = (member.share.room == 0, !member.queue.is_empty());
        self.change(group, |member| member.share = share);
        match (was_full, share.room == 0) {
            (true, false) if waits => self.line_up(group, waiters),
            (false, true) => {
                self.order.remove(&group);
                self.forget();
            }
            _ => {}
        }
    }

    /// Changes a member, and updates the sums over all members.
    fn change<T>(&mut self, group: Option<GroupId>, change: impl FnOnce(&mut Member) -> T) -> T {
        let member = self.members.get_mut(&group).expect("who waits is a member");
        let (ready, creators) = member.ready();
        self.ready -= ready;
        self.creators -= creators;
        let out = change(member);
        let (ready, creators) = member.ready();
        self.ready += ready;
        self.creators += creators;
        out
    }

    fn rest(&mut self, group: Option<GroupId>, turn: u64) {
        self.order.remove(&group);
        self.resting.push(group, Reverse(turn));
    }

    /// Forgets members without a waiter whose turn has passed. When nobody is left to be served,
    /// every turn has.
    fn forget(&mut self) {
        if self.order.is_empty() {
            self.time = self.latest;
        }
        while let Some((&group, &Reverse(turn))) = self.resting.peek()
            && turn <= self.time
        {
            self.resting.pop();
            self.members.remove(&group);
            self.gone.extend(group);
        }
    }
}

impl Line {
    /// Asserts the invariants that hold between two calls, given the share that the engine has on
    /// record for each group; returns the groups that the line remembers.
    ///
    /// # Panics
    ///
    /// If something does not hold.
    pub(super) fn check<R>(
        &self,
        waiters: &Slab<Waiter<R>>,
        share: impl Fn(GroupId) -> Share,
    ) -> Vec<GroupId> {
        let shares = match self {
            Self::Shared(shares) => shares,
            Self::Plain(queue) => {
                let best = self.sorted(waiters).first().map(|(rank, _)| *rank);
                assert_eq!(best, queue.best(waiters), "best waiter");
                return Vec::new();
            }
        };
        let mut sums = (0, 0, 0);
        for (group, member) in &shares.members {
            let own = group.map_or_else(Share::plain, &share);
            assert_eq!(own.room, member.share.room, "{group:?}: leases that it may still get");
            assert_eq!(own.stride, member.share.stride, "{group:?}: stride");
            let (ready, creators) = member.ready();
            sums = (sums.0 + member.queue.len(), sums.1 + ready, sums.2 + creators);
            let is_served = shares.order.get(group).map(|(_, key)| key.0.0);
            let turn = (ready > 0).then_some(member.turn);
            assert_eq!(is_served, turn, "{group:?}: turn of who waits");
            assert!(turn.is_none_or(|turn| turn >= shares.time), "{group:?}: turn in the past");
            let rests = shares.resting.get(group).map(|(_, turn)| turn.0);
            let turn = member.queue.is_empty().then_some(member.turn);
            assert_eq!(rests, turn, "{group:?}: turn of who does not wait");
        }
        assert_eq!(sums, (shares.len, shares.ready, shares.creators), "sums over the groups");
        assert!(shares.gone.is_empty(), "forgotten groups are reported");
        let groups: Vec<_> = shares.members.keys().copied().flatten().collect();
        assert!(!groups.is_empty(), "a line without groups is one queue");
        groups
    }
}
