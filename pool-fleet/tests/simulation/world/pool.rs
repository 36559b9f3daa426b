//! The pool of a simulated node: one class, one queue by rank.
//!
//! It means what pool-core means by an age brought along, a request for which nothing is created,
//! and a resource given back untouched, and does nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_fleet::engine::{Acquire, Pooled, Ticket};
use pool_fleet::{Cannot, ClassLoad, Load, Reason};

/// One priority level is worth this much waiting.
pub(crate) const STEP: Duration = Duration::from_secs(10);

/// The class of every request of the simulation.
pub(crate) const CLASS: &str = "default";

#[derive(Debug)]
pub(crate) struct LocalPool {
    name: Arc<str>,
    places: usize,
    launch: Duration,
    max_waiting: usize,
    /// Nothing can be created.
    pub(crate) broken: bool,
    resources: BTreeMap<u64, Resource>,
    tickets: BTreeMap<Ticket, Waiting>,
    queue: BTreeSet<(Instant, Ticket)>,
    /// Answers that the engine has not got yet.
    pub(crate) reports: VecDeque<(Ticket, Pooled)>,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Creating { until: Instant },
    Idle,
    Leased { ticket: Ticket },
}

#[derive(Debug)]
struct Waiting {
    rank: Instant,
    deadline: Instant,
    creates: bool,
}

impl LocalPool {
    pub(crate) fn new(
        name: &Arc<str>,
        places: usize,
        launch: Duration,
        max_waiting: usize,
    ) -> Self {
        Self {
            name: Arc::clone(name),
            places,
            launch,
            max_waiting,
            broken: false,
            resources: BTreeMap::new(),
            tickets: BTreeMap::new(),
            queue: BTreeSet::new(),
            reports: VecDeque::new(),
            last: 0,
        }
    }

    /// Creates all that there is a place for, at once.
    pub(crate) fn warm(&mut self) {
        while self.resources.len() < self.places {
            self.last += 1;
            self.resources.insert(self.last, Resource::Idle);
        }
    }

    pub(crate) fn acquire(&mut self, ticket: Ticket, acquire: &Acquire, now: Instant) {
        assert!(!self.tickets.contains_key(&ticket), "a ticket is used once");
        let dead = self.broken && self.resources.is_empty();
        let refusal = if dead {
            Some(Cannot::new(Reason::Unavailable, "unavailable", "the breaker is open"))
        } else if self.queue.len() >= self.max_waiting {
            Some(Cannot::new(Reason::Full, "queue_full", "the queue is full"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.reports.push_back((ticket, Pooled::Refused(refusal)));
        }
        let rank = now - acquire.waited + STEP * u32::from(acquire.request.priority.unwrap_or(5));
        let deadline = now + acquire.left;
        self.tickets.insert(ticket, Waiting { rank, deadline, creates: acquire.creates });
        self.queue.insert((rank, ticket));
        self.serve(now);
        if self.tickets.contains_key(&ticket) {
            let launching = acquire.creates && self.creating() > 0;
            self.reports.push_back((ticket, Pooled::Queued { launching }));
        }
    }

    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.tickets.remove(&ticket) {
            self.queue.remove(&(waiting.rank, ticket));
        }
    }

    /// Ends a lease: its resource goes to the next waiter, or is no more.
    pub(crate) fn release(&mut self, ticket: Ticket, keep: bool, now: Instant) {
        let id = self.resource(ticket).expect("only what is leased is given back");
        if keep {
            self.resources.insert(id, Resource::Idle);
        } else {
            self.resources.remove(&id);
        }
        self.serve(now);
    }

    /// Returns the resource that is leased under a ticket.
    pub(crate) fn resource(&self, ticket: Ticket) -> Option<u64> {
        let leased = Resource::Leased { ticket };
        self.resources.iter().find(|(_, resource)| **resource == leased).map(|(&id, _)| id)
    }

    fn serve(&mut self, now: Instant) {
        while let Some(&(rank, ticket)) = self.queue.first() {
            let idle = self.resources.iter().find(|(_, resource)| **resource == Resource::Idle);
            let Some((&id, _)) = idle else { break };
            self.queue.remove(&(rank, ticket));
            self.tickets.remove(&ticket);
            self.resources.insert(id, Resource::Leased { ticket });
            let lease = Arc::from(format!("{}.{id}-{ticket:?}", self.name));
            self.reports.push_back((ticket, Pooled::Granted(lease)));
        }
        let hungry = self.tickets.values().filter(|waiting| waiting.creates).count();
        while !self.broken && self.resources.len() < self.places && self.creating() < hungry {
            self.last += 1;
            let until = now + self.launch;
            self.resources.insert(self.last, Resource::Creating { until });
        }
    }

    fn count(&self, is: impl Fn(&Resource) -> bool) -> usize {
        self.resources.values().filter(|resource| is(resource)).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }

    fn creating(&self) -> usize {
        self.count(|resource| matches!(resource, Resource::Creating { .. }))
    }

    /// Creations end, and waits that took too long.
    pub(crate) fn advance(&mut self, now: Instant) {
        for resource in self.resources.values_mut() {
            if matches!(resource, Resource::Creating { until } if *until <= now) {
                *resource = Resource::Idle;
            }
        }
        let late: Vec<Ticket> = self
            .tickets
            .iter()
            .filter(|(_, waiting)| waiting.deadline <= now)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in late {
            self.abandon(ticket);
            let cannot = Cannot::new(Reason::Timeout, "acquire_timeout", "nothing was free");
            self.reports.push_back((ticket, Pooled::Refused(cannot)));
        }
        self.serve(now);
    }

    pub(crate) fn alarm(&self) -> Option<Instant> {
        let creations = self.resources.values().filter_map(|resource| match resource {
            Resource::Creating { until } => Some(*until),
            Resource::Idle | Resource::Leased { .. } => None,
        });
        creations.chain(self.tickets.values().map(|waiting| waiting.deadline)).min()
    }

    pub(crate) fn load(&self) -> Load {
        let room = if self.broken { 0 } else { self.places - self.resources.len() };
        let class = ClassLoad {
            idle: self.count(|resource| *resource == Resource::Idle) as u32,
            leased: self.count(|resource| matches!(resource, Resource::Leased { .. })) as u32,
            creating: self.creating() as u32,
            waiting: self.queue.len() as u32,
            room: room as u32,
        };
        let classes = BTreeMap::from([(Arc::from(CLASS), class)]);
        Load { places: self.places as u32, room: room as u32, classes, ..Load::default() }
    }

    /// Returns the tickets under which something is leased.
    pub(crate) fn leased(&self) -> impl Iterator<Item = Ticket> {
        self.resources.values().filter_map(|resource| match resource {
            Resource::Leased { ticket } => Some(*ticket),
            Resource::Creating { .. } | Resource::Idle => None,
        })
    }

    /// Panics unless every place is accounted for, and nothing idle is withheld from a waiter.
    pub(crate) fn check(&self) {
        assert!(self.resources.len() <= self.places, "more resources than places");
        assert_eq!(self.queue.len(), self.tickets.len());
        let idle = self.count(|resource| *resource == Resource::Idle);
        assert!(idle == 0 || self.queue.is_empty(), "something idle, and somebody waits");
    }
}
