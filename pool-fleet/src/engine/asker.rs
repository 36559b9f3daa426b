use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::membership::Candidate;
use super::waiter::{Creator, OFFER, Own, Waiter};
use super::{
    Acquire, Answer, Ask, Asks, Beat, Cancel, Effect, Effects, Membership, Message, Offer,
    OfferReply, Outcome, Place, Pooled, Settings, Ticket, Topic, WaiterId, Waiting,
};
use crate::message::{Cannot, Incarnation, NodeName, Reason};

/// The clients that wait at a node, and the requests made for them elsewhere.
///
/// A client waits in the pool of its own node and at several others at the same time. The first to
/// grant serves it, and the rest are called off. Only one of all those places may create a resource
/// for it, so that one client makes one resource.
#[derive(Debug)]
pub struct Asker {
    node: NodeName,
    incarnation: Incarnation,
    settings: Settings,
    rng: fastrand::Rng,
    waiters: BTreeMap<WaiterId, Waiter>,
    /// Waiters by the number of their ask.
    asks: FxHashMap<u64, WaiterId>,
    /// Waiters by the number of their ticket at the pool.
    tickets: FxHashMap<u64, WaiterId>,
    /// Waiters of each class that are not being served, by rank.
    lines: BTreeMap<Arc<str>, BTreeSet<(Instant, WaiterId)>>,
    /// Asks that stand at each other node. A node whose last ask has ended is kept for one more
    /// list.
    pairs: BTreeMap<NodeName, BTreeSet<u64>>,
    /// Offers that were accepted a short while ago, to recognize copies of them.
    accepted: VecDeque<(Instant, NodeName, Incarnation, u64)>,
    /// Nodes at which finished asks still stand, by the number of the ask.
    over: BTreeMap<u64, Vec<NodeName>>,
    /// Free places at other nodes that are about to be asked for.
    draws: BTreeSet<(NodeName, Arc<str>)>,
    timers: BTreeSet<(Instant, Timer)>,
    /// The timer for the next lists of asks is set.
    refreshing: bool,
    last_number: u64,
    last_list: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A waiter's time is up.
    Deadline(WaiterId),
    /// The first node that was asked has had its time: others are asked too.
    Spread(WaiterId),
    /// The node that may create has not answered.
    Silence(WaiterId),
    /// A finished ask is called off where it still stands.
    CallOff(u64),
    /// A free place of a class was reported by that node.
    Draw(NodeName, Arc<str>),
    /// The next lists of standing asks are due.
    Refresh,
}

/// Seconds of waiting that halve the delay before a free place is asked for.
const YOUNG: f64 = 0.25;
/// Time for which a node that cannot serve a request is not asked for it again.
const REFUSED: Duration = Duration::from_secs(5);
/// Messages that it takes to let another node create: the old one is told, the new one is asked and
/// answers, and may make an offer.
const MOVE: u32 = 3 + OFFER;
/// Number of nodes with something free that are asked at the same time.
const FREE_AT_ONCE: usize = 2;
/// Number of standing asks that are replaced by fresh ones at each refresh.
const MOVED: usize = 2;

