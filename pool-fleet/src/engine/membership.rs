use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{Beat, Effect, Effects, Listen, Load, Message, Settings, Topic, Who, WhoReply};
use crate::message::{NodeName, Phase, Wanted};

/// Number of shards into which the nodes of a zone hash.
pub const SHARDS: u16 = 256;

/// Number of nodes that a node listens to in a larger fleet: enough to always know of free places
/// at 97 % utilization, and few enough for less than 500 messages a second.
const HEARD: usize = 160;
/// Number of times that `who` is sent at the start before silence means that the name is free; more
/// than once, as a message may be lost.
const WHO_ATTEMPTS: u32 = 2;

/// Returns the shard of a node's beats, by the FNV-1a hash of its name.
#[must_use]
pub fn shard(node: &str) -> u16 {
    let hash = node
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The upper bits depend on every byte of the name, the lowest ones less so.
    ((hash >> 16 ^ hash) & u32::from(SHARDS - 1)) as u16
}

/// The nodes of the fleet, as far as this one knows, and its own beat.
#[derive(Debug)]
pub struct Membership {
    own: Beat,
    settings: Settings,
    rng: fastrand::Rng,
    /// Other nodes by name. Those that have said goodbye stay until they would count as gone, so
    /// that a late beat does not bring them back.
    nodes: FxHashMap<NodeName, Known>,
    scope: Scope,
    /// Number of times that `who` was sent while starting.
    asked: u32,
    /// The latest beats of this node, at most as many as are allowed in a second.
    beats: VecDeque<Instant>,
    first_beat: Option<Instant>,
    /// `None` until the node has joined, and after it has left.
    next_beat: Option<Instant>,
}

/// Another node.
#[derive(Debug)]
struct Known {
    beat: Arc<Beat>,
    shard: u16,
    heard: Instant,
    /// Asks that this node has sent there since that beat: they use up free places.
    claimed: u32,
    /// Asks since that beat that may create: those beyond its free places use up room.
    claimed_to_create: u32,
}

/// The effect of a beat on another node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that others need to know.
    Nothing,
    /// It is known, and its load may have changed.
    Alive,
    /// It is no longer there, or has become another run of the same name.
    Gone,
    /// It is an older node with this node's name.
    Namesake,
}

impl Membership {
    pub(super) fn new(own: Beat, settings: Settings, mut rng: fastrand::Rng) -> Self {
        let scope = Scope::new(&own, &mut rng);
        Self {
            own,
            settings,
            rng,
            nodes: FxHashMap::default(),
            scope,
            asked: 0,
            beats: VecDeque::new(),
            first_beat: None,
            next_beat: None,
        }
    }

    pub(super) fn start(&mut self, fx: &mut Effects) {
        fx.push(Effect::Listen(self.scope.listen()));
        self.ask_who(fx);
    }

    fn ask_who(&mut self, fx: &mut Effects) {
        self.asked += 1;
        let node = self.own.node.clone();
        fx.push(Effect::Who(Who { node, starting: Some(self.own.incarnation) }));
    }

    pub(super) fn who(&self, who: &Who) -> Option<WhoReply> {
        if who.node != self.own.node {
            return None;
        }
        let replies = match (who.starting, self.own.phase) {
            (Some(theirs), _) if theirs == self.own.incarnation => false,
            // Of two that start at the same time, the older one replies.
            (Some(theirs), Phase::Starting) => self.own.incarnation < theirs,
            (Some(_), Phase::Running | Phase::Draining) => true,
            (None, Phase::Running | Phase::Draining) => true,
            (None, Phase::Starting) | (_, Phase::Gone) => false,
        };
        replies.then(|| WhoReply { beat: Arc::new(self.own.clone()) })
    }

    pub(super) fn who_answered(
        &mut self,
        reply: Option<&WhoReply>,
        now: Instant,
        fx: &mut Effects,
    ) {
        if self.own.phase != Phase::Starting {
            return;
        }
        match reply {
            Some(reply) => fx.push(Effect::NameTaken(Arc::clone(&reply.beat))),
            None if self.asked < WHO_ATTEMPTS => self.ask_who(fx),
            None => {
                self.own.phase = Phase::Running;
                fx.push(Effect::Joined);
                self.publish(now, fx);
            }
        }
    }

