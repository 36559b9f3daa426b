//! Nodes with real engines, a network, pools and clients, in virtual time and one thread.
//!
//! Everything that happens is an event at a moment; equal seeds give equal runs.

mod count;
pub(crate) mod load;
mod network;
mod oracle;
pub(crate) mod pool;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool_fleet::engine::{
    Effect, Effects, Engine, Listen, Place, Settings, Ticket, WaiterId, Waiting,
};
use pool_fleet::{
    Beat, Cannot, Incarnation, Message, NodeName, Offer, OfferReply, Reason, Wanted, Who, WhoReply,
};

pub(crate) use count::Counts;
use oracle::Oracle;
use pool::{CLASS, LocalPool};

/// Sizes, times and faults of a world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) places: usize,
    pub(crate) zones: usize,
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    /// One way between any two nodes, by way of the server.
    pub(crate) delay: Duration,
    /// Added to it, by chance: messages overtake each other.
    pub(crate) jitter: Duration,
    /// Share of messages that are lost, requests and replies included.
    pub(crate) loss: f64,
    /// Share of messages that arrive twice.
    pub(crate) doubled: f64,
    pub(crate) launch: Duration,
    /// Share of leases whose resource is closed afterwards.
    pub(crate) worn: f64,
    pub(crate) max_waiting: usize,
    /// Every place has a resource from the start.
    pub(crate) warm: bool,
    /// The invariants are checked after every step.
    pub(crate) checked: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 3,
            places: 2,
            zones: 0,
            seed: 1,
            settings: Settings::default(),
            delay: Duration::from_micros(500),
            jitter: Duration::ZERO,
            loss: 0.0,
            doubled: 0.0,
            launch: Duration::from_secs(1),
            worn: 0.0,
            max_waiting: 100_000,
            warm: true,
            checked: true,
        }
    }
}

/// A client's request: when and where it comes, and how long its lease is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) at: Duration,
    pub(crate) gateway: usize,
    pub(crate) lease: Duration,
    pub(crate) timeout: Duration,
    pub(crate) priority: u8,
}

/// Outcome for a client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    Waits,
    /// It has, or had, a lease at a node.
    Served {
        node: usize,
        wait: Duration,
    },
    Refused {
        cannot: Cannot,
        wait: Duration,
    },
    /// Its gateway died under it.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// `kill -9`.
    Kill(usize),
    /// A node that was killed starts again under its name.
    Restart(usize),
    Stop(usize),
    Continue(usize),
    /// The nodes of one group do not reach those of another, nor does anything else of them.
    Partition(Vec<u32>),
    Heal,
    Drain(usize),
    Leave(usize),
    /// Nothing can be created there from now on, and what there is is gone.
    Break(usize),
    Mend(usize),
    /// Clients of a node go away without waiting for an answer.
    GiveUp(usize),
    Loss(f64),
}

struct Node {
    name: NodeName,
    engine: Engine,
    pool: LocalPool,
    /// Counts its runs.
    run: u32,
    up: bool,
    stopped: bool,
    /// When it went on after it had been stopped.
    continued: Option<Instant>,
    /// Messages and events that have arrived while it was stopped.
    backlog: Vec<What>,
    listen: BTreeSet<Listen>,
    zone: Arc<str>,
    /// When it is next woken.
    wake: Option<Instant>,
    joined: bool,
    taken: bool,
    /// Clients by waiter.
    clients: BTreeMap<WaiterId, usize>,
    /// Tickets by the lease that they hold.
    leases: BTreeMap<Arc<str>, Ticket>,
}

/// The run of a node.
type Run = (usize, u32);

#[derive(Clone, Debug)]
enum What {
    Arrive(usize),
    Message(usize, Message),
    /// A beat, to all that listen.
    Beats(usize, Arc<Beat>),
    Offer {
        from: Run,
        to: usize,
        offer: Offer,
    },
    OfferReply {
        to: Run,
        number: u64,
        reply: Option<OfferReply>,
    },
    Who {
        from: Run,
        who: Who,
    },
    WhoReply {
        to: Run,
        reply: Option<WhoReply>,
    },
    Wake(Run),
    Connect {
        gateway: Run,
        waiter: WaiterId,
        node: NodeName,
        lease: Arc<str>,
    },
    Connected {
        gateway: Run,
        waiter: WaiterId,
        at: Option<(Run, Ticket)>,
    },
    Release {
        at: Run,
        ticket: Ticket,
        client: usize,
    },
    Deadline(usize),
    Fault(Fault),
    Look(oracle::Look),
}