impl Asker {
    pub(super) fn new(own: &Beat, settings: Settings, rng: fastrand::Rng) -> Self {
        Self {
            node: Arc::clone(&own.node),
            incarnation: own.incarnation,
            settings,
            rng,
            waiters: BTreeMap::new(),
            asks: FxHashMap::default(),
            tickets: FxHashMap::default(),
            lines: BTreeMap::new(),
            pairs: BTreeMap::new(),
            accepted: VecDeque::new(),
            over: BTreeMap::new(),
            draws: BTreeSet::new(),
            timers: BTreeSet::new(),
            refreshing: false,
            last_number: 0,
            last_list: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn acquire(
        &mut self,
        waiting: Waiting,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) -> WaiterId {
        let waiting = waiting.bounded();
        let ask = self.number();
        let id = WaiterId(ask);
        let barred = waiting.only.as_ref().is_some_and(|only| *only != self.node);
        let deadline = now + waiting.timeout;
        let waiter = Waiter {
            since: now.checked_sub(waiting.waited).unwrap_or(now),
            deadline,
            ask,
            revision: 0,
            own: Own::Barred,
            asked: Vec::new(),
            refused_by: Vec::new(),
            worst: None,
            creator: None,
            launching: false,
            spent: 0,
            spread: false,
            spread_at: None,
            silence_at: None,
            connecting: false,
            waiting,
        };
        self.timers.insert((deadline, Timer::Deadline(id)));
        self.waiters.insert(id, waiter);
        self.asks.insert(ask, id);
        self.join_line(id);
        if barred {
            self.ask_first(id, members, now, fx);
        } else {
            // A place that is free elsewhere is ready sooner than one that is created here.
            let waiter = &self.waiters[&id];
            let here = members.here(&waiter.waiting.request);
            let creates = here.free == 0
                && here.room > 0
                && members.candidates(&waiter.waiting.request).all(|other| other.free == 0)
                && self.preferred(id, members, now).is_none();
            self.ask_own(id, creates, now, fx);
        }
        id
    }

    fn join_line(&mut self, id: WaiterId) {
        let waiter = &self.waiters[&id];
        let line = self.lines.entry(Arc::clone(&waiter.waiting.request.class)).or_default();
        line.insert((waiter.rank(), id));
        if !self.refreshing {
            self.refreshing = true;
            // Each gateway picks its own moment, so that they do not all refresh together.
            let wait = self.settings.refresh.mul_f64(0.5 + 0.5 * self.rng.f64());
            let from = waiter.since.max(waiter.deadline - waiter.waiting.timeout);
            self.timers.insert((from + wait, Timer::Refresh));
        }
    }

    fn leave_line(&mut self, id: WaiterId) {
        let waiter = &self.waiters[&id];
        let class = &waiter.waiting.request.class;
        if let Some(line) = self.lines.get_mut(class) {
            line.remove(&(waiter.rank(), id));
            if line.is_empty() {
                self.lines.remove(class);
            }
        }
    }
}

/// The pool of the waiter's own node.
impl Asker {
    /// Makes a waiter wait in the pool of its node, in place of an earlier wait there.
    fn ask_own(&mut self, id: WaiterId, creates: bool, now: Instant, fx: &mut Effects) {
        self.leave_own(id, fx);
        let ticket = self.number();
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        waiter.own = Own::Waits { ticket, creates };
        if creates {
            waiter.creator = Some(Creator::Own);
        }
        self.tickets.insert(ticket, id);
        let acquire = Acquire {
            request: Arc::clone(&waiter.waiting.request),
            waited: now.saturating_duration_since(waiter.since),
            left: waiter.deadline.saturating_duration_since(now),
            creates,
        };
        fx.push(Effect::Acquire(Ticket::Own(ticket), acquire));
    }

    fn leave_own(&mut self, id: WaiterId, fx: &mut Effects) {
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        if let Own::Waits { ticket, .. } = waiter.own {
            waiter.own = Own::Barred;
            self.tickets.remove(&ticket);
            fx.push(Effect::Abandon(Ticket::Own(ticket)));
        }
    }

    pub(super) fn pooled(
        &mut self,
        ticket: u64,
        said: Pooled,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let Some(&id) = self.tickets.get(&ticket) else {
            // It was abandoned in the meantime.
            if let Pooled::Granted(_) = said {
                fx.push(Effect::GiveBack(Ticket::Own(ticket)));
            }
            return;
        };
        match said {
            Pooled::Granted(lease) => {
                self.tickets.remove(&ticket);
                self.waiters.get_mut(&id).expect("it has a ticket").own = Own::Barred;
                self.end(id, now, fx);
                fx.push(Effect::Serve(id, Place::Here { ticket: Ticket::Own(ticket), lease }));
            }
            Pooled::Queued { launching } => {
                let waiter = self.waiters.get_mut(&id).expect("it has a ticket");
                if waiter.creator == Some(Creator::Own) {
                    waiter.launching = launching;
                }
                if waiter.spread || waiter.spread_at.is_some() {
                    return;
                }
                if members.here(&waiter.waiting.request).free > 0 {
                    // A resource that is free here is checked before it is granted. Others get
                    // their turn if it fails.
                    self.spread_later(id, now);
                } else {
                    self.ask_first(id, members, now, fx);
                }
            }
            Pooled::Refused(cannot) => {
                self.tickets.remove(&ticket);
                let waiter = self.waiters.get_mut(&id).expect("it has a ticket");
                waiter.own = Own::Refused(cannot.reason);
                if waiter.creator == Some(Creator::Own) {
                    (waiter.creator, waiter.launching) = (None, false);
                }
                if matches!(cannot.reason, Reason::Refused | Reason::Timeout) {
                    return self.refuse(id, cannot, now, fx);
                }
                waiter.note(cannot);
                if !waiter.spread && waiter.spread_at.is_none() {
                    self.ask_first(id, members, now, fx);
                } else {
                    self.move_creates(id, members, now, fx);
                    self.give_up_hope(id, now, fx);
                }
            }
        }
    }
}

/// Choosing the nodes to ask.
impl Asker {
    /// Asks the best node, or, if nothing seems to be free anywhere, several at once.
    fn ask_first(
        &mut self,
        id: WaiterId,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let best = self.pick(id, 1, members, now);
        let waiter = &self.waiters[&id];
        match best.into_iter().next() {
            Some((node, true)) => {
                let creates = waiter.creator.is_none();
                self.spread_later(id, now);
                self.ask(id, &node, creates, members, now, fx);
            }
            Some((_, false)) | None => self.spread(id, members, now, fx),
        }
    }

    /// Gives the nodes at which a waiter stands now some time before others are asked too.
    fn spread_later(&mut self, id: WaiterId, now: Instant) {
        let at = now + self.settings.first;
        self.waiters.get_mut(&id).expect("the caller has looked").spread_at = Some(at);
        self.timers.insert((at, Timer::Spread(id)));
    }

    /// Asks as many nodes as a waiter may stand at.
    fn spread(&mut self, id: WaiterId, members: &mut Membership, now: Instant, fx: &mut Effects) {
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        waiter.spread = true;
        if let Some(at) = waiter.spread_at.take() {
            self.timers.remove(&(at, Timer::Spread(id)));
        }
        if waiter.creator.is_none() {
            self.move_creates(id, members, now, fx);
        }
        let mut missing = self.settings.width.saturating_sub(self.waiters[&id].asked.len());
        let mut free_asked = 0;
        for (node, free) in self.pick(id, usize::MAX, members, now) {
            if missing == 0 {
                break;
            }
            // Several free ones would all make an offer: the others get their turn a little later.
            if free && free_asked == FREE_AT_ONCE {
                continue;
            }
            missing -= 1;
            free_asked += usize::from(free);
            self.ask(id, &node, false, members, now, fx);
        }
        if free_asked == FREE_AT_ONCE {
            self.spread_later(id, now);
        }
        self.give_up_hope(id, now, fx);
    }

    /// Returns up to `count` nodes to ask, best first, and for each whether something seems to be
    /// free there.
    fn pick(
        &mut self,
        id: WaiterId,
        count: usize,
        members: &Membership,
        now: Instant,
    ) -> Vec<(NodeName, bool)> {
        let waiter = &self.waiters[&id];
        let prefer = |candidate: &Candidate<'_>| {
            waiter.waiting.prefer.iter().position(|node| *node == candidate.beat.node)
        };
        let mut found: Vec<(Candidate<'_>, Option<usize>, u32)> = members
            .candidates(&waiter.waiting.request)
            .filter(|candidate| {
                let node = &*candidate.beat.node;
                waiter.may_ask(node) && !waiter.stands_at(node) && !waiter.was_refused_by(node, now)
            })
            .map(|candidate| {
                let preferred = prefer(&candidate);
                (candidate, preferred, self.rng.u32(..))
            })
            .collect();
        // Equal nodes are ordered at random, or all gateways would ask the same ones. Of those with
        // nothing free, the better half of a random sample is used: the best of all would be the
        // best for everybody.
        found.sort_unstable_by(|(a, a_preferred, a_chance), (b, b_preferred, b_chance)| {
            let preferred =
                a_preferred.unwrap_or(usize::MAX).cmp(&b_preferred.unwrap_or(usize::MAX));
            preferred.then_with(|| standing(a).cmp(&standing(b))).then(a_chance.cmp(b_chance))
        });
        let busy = found.partition_point(|(candidate, preferred, _)| {
            preferred.is_some() || candidate.free > 0 || candidate.open_room > 0
        });
        let sample = found.len().min(busy + self.settings.width * 2);
        found[busy..sample]
            .sort_by(|(a, ..), (b, ..)| a.crowd.partial_cmp(&b.crowd).unwrap_or(Ordering::Equal));
        found
            .iter()
            .take(count)
            .map(|(candidate, ..)| (Arc::clone(&candidate.beat.node), candidate.free > 0))
            .collect()
    }

    /// Makes a waiter stand at a node, or changes the terms, if it may cost one more message.
    /// Returns `false` if it may not.
    fn ask(
        &mut self,
        id: WaiterId,
        node: &NodeName,
        creates: bool,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) -> bool {
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        let stands = waiter.stands_at(node);
        let cost = 1 + if stands { 0 } else { OFFER } + u32::from(creates);
        if !waiter.can_afford(cost, &self.settings) {
            return false;
        }
        if !stands {
            waiter.asked.push(Arc::clone(node));
            self.pairs.entry(Arc::clone(node)).or_default().insert(waiter.ask);
            members.claim(node);
        }
        if creates {
            waiter.creator = Some(Creator::Node(Arc::clone(node)));
            waiter.launching = false;
            members.claim_room(node);
            let at = now + self.settings.creator;
            if let Some(old) = waiter.silence_at.replace(at) {
                self.timers.remove(&(old, Timer::Silence(id)));
            }
            self.timers.insert((at, Timer::Silence(id)));
        }
        waiter.spent += 1;
        waiter.revision += 1;
        let ask = Ask {
            gateway: Arc::clone(&self.node),
            incarnation: self.incarnation,
            id: waiter.ask,
            revision: waiter.revision,
            request: Arc::clone(&waiter.waiting.request),
            waited_ms: to_ms(now.saturating_duration_since(waiter.since)),
            left_ms: to_ms(waiter.deadline.saturating_duration_since(now)),
            creates,
        };
        fx.push(Effect::Publish(Topic::Ask(Arc::clone(node)), Message::Ask(ask)));
        true
    }

    /// Lets another place create, if one has room, or this node if none has.
    fn move_creates(
        &mut self,
        id: WaiterId,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let Some(target) = self.new_creator(id, members, now) else { return };
        let waiter = self.waiters.get_mut(&id).expect("it was just there");
        waiter.launching = false;
        let old = waiter.creator.take();
        match old {
            Some(Creator::Node(old)) if waiter.stands_at(&old) => {
                self.demote(id, &old, members, now, fx);
            }
            Some(Creator::Own) => self.ask_own(id, false, now, fx),
            Some(Creator::Node(_)) | None => {}
        }
        match target {
            Creator::Own => self.ask_own(id, true, now, fx),
            Creator::Node(node) => {
                self.ask(id, &node, true, members, now, fx);
            }
        }
    }

    /// Returns another place that may create for a waiter, if it is better than the present one.
    fn new_creator(&mut self, id: WaiterId, members: &Membership, now: Instant) -> Option<Creator> {
        let waiter = &self.waiters[&id];
        let request = &waiter.waiting.request;
        let has_room = match &waiter.creator {
            Some(Creator::Own) => members.here(request).room > 0,
            Some(Creator::Node(node)) => {
                members.candidate(node, request).is_some_and(|candidate| candidate.room > 0)
            }
            None => false,
        };
        if has_room {
            return None;
        }
        let waits_here = matches!(waiter.own, Own::Waits { .. });
        let can_move = waiter.can_afford(MOVE, &self.settings);
        if let Some(node) = self.preferred(id, members, now).filter(|_| can_move) {
            return Some(Creator::Node(node));
        }
        if waits_here && members.here(request).room > 0 {
            return Some(Creator::Own);
        }
        match self.roomiest(id, members, now).filter(|_| can_move) {
            Some(node) => Some(Creator::Node(node)),
            // It costs nothing here, and this node may get room.
            None if waits_here && self.waiters[&id].creator.is_none() => Some(Creator::Own),
            None => None,
        }
    }

    /// Returns the other node that a waiter prefers to this one, if it has room.
    fn preferred(&self, id: WaiterId, members: &Membership, now: Instant) -> Option<NodeName> {
        let waiter = &self.waiters[&id];
        let better = waiter.waiting.prefer.iter().take_while(|node| **node != self.node);
        better
            .filter(|node| waiter.may_ask(node) && !waiter.was_refused_by(node, now))
            .find(|node| {
                let candidate = members.candidate(node, &waiter.waiting.request);
                candidate.is_some_and(|candidate| candidate.open_room > 0)
            })
            .cloned()
    }

    /// Returns a node with room for a waiter, preferably one where it stands already.
    fn roomiest(&mut self, id: WaiterId, members: &Membership, now: Instant) -> Option<NodeName> {
        let waiter = &self.waiters[&id];
        let request = &waiter.waiting.request;
        members
            .candidates(request)
            .filter(|candidate| {
                let node = &*candidate.beat.node;
                candidate.open_room > 0 && waiter.may_ask(node) && !waiter.was_refused_by(node, now)
            })
            .map(|candidate| {
                let stands = waiter.stands_at(&candidate.beat.node);
                ((stands, candidate.near, self.rng.u32(..)), candidate)
            })
            .max_by_key(|(key, _)| *key)
            .map(|(_, candidate)| Arc::clone(&candidate.beat.node))
    }

    /// Refuses a waiter that no longer stands anywhere.
    fn give_up_hope(&mut self, id: WaiterId, now: Instant, fx: &mut Effects) {
        let waiter = &self.waiters[&id];
        let stands = !waiter.asked.is_empty() || matches!(waiter.own, Own::Waits { .. });
        if stands || !waiter.spread || waiter.connecting {
            return;
        }
        let worst = waiter.worst.clone().unwrap_or_else(|| match &waiter.waiting.only {
            Some(node) => {
                let message = format!("the node {node} is not part of the fleet at present");
                Cannot::new(Reason::Unavailable, "node_unavailable", &message)
            }
            None => Cannot::new(Reason::Unknown, "no_node", "no node of the fleet can serve this"),
        });
        self.refuse(id, worst, now, fx);
    }
}

/// Orders nodes by what they can offer: something free, room, and being in the same zone.
fn standing(candidate: &Candidate<'_>) -> (bool, bool, bool) {
    let free = candidate.free > 0;
    (!free, !free && candidate.open_room == 0, !candidate.near)
}

/// Answers, offers and losses of other nodes.
impl Asker {
    pub(super) fn answer(
        &mut self,
        answer: &Answer,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        if answer.asked_by != self.incarnation {
            return;
        }
        let Some(&id) = self.asks.get(&answer.id) else { return };
        let waiter = self.waiters.get_mut(&id).expect("it has an ask");
        waiter.spent += 1;
        if waiter.connecting || !waiter.stands_at(&answer.node) {
            return;
        }
        let creates = waiter.creator == Some(Creator::Node(Arc::clone(&answer.node)));
        if creates && let Some(at) = waiter.silence_at.take() {
            self.timers.remove(&(at, Timer::Silence(id)));
        }
        match &answer.outcome {
            Outcome::Launching => waiter.launching = creates,
            Outcome::Queued => {}
            Outcome::Unknown => {
                if !self.ask(id, &answer.node, creates, members, now, fx) {
                    self.unask(id, &answer.node);
                }
                return;
            }
            Outcome::Cannot(cannot) => {
                if cannot.reason == Reason::Refused {
                    self.unask(id, &answer.node);
                    return self.refuse(id, cannot.clone(), now, fx);
                }
                waiter.note(cannot.clone());
                waiter.refused_by.push((Arc::clone(&answer.node), now + REFUSED));
                if creates {
                    (waiter.creator, waiter.launching) = (None, false);
                }
                self.unask(id, &answer.node);
            }
        }
        let waiter = &self.waiters[&id];
        if !waiter.spread {
            self.spread(id, members, now, fx);
        }
        // The client may have been refused by now.
        if let Some(waiter) = self.waiters.get(&id) {
            if !waiter.launching {
                self.move_creates(id, members, now, fx);
            }
            self.give_up_hope(id, now, fx);
        }
    }

    /// Records that a waiter no longer stands at a node.
    fn unask(&mut self, id: WaiterId, node: &NodeName) {
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        waiter.asked.retain(|asked| asked != node);
        if let Some(asks) = self.pairs.get_mut(node) {
            asks.remove(&waiter.ask);
        }
    }

    pub(super) fn offered(&mut self, offer: &Offer, now: Instant, fx: &mut Effects) -> OfferReply {
        if offer.asked_by != self.incarnation {
            return OfferReply::Decline;
        }
        let copy = |(_, node, incarnation, number): &(_, NodeName, Incarnation, u64)| {
            *node == offer.node && *incarnation == offer.incarnation && *number == offer.offer
        };
        if self.accepted.iter().any(copy) {
            return OfferReply::Accept;
        }
        // An offer that is declined needs no cancel.
        if let Some(stood) = self.over.get_mut(&offer.ask) {
            stood.retain(|node| *node != offer.node);
        }
        let Some(&id) = self.asks.get(&offer.ask) else { return OfferReply::Decline };
        let waiter = self.waiters.get_mut(&id).expect("it has an ask");
        waiter.spent += 2;
        if waiter.connecting || waiter.deadline <= now {
            return OfferReply::Decline;
        }
        let old = now.checked_sub(self.settings.connect);
        while self.accepted.front().is_some_and(|(at, ..)| old.is_some_and(|old| *at < old)) {
            self.accepted.pop_front();
        }
        self.accepted.push_back((now, Arc::clone(&offer.node), offer.incarnation, offer.offer));
        self.leave_all(id, Some(&offer.node), now, fx);
        self.leave_line(id);
        self.waiters.get_mut(&id).expect("it has an ask").connecting = true;
        let place = Place::There {
            node: Arc::clone(&offer.node),
            incarnation: offer.incarnation,
            lease: Arc::clone(&offer.lease),
            address: Arc::clone(&offer.address),
        };
        fx.push(Effect::Serve(id, place));
        OfferReply::Accept
    }

    pub(super) fn connected(&mut self, id: WaiterId, now: Instant, fx: &mut Effects) {
        if self.waiters.get(&id).is_some_and(|waiter| waiter.connecting) {
            self.end(id, now, fx);
        }
    }

    pub(super) fn connect_failed(
        &mut self,
        id: WaiterId,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let Some(waiter) = self.waiters.get(&id).filter(|waiter| waiter.connecting) else { return };
        // It gets another number: messages still under way for the old one are void.
        self.asks.remove(&waiter.ask);
        let ask = self.number();
        self.asks.insert(ask, id);
        let waiter = self.waiters.get_mut(&id).expect("it was just there");
        waiter.ask = ask;
        (waiter.connecting, waiter.spread, waiter.spent) = (false, false, 0);
        (waiter.creator, waiter.launching) = (None, false);
        waiter.refused_by.clear();
        let barred = !waiter.may_ask(&self.node);
        self.join_line(id);
        if barred {
            self.ask_first(id, members, now, fx);
        } else {
            self.ask_own(id, false, now, fx);
        }
    }

    /// Processes a beat of another node: a free place draws an ask of the oldest waiter.
    pub(super) fn heard(&mut self, beat: &Beat, now: Instant) {
        for (class, line) in &self.lines {
            let load = beat.load.classes.get(class);
            let free = load.is_some_and(|load| load.idle > load.waiting);
            let room = load.map_or(beat.load.room, |load| load.room) > 0;
            let draw = (Arc::clone(&beat.node), Arc::clone(class));
            if (free || room) && !self.draws.contains(&draw) {
                // Everybody with a waiter hears the beat. They must not all ask at the same moment,
                // and the one whose waiter is oldest should ask first.
                let oldest = line.first().map_or(now, |(_, id)| self.waiters[id].since);
                let age = now.saturating_duration_since(oldest).as_secs_f64();
                let youth = YOUNG / (age + YOUNG);
                let wait = self.settings.jitter.mul_f64(self.rng.f64() * youth);
                let timer = Timer::Draw(Arc::clone(&beat.node), Arc::clone(class));
                self.timers.insert((now + wait, timer));
                self.draws.insert(draw);
            }
        }
    }

    fn draw(
        &mut self,
        node: &NodeName,
        class: &Arc<str>,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let Some(line) = self.lines.get(class) else { return };
        let Some(&(_, oldest)) = line.first() else { return };
        let request = Arc::clone(&self.waiters[&oldest].waiting.request);
        let Some(candidate) = members.candidate(node, &request) else { return };
        let (free, room) = (candidate.free as usize, candidate.room > 0);
        let waiters: Vec<WaiterId> = line
            .iter()
            .map(|&(_, id)| id)
            .filter(|id| self.waiters[id].may_ask(node))
            .take(free.max(1))
            .collect();
        for &id in waiters.iter().take(free) {
            if !self.waiters[&id].stands_at(node) {
                self.ask(id, node, false, members, now, fx);
            }
        }
        if room
            && let Some(&id) = waiters.first()
            && !self.waiters[&id].launching
        {
            self.move_creates(id, members, now, fx);
        }
    }

    /// Handles the loss of a node, or its replacement by another run of the same name: nobody
    /// stands there any more, and its refusals are forgotten.
    pub(super) fn lost(
        &mut self,
        node: &NodeName,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        for waiter in self.waiters.values_mut() {
            waiter.refused_by.retain(|(refused, _)| refused != node);
        }
        for ask in self.pairs.remove(node).unwrap_or_default() {
            let Some(&id) = self.asks.get(&ask) else { continue };
            let waiter = self.waiters.get_mut(&id).expect("it has an ask");
            waiter.asked.retain(|asked| asked != node);
            if waiter.creator == Some(Creator::Node(Arc::clone(node))) {
                (waiter.creator, waiter.launching) = (None, false);
            }
            // If it stands nowhere else, others are asked now.
            self.spread(id, members, now, fx);
        }
    }
}

/// Ends and timers.
impl Asker {
    /// Ends everything that a waiter waits for, except at `except`.
    fn leave_all(
        &mut self,
        id: WaiterId,
        except: Option<&NodeName>,
        now: Instant,
        fx: &mut Effects,
    ) {
        self.leave_own(id, fx);
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        let spread = waiter.spread_at.take().map(|at| (at, Timer::Spread(id)));
        let silence = waiter.silence_at.take().map(|at| (at, Timer::Silence(id)));
        for timer in [spread, silence].into_iter().flatten() {
            self.timers.remove(&timer);
        }
        let ask = waiter.ask;
        let mut stood = std::mem::take(&mut waiter.asked);
        for node in &stood {
            if let Some(asks) = self.pairs.get_mut(node) {
                asks.remove(&ask);
            }
        }
        stood.retain(|node| Some(node) != except);
        if !stood.is_empty() {
            self.over.insert(ask, stood);
            self.timers.insert((now + self.settings.call_off, Timer::CallOff(ask)));
        }
    }

    /// Calls off a finished ask wherever it still stands.
    fn call_off(&mut self, ask: u64, fx: &mut Effects) {
        for node in self.over.remove(&ask).unwrap_or_default() {
            let cancel = Cancel {
                gateway: Arc::clone(&self.node),
                incarnation: self.incarnation,
                ids: vec![ask],
            };
            fx.push(Effect::Publish(Topic::Cancel(node), Message::Cancel(cancel)));
        }
    }

    /// Ends a waiter.
    fn end(&mut self, id: WaiterId, now: Instant, fx: &mut Effects) {
        self.leave_all(id, None, now, fx);
        self.leave_line(id);
        let waiter = self.waiters.remove(&id).expect("the caller has looked");
        self.asks.remove(&waiter.ask);
        self.timers.remove(&(waiter.deadline, Timer::Deadline(id)));
    }

    fn refuse(&mut self, id: WaiterId, cannot: Cannot, now: Instant, fx: &mut Effects) {
        self.end(id, now, fx);
        fx.push(Effect::Refuse(id, cannot));
    }

    pub(super) fn give_up(&mut self, id: WaiterId, now: Instant, fx: &mut Effects) {
        if self.waiters.contains_key(&id) {
            self.end(id, now, fx);
        }
    }

    /// Refuses all waiters.
    pub(super) fn close(&mut self, now: Instant, fx: &mut Effects) {
        let waiters: Vec<WaiterId> = self.waiters.keys().copied().collect();
        for id in waiters {
            let draining =
                Cannot::new(Reason::Draining, "draining", "the node is leaving the fleet");
            self.refuse(id, draining, now, fx);
        }
    }

    pub(super) fn tick(&mut self, members: &mut Membership, now: Instant, fx: &mut Effects) {
        while let Some((_, timer)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.pop_first();
            match timer {
                Timer::Deadline(id) => self.time_over(id, now, fx),
                Timer::Spread(id) => {
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.spread_at = None;
                        self.spread(id, members, now, fx);
                    }
                }
                Timer::Silence(id) => {
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.silence_at = None;
                        self.silence(id, members, now, fx);
                    }
                }
                Timer::CallOff(ask) => self.call_off(ask, fx),
                Timer::Draw(node, class) => {
                    self.draws.remove(&(Arc::clone(&node), Arc::clone(&class)));
                    self.draw(&node, &class, members, now, fx);
                }
                Timer::Refresh => self.refresh(members, now, fx),
            }
        }
    }

