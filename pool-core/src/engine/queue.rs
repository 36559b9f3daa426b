use std::cmp::Reverse;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use priority_queue::PriorityQueue;
use rustc_hash::{FxHashMap, FxHasher};
use slab::Slab;
use tokio::time::Instant;

use super::slot::{Arc, ClassId, GroupId, Ticket};

/// The order in which waiters are served: by the time at which they count as having come, then by
/// the order in which they really came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) at: Instant,
    pub(super) sequence: u64,
}

pub(super) type WaiterId = usize;

/// A request's place in the queue.
///
/// It fills one cache line, since each waiter moves from core to core.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Waiter<R> {
    pub(super) ticket: Arc<Ticket<R>>,
    pub(super) class: ClassId,
    pub(super) rank: Rank,
    pub(super) links: Links,
    pub(super) group: Option<GroupId>,
    /// A resource may be created for it.
    pub(super) creates: bool,
}

#[cfg(not(pool_loom))]
const _: () = assert!(size_of::<Waiter<()>>() <= 64);

/// Waiters of one class and group, best first.
///
/// Waiters with the same handicap always keep the order in which they came, so they stand in a
/// lane, a linked list through the waiters themselves; a priority queue orders the lanes by their
/// first waiters. With as many lanes as there are priorities, joining and leaving cost next to
/// nothing however long the queue is. If each waiter has a handicap of its own, this becomes a
/// priority queue of waiters.
///
/// Waiters that bring an age along come in no particular order: they stand in a priority queue of
/// their own, and the best waiter is the better of the two queues' best.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    len: usize,
    /// Number of waiters for which nothing is created.
    passive: usize,
    lanes: Slab<Lane>,
    by_handicap: FxHashMap<Duration, LaneId>,
    order: PriorityQueue<LaneId, Reverse<Rank>, BuildHasherDefault<FxHasher>>,
    aged: PriorityQueue<WaiterId, Reverse<Rank>, BuildHasherDefault<FxHasher>>,
}

pub(super) type LaneId = usize;

/// Number of empty lanes that are kept, since priorities come again.
const SPARE_LANES: usize = 16;

/// Waiters with the same handicap. It fills one cache line, since its ends change whenever one
/// joins or leaves.
#[derive(Debug)]
#[repr(align(64))]
struct Lane {
    handicap: Duration,
    /// First and last, unless it is empty.
    ends: Option<(WaiterId, WaiterId)>,
}

/// A waiter's place in its lane. No queue is long enough to need wider numbers.
///
/// In the first waiter of a lane, `before` is meaningless: updating it whenever another one becomes
/// the first would fetch that one's cache line, perhaps from another core, for nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// [`NONE`] for a waiter among the aged.
    lane: u32,
    before: u32,
    after: u32,
}

/// Stands for `None`, since an `Option` would not fit into a waiter's cache line.
const NONE: u32 = u32::MAX;

impl Default for Links {
    fn default() -> Self {
        Self { lane: NONE, before: NONE, after: NONE }
    }
}

impl Links {
    fn new(lane: LaneId, before: Option<WaiterId>) -> Self {
        Self { lane: narrow(lane), before: before.map_or(NONE, narrow), after: NONE }
    }

    fn lane(self) -> Option<LaneId> {
        widen(self.lane)
    }

    fn before(self) -> Option<WaiterId> {
        widen(self.before)
    }

    fn after(self) -> Option<WaiterId> {
        widen(self.after)
    }
}

fn narrow(id: usize) -> u32 {
    u32::try_from(id).expect("memory ends before the numbers do")
}