    /// Processes a beat. Returns what it means for the node that sent it.
    pub(super) fn beat(&mut self, beat: &Arc<Beat>, now: Instant, fx: &mut Effects) -> Heard {
        if beat.node == self.own.node {
            return self.namesake(beat, fx);
        }
        let heard = match self.nodes.get_mut(&beat.node) {
            Some(known) => {
                let of_old = now.saturating_duration_since(known.heard) > self.settings.gone;
                if !of_old && !succeeds(beat, &known.beat) {
                    return Heard::Nothing;
                }
                let same = beat.incarnation == known.beat.incarnation;
                known.beat = Arc::clone(beat);
                known.heard = now;
                (known.claimed, known.claimed_to_create) = (0, 0);
                if same && beat.phase == Phase::Running { Heard::Alive } else { Heard::Gone }
            }
            None if beat.phase == Phase::Gone => return Heard::Nothing,
            None => {
                let shard = shard(&beat.node);
                if !self.scope.covers(beat, shard) {
                    return Heard::Nothing;
                }
                let beat = Arc::clone(beat);
                let node = Arc::clone(&beat.node);
                let known = Known { beat, shard, heard: now, claimed: 0, claimed_to_create: 0 };
                self.nodes.insert(node, known);
                Heard::Alive
            }
        };
        if self.nodes.len() > HEARD * 5 / 4 {
            self.rescope(now, fx);
        }
        heard
    }

    /// Processes a beat from a node with this node's own name.
    fn namesake(&self, beat: &Arc<Beat>, fx: &mut Effects) -> Heard {
        let older = beat.incarnation < self.own.incarnation;
        if !older || beat.phase != Phase::Running || self.own.phase != Phase::Running {
            return Heard::Nothing;
        }
        fx.push(Effect::NameTaken(Arc::clone(beat)));
        Heard::Namesake
    }

    /// Changes the set of beats listened to, so that about [`HEARD`] nodes are heard.
    fn rescope(&mut self, now: Instant, fx: &mut Effects) {
        let nodes = self.nodes.values().map(|known| (&*known.beat, known.shard));
        if self.scope.fit(nodes, now) {
            self.nodes.retain(|_, known| self.scope.covers(&known.beat, known.shard));
            fx.push(Effect::Listen(self.scope.listen()));
        }
    }

    pub(super) fn load(&mut self, load: Load, now: Instant) {
        let news = differs(&self.own.load, &load);
        self.own.load = load;
        if news {
            self.soon(now);
        }
    }

    /// Records how many clients wait here, and how long the first of them has waited. This is no
    /// reason to beat earlier: it is for people and for scalers.
    pub(super) fn demand(&mut self, clients: u32, oldest: Duration) {
        self.own.clients = clients;
        self.own.oldest_wait_ms = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
    }

    pub(super) fn phase(&mut self, phase: Phase, now: Instant, fx: &mut Effects) {
        if self.own.phase == phase || matches!(self.own.phase, Phase::Starting | Phase::Gone) {
            return;
        }
        self.own.phase = phase;
        self.publish(now, fx);
        if phase == Phase::Gone {
            self.next_beat = None;
        }
    }

    /// Beats as soon as this second's limit allows.
    fn soon(&mut self, now: Instant) {
        if let Some(next) = &mut self.next_beat {
            let full = self.beats.len() >= self.settings.beats;
            let first = self.beats.front().filter(|_| full);
            let allowed = first.map_or(now, |first| *first + Duration::from_secs(1));
            *next = (*next).min(allowed.max(now));
        }
    }

    /// Beats now.
    fn publish(&mut self, now: Instant, fx: &mut Effects) {
        self.own.sequence += 1;
        let uptime = now.saturating_duration_since(*self.first_beat.get_or_insert(now));
        self.own.uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        self.beats.push_back(now);
        while self.beats.len() > self.settings.beats {
            self.beats.pop_front();
        }
        // Slightly less than a second, at random, or nodes that started together would beat
        // together.
        let period = self.settings.beat.mul_f64(0.95 + 0.05 * self.rng.f64());
        self.next_beat = Some(now + period);
        let zone = self.own.zone().cloned().unwrap_or_default();
        let topic = Topic::Beat { zone, shard: self.scope.own };
        fx.push(Effect::Publish(topic, Message::Beat(Arc::new(self.own.clone()))));
    }

