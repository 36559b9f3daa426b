//! Invariants that hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_fleet::engine::Ticket;
use pool_fleet::{Incarnation, NodeName};

use super::{Run, What, World};

/// Something to look at later.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// An ask that has ended stands there no more.
    Over { gateway: Run, incarnation: Incarnation, ask: u64, node: NodeName },
    /// A lease that nobody held has come back.
    Unheld { at: Run, ticket: Ticket },
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The client that holds a resource.
    holders: BTreeMap<(Run, u64), usize>,
    /// Where the requests of a gateway stood after its last step.
    stood: BTreeMap<Run, BTreeSet<(u64, NodeName)>>,
    /// Leases that no client held after the last step of their node.
    unheld: BTreeMap<Run, BTreeSet<Ticket>>,
    /// Offers that were counted: a copy that the network makes is not.
    pub(crate) offers: BTreeSet<(Run, u64)>,
}

impl Oracle {
    pub(crate) fn hold(&mut self, at: Run, resource: u64, client: usize) {
        let other = self.holders.insert((at, resource), client);
        assert_eq!(other, None, "a resource has two holders: {at:?} {resource}");
    }

    pub(crate) fn let_go(&mut self, at: Run, resource: u64, client: usize) {
        let held = self.holders.remove(&(at, resource));
        assert_eq!(held, Some(client), "a resource was taken from its holder");
    }

    pub(crate) fn died(&mut self, at: Run) {
        self.holders.retain(|(run, _), _| *run != at);
    }
}

impl World {
    /// Panics unless everything about a node is as it must be.
    pub(super) fn check(&mut self, index: usize) {
        let at = self.run_of(index);
        let node = &self.nodes[index];
        if node.up {
            node.pool.check();
        }
        let most = self.plan.settings.messages;
        assert!(self.counts.most <= most, "a request has cost {} messages", self.counts.most);

        // An ask that has ended stands nowhere 3 s later, a message's longest way allowed for.
        let stands: BTreeSet<(u64, NodeName)> = match node.up {
            true => node
                .engine
                .asker()
                .waiters()
                .flat_map(|(_, ask, asked)| asked.iter().map(move |at| (ask, Arc::clone(at))))
                .collect(),
            false => BTreeSet::new(),
        };
        let stood = self.oracle.stood.insert(at, stands.clone()).unwrap_or_default();
        let limit = Duration::from_secs(3) + self.plan.delay + self.plan.jitter;
        let incarnation = node.engine.membership().own().incarnation;
        for (ask, node) in stood.difference(&stands) {
            let (ask, node) = (*ask, Arc::clone(node));
            let look = Look::Over { gateway: at, incarnation, ask, node };
            self.at(self.now + limit, What::Look(look));
        }

        // A lease that no client holds is on offer, or about to be connected to.
        let node = &self.nodes[index];
        let held = |ticket: &Ticket| {
            let resource = node.pool.resource(*ticket).expect("it is leased");
            self.oracle.holders.contains_key(&(at, resource))
        };
        let unheld: BTreeSet<Ticket> = match node.up {
            true => node.pool.leased().filter(|ticket| !held(ticket)).collect(),
            false => BTreeSet::new(),
        };
        let before = self.oracle.unheld.insert(at, unheld.clone()).unwrap_or_default();
        let settings = &self.plan.settings;
        let limit = settings.offer + settings.connect + self.plan.delay + self.plan.jitter;
        let at_most = self.now + limit + Duration::from_millis(100);
        for &ticket in unheld.difference(&before) {
            self.at(at_most, What::Look(Look::Unheld { at, ticket }));
        }
    }

    pub(super) fn look(&mut self, look: Look) {
        match look {
            Look::Over { gateway, incarnation, ask, node } => {
                let again = self.oracle.stood.get(&gateway);
                if again.is_some_and(|stood| stood.contains(&(ask, Arc::clone(&node)))) {
                    return;
                }
                let name = &self.nodes[gateway.0].name;
                let holders: Vec<usize> = self.of_name(&node).collect();
                for holder in holders.into_iter().map(|holder| &self.nodes[holder]) {
                    // One that was stopped has to read what has come meanwhile.
                    let slept = holder.continued.is_some_and(|at| {
                        self.now - at < self.plan.settings.asks_expire + self.plan.settings.refresh
                    });
                    let stands = holder
                        .engine
                        .holder()
                        .standing()
                        .any(|(by, run, held)| by == name && run == incarnation && held == ask);
                    let stands = stands && !holder.stopped && !slept;
                    assert!(!stands, "ask {ask} of {name} still stands at {node}");
                }
            }
            Look::Unheld { at, ticket } => {
                let unheld = self.oracle.unheld.get(&at);
                let still = unheld.is_some_and(|unheld| unheld.contains(&ticket));
                let stopped = self.nodes[at.0].stopped;
                assert!(!still || stopped || !self.lives(at), "a place is lost: {at:?} {ticket:?}");
            }
        }
    }

    /// Returns the moment up to which the world has run.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }
}
