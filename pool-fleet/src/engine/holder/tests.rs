use super::*;

/// A holder, the time, and the effects that it asks for.
struct Rig {
    holder: Holder,
    now: Instant,
    fx: Effects,
}

fn run(of: u32) -> Incarnation {
    Incarnation::new(Duration::from_secs(1), of)
}

impl Rig {
    fn new() -> Self {
        let own = Beat::new("node", run(1), "ws://node");
        let mut holder = Holder::new(&own, Settings::default());
        holder.open();
        // Asks bring an age along, so there must be a time before.
        Self { holder, now: Instant::now() + Duration::from_secs(3600), fx: Effects::new() }
    }

    fn effects(&mut self) -> Vec<Effect> {
        self.fx.drain().collect()
    }

    fn ask(&mut self, id: u64, revision: u32, creates: bool) {
        let ask = Ask {
            gateway: Arc::from("gate"),
            incarnation: run(2),
            id,
            revision,
            request: Arc::new(Wanted::default()),
            waited_ms: 500,
            left_ms: 10_000,
            creates,
        };
        self.holder.ask(&ask, self.now, &mut self.fx);
    }

    fn list(&mut self, sequence: u64, ids: &[u64]) {
        let list = Asks {
            gateway: Arc::from("gate"),
            incarnation: run(2),
            sequence,
            up_to: 100,
            ids: ids.to_vec(),
        };
        self.holder.asks(&list, self.now, &mut self.fx);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.holder.tick(self.now, &mut self.fx);
    }

    /// Makes the pool grant a ticket, and returns the number of the offer.
    fn grant(&mut self, ticket: u64) -> u64 {
        let said = Pooled::Granted(Arc::from("node.1"));
        self.holder.pooled(ticket, said, self.now, &mut self.fx);
        let effects = self.effects();
        let [Effect::Offer(gateway, offer)] = effects.as_slice() else {
            panic!("one offer: {effects:?}");
        };
        assert_eq!(&**gateway, "gate");
        offer.offer
    }

    fn reply(&mut self, offer: u64, reply: Option<OfferReply>) -> Vec<Effect> {
        self.holder.offer_answered(offer, reply, self.now, &mut self.fx);
        self.effects()
    }
}

fn outcome(effect: &Effect) -> Option<&Outcome> {
    match effect {
        Effect::Publish(_, Message::Answer(answer)) => Some(&answer.outcome),
        _ => None,
    }
}

const BACK: Effect = Effect::GiveBack(Ticket::Remote(1));
const GONE: Effect = Effect::Abandon(Ticket::Remote(1));

#[test]
fn an_ask_waits_in_the_pool_with_its_age() {
    let mut rig = Rig::new();
    rig.ask(7, 1, false);
    let effects = rig.effects();
    let [Effect::Acquire(Ticket::Remote(1), acquire)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(acquire.waited, Duration::from_millis(500));
    assert_eq!(acquire.left, Duration::from_secs(10));
    assert!(!acquire.creates);
    rig.ask(7, 1, false);
    assert_eq!(rig.effects(), [], "a copy changes nothing");
}

#[test]
fn only_an_ask_that_may_create_is_told_that_it_waits() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.ask(2, 1, true);
    rig.effects();
    for ticket in [1, 2] {
        let said = Pooled::Queued { launching: true };
        rig.holder.pooled(ticket, said, rig.now, &mut rig.fx);
    }
    let effects = rig.effects();
    assert_eq!(effects.iter().filter_map(outcome).collect::<Vec<_>>(), [&Outcome::Launching]);
}

#[test]
fn a_revision_moves_the_right_to_create_and_an_older_one_is_ignored() {
    let mut rig = Rig::new();
    rig.ask(1, 2, true);
    rig.effects();
    rig.ask(1, 1, false);
    assert_eq!(rig.effects(), []);
    rig.ask(1, 3, false);
    let effects = rig.effects();
    assert_eq!(effects[0], GONE);
    assert!(matches!(&effects[1], Effect::Acquire(_, acquire) if !acquire.creates));
}

#[test]
fn a_declined_offer_gives_the_resource_back_untouched() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    assert_eq!(rig.reply(offer, Some(OfferReply::Decline)), [BACK]);
    assert_eq!(rig.holder.waiting(), 0);
    rig.ask(1, 1, false);
    assert_eq!(rig.effects(), [], "a late copy of the ask does not bring it back");
}

#[test]
fn an_ask_that_came_again_beside_an_unanswered_offer_leaves_no_ticket() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    rig.list(1, &[]);
    rig.ask(1, 2, false);
    rig.effects();
    assert_eq!(rig.reply(offer, None), [Effect::Abandon(Ticket::Remote(2)), BACK]);
    // The gateway is heard again; the ask stands once, and can be granted.
    rig.list(2, &[1]);
    let effects = rig.effects();
    assert!(matches!(effects[..], [Effect::Acquire(Ticket::Remote(3), _)]), "{effects:?}");
    rig.grant(3);
}