    /// Does what is due, and returns the nodes that are gone.
    pub(super) fn tick(&mut self, now: Instant, fx: &mut Effects) -> Vec<NodeName> {
        if self.next_beat.is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.publish(now, fx);
        let limit = self.settings.gone;
        let mut gone: Vec<NodeName> = self
            .nodes
            .iter()
            .filter(|(_, known)| now.saturating_duration_since(known.heard) > limit)
            .map(|(node, _)| Arc::clone(node))
            .collect();
        gone.sort_unstable();
        for node in &gone {
            self.nodes.remove(node);
        }
        let settled = self.scope.changed.is_some_and(|at| now > at + self.settings.gone);
        if settled && self.scope.is_partial() && self.nodes.len() < HEARD / 2 {
            self.rescope(now, fx);
        }
        gone
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        self.next_beat
    }

    /// Counts an ask against a node's free places until its next beat.
    pub(super) fn claim(&mut self, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.claimed += 1;
        }
    }

    /// Counts an ask that may create against a node's room until its next beat.
    pub(super) fn claim_room(&mut self, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.claimed_to_create += 1;
        }
    }

    /// Iterates over the other nodes that could serve a request.
    pub(super) fn candidates<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> impl Iterator<Item = Candidate<'a>> {
        let zone = self.own.zone();
        self.nodes.values().filter(|known| can_serve(&known.beat, wanted)).map(move |known| {
            Candidate::new(&known.beat, wanted, zone.is_some() && known.beat.zone() == zone)
                .claimed(known)
        })
    }

    /// Returns another node, if it could serve a request.
    pub(super) fn candidate<'a>(&'a self, node: &str, wanted: &'a Wanted) -> Option<Candidate<'a>> {
        let known = self.nodes.get(node).filter(|known| can_serve(&known.beat, wanted))?;
        Some(Candidate::new(&known.beat, wanted, false).claimed(known))
    }

    /// Returns this node as one that could serve a request.
    pub(super) fn here<'a>(&'a self, wanted: &Wanted) -> Candidate<'a> {
        Candidate::new(&self.own, wanted, true)
    }

    /// Returns the beat of this node.
    #[must_use]
    pub fn own(&self) -> &Beat {
        &self.own
    }

    /// Returns the last beat of another node, unless it is gone.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Arc<Beat>> {
        self.nodes.get(node).map(|known| &known.beat).filter(|beat| beat.phase != Phase::Gone)
    }

    /// Iterates over the last beats of the other nodes that are not gone, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Beat>> {
        self.nodes.values().map(|known| &known.beat).filter(|beat| beat.phase != Phase::Gone)
    }
}

/// A node that could serve a request, by its last beat.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) beat: &'a Beat,
    /// Idle resources of the class, minus waiting requests and the asks sent there since the beat.
    pub(super) free: u32,
    /// Number of resources that could be created for it at the time of the beat.
    pub(super) room: u32,
    /// The same, minus the asks since the beat that may create.
    pub(super) open_room: u32,
    /// Waiting requests for each place.
    pub(super) crowd: f32,
    /// It is in the zone of the node that asks.
    pub(super) near: bool,
}

impl<'a> Candidate<'a> {
    fn new(beat: &'a Beat, wanted: &Wanted, near: bool) -> Self {
        let load = &beat.load;
        let (idle, waiting, room) = match load.classes.get(&wanted.class) {
            Some(class) => (class.idle, class.waiting, class.room),
            None => (0, 0, load.room),
        };
        let crowd = waiting as f32 / load.places.max(1) as f32;
        Self { beat, free: idle.saturating_sub(waiting), room, open_room: room, crowd, near }
    }

    fn claimed(mut self, known: &Known) -> Self {
        // Nothing is created for an ask that finds something free.
        let creating = known.claimed_to_create.saturating_sub(self.free);
        self.free = self.free.saturating_sub(known.claimed);
        self.open_room = self.room.saturating_sub(creating);
        self
    }
}

