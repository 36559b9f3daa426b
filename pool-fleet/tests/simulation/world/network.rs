//! The network: messages, which may be lost, doubled and late, and connections to leases.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pool_fleet::engine::{Effects, Listen, Ticket, Topic, WaiterId};
use pool_fleet::{Beat, Message, Offer, Who};

use super::{Run, What, World};

/// The network.
impl World {
    pub(super) fn latency(&mut self) -> Duration {
        self.plan.delay + self.plan.jitter.mul_f64(self.rng.f64())
    }

    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.groups.as_ref().is_none_or(|groups| {
            let group = |node: usize| groups.get(node).copied().unwrap_or(0);
            group(from) == group(to)
        })
    }

    /// Sends something, which may be lost, arrive late, or twice.
    pub(super) fn send(&mut self, from: usize, to: usize, what: &What) {
        if !self.reaches(from, to) {
            return;
        }
        let copies = 1 + u32::from(self.plan.doubled > 0.0 && self.rng.f64() < self.plan.doubled);
        for _ in 0..copies {
            if self.plan.loss == 0.0 || self.rng.f64() >= self.plan.loss {
                let at = self.now + self.latency();
                self.at(at, what.clone());
            }
        }
    }

    pub(super) fn publish(&mut self, node: usize, topic: &Topic, message: Message) {
        self.counts.sent(node, self.now - self.start);
        self.counts.message(&message);
        let name = match topic {
            Topic::Beat { .. } => {
                let Message::Beat(beat) = message else { unreachable!("a beat goes there") };
                let at = self.now + self.plan.delay;
                return self.at(at, What::Beats(node, beat));
            }
            Topic::Ask(name) | Topic::Asks(name) | Topic::Cancel(name) | Topic::Answer(name) => {
                name
            }
        };
        // The text is what travels: now and then it is read back.
        if self.plan.checked && self.sequence.is_multiple_of(16) {
            let read = Message::decode(&message.encode()).expect("our own message");
            assert_eq!(read, message);
        }
        let targets: Vec<usize> = self.of_name(name).collect();
        for to in targets {
            self.send(node, to, &What::Message(to, message.clone()));
        }
    }

    pub(super) fn beats(&mut self, from: usize, beat: &Arc<Beat>) {
        let zone = Arc::clone(&self.nodes[from].zone);
        let shard = pool_fleet::engine::shard(&beat.node);
        let mut heard: Vec<usize> = Vec::new();
        for listen in [
            Listen { zone: None, shard: None },
            Listen { zone: None, shard: Some(shard) },
            Listen { zone: Some(Arc::clone(&zone)), shard: None },
            Listen { zone: Some(zone), shard: Some(shard) },
        ] {
            heard.extend(self.listeners.get(&listen).into_iter().flatten());
        }
        for to in heard {
            let lost = self.plan.loss > 0.0 && self.rng.f64() < self.plan.loss;
            if lost || !self.nodes[to].up || !self.reaches(from, to) {
                continue;
            }
            let message = Message::Beat(Arc::clone(beat));
            if self.nodes[to].stopped {
                self.nodes[to].backlog.push(What::Message(to, message));
                continue;
            }
            self.counts.heard(to, self.now - self.start);
            self.counts.beats += 1;
            let mut fx = Effects::new();
            self.nodes[to].engine.receive(message, self.now, &mut fx);
            self.act_if(to, fx);
        }
    }

    /// Carries out effects, if there are any: most beats have none.
    pub(super) fn act_if(&mut self, node: usize, fx: Effects) {
        if fx.is_empty() {
            if self.nodes[node].engine.asker().waiting() > 0 {
                self.sleep(node);
            }
        } else {
            self.act(node, |_, _, effects| *effects = fx);
        }
    }

    pub(super) fn listen(&mut self, node: usize, listen: BTreeSet<Listen>) {
        let old = std::mem::replace(&mut self.nodes[node].listen, listen.clone());
        for held in old {
            if let Some(listeners) = self.listeners.get_mut(&held) {
                listeners.remove(&node);
            }
        }
        for held in listen {
            self.listeners.entry(held).or_default().insert(node);
        }
    }

    pub(super) fn offered(&mut self, from: Run, to: usize, offer: &Offer) {
        if !self.nodes[to].up {
            return;
        }
        self.counts.heard(to, self.now - self.start);
        let mut fx = Effects::new();
        if self.is_counted(to, offer.ask) && self.oracle.offers.insert((from, offer.offer)) {
            let name = Arc::clone(&self.nodes[to].name);
            self.counts.spent(&name, offer.asked_by, offer.ask);
            self.counts.spent(&name, offer.asked_by, offer.ask);
        }
        let reply = self.nodes[to].engine.offered(offer, self.now, &mut fx);
        self.counts.sent(to, self.now - self.start);
        self.counts.replies += 1;
        self.act(to, |_, _, effects| *effects = fx);
        let number = offer.offer;
        self.send(to, from.0, &What::OfferReply { to: from, number, reply: Some(reply) });
    }

    pub(super) fn who(&mut self, from: Run, who: &Who) {
        let nodes: Vec<usize> = self.of_name(&who.node).collect();
        let lost = self.rng.f64() < self.plan.loss;
        let reply = nodes
            .into_iter()
            .filter(|&node| !lost && self.reaches(from.0, node) && !self.nodes[node].stopped)
            .find_map(|node| self.nodes[node].engine.who(who));
        let wait = match reply {
            Some(_) => self.plan.delay,
            None => self.plan.settings.offer,
        };
        self.at(self.now + wait, What::WhoReply { to: from, reply });
    }
}

/// The data path.
impl World {
    pub(super) fn connect(&mut self, gateway: Run, waiter: WaiterId, name: &str, lease: &Arc<str>) {
        let reached = |&node: &usize| self.reaches(gateway.0, node) && !self.nodes[node].stopped;
        let node = self.of_name(name).find(reached);
        let Some(node) = node else {
            let what = What::Connected { gateway, waiter, at: None };
            return self.at(self.now + self.plan.settings.connect, what);
        };
        let ticket = self.nodes[node].leases.get(lease).copied();
        let mut at = None;
        if let Some(ticket) = ticket {
            let mut fx = Effects::new();
            if self.nodes[node].engine.taken(ticket, self.now, &mut fx) {
                at = Some((self.run_of(node), ticket));
            }
            self.act(node, |_, _, effects| *effects = fx);
        }
        let wait = self.latency();
        self.at(self.now + wait, What::Connected { gateway, waiter, at });
    }

    pub(super) fn connected(&mut self, gateway: Run, waiter: WaiterId, at: Option<(Run, Ticket)>) {
        let waits = self
            .lives(gateway)
            .then(|| self.nodes[gateway.0].clients.get(&waiter).copied())
            .flatten();
        let at = at.filter(|(run, _)| self.lives(*run));
        match (waits, at) {
            (Some(client), Some((run, ticket))) => {
                self.nodes[gateway.0].clients.remove(&waiter);
                self.hold(client, run, ticket);
                self.serve(client, run.0);
                self.act(gateway.0, |engine, now, fx| engine.connected(waiter, now, fx));
            }
            (Some(_), None) => {
                self.counts.missed += 1;
                self.act(gateway.0, |engine, now, fx| engine.connect_failed(waiter, now, fx));
            }
            // The client is gone: its connection closes, and the lease ends like any other.
            (None, Some((run, ticket))) => {
                self.nodes[run.0].leases.retain(|_, held| *held != ticket);
                self.nodes[run.0].pool.release(ticket, true, self.now);
                self.act(run.0, |_, _, _| {});
            }
            (None, None) => {}
        }
    }
}
