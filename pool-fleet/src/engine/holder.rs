use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Acquire, Answer, Ask, Asks, Beat, Cancel, Effect, Effects, Message, Offer, OfferReply, Outcome,
    Pooled, Settings, Ticket, Topic,
};
use crate::message::{Cannot, Incarnation, NodeName, Reason, Wanted};

/// The requests of other nodes that wait at a node, and what is offered to them.
///
/// An ask stands in the queue of the local pool like any other request, with the age that it brings
/// along. When the pool grants something to it, that is offered to its gateway; if the offer is
/// declined or not answered, the resource goes back untouched.
#[derive(Debug)]
pub struct Holder {
    node: NodeName,
    incarnation: Incarnation,
    address: Arc<str>,
    settings: Settings,
    /// Asks are accepted: the node has joined and is not draining.
    open: bool,
    gateways: BTreeMap<NodeName, Gateway>,
    /// Asks that wait in the pool or hold a lease from it, by the number of their ticket.
    tickets: BTreeMap<u64, Held>,
    /// Tickets by the number of the pending offer.
    offers: BTreeMap<u64, u64>,
    timers: BTreeSet<(Instant, Timer)>,
    last_ticket: u64,
    last_offer: u64,
}

/// A node whose clients' requests stand here.
#[derive(Debug)]
struct Gateway {
    incarnation: Incarnation,
    heard: Instant,
    /// Sequence number of its last list.
    list: u64,
    asks: BTreeMap<u64, Standing>,
    /// It has not answered an offer, and has not been heard since, so nothing is offered to it.
    aside: bool,
    /// Asks that ended a short while ago, so that a late message does not bring one back.
    over: VecDeque<(Instant, u64)>,
}

/// An ask.
#[derive(Debug)]
struct Standing {
    request: Arc<Wanted>,
    revision: u32,
    creates: bool,
    /// Time at which its client began to wait, by the clock of this node.
    since: Instant,
    deadline: Instant,
    /// Time at which it arrived, or was last on a list of its gateway: after 3 s without a list it
    /// is over.
    confirmed: Instant,
    /// Its wait in the pool or its lease; `None` while its gateway is set aside.
    ticket: Option<u64>,
    /// The gateway was told its outcome.
    answered: bool,
}

/// The ask that a ticket belongs to.
#[derive(Debug)]
struct Held {
    gateway: NodeName,
    /// The gateway's run in which it asked.
    asked_by: Incarnation,
    ask: u64,
    state: HeldState,
}

#[derive(Debug)]
enum HeldState {
    /// It waits in the pool.
    Queued,
    /// It has a lease, which is on offer until then.
    Offered { offer: u64, until: Instant },
    /// Its gateway has accepted, and has until then to connect.
    Accepted { until: Instant },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The answer to a ticket's offer is due, or the connection to its lease.
    Ticket(u64),
    /// A gateway, or one of its asks, may not have been heard of for too long.
    Silence(NodeName),
}

impl Holder {
    pub(super) fn new(own: &Beat, settings: Settings) -> Self {
        Self {
            node: Arc::clone(&own.node),
            incarnation: own.incarnation,
            address: Arc::clone(&own.address),
            settings,
            open: false,
            gateways: BTreeMap::new(),
            tickets: BTreeMap::new(),
            offers: BTreeMap::new(),
            timers: BTreeSet::new(),
            last_ticket: 0,
            last_offer: 0,
        }
    }

    /// Records that a gateway is alive, as it has sent a message. Returns `false` if the message is
    /// from a run that is over.
    fn heard(
        &mut self,
        gateway: &NodeName,
        incarnation: Incarnation,
        now: Instant,
        fx: &mut Effects,
    ) -> bool {
        match self.gateways.get_mut(gateway) {
            Some(known) if known.incarnation > incarnation => return false,
            Some(known) if known.incarnation == incarnation => known.heard = now,
            Some(_) => {
                self.forget(gateway, fx);
                self.meet(gateway, incarnation, now);
            }
            None => self.meet(gateway, incarnation, now),
        }
        self.resume(gateway, now, fx);
        true
    }