/// Returns `true` if a node could ever serve a request.
fn can_serve(beat: &Beat, wanted: &Wanted) -> bool {
    let has = |label, known: &BTreeSet<Arc<str>>, any| {
        wanted.labels.get(label).is_none_or(|value| any || known.contains(value))
    };
    beat.phase == Phase::Running
        && beat.load.places > 0
        && has("profile", &beat.profiles, beat.any_profile)
        && has("region", &beat.regions, false)
}

/// Returns `true` if a beat is newer than the known one of the same name.
fn succeeds(beat: &Beat, known: &Beat) -> bool {
    if beat.incarnation == known.incarnation {
        return beat.sequence > known.sequence;
    }
    // If two nodes have the same name, the younger one drains, and the other one counts.
    let standing = |beat: &Beat| (beat.phase == Phase::Running, beat.incarnation);
    standing(beat) > standing(known)
}

/// Returns `true` if two loads differ in what others act on: something free or not, room or not.
fn differs(old: &Load, new: &Load) -> bool {
    let about = |load: &Load, class: &Arc<str>| {
        let class = load.classes.get(class).copied().unwrap_or_default();
        (class.idle > class.waiting, class.room > 0)
    };
    let classes = old.classes.keys().chain(new.classes.keys());
    old.places != new.places
        || (old.room > 0) != (new.room > 0)
        || classes.into_iter().any(|class| about(old, class) != about(new, class))
}

/// The beats that a node listens to: all of them in a small fleet; in a large one those of about
/// [`HEARD`] nodes, half of them in its own zone.
#[derive(Debug)]
struct Scope {
    zone: Option<Arc<str>>,
    /// Shard of this node's own beats. It comes first in the order, so that a node always hears
    /// another one with its name.
    own: u16,
    /// All shards, in an order that differs from node to node, so that every node is heard by some.
    order: Vec<u16>,
    /// Place of each shard in the order.
    rank: Vec<u16>,
    /// Number of shards of all zones that are listened to.
    all: u16,
    /// Number of shards of the node's own zone that are listened to.
    near: u16,
    changed: Option<Instant>,
}

impl Scope {
    fn new(own: &Beat, rng: &mut fastrand::Rng) -> Self {
        let mut order: Vec<u16> = (0..SHARDS).collect();
        rng.shuffle(&mut order);
        let shard = shard(&own.node);
        let at = order.iter().position(|&held| held == shard).expect("every shard is in it");
        order.swap(0, at);
        let mut rank = vec![0; usize::from(SHARDS)];
        for (place, &shard) in (0..).zip(&order) {
            rank[usize::from(shard)] = place;
        }
        let zone = own.zone().cloned();
        Self { zone, own: shard, order, rank, all: SHARDS, near: SHARDS, changed: None }
    }

    fn is_partial(&self) -> bool {
        self.all < SHARDS
    }

    fn in_zone(&self, beat: &Beat) -> bool {
        self.zone.is_some() && beat.zone() == self.zone.as_ref()
    }

    fn covers(&self, beat: &Beat, shard: u16) -> bool {
        let rank = self.rank[usize::from(shard)];
        rank < self.all || rank < self.near && self.in_zone(beat)
    }

