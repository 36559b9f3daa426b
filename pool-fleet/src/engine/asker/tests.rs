use super::*;
use crate::message::{ClassLoad, Load, Phase, Wanted};

const MILLISECOND: Duration = Duration::from_millis(1);

fn run(of: u32) -> Incarnation {
    Incarnation::new(Duration::from_secs(1), of)
}

/// A gateway among nodes, the time, and the effects that it asks for.
struct Rig {
    asker: Asker,
    members: Membership,
    now: Instant,
    fx: Effects,
    beats: u64,
}

impl Rig {
    fn new() -> Self {
        let own = Beat::new("gate", run(1), "ws://gate");
        let rng = || fastrand::Rng::with_seed(1);
        Self {
            asker: Asker::new(&own, Settings::default(), rng()),
            members: Membership::new(own, Settings::default(), rng()),
            now: Instant::now() + Duration::from_secs(3600),
            fx: Effects::new(),
            beats: 0,
        }
    }

    /// Delivers a beat of a node with this many idle resources, and room for this many more.
    fn node(&mut self, name: &str, idle: u32, room: u32) {
        self.beats += 1;
        let mut beat = Beat::new(name, run(2), "ws://there");
        (beat.phase, beat.sequence) = (Phase::Running, self.beats);
        let class = ClassLoad { idle, room, ..ClassLoad::default() };
        beat.load = Load {
            places: 8,
            room,
            classes: [(Arc::from("default"), class)].into(),
            ..Load::default()
        };
        let beat = Arc::new(beat);
        self.members.beat(&beat, self.now, &mut self.fx);
        self.asker.heard(&beat, self.now);
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.fx.drain().collect()
    }

    /// Makes a client arrive whose own node has nothing, and returns the number of its ask.
    fn wait(&mut self) -> (WaiterId, u64) {
        let request = Wanted { class: Arc::from("default"), ..Wanted::default() };
        let waiting = Waiting::new(Arc::new(request), Duration::from_secs(20));
        let id = self.asker.acquire(waiting, &mut self.members, self.now, &mut self.fx);
        self.own(id, Pooled::Queued { launching: false });
        (id, self.asker.waiters[&id].ask)
    }

    /// Makes the gateway's pool respond to a waiter's ticket.
    fn own(&mut self, id: WaiterId, said: Pooled) {
        let Own::Waits { ticket, .. } = self.asker.waiters[&id].own else {
            panic!("it waits at its own node");
        };
        self.asker.pooled(ticket, said, &mut self.members, self.now, &mut self.fx);
    }

    fn answer(&mut self, node: &str, id: u64, outcome: Outcome) {
        let (node, incarnation, asked_by) = (Arc::from(node), run(2), run(1));
        let answer = Answer { node, incarnation, asked_by, id, outcome };
        self.asker.answer(&answer, &mut self.members, self.now, &mut self.fx);
    }

    fn offer(&mut self, node: &str, ask: u64) -> OfferReply {
        let offer = Offer {
            offer: 1,
            ask,
            asked_by: run(1),
            node: Arc::from(node),
            incarnation: run(2),
            lease: Arc::from("there.1"),
            address: Arc::from("ws://there"),
        };
        self.asker.offered(&offer, self.now, &mut self.fx)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.asker.tick(&mut self.members, self.now, &mut self.fx);
    }
}

/// Returns the nodes that are asked, and whether they may create.
fn asks(effects: &[Effect]) -> Vec<(String, bool)> {
    let asks = effects.iter().filter_map(|effect| match effect {
        Effect::Publish(Topic::Ask(node), Message::Ask(ask)) => {
            Some((node.to_string(), ask.creates))
        }
        _ => None,
    });
    asks.collect()
}

fn cancels(effects: &[Effect]) -> usize {
    let cancel = |effect: &&Effect| matches!(effect, Effect::Publish(Topic::Cancel(_), _));
    effects.iter().filter(cancel).count()
}