    fn time_over(&mut self, id: WaiterId, now: Instant, fx: &mut Effects) {
        let Some(waiter) = self.waiters.get(&id) else { return };
        let waited = now.saturating_duration_since(waiter.since);
        let because =
            waiter.worst.as_ref().map(|worst| format!("; {}", worst.message)).unwrap_or_default();
        let message = format!("no resource of the fleet was free within {waited:?}{because}");
        self.refuse(id, Cannot::new(Reason::Timeout, "acquire_timeout", &message), now, fx);
    }

    /// Handles silence of the node that may create. It is told that it may not, which also repeats
    /// the ask in case that was lost; then another node may.
    fn silence(&mut self, id: WaiterId, members: &mut Membership, now: Instant, fx: &mut Effects) {
        let waiter = self.waiters.get_mut(&id).expect("the caller has looked");
        // The right may have moved here in the meantime.
        let Some(Creator::Node(node)) = waiter.creator.clone() else { return };
        waiter.creator = None;
        if waiter.stands_at(&node) {
            self.demote(id, &node, members, now, fx);
        }
        self.move_creates(id, members, now, fx);
    }

    /// Tells a node that it may no longer create for a waiter. If that costs too many messages, the
    /// waiter no longer stands there, and the next list says so.
    fn demote(
        &mut self,
        id: WaiterId,
        node: &NodeName,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        if !self.ask(id, node, false, members, now, fx) {
            self.unask(id, node);
        }
    }