    /// Adapts to the nodes that are heard. Returns `true` if something has changed.
    fn fit<'a>(&mut self, nodes: impl Iterator<Item = (&'a Beat, u16)>, now: Instant) -> bool {
        let (mut all, mut near) = (0, 0);
        for (beat, shard) in nodes {
            all += usize::from(self.rank[usize::from(shard)] < self.all);
            near += usize::from(self.in_zone(beat));
        }
        let target = if self.zone.is_some() { HEARD / 2 } else { HEARD };
        let fitted = |shards: u16, heard: usize| {
            let fitted = usize::from(shards) * target / heard.max(1);
            u16::try_from(fitted).unwrap_or(SHARDS).clamp(1, SHARDS)
        };
        let before = (self.all, self.near);
        (self.all, self.near) = (fitted(self.all, all), fitted(self.near, near));
        self.changed = Some(now);
        before != (self.all, self.near)
    }

    fn listen(&self) -> BTreeSet<Listen> {
        if !self.is_partial() {
            return BTreeSet::from([Listen { zone: None, shard: None }]);
        }
        let shards = |count: u16| self.order.iter().take(usize::from(count)).copied();
        let mut listen: BTreeSet<Listen> =
            shards(self.all).map(|shard| Listen { zone: None, shard: Some(shard) }).collect();
        if self.zone.is_some() && self.near == SHARDS {
            listen.insert(Listen { zone: self.zone.clone(), shard: None });
        } else if self.zone.is_some() {
            let beyond = shards(self.near).skip(usize::from(self.all));
            let near = |shard| Listen { zone: self.zone.clone(), shard: Some(shard) };
            listen.extend(beyond.map(near));
        }
        listen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ClassLoad, Incarnation};

    const SECOND: Duration = Duration::from_secs(1);

    fn run(of: u32) -> Incarnation {
        Incarnation::new(SECOND, of)
    }

    fn running(name: &str, of: u32, sequence: u64) -> Beat {
        let mut beat = Beat::new(name, run(of), "ws://there");
        (beat.phase, beat.sequence) = (Phase::Running, sequence);
        beat.load.places = 2;
        beat
    }

    fn members(zone: Option<&str>) -> Membership {
        let mut own = Beat::new("own", run(5), "ws://own");
        if let Some(zone) = zone {
            own.labels.insert(Arc::from("zone"), Arc::from(zone));
        }
        Membership::new(own, Settings::default(), fastrand::Rng::with_seed(1))
    }

    fn joined(now: Instant) -> Membership {
        let (mut members, mut fx) = (members(None), Effects::new());
        members.start(&mut fx);
        members.who_answered(None, now, &mut fx);
        members.who_answered(None, now, &mut fx);
        assert!(fx.drain().any(|effect| effect == Effect::Joined));
        members
    }

    fn free(idle: u32) -> Load {
        let class = ClassLoad { idle, ..ClassLoad::default() };
        Load { places: 2, classes: [(Arc::from("default"), class)].into(), ..Load::default() }
    }

    fn beats(fx: &mut Effects) -> usize {
        fx.drain().filter(|effect| matches!(effect, Effect::Publish(Topic::Beat { .. }, _))).count()
    }

    #[test]
    fn a_name_that_is_answered_for_is_taken() {
        let (mut members, mut fx) = (members(None), Effects::new());
        members.start(&mut fx);
        let beat = Arc::new(running("own", 1, 9));
        members.who_answered(Some(&WhoReply { beat: Arc::clone(&beat) }), Instant::now(), &mut fx);
        assert_eq!(fx.drain().last(), Some(Effect::NameTaken(beat)));
        assert_eq!(members.own().phase, Phase::Starting);
    }

    #[test]
    fn of_two_that_start_together_the_older_one_answers() {
        let members = members(None);
        let who = |of| Who { node: Arc::from("own"), starting: Some(run(of)) };
        assert!(members.who(&who(6)).is_some(), "the other one is younger");
        assert!(members.who(&who(4)).is_none(), "the other one is older");
        assert!(members.who(&who(5)).is_none(), "it is its own question");
    }

    #[test]
    fn changes_are_told_at_once_but_four_times_a_second_at_most() {
        let now = Instant::now();
        let (mut members, mut fx) = (joined(now), Effects::new());
        let mut told = 0;
        for step in 1..100 {
            let now = now + Duration::from_millis(10 * step);
            members.load(free(u32::from(step % 2 == 0)), now);
            members.tick(now, &mut fx);
            told += beats(&mut fx);
        }
        assert_eq!(told, 3, "and the first one, in this second");
        members.load(free(2), now + SECOND * 5);
        members.load(free(3), now + SECOND * 5);
        members.tick(now + SECOND * 5, &mut fx);
        assert_eq!(beats(&mut fx), 1, "one more of what is free anyway is no news");
    }

    #[test]
    fn a_node_is_gone_after_three_missed_beats() {
        let now = Instant::now();
        let (mut members, mut fx) = (joined(now), Effects::new());
        members.beat(&Arc::new(running("there", 1, 1)), now, &mut fx);
        assert!(members.tick(now + SECOND * 3, &mut fx).is_empty());
        assert_eq!(members.tick(now + SECOND * 5, &mut fx), [Arc::from("there")]);
    }

    #[test]
    fn a_late_beat_of_one_that_has_left_does_not_bring_it_back() {
        let now = Instant::now();
        let (mut members, mut fx) = (joined(now), Effects::new());
        let mut bye = running("there", 1, 3);
        bye.phase = Phase::Gone;
        members.beat(&Arc::new(running("there", 1, 1)), now, &mut fx);
        assert_eq!(members.beat(&Arc::new(bye), now, &mut fx), Heard::Gone);
        let late = Arc::new(running("there", 1, 2));
        assert_eq!(members.beat(&late, now, &mut fx), Heard::Nothing);
        assert!(members.get("there").is_none());
        let again = Arc::new(running("there", 2, 1));
        assert_eq!(members.beat(&again, now, &mut fx), Heard::Gone, "another run");
        assert!(members.get("there").is_some());
    }

    #[test]
    fn the_younger_of_two_with_one_name_is_told() {
        let now = Instant::now();
        let (mut members, mut fx) = (joined(now), Effects::new());
        fx.drain().count();
        let older = Arc::new(running("own", 1, 1));
        assert_eq!(members.beat(&older, now, &mut fx), Heard::Namesake);
        assert_eq!(fx.drain().next(), Some(Effect::NameTaken(older)));
        assert_eq!(members.beat(&Arc::new(running("own", 9, 1)), now, &mut fx), Heard::Nothing);
        assert_eq!(members.beat(&Arc::new(running("own", 5, 1)), now, &mut fx), Heard::Nothing);
    }

    #[test]
    fn a_node_serves_the_profiles_and_regions_that_it_has() {
        let mut beat = running("there", 1, 1);
        let mut wanted = Wanted::default();
        assert!(can_serve(&beat, &wanted));
        wanted.labels.insert(Arc::from("profile"), Arc::from("work"));
        assert!(!can_serve(&beat, &wanted));
        beat.any_profile = true;
        assert!(can_serve(&beat, &wanted));
        wanted.labels.insert(Arc::from("region"), Arc::from("eu"));
        assert!(!can_serve(&beat, &wanted));
        beat.regions.insert(Arc::from("eu"));
        assert!(can_serve(&beat, &wanted));
        beat.phase = Phase::Draining;
        assert!(!can_serve(&beat, &wanted));
    }

    #[test]
    fn asks_since_a_beat_count_against_what_it_says_is_free() {
        let now = Instant::now();
        let (mut members, mut fx) = (joined(now), Effects::new());
        let mut beat = running("there", 1, 1);
        beat.load = free(2);
        members.beat(&Arc::new(beat.clone()), now, &mut fx);
        let wanted = Wanted { class: Arc::from("default"), ..Wanted::default() };
        let free = |members: &Membership| members.candidate("there", &wanted).map(|it| it.free);
        members.claim("there");
        assert_eq!(free(&members), Some(1));
        beat.sequence = 2;
        members.beat(&Arc::new(beat), now, &mut fx);
        assert_eq!(free(&members), Some(2));
    }

    #[test]
    fn of_a_large_fleet_a_part_is_heard_half_of_it_near() {
        let now = Instant::now();
        let (mut members, mut fx) = (members(Some("a")), Effects::new());
        let mut listen = members.scope.listen();
        assert_eq!(listen.len(), 1, "a small fleet is heard whole");
        for round in 1..4 {
            for index in 0..5000 {
                let mut beat = running(&format!("n{index}"), 1, round);
                let zone = if index % 4 == 0 { "a" } else { "b" };
                beat.labels.insert(Arc::from("zone"), Arc::from(zone));
                members.beat(&Arc::new(beat), now, &mut fx);
            }
        }
        for effect in fx.drain() {
            if let Effect::Listen(changed) = effect {
                listen = changed;
            }
        }
        assert!((100..=200).contains(&members.nodes().count()), "{}", members.nodes().count());
        let near = members.nodes().filter(|beat| beat.zone().is_some_and(|zone| **zone == *"a"));
        assert!(near.count() > members.nodes().count() / 3);
        assert!(listen.contains(&Listen { zone: None, shard: Some(shard("own")) }), "its own name");
    }
}