fn refusal(effects: &[Effect]) -> Option<Reason> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refuse(_, cannot) => Some(cannot.reason),
        _ => None,
    })
}

fn cannot(reason: Reason) -> Outcome {
    Outcome::Cannot(Cannot::new(reason, "code", "a sentence"))
}

#[test]
fn a_client_may_wait_for_ever_and_rank_behind_all() {
    let mut rig = Rig::new();
    let request = Wanted { class: Arc::from("default"), ..Wanted::default() };
    let mut waiting = Waiting::new(Arc::new(request), Duration::MAX);
    waiting.handicap = Duration::MAX;
    rig.asker.acquire(waiting, &mut rig.members, rig.now, &mut rig.fx);
    assert_eq!(rig.asker.waiting(), 1);
    assert_eq!(refusal(&rig.effects()), None);
}

#[test]
fn the_right_to_create_stays_here_when_the_node_that_had_it_goes_on_to_say_nothing() {
    let mut rig = Rig::new();
    rig.node("a", 0, 1);
    let (id, _) = rig.wait();
    assert_eq!(rig.asker.waiters[&id].creator, Some(Creator::Node(Arc::from("a"))));
    let class = ClassLoad { room: 1, ..ClassLoad::default() };
    let classes = [(Arc::from("default"), class)].into();
    rig.members.load(Load { places: 8, room: 1, classes, ..Load::default() }, rig.now);
    rig.node("a", 0, 0);
    rig.node("b", 0, 1);
    rig.pass(MILLISECOND * 20);
    assert_eq!(rig.asker.waiters[&id].creator, Some(Creator::Own));
    rig.pass(MILLISECOND * 480);
    assert_eq!(rig.asker.waiters[&id].creator, Some(Creator::Own));
}

#[test]
fn what_is_at_hand_costs_no_message() {
    let mut rig = Rig::new();
    rig.node("a", 1, 0);
    let request = Arc::new(Wanted { class: Arc::from("default"), ..Wanted::default() });
    let waiting = Waiting::new(request, Duration::from_secs(1));
    let id = rig.asker.acquire(waiting, &mut rig.members, rig.now, &mut rig.fx);
    rig.own(id, Pooled::Granted(Arc::from("gate.1")));
    rig.pass(Duration::from_secs(5));
    let effects = rig.effects();
    assert!(matches!(
        effects.as_slice(),
        [Effect::Acquire(..), Effect::Serve(_, Place::Here { .. })]
    ));
}

#[test]
fn the_node_with_something_free_is_asked_alone_and_may_create() {
    let mut rig = Rig::new();
    rig.node("free", 1, 0);
    rig.node("busy", 0, 0);
    let (_, ask) = rig.wait();
    assert_eq!(asks(&rig.effects()), [("free".into(), true)]);
    rig.answer("free", ask, Outcome::Queued);
    assert_eq!(asks(&rig.effects()), [("busy".into(), false)], "it was not free after all");
}

#[test]
fn others_are_asked_when_the_first_is_silent() {
    let mut rig = Rig::new();
    rig.node("free", 1, 0);
    rig.node("busy", 0, 0);
    rig.wait();
    rig.effects();
    rig.pass(29 * MILLISECOND);
    assert_eq!(asks(&rig.effects()), []);
    rig.pass(MILLISECOND);
    assert_eq!(asks(&rig.effects()), [("busy".into(), false)]);
}

#[test]
fn one_offer_is_accepted_and_a_copy_of_it_too() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    rig.node("b", 0, 0);
    rig.node("c", 0, 0);
    let (id, ask) = rig.wait();
    assert_eq!(asks(&rig.effects()).len(), 3, "nothing is free: all are asked");
    assert_eq!(rig.offer("a", ask), OfferReply::Accept);
    assert!(rig.effects().iter().any(|effect| matches!(effect, Effect::Serve(..))));
    assert_eq!(rig.offer("a", ask), OfferReply::Accept);
    assert_eq!(rig.offer("b", ask), OfferReply::Decline);
    rig.pass(5 * MILLISECOND);
    assert_eq!(cancels(&rig.effects()), 1, "what was declined needs none");
    rig.asker.connected(id, rig.now, &mut rig.fx);
    assert_eq!(rig.asker.waiting(), 0);
    assert_eq!(rig.offer("a", ask), OfferReply::Accept, "a copy that comes late");
}