    /// Moves asks that stand badly, and sends every node the list of asks that stand there.
    fn refresh(&mut self, members: &mut Membership, now: Instant, fx: &mut Effects) {
        let waiters: Vec<WaiterId> = self.lines.values().flatten().map(|&(_, id)| id).collect();
        for id in waiters {
            self.refresh_waiter(id, members, now, fx);
        }
        let up_to = self.last_number;
        for (node, asks) in &self.pairs {
            self.last_list += 1;
            let list = Asks {
                gateway: Arc::clone(&self.node),
                incarnation: self.incarnation,
                sequence: self.last_list,
                up_to,
                ids: asks.iter().copied().collect(),
            };
            fx.push(Effect::Publish(Topic::Asks(Arc::clone(node)), Message::Asks(list)));
        }
        self.pairs.retain(|_, asks| !asks.is_empty());
        self.refreshing = !self.waiters.is_empty() || !self.pairs.is_empty();
        if self.refreshing {
            self.timers.insert((now + self.settings.refresh, Timer::Refresh));
        }
    }

    fn refresh_waiter(
        &mut self,
        id: WaiterId,
        members: &mut Membership,
        now: Instant,
        fx: &mut Effects,
    ) {
        let waiter = &self.waiters[&id];
        let request = Arc::clone(&waiter.waiting.request);
        if let Own::Refused(_) = waiter.own {
            let here = members.here(&request);
            if here.free > 0 || here.room > 0 {
                self.ask_own(id, false, now, fx);
            }
        }
        let waiter = &self.waiters[&id];
        if !waiter.spread {
            return;
        }
        if !waiter.launching {
            self.move_creates(id, members, now, fx);
        }
        self.replace(id, members, now, fx);
    }