    fn meet(&mut self, gateway: &NodeName, incarnation: Incarnation, now: Instant) {
        let met = Gateway {
            incarnation,
            heard: now,
            list: 0,
            asks: BTreeMap::new(),
            aside: false,
            over: VecDeque::new(),
        };
        self.gateways.insert(Arc::clone(gateway), met);
        self.timers.insert((now + self.settings.asks_expire, Timer::Silence(Arc::clone(gateway))));
    }

    /// Lets the asks of a gateway that was set aside wait again, with their age.
    fn resume(&mut self, gateway: &NodeName, now: Instant, fx: &mut Effects) {
        let Some(known) = self.gateways.get_mut(gateway).filter(|known| known.aside) else {
            return;
        };
        known.aside = false;
        let waits: Vec<u64> = known
            .asks
            .iter()
            .filter(|(_, standing)| standing.ticket.is_none())
            .map(|(&ask, _)| ask)
            .collect();
        for ask in waits {
            self.queue(gateway, ask, now, fx);
        }
    }

    /// Makes an ask wait in the pool.
    fn queue(&mut self, gateway: &NodeName, ask: u64, now: Instant, fx: &mut Effects) {
        let known = self.gateways.get_mut(gateway).expect("whoever asks is known");
        let standing = known.asks.get_mut(&ask).expect("only what stands is queued");
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        standing.ticket = Some(ticket);
        let acquire = Acquire {
            request: Arc::clone(&standing.request),
            waited: now.saturating_duration_since(standing.since),
            left: standing.deadline.saturating_duration_since(now),
            creates: standing.creates,
        };
        let asked_by = known.incarnation;
        let gateway = Arc::clone(gateway);
        let held = Held { gateway, asked_by, ask, state: HeldState::Queued };
        self.tickets.insert(ticket, held);
        fx.push(Effect::Acquire(Ticket::Remote(ticket), acquire));
    }

    /// Ends a ticket's wait in the pool. A ticket that has a lease by now is left alone: its offer
    /// decides.
    fn unqueue(&mut self, ticket: u64, fx: &mut Effects) {
        let waits = |held: &Held| matches!(held.state, HeldState::Queued);
        if self.tickets.get(&ticket).is_some_and(waits) {
            self.tickets.remove(&ticket);
            fx.push(Effect::Abandon(Ticket::Remote(ticket)));
        }
    }

    pub(super) fn ask(&mut self, ask: &Ask, now: Instant, fx: &mut Effects) {
        if !self.heard(&ask.gateway, ask.incarnation, now, fx) {
            return;
        }
        let Ask { gateway, id, .. } = ask;
        let known = self.gateways.get_mut(gateway).expect("it was just heard");
        if known.over.iter().any(|(_, over)| over == id) {
            return;
        }
        if !self.open {
            let draining = Cannot::new(Reason::Draining, "draining", "the node is draining");
            return self.refuse(gateway, *id, draining, fx);
        }
        let asked = Standing {
            request: Arc::clone(&ask.request),
            revision: ask.revision,
            creates: ask.creates,
            since: now.checked_sub(Duration::from_millis(ask.waited_ms)).unwrap_or(now),
            deadline: now + Duration::from_millis(ask.left_ms.min(MAX_LEFT_MS)),
            confirmed: now,
            ticket: None,
            answered: false,
        };
        match known.asks.get_mut(id) {
            Some(standing) if standing.revision >= asked.revision => return,
            Some(standing) => {
                let ticket = standing.ticket.take();
                *standing = asked;
                let waits = |held: &Held| matches!(held.state, HeldState::Queued);
                match ticket {
                    Some(ticket) if self.tickets.get(&ticket).is_some_and(waits) => {
                        self.unqueue(ticket, fx);
                    }
                    // It has a lease and needs nothing more.
                    Some(_) => {
                        standing.ticket = ticket;
                        return;
                    }
                    None => {}
                }
            }
            None => {
                known.asks.insert(*id, asked);
            }
        }
        self.queue(gateway, *id, now, fx);
    }