#[test]
fn the_right_to_create_goes_to_the_node_with_room() {
    let mut rig = Rig::new();
    rig.node("free", 1, 0);
    rig.node("roomy", 0, 1);
    let (_, ask) = rig.wait();
    rig.effects();
    rig.answer("free", ask, cannot(Reason::Full));
    assert_eq!(asks(&rig.effects()), [("roomy".into(), true)]);
}

#[test]
fn a_creator_that_does_not_answer_is_replaced() {
    let mut rig = Rig::new();
    rig.node("a", 0, 1);
    rig.wait();
    assert_eq!(asks(&rig.effects()), [("a".into(), true)]);
    rig.node("b", 0, 1);
    rig.node("a", 0, 0);
    rig.pass(500 * MILLISECOND);
    let asked = asks(&rig.effects());
    assert!(asked.contains(&("a".into(), false)), "{asked:?}");
    assert!(asked.contains(&("b".into(), true)), "{asked:?}");
}

#[test]
fn a_lost_ask_is_made_again() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    let (_, ask) = rig.wait();
    rig.effects();
    rig.answer("a", ask, Outcome::Unknown);
    assert_eq!(asks(&rig.effects()), [("a".into(), false)]);
}

#[test]
fn the_worst_reason_is_told_when_nobody_can() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    rig.node("b", 0, 0);
    let (id, ask) = rig.wait();
    rig.answer("a", ask, cannot(Reason::Unavailable));
    rig.answer("b", ask, cannot(Reason::Full));
    assert_eq!(refusal(&rig.effects()), None, "its own node may still serve it");
    rig.own(id, Pooled::Refused(Cannot::new(Reason::Full, "queue_full", "full")));
    assert_eq!(refusal(&rig.effects()), Some(Reason::Unavailable));
}

#[test]
fn a_request_that_makes_no_sense_is_refused_by_the_first() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    rig.node("b", 0, 0);
    let (_, ask) = rig.wait();
    rig.answer("a", ask, cannot(Reason::Refused));
    assert_eq!(refusal(&rig.effects()), Some(Reason::Refused));
}

#[test]
fn a_lease_that_cannot_be_connected_to_leaves_its_client_waiting_with_its_age() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    let (id, ask) = rig.wait();
    rig.offer("a", ask);
    rig.effects();
    rig.now += Duration::from_secs(2);
    rig.asker.connect_failed(id, &mut rig.members, rig.now, &mut rig.fx);
    let effects = rig.effects();
    let waited = effects.iter().find_map(|effect| match effect {
        Effect::Acquire(_, acquire) => Some(acquire.waited),
        _ => None,
    });
    assert_eq!(waited, Some(Duration::from_secs(2)));
    assert_eq!(rig.offer("a", ask), OfferReply::Accept, "a copy of what was accepted");
    assert_ne!(rig.asker.waiters[&id].ask, ask, "but it waits under another number");
}

#[test]
fn a_free_place_draws_the_client_that_has_waited_longest() {
    let mut rig = Rig::new();
    let (_, first) = rig.wait();
    rig.now += MILLISECOND;
    rig.wait();
    rig.effects();
    rig.node("new", 1, 0);
    rig.pass(20 * MILLISECOND);
    let effects = rig.effects();
    assert_eq!(asks(&effects), [("new".into(), false)]);
    let of_first = |effect: &Effect| matches!(effect, Effect::Publish(_, Message::Ask(ask)) if ask.id == first);
    assert!(effects.iter().any(of_first));
}