#[test]
fn an_unanswered_offer_sets_the_gateway_aside_until_it_is_heard() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.ask(2, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    rig.pass(Duration::from_millis(499));
    assert_eq!(rig.effects(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.effects(), [Effect::Abandon(Ticket::Remote(2)), BACK]);
    assert_eq!(rig.reply(offer, Some(OfferReply::Accept)), [], "too late");

    rig.list(1, &[1, 2]);
    let waits = |effect: &Effect| match effect {
        Effect::Acquire(_, acquire) => Some(acquire.waited),
        _ => None,
    };
    let effects = rig.effects();
    assert_eq!(effects.iter().filter_map(waits).collect::<Vec<_>>(), [SECOND, SECOND]);
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn whoever_accepts_has_two_seconds_to_connect() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    assert_eq!(rig.reply(offer, Some(OfferReply::Accept)), []);
    rig.pass(2 * SECOND);
    assert_eq!(rig.effects(), [BACK]);
    assert!(!rig.holder.taken(1, rig.now, &mut rig.fx), "it is nobody's");
}

#[test]
fn a_connection_may_overtake_the_reply() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    assert!(rig.holder.taken(1, rig.now, &mut rig.fx));
    assert_eq!(rig.reply(offer, Some(OfferReply::Accept)), []);
    rig.pass(10 * SECOND);
    assert_eq!(rig.effects(), [], "the lease is its client's");
}

#[test]
fn a_list_ends_what_is_not_in_it_and_asks_for_what_was_lost() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    rig.list(2, &[5]);
    let effects = rig.effects();
    assert_eq!(effects[0], GONE);
    assert_eq!(outcome(&effects[1]), Some(&Outcome::Unknown));
    rig.ask(6, 1, false);
    rig.effects();
    rig.list(1, &[]);
    assert_eq!(rig.effects(), [], "an older list says nothing");
}

#[test]
fn a_list_that_was_sent_before_an_ask_does_not_end_it() {
    let mut rig = Rig::new();
    rig.ask(101, 1, false);
    rig.effects();
    rig.list(1, &[]);
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.holder.waiting(), 1);
}

#[test]
fn without_a_list_an_ask_is_over_after_three_seconds() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.pass(2 * SECOND);
    // The gateway is heard, but does not mention this ask.
    rig.ask(2, 1, false);
    rig.effects();
    rig.pass(SECOND);
    assert_eq!(rig.effects(), [GONE]);
    assert_eq!(rig.holder.waiting(), 1);
    rig.pass(3 * SECOND);
    assert_eq!(rig.holder.waiting(), 0);
}

#[test]
fn a_cancel_that_overtakes_its_ask_ends_it() {
    let mut rig = Rig::new();
    let cancel = Cancel { gateway: Arc::from("gate"), incarnation: run(2), ids: vec![1] };
    rig.holder.cancel(&cancel, rig.now, &mut rig.fx);
    rig.ask(1, 1, false);
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.holder.waiting(), 0);
}

#[test]
fn asks_of_an_earlier_run_of_a_gateway_are_over() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.effects();
    let list = Asks {
        gateway: Arc::from("gate"),
        incarnation: run(3),
        sequence: 1,
        up_to: 0,
        ids: Vec::new(),
    };
    rig.holder.asks(&list, rig.now, &mut rig.fx);
    assert_eq!(rig.effects(), [GONE]);
    rig.ask(2, 1, false);
    assert_eq!(rig.effects(), [], "and what still comes of it is ignored");
}

#[test]
fn a_grant_that_comes_too_late_is_given_back() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.pass(SECOND);
    rig.list(1, &[1]);
    rig.now += 9 * SECOND;
    rig.effects();
    let said = Pooled::Granted(Arc::from("node.1"));
    rig.holder.pooled(1, said.clone(), rig.now, &mut rig.fx);
    assert_eq!(rig.effects(), [BACK], "its time is over");
    rig.holder.pooled(1, said, rig.now, &mut rig.fx);
    assert_eq!(rig.effects(), [BACK], "it was abandoned");
}

#[test]
fn a_drain_refuses_what_waits_and_lets_offers_run_their_course() {
    let mut rig = Rig::new();
    rig.ask(1, 1, false);
    rig.ask(2, 1, false);
    rig.effects();
    let offer = rig.grant(1);
    rig.holder.close(&mut rig.fx);
    let effects = rig.effects();
    assert_eq!(effects[0], Effect::Abandon(Ticket::Remote(2)));
    assert!(matches!(
        outcome(&effects[1]),
        Some(Outcome::Cannot(cannot)) if cannot.reason == Reason::Draining
    ));
    assert_eq!(effects.len(), 2);
    assert_eq!(rig.reply(offer, Some(OfferReply::Accept)), []);
    rig.ask(3, 1, true);
    assert!(matches!(outcome(&rig.effects()[0]), Some(Outcome::Cannot(_))));
}