struct Event {
    at: Instant,
    sequence: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug)]
struct Client {
    visit: Visit,
    fate: Fate,
}

pub(crate) struct World {
    plan: Plan,
    start: Instant,
    now: Instant,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    nodes: Vec<Node>,
    names: BTreeMap<NodeName, Vec<usize>>,
    /// Nodes that listen to something, by what it is.
    listeners: BTreeMap<Listen, BTreeSet<usize>>,
    groups: Option<Vec<u32>>,
    clients: Vec<Client>,
    /// Clients that wait, by rank.
    line: BTreeSet<(Instant, usize)>,
    oracle: Oracle,
    pub(crate) counts: Counts,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let mut world = Self {
            rng: fastrand::Rng::with_seed(plan.seed),
            start,
            // Time must have a before, for requests that have waited.
            now: start + Duration::from_secs(3600),
            events: BinaryHeap::new(),
            sequence: 0,
            nodes: Vec::new(),
            names: BTreeMap::new(),
            listeners: BTreeMap::new(),
            groups: None,
            clients: Vec::new(),
            line: BTreeSet::new(),
            oracle: Oracle::default(),
            counts: Counts::new(plan.nodes),
            plan,
        };
        world.start = world.now;
        for index in 0..world.plan.nodes {
            world.add(&format!("n{index}"));
        }
        world
    }

    /// Adds a node, which starts at once.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        let index = self.nodes.len();
        let name: NodeName = Arc::from(name);
        let zone = match self.plan.zones {
            0 => Arc::from(""),
            zones => Arc::from(format!("z{}", index % zones)),
        };
        let node = self.boot(&name, &zone, index);
        self.names.entry(name).or_default().push(index);
        self.nodes.push(node);
        self.counts.more(self.nodes.len());
        self.act(index, |engine, _, fx| engine.start(fx));
        index
    }

    fn boot(&mut self, name: &NodeName, zone: &Arc<str>, index: usize) -> Node {
        let since = self.now - self.start + Duration::from_secs(1_800_000_000);
        let incarnation = Incarnation::new(since, self.rng.u32(..));
        let mut own = Beat::new(Arc::clone(name), incarnation, &format!("ws://{name}"));
        if !zone.is_empty() {
            own.labels.insert(Arc::from("zone"), Arc::clone(zone));
        }
        let run = self.nodes.get(index).map_or(0, |node| node.run + 1);
        let lease_name = Arc::from(format!("{name}.{run}"));
        let Plan { places, launch, max_waiting, .. } = self.plan;
        let mut pool = LocalPool::new(&lease_name, places, launch, max_waiting);
        if self.plan.warm {
            pool.warm();
        }
        let mut engine = Engine::new(own, self.plan.settings.clone(), self.rng.u64(..));
        engine.load(pool.load(), self.now);
        Node {
            name: Arc::clone(name),
            engine,
            pool,
            run,
            up: true,
            stopped: false,
            continued: None,
            backlog: Vec::new(),
            listen: BTreeSet::new(),
            zone: Arc::clone(zone),
            wake: None,
            joined: false,
            taken: false,
            clients: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    /// Has a client come.
    pub(crate) fn visit(&mut self, visit: Visit) -> usize {
        let client = self.clients.len();
        self.clients.push(Client { visit, fate: Fate::Waits });
        self.at(self.start + visit.at, What::Arrive(client));
        client
    }

    pub(crate) fn fault(&mut self, at: Duration, fault: Fault) {
        self.at(self.start + at, What::Fault(fault));
    }

    pub(crate) fn fate(&self, client: usize) -> &Fate {
        &self.clients[client].fate
    }

    pub(crate) fn fates(&self) -> impl Iterator<Item = (&Visit, &Fate)> {
        self.clients.iter().map(|client| (&client.visit, &client.fate))
    }

    pub(crate) fn engine(&self, node: usize) -> &Engine {
        &self.nodes[node].engine
    }

    pub(crate) fn joined(&self, node: usize) -> bool {
        self.nodes[node].joined
    }

    /// Says whether a node was told that its name is taken.
    pub(crate) fn taken(&self, node: usize) -> bool {
        self.nodes[node].taken
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].up)
    }

    /// Returns when a client has come.
    pub(crate) fn arrived(&self, client: usize) -> Duration {
        self.clients[client].visit.at
    }

    /// Returns how many resources there are, in any state.
    pub(crate) fn resources(&self) -> usize {
        let living = self.nodes.iter().filter(|node| node.up);
        living.map(|node| node.pool.len()).sum()
    }

    pub(crate) fn leased(&self) -> usize {
        let living = self.nodes.iter().filter(|node| node.up);
        living.map(|node| node.pool.leased().count()).sum()
    }

    fn at(&mut self, at: Instant, what: What) {
        self.sequence += 1;
        self.events.push(Reverse(Event { at, sequence: self.sequence, what }));
    }

    /// Lets time pass until then.
    pub(crate) fn run_until(&mut self, until: Duration) {
        let until = self.start + until;
        while self.events.peek().is_some_and(|Reverse(event)| event.at <= until) {
            let Reverse(event) = self.events.pop().expect("it was just there");
            self.now = event.at;
            self.happen(event.what);
        }
        self.now = until;
    }

    /// Lets time pass until nobody waits.
    pub(crate) fn run_until_served(&mut self) {
        while !self.line.is_empty() {
            let next = self.now - self.start + Duration::from_secs(1);
            self.run_until(next);
        }
    }

    fn happen(&mut self, what: What) {
        if let Some(node) = self.addressee(&what)
            && self.nodes[node].stopped
        {
            return self.nodes[node].backlog.push(what);
        }
        match what {
            What::Arrive(client) => self.arrive(client),
            What::Message(to, message) => {
                if self.nodes[to].up {
                    self.counts.heard(to, self.now - self.start);
                    self.count_answer(to, &message);
                    self.act(to, |engine, now, fx| engine.receive(message, now, fx));
                }
            }
            What::Beats(from, beat) => self.beats(from, &beat),
            What::Offer { from, to, offer } => self.offered(from, to, &offer),
            What::OfferReply { to, number, reply } => {
                if self.lives(to) {
                    self.counts.heard(to.0, self.now - self.start);
                    self.act(to.0, |engine, now, fx| engine.offer_answered(number, reply, now, fx));
                }
            }
            What::Who { from, who } => self.who(from, &who),
            What::WhoReply { to, reply } => {
                if self.lives(to) {
                    self.act(to.0, |engine, now, fx| engine.who_answered(reply.as_ref(), now, fx));
                }
            }
            What::Wake(run) => {
                if self.lives(run) && self.nodes[run.0].wake.is_some_and(|at| at <= self.now) {
                    self.nodes[run.0].wake = None;
                    self.nodes[run.0].pool.advance(self.now);
                    self.act(run.0, |engine, now, fx| engine.tick(now, fx));
                }
            }
            What::Connect { gateway, waiter, node, lease } => {
                self.connect(gateway, waiter, &node, &lease);
            }
            What::Connected { gateway, waiter, at } => self.connected(gateway, waiter, at),
            What::Release { at, ticket, client } => self.release(at, ticket, client),
            What::Deadline(client) => {
                assert!(
                    self.clients[client].fate != Fate::Waits || !self.answers(client),
                    "client {client} was neither served nor told by its deadline"
                );
            }
            What::Fault(fault) => self.happens(fault),
            What::Look(look) => self.look(look),
        }
    }

    /// Counts what a request has cost by an answer: one that is lost costs its gateway nothing.
    fn count_answer(&mut self, to: usize, message: &Message) {
        if let Message::Answer(answer) = message
            && self.is_counted(to, answer.id)
        {
            self.counts.spent(&self.nodes[to].name, answer.asked_by, answer.id);
        }
    }

    /// Says whether messages for an ask count. Where messages may be late by seconds, what crosses
    /// the end of a request does not.
    fn is_counted(&self, gateway: usize, ask: u64) -> bool {
        !self.plan.checked || self.nodes[gateway].engine.asker().stands(ask)
    }

    /// Says whether the gateway of a client is there to answer it.
    fn answers(&self, client: usize) -> bool {
        let node = &self.nodes[self.clients[client].visit.gateway];
        node.up && !node.stopped
    }

    fn addressee(&self, what: &What) -> Option<usize> {
        match what {
            What::Message(to, _) | What::Offer { to, .. } => Some(*to),
            What::OfferReply { to, .. } | What::WhoReply { to, .. } => Some(to.0),
            What::Wake(run) | What::Release { at: run, .. } => Some(run.0),
            What::Connected { gateway, .. } => Some(gateway.0),
            What::Arrive(client) => Some(self.clients[*client].visit.gateway),
            What::Beats(..)
            | What::Connect { .. }
            | What::Who { .. }
            | What::Deadline(_)
            | What::Fault(_)
            | What::Look(_) => None,
        }
    }

    fn of_name(&self, name: &str) -> impl Iterator<Item = usize> {
        let nodes = self.names.get(name).into_iter().flatten().copied();
        nodes.filter(|&node| self.nodes[node].up)
    }

    fn lives(&self, (node, run): Run) -> bool {
        self.nodes[node].up && self.nodes[node].run == run
    }

    fn run_of(&self, node: usize) -> Run {
        (node, self.nodes[node].run)
    }

    /// Has the engine of a node do something, and carries out what comes of it.
    fn act(&mut self, node: usize, f: impl FnOnce(&mut Engine, Instant, &mut Effects)) {
        let mut fx = Effects::new();
        f(&mut self.nodes[node].engine, self.now, &mut fx);
        loop {
            let effects: Vec<Effect> = fx.drain().collect();
            for effect in effects {
                self.perform(node, effect);
            }
            let Node { pool, engine, .. } = &mut self.nodes[node];
            let Some((ticket, said)) = pool.reports.pop_front() else { break };
            if let pool_fleet::engine::Pooled::Granted(lease) = &said {
                self.nodes[node].leases.insert(Arc::clone(lease), ticket);
                self.nodes[node].engine.pooled(ticket, said, self.now, &mut fx);
            } else {
                engine.pooled(ticket, said, self.now, &mut fx);
            }
        }
        let Node { pool, engine, .. } = &mut self.nodes[node];
        engine.load(pool.load(), self.now);
        self.sleep(node);
        if self.plan.checked {
            self.check(node);
        }
    }

    /// Has a node woken when it has something to do.
    fn sleep(&mut self, node: usize) {
        let Node { pool, engine, wake, run, .. } = &mut self.nodes[node];
        let next = [engine.alarm(), pool.alarm()].into_iter().flatten().min();
        let Some(next) = next.map(|next| next.max(self.now)) else { return };
        if wake.is_none_or(|wake| next < wake) {
            *wake = Some(next);
            let what = What::Wake((node, *run));
            self.at(next, what);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Publish(topic, message) => self.publish(node, &topic, message),
            Effect::Offer(gateway, offer) => {
                let from = self.run_of(node);
                self.counts.sent(node, now - self.start);
                self.counts.offers += 1;
                let targets: Vec<usize> = self.of_name(&gateway).collect();
                if targets.is_empty() {
                    let what = What::OfferReply { to: from, number: offer.offer, reply: None };
                    self.at(now + self.plan.delay * 2, what);
                }
                for to in targets {
                    self.send(node, to, &What::Offer { from, to, offer: offer.clone() });
                }
            }
            Effect::Who(who) => {
                let what = What::Who { from: self.run_of(node), who };
                self.at(now + self.plan.delay, what);
            }
            Effect::Listen(listen) => self.listen(node, listen),
            Effect::Acquire(ticket, acquire) => {
                self.nodes[node].pool.acquire(ticket, &acquire, now);
            }
            Effect::Abandon(ticket) => self.nodes[node].pool.abandon(ticket),
            Effect::GiveBack(ticket) => {
                self.nodes[node].leases.retain(|_, held| *held != ticket);
                self.nodes[node].pool.release(ticket, true, now);
            }
            Effect::Serve(waiter, Place::Here { ticket, .. }) => {
                let client = self.nodes[node].clients.remove(&waiter).expect("it waits");
                self.hold(client, self.run_of(node), ticket);
                self.serve(client, node);
            }
            Effect::Serve(waiter, Place::There { node: there, lease, .. }) => {
                let gateway = self.run_of(node);
                let what = What::Connect { gateway, waiter, node: there, lease };
                let wait = self.latency();
                self.at(now + wait, what);
            }
            Effect::Refuse(waiter, cannot) => {
                let client = self.nodes[node].clients.remove(&waiter).expect("it waits");
                let wait = now - self.arrival(client);
                self.counts.refused += 1;
                self.leave_line(client);
                self.clients[client].fate = Fate::Refused { cannot, wait };
            }
            Effect::Joined => self.nodes[node].joined = true,
            Effect::NameTaken(_) => self.nodes[node].taken = true,
            _ => unreachable!("every effect is performed"),
        }
    }

    fn arrival(&self, client: usize) -> Instant {
        self.start + self.clients[client].visit.at
    }

    fn rank(&self, client: usize) -> Instant {
        self.arrival(client) + pool::STEP * u32::from(self.clients[client].visit.priority)
    }

    fn leave_line(&mut self, client: usize) {
        self.line.remove(&(self.rank(client), client));
    }

    /// A client has its lease.
    fn serve(&mut self, client: usize, node: usize) {
        self.leave_line(client);
        let at = self.arrival(client);
        let older = self.line.iter().take_while(|(rank, _)| *rank < self.rank(client));
        self.counts.passed += older.count().min(1000) as u64;
        self.counts.served += 1;
        self.counts.remote += u64::from(node != self.clients[client].visit.gateway);
        self.clients[client].fate = Fate::Served { node, wait: self.now - at };
    }

    /// A client holds the resource under a ticket, and will let go of it.
    fn hold(&mut self, client: usize, at: Run, ticket: Ticket) {
        if self.plan.checked {
            let resource = self.nodes[at.0].pool.resource(ticket).expect("it is leased");
            self.oracle.hold(at, resource, client);
        }
        let until = self.now + self.clients[client].visit.lease;
        self.at(until, What::Release { at, ticket, client });
    }

    fn release(&mut self, at: Run, ticket: Ticket, client: usize) {
        if !self.lives(at) {
            return;
        }
        if self.plan.checked {
            let resource = self.nodes[at.0].pool.resource(ticket).expect("it is leased");
            self.oracle.let_go(at, resource, client);
        }
        let keep = self.rng.f64() >= self.plan.worn;
        self.nodes[at.0].leases.retain(|_, held| *held != ticket);
        self.nodes[at.0].pool.release(ticket, keep, self.now);
        self.act(at.0, |_, _, _| {});
    }

    fn arrive(&mut self, client: usize) {
        let visit = self.clients[client].visit;
        let node = visit.gateway;
        if !self.nodes[node].up {
            self.clients[client].fate = Fate::Lost;
            return;
        }
        self.counts.came += 1;
        self.line.insert((self.rank(client), client));
        if self.plan.checked {
            let bound = Duration::from_millis(100);
            self.at(self.now + visit.timeout + bound, What::Deadline(client));
        }
        let request =
            Wanted { class: Arc::from(CLASS), priority: Some(visit.priority), ..Wanted::default() };
        let mut waiting = Waiting::new(Arc::new(request), visit.timeout);
        waiting.handicap = pool::STEP * u32::from(visit.priority);
        let mut fx = Effects::new();
        let waiter = self.nodes[node].engine.acquire(waiting, self.now, &mut fx);
        self.nodes[node].clients.insert(waiter, client);
        self.act(node, |_, _, effects| *effects = fx);
    }
}