    /// Replaces the asks that stand worst by fresh ones that seem to stand better.
    fn replace(&mut self, id: WaiterId, members: &mut Membership, now: Instant, fx: &mut Effects) {
        let waiter = &self.waiters[&id];
        let request = &waiter.waiting.request;
        let mut worst: Vec<(f32, NodeName)> = waiter
            .asked
            .iter()
            .filter(|node| waiter.creator != Some(Creator::Node(Arc::clone(node))))
            .map(|node| {
                let crowd = members.candidate(node, request).map(|found| found.crowd);
                (crowd.unwrap_or(f32::INFINITY), Arc::clone(node))
            })
            .collect();
        worst.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
        let missing = self.settings.width.saturating_sub(waiter.asked.len());
        let fresh = self.pick(id, missing + MOVED, members, now);
        let mut worst = worst.into_iter();
        for (place, (node, free)) in fresh.into_iter().enumerate() {
            if place >= missing {
                let request = &self.waiters[&id].waiting.request;
                let crowd = members.candidate(&node, request).map_or(f32::INFINITY, |it| it.crowd);
                let Some((_, old)) = worst.next().filter(|(worst, _)| free || crowd < *worst)
                else {
                    return;
                };
                // The ask that is dropped frees the messages reserved for an offer.
                if !self.waiters[&id].can_afford(1, &self.settings) {
                    return;
                }
                // The next list does not name it, so it needs no cancel.
                self.unask(id, &old);
            }
            if !self.ask(id, &node, false, members, now, fx) {
                return;
            }
        }
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns the number of waiting clients, including those being connected.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Returns the number of waiting clients, and how long the first of them has waited.
    pub(super) fn demand(&self, now: Instant) -> (u32, Duration) {
        let waiting = || self.waiters.values().filter(|waiter| !waiter.connecting);
        let first = waiting().map(|waiter| waiter.since).min().unwrap_or(now);
        let clients = u32::try_from(waiting().count()).unwrap_or(u32::MAX);
        (clients, now.saturating_duration_since(first))
    }

    /// Returns `true` if the ask with this number still waits for an offer.
    #[must_use]
    pub fn stands(&self, ask: u64) -> bool {
        self.asks.get(&ask).is_some_and(|id| !self.waiters[id].connecting)
    }

    /// Iterates over the waiting clients, the first of each class first, with the number of their
    /// ask and the other nodes at which they stand.
    pub fn waiters(&self) -> impl Iterator<Item = (WaiterId, u64, &[NodeName])> {
        self.waiters.iter().map(|(&id, waiter)| (id, waiter.ask, &*waiter.asked))
    }
}

/// Returns a duration as a message carries it.
fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