    pub(super) fn asks(&mut self, list: &Asks, now: Instant, fx: &mut Effects) {
        if !self.heard(&list.gateway, list.incarnation, now, fx) {
            return;
        }
        let known = self.gateways.get_mut(&list.gateway).expect("it was just heard");
        if list.sequence <= known.list {
            return;
        }
        known.list = list.sequence;
        let stands = |id: &u64| list.ids.binary_search(id).is_ok();
        let over: Vec<u64> =
            known.asks.keys().copied().filter(|id| *id <= list.up_to && !stands(id)).collect();
        let unknown: Vec<u64> = list
            .ids
            .iter()
            .copied()
            .filter(|id| !known.asks.contains_key(id))
            .filter(|id| known.over.iter().all(|(_, over)| over != id))
            .collect();
        for id in &list.ids {
            if let Some(standing) = known.asks.get_mut(id) {
                standing.confirmed = now;
            }
        }
        for id in over {
            self.remove(&list.gateway, id, fx);
        }
        for id in unknown {
            self.answer(&list.gateway, id, Outcome::Unknown, fx);
        }
    }

    pub(super) fn cancel(&mut self, cancel: &Cancel, now: Instant, fx: &mut Effects) {
        if !self.heard(&cancel.gateway, cancel.incarnation, now, fx) {
            return;
        }
        for &id in &cancel.ids {
            self.end((&cancel.gateway, cancel.incarnation), id, now, fx);
        }
    }

    pub(super) fn pooled(&mut self, ticket: u64, said: Pooled, now: Instant, fx: &mut Effects) {
        let Some(held) = self.tickets.get(&ticket) else {
            // It was abandoned in the meantime.
            if let Pooled::Granted(_) = said {
                fx.push(Effect::GiveBack(Ticket::Remote(ticket)));
            }
            return;
        };
        let (gateway, ask) = (Arc::clone(&held.gateway), held.ask);
        match said {
            Pooled::Granted(lease) => self.grant(ticket, lease, now, fx),
            Pooled::Queued { launching } => {
                let known = self.gateways.get_mut(&gateway).expect("it has a ticket");
                let standing = known.asks.get_mut(&ask).expect("it has a ticket");
                if standing.creates && !standing.answered {
                    standing.answered = true;
                    let outcome = if launching { Outcome::Launching } else { Outcome::Queued };
                    self.answer(&gateway, ask, outcome, fx);
                }
            }
            Pooled::Refused(cannot) => {
                self.tickets.remove(&ticket);
                if let Some(known) = self.gateways.get_mut(&gateway) {
                    known.asks.remove(&ask);
                }
                // Its gateway knows by itself when its time is up.
                if cannot.reason != Reason::Timeout {
                    self.refuse(&gateway, ask, cannot, fx);
                }
            }
        }
    }

    /// Offers a lease, unless that makes no sense any more.
    fn grant(&mut self, ticket: u64, lease: Arc<str>, now: Instant, fx: &mut Effects) {
        let held = self.tickets.get_mut(&ticket).expect("the caller has looked");
        let known = self.gateways.get(&held.gateway).expect("it has a ticket");
        let standing = known.asks.get(&held.ask).expect("it has a ticket");
        if !self.open || known.aside || standing.deadline <= now {
            let (gateway, ask) = (Arc::clone(&held.gateway), held.ask);
            fx.push(Effect::GiveBack(Ticket::Remote(ticket)));
            self.tickets.remove(&ticket);
            return self.remove(&gateway, ask, fx);
        }
        self.last_offer += 1;
        let (offer, until) = (self.last_offer, now + self.settings.offer);
        held.state = HeldState::Offered { offer, until };
        self.offers.insert(offer, ticket);
        self.timers.insert((until, Timer::Ticket(ticket)));
        let message = Offer {
            offer,
            ask: held.ask,
            asked_by: known.incarnation,
            node: Arc::clone(&self.node),
            incarnation: self.incarnation,
            lease,
            address: Arc::clone(&self.address),
        };
        fx.push(Effect::Offer(Arc::clone(&held.gateway), message));
    }