#[test]
fn a_client_is_told_at_its_deadline() {
    let mut rig = Rig::new();
    rig.node("a", 0, 0);
    let (_, ask) = rig.wait();
    rig.pass(Duration::from_secs(20));
    assert_eq!(refusal(&rig.effects()), Some(Reason::Timeout));
    assert_eq!(rig.offer("a", ask), OfferReply::Decline);
}

#[test]
fn a_request_for_one_node_waits_nowhere_else() {
    let mut rig = Rig::new();
    rig.node("home", 0, 1);
    rig.node("other", 1, 1);
    let request = Arc::new(Wanted { class: Arc::from("default"), ..Wanted::default() });
    let mut waiting = Waiting::new(request, Duration::from_secs(20));
    waiting.only = Some(Arc::from("home"));
    rig.asker.acquire(waiting.clone(), &mut rig.members, rig.now, &mut rig.fx);
    let effects = rig.effects();
    assert_eq!(asks(&effects), [("home".into(), true)]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Acquire(..))));
    waiting.only = Some(Arc::from("gone"));
    rig.asker.acquire(waiting, &mut rig.members, rig.now, &mut rig.fx);
    assert_eq!(refusal(&rig.effects()), Some(Reason::Unavailable), "it is not there");
}

#[test]
fn clients_that_come_together_are_created_for_at_nodes_with_room_for_each() {
    let mut rig = Rig::new();
    for (name, room) in [("a", 1), ("b", 1), ("c", 2)] {
        rig.node(name, 0, room);
    }
    let mut creators: Vec<_> = (0..4)
        .map(|_| {
            let (id, _) = rig.wait();
            rig.asker.waiters[&id].creator.clone()
        })
        .collect();
    creators.sort_by_key(|creator| format!("{creator:?}"));
    let expected = ["a", "b", "c", "c"].map(|name| Some(Creator::Node(Arc::from(name))));
    assert_eq!(creators, expected);
}

#[test]
fn a_node_that_is_preferred_creates_in_place_of_the_own_one_while_it_has_room() {
    let mut rig = Rig::new();
    let class = ClassLoad { room: 1, ..ClassLoad::default() };
    let own = Load {
        places: 8,
        room: 1,
        classes: [(Arc::from("default"), class)].into(),
        ..Load::default()
    };
    rig.members.load(own, rig.now);
    rig.node("other", 0, 1);
    let request = Arc::new(Wanted { class: Arc::from("default"), ..Wanted::default() });
    let mut waiting = Waiting::new(request, Duration::from_secs(20));
    waiting.prefer = vec![Arc::from("copy")];
    let creates_here = |effects: &[Effect]| {
        let creates =
            |effect: &Effect| matches!(effect, Effect::Acquire(_, asked) if asked.creates);
        effects.iter().any(creates)
    };
    for (room, here) in [(1, false), (0, true)] {
        rig.node("copy", 0, room);
        let id = rig.asker.acquire(waiting.clone(), &mut rig.members, rig.now, &mut rig.fx);
        assert_eq!(creates_here(&rig.effects()), here);
        rig.own(id, Pooled::Queued { launching: false });
        let asked = asks(&rig.effects());
        let creates: Vec<&str> =
            asked.iter().filter(|(_, creates)| *creates).map(|(node, _)| &**node).collect();
        assert_eq!(creates, if here { vec![] } else { vec!["copy"] });
    }
}

#[test]
fn what_is_free_here_has_its_time_before_others_are_asked() {
    let mut rig = Rig::new();
    rig.node("other", 1, 0);
    let class = ClassLoad { idle: 1, ..ClassLoad::default() };
    let load =
        Load { places: 1, classes: [(Arc::from("default"), class)].into(), ..Load::default() };
    rig.members.load(load, rig.now);
    let (id, _) = rig.wait();
    assert_eq!(asks(&rig.effects()), [], "the pool only looks at it first");
    rig.pass(Settings::default().first);
    assert_eq!(asks(&rig.effects()).len(), 1, "it was no good");
    rig.own(id, Pooled::Granted("here.1".into()));
    assert!(rig.effects().iter().any(|effect| matches!(effect, Effect::Serve(..))));
}