/// Faults.
impl World {
    fn happens(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => self.kill(node),
            Fault::Restart(node) => {
                assert!(!self.nodes[node].up, "it still runs");
                let (name, zone) = (&self.nodes[node].name, &self.nodes[node].zone);
                let (name, zone) = (Arc::clone(name), Arc::clone(zone));
                self.nodes[node] = self.boot(&name, &zone, node);
                self.act(node, |engine, _, fx| engine.start(fx));
            }
            Fault::Stop(node) => self.nodes[node].stopped = true,
            Fault::Continue(node) => {
                self.nodes[node].stopped = false;
                self.nodes[node].continued = Some(self.now);
                for what in std::mem::take(&mut self.nodes[node].backlog) {
                    self.at(self.now, what);
                }
                self.sleep(node);
            }
            Fault::Partition(groups) => self.groups = Some(groups),
            Fault::Heal => self.groups = None,
            Fault::Drain(node) => self.act(node, Engine::drain),
            Fault::Leave(node) => self.act(node, Engine::leave),
            Fault::Break(node) => self.nodes[node].pool.broken = true,
            Fault::Mend(node) => {
                self.nodes[node].pool.broken = false;
                self.act(node, |_, _, _| {});
            }
            Fault::GiveUp(node) => {
                for (waiter, client) in std::mem::take(&mut self.nodes[node].clients) {
                    self.leave_line(client);
                    self.clients[client].fate = Fate::Lost;
                    self.act(node, |engine, now, fx| engine.give_up(waiter, now, fx));
                }
            }
            Fault::Loss(share) => self.plan.loss = share,
        }
    }

    fn kill(&mut self, node: usize) {
        let run = self.run_of(node);
        self.listen(node, BTreeSet::new());
        let dead = &mut self.nodes[node];
        (dead.up, dead.stopped) = (false, false);
        dead.backlog.clear();
        for (_, client) in std::mem::take(&mut dead.clients) {
            self.leave_line(client);
            self.clients[client].fate = Fate::Lost;
        }
        self.oracle.died(run);
        if self.plan.checked {
            self.check(node);
        }
    }
}

/// Refusals of a kind.
pub(crate) fn is_refused(fate: &Fate, reason: Reason) -> bool {
    matches!(fate, Fate::Refused { cannot, .. } if cannot.reason == reason)
}