    pub(super) fn offer_answered(
        &mut self,
        offer: u64,
        reply: Option<OfferReply>,
        now: Instant,
        fx: &mut Effects,
    ) {
        // A late reply finds no offer: the resource belongs to somebody else by now.
        let Some(ticket) = self.offers.remove(&offer) else { return };
        let held = self.tickets.get_mut(&ticket).expect("an offer has a ticket");
        let (gateway, asked_by, ask) = (Arc::clone(&held.gateway), held.asked_by, held.ask);
        if let HeldState::Offered { until, .. } = held.state {
            self.timers.remove(&(until, Timer::Ticket(ticket)));
        }
        match reply {
            Some(OfferReply::Accept) => {
                let until = now + self.settings.connect;
                held.state = HeldState::Accepted { until };
                self.timers.insert((until, Timer::Ticket(ticket)));
                self.end((&gateway, asked_by), ask, now, fx);
            }
            Some(OfferReply::Decline) => {
                self.tickets.remove(&ticket);
                self.end((&gateway, asked_by), ask, now, fx);
                fx.push(Effect::GiveBack(Ticket::Remote(ticket)));
            }
            None => {
                self.tickets.remove(&ticket);
                // Set aside first, so that the returned resource goes to others.
                self.set_aside((&gateway, asked_by), (ask, ticket), fx);
                fx.push(Effect::GiveBack(Ticket::Remote(ticket)));
            }
        }
    }

    /// Takes all asks of a gateway out of the queue until the gateway is heard again: with a
    /// gateway that has stopped, every resource that comes free would lose the time of an offer.
    fn set_aside(
        &mut self,
        gateway: (&str, Incarnation),
        (ask, ticket): (u64, u64),
        fx: &mut Effects,
    ) {
        let Some(known) = run(&mut self.gateways, gateway) else { return };
        known.aside = true;
        // The ask may have been called off in the meantime and have come back: then it has another
        // ticket.
        if let Some(standing) = known.asks.get_mut(&ask)
            && standing.ticket == Some(ticket)
        {
            standing.ticket = None;
        }
        let tickets = &mut self.tickets;
        for standing in known.asks.values_mut() {
            let Some(ticket) = standing.ticket else { continue };
            if tickets.get(&ticket).is_some_and(|held| matches!(held.state, HeldState::Queued)) {
                tickets.remove(&ticket);
                standing.ticket = None;
                fx.push(Effect::Abandon(Ticket::Remote(ticket)));
            }
        }
    }

    /// Records that the gateway has connected. Returns `false` if the lease is no longer its own.
    pub(super) fn taken(&mut self, ticket: u64, now: Instant, fx: &mut Effects) -> bool {
        let Some(held) = self.tickets.get(&ticket) else { return false };
        let (gateway, asked_by, ask) = (Arc::clone(&held.gateway), held.asked_by, held.ask);
        match held.state {
            HeldState::Queued => return false,
            // The connection has overtaken the reply.
            HeldState::Offered { offer, until } => {
                self.offers.remove(&offer);
                self.timers.remove(&(until, Timer::Ticket(ticket)));
            }
            HeldState::Accepted { until } => {
                self.timers.remove(&(until, Timer::Ticket(ticket)));
            }
        }
        self.tickets.remove(&ticket);
        self.end((&gateway, asked_by), ask, now, fx);
        true
    }

    /// Ends an ask of a gateway's run, and remembers that it is over.
    fn end(&mut self, gateway: (&str, Incarnation), ask: u64, now: Instant, fx: &mut Effects) {
        let Some(known) = run(&mut self.gateways, gateway) else { return };
        let old = now.checked_sub(self.settings.asks_expire * 2);
        while known.over.front().is_some_and(|(at, _)| old.is_some_and(|old| *at < old)) {
            known.over.pop_front();
        }
        known.over.push_back((now, ask));
        if let Some(ticket) = known.asks.remove(&ask).and_then(|standing| standing.ticket) {
            self.unqueue(ticket, fx);
        }
    }

    fn remove(&mut self, gateway: &NodeName, ask: u64, fx: &mut Effects) {
        let Some(known) = self.gateways.get_mut(gateway) else { return };
        if let Some(ticket) = known.asks.remove(&ask).and_then(|standing| standing.ticket) {
            self.unqueue(ticket, fx);
        }
    }

    /// Removes a gateway and all its asks. Pending offers to it run their course.
    fn forget(&mut self, gateway: &NodeName, fx: &mut Effects) {
        let Some(known) = self.gateways.remove(gateway) else { return };
        for ticket in known.asks.values().filter_map(|standing| standing.ticket) {
            self.unqueue(ticket, fx);
        }
    }