fn widen(id: u32) -> Option<usize> {
    (id != NONE).then_some(id as usize)
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of waiters for which a resource may be created.
    pub(super) fn creators(&self) -> usize {
        self.len - self.passive
    }

    /// Returns the rank of the best waiter.
    pub(super) fn best<R>(&self, waiters: &Slab<Waiter<R>>) -> Option<Rank> {
        self.best_waiter(waiters).map(|waiter| waiters[waiter].rank)
    }

    #[inline]
    fn best_waiter<R>(&self, waiters: &Slab<Waiter<R>>) -> Option<WaiterId> {
        let first = self.order.peek().map(|(lane, _)| self.first(*lane));
        match (first, self.aged.peek()) {
            (first, None) => first,
            (Some(first), Some((_, aged))) if waiters[first].rank < aged.0 => Some(first),
            (_, Some((aged, _))) => Some(*aged),
        }
    }

    fn first(&self, lane: LaneId) -> WaiterId {
        self.lanes[lane].ends.expect("a lane in the order has a waiter").0
    }

    /// Adds a waiter: with a handicap, to the end of its lane, where its rank is the latest;
    /// without one, to those whose ranks come in any order.
    #[inline]
    pub(super) fn add<R>(
        &mut self,
        waiters: &mut Slab<Waiter<R>>,
        waiter: WaiterId,
        handicap: Option<Duration>,
    ) {
        match handicap {
            Some(handicap) => self.push(waiters, waiter, handicap),
            None => {
                self.aged.push(waiter, Reverse(waiters[waiter].rank));
            }
        }
        self.len += 1;
        if !waiters[waiter].creates {
            self.passive += 1;
        }
    }

    #[inline]
    fn push<R>(&mut self, waiters: &mut Slab<Waiter<R>>, waiter: WaiterId, handicap: Duration) {
        let lane_id = self.lane(handicap);
        let lane = &mut self.lanes[lane_id];
        let before = lane.ends.map(|(_, last)| last);
        lane.ends = Some((lane.ends.map_or(waiter, |(first, _)| first), waiter));
        waiters[waiter].links = Links::new(lane_id, before);
        match before {
            Some(before) => waiters[before].links.after = narrow(waiter),
            None => {
                if let (1, Some((&alone, _))) = (self.order.len(), self.order.peek()) {
                    self.reorder(alone, waiters[self.first(alone)].rank);
                }
                self.order.push(lane_id, Reverse(waiters[waiter].rank));
            }
        }
    }

    /// Takes out the best waiter; also returns its handicap, unless the waiter brought an age
    /// along.
    #[inline]
    pub(super) fn pop<R>(
        &mut self,
        waiters: &mut Slab<Waiter<R>>,
    ) -> Option<(WaiterId, Option<Duration>)> {
        let best = self.best_waiter(waiters)?;
        let handicap = waiters[best].links.lane().map(|lane| self.lanes[lane].handicap);
        self.remove(waiters, best);
        Some((best, handicap))
    }

    /// Takes a waiter out, wherever it stands.
    #[inline]
    pub(super) fn remove<R>(&mut self, waiters: &mut Slab<Waiter<R>>, waiter: WaiterId) {
        self.len -= 1;
        if !waiters[waiter].creates {
            self.passive -= 1;
        }
        let links = waiters[waiter].links;
        let Some(lane_id) = links.lane() else {
            self.aged.remove(&waiter);
            return;
        };
        let lane = &mut self.lanes[lane_id];
        let (first, last) = lane.ends.expect("the waiter stands in this lane");
        if first == waiter {
            lane.ends = links.after().map(|after| (after, last));
            match links.after() {
                // If only one lane has waiters, it is first, whatever its rank.
                Some(after) if self.order.len() > 1 => self.reorder(lane_id, waiters[after].rank),
                Some(_) => {}
                None => self.close_lane(lane_id),
            }
        } else {
            let before = links.before().expect("only the first has none before it");
            waiters[before].links.after = links.after;
            match links.after() {
                Some(after) => waiters[after].links.before = links.before,
                None => lane.ends = Some((first, before)),
            }
        }
    }

    /// Returns every waiter: lane by lane, each lane in order, then the aged ones in no order.
    pub(super) fn iter<R>(&self, waiters: &Slab<Waiter<R>>) -> impl Iterator<Item = WaiterId> {
        let in_lanes = self.lanes.iter().flat_map(|(_, lane)| {
            let first = lane.ends.map(|(first, _)| first);
            std::iter::successors(first, |at| waiters[*at].links.after())
        });
        in_lanes.chain(self.aged.iter().map(|(waiter, _)| *waiter))
    }

    /// Returns the first waiter in each lane that the pool itself must time out, and every aged
    /// one.
    pub(super) fn first_timed<R>(&self, waiters: &Slab<Waiter<R>>) -> Vec<(Instant, WaiterId)> {
        let timed = |lane: &Lane| {
            let first = lane.ends.map(|(first, _)| first);
            std::iter::successors(first, |at| waiters[*at].links.after())
                .find_map(|at| Some((waiters[at].ticket.expires_at?, at)))
        };
        let aged = self.aged.iter().map(|(waiter, _)| *waiter);
        let aged = aged.filter_map(|at| Some((waiters[at].ticket.expires_at?, at)));
        self.lanes.iter().filter_map(|(_, lane)| timed(lane)).chain(aged).collect()
    }

    fn reorder(&mut self, lane: LaneId, rank: Rank) {
        self.order.change_priority(&lane, Reverse(rank));
    }

    fn lane(&mut self, handicap: Duration) -> LaneId {
        if let Some(lane) = self.by_handicap.get(&handicap) {
            return *lane;
        }
        let lane = self.lanes.insert(Lane { handicap, ends: None });
        self.by_handicap.insert(handicap, lane);
        lane
    }

    fn close_lane(&mut self, lane: LaneId) {
        self.order.remove(&lane);
        if self.lanes.len() > SPARE_LANES {
            let lane = self.lanes.remove(lane);
            self.by_handicap.remove(&lane.handicap);
        }
    }
}