    fn refuse(&self, gateway: &NodeName, ask: u64, cannot: Cannot, fx: &mut Effects) {
        self.answer(gateway, ask, Outcome::Cannot(cannot), fx);
    }

    fn answer(&self, gateway: &NodeName, ask: u64, outcome: Outcome, fx: &mut Effects) {
        let Some(known) = self.gateways.get(gateway) else { return };
        let answer = Answer {
            node: Arc::clone(&self.node),
            incarnation: self.incarnation,
            asked_by: known.incarnation,
            id: ask,
            outcome,
        };
        fx.push(Effect::Publish(Topic::Answer(Arc::clone(gateway)), Message::Answer(answer)));
    }

    /// Accepts asks from now on.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Accepts no more asks, and refuses those that wait. Pending offers run their course.
    pub(super) fn close(&mut self, fx: &mut Effects) {
        self.open = false;
        let waiting: Vec<(NodeName, u64)> = self
            .gateways
            .iter()
            .flat_map(|(gateway, known)| {
                known.asks.iter().map(move |(&ask, standing)| (gateway, ask, standing))
            })
            .filter(|(_, _, standing)| {
                let held = standing.ticket.and_then(|ticket| self.tickets.get(&ticket));
                held.is_none_or(|held| matches!(held.state, HeldState::Queued))
            })
            .map(|(gateway, ask, _)| (Arc::clone(gateway), ask))
            .collect();
        for (gateway, ask) in waiting {
            self.remove(&gateway, ask, fx);
            let draining = Cannot::new(Reason::Draining, "draining", "the node is draining");
            self.refuse(&gateway, ask, draining, fx);
        }
    }

    pub(super) fn tick(&mut self, now: Instant, fx: &mut Effects) {
        while let Some((_, timer)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.pop_first();
            match timer {
                Timer::Silence(gateway) => self.silence(gateway, now, fx),
                Timer::Ticket(ticket) => match self.tickets.get(&ticket).map(|held| &held.state) {
                    Some(&HeldState::Offered { offer, .. }) => {
                        self.offer_answered(offer, None, now, fx);
                    }
                    Some(HeldState::Accepted { .. }) => {
                        self.tickets.remove(&ticket);
                        fx.push(Effect::GiveBack(Ticket::Remote(ticket)));
                    }
                    Some(HeldState::Queued) | None => {}
                },
            }
        }
    }

    /// Ends the asks of a gateway that it has not listed for too long, and forgets a gateway that
    /// is silent.
    fn silence(&mut self, gateway: NodeName, now: Instant, fx: &mut Effects) {
        let Some(known) = self.gateways.get(&gateway) else { return };
        let limit = self.settings.asks_expire;
        let over: Vec<u64> = known
            .asks
            .iter()
            .filter(|(_, standing)| standing.confirmed + limit <= now)
            .map(|(&ask, _)| ask)
            .collect();
        let confirmed = known.asks.values().map(|standing| standing.confirmed + limit);
        let next = confirmed.filter(|at| *at > now).min().unwrap_or(known.heard + limit);
        for ask in over {
            self.remove(&gateway, ask, fx);
        }
        if next <= now {
            self.forget(&gateway, fx);
        } else {
            self.timers.insert((next, Timer::Silence(gateway)));
        }
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Iterates over the asks that stand here: gateway, its run, and number.
    pub fn standing(&self) -> impl Iterator<Item = (&NodeName, Incarnation, u64)> {
        self.gateways.iter().flat_map(|(gateway, known)| {
            known.asks.keys().map(move |&ask| (gateway, known.incarnation, ask))
        })
    }

    /// Returns the number of asks that stand here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.gateways.values().map(|known| known.asks.len()).sum()
    }
}

/// Longest remaining time that an ask may claim: a day, as for ages.
const MAX_LEFT_MS: u64 = 24 * 60 * 60 * 1000;

/// Returns the state of a gateway, if it is still the same run.
fn run<'a>(
    gateways: &'a mut BTreeMap<NodeName, Gateway>,
    (gateway, incarnation): (&str, Incarnation),
) -> Option<&'a mut Gateway> {
    gateways.get_mut(gateway).filter(|known| known.incarnation == incarnation)
}

#[cfg(test)]
mod tests;
