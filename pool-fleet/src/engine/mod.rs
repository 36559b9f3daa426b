//! A node of the fleet as a pure state machine.
//!
//! [`Engine`] has no clock, no I/O, no tasks and no randomness except its seed: each of its methods
//! is told what time it is, and pushes [`Effects`], which its driver carries out. A node's shell
//! drives it over a transport and a pool; the simulation drives thousands in virtual time, in the
//! same way.
//!
//! Three parts work side by side, and know nothing of each other: [`Membership`] (beats, names,
//! phases, the shards to listen to), [`Asker`] (the clients that wait at this node, and what is
//! asked for them elsewhere), and [`Holder`] (the requests of other nodes that wait here, and what
//! is offered to them).
//!
//! # The local pool
//!
//! An engine asks the pool of its node by [`Effect::Acquire`], with a [`Ticket`] that is used once,
//! and is told the outcome by [`Engine::pooled`]. The driver tries at once and reports
//! [`Pooled::Granted`], [`Pooled::Queued`] or [`Pooled::Refused`]; after `Queued`, one of the other
//! two follows. [`Effect::Abandon`] ends the wait; a grant that crosses it may still be reported,
//! and is answered by [`Effect::GiveBack`].

mod asker;
mod holder;
mod membership;
mod waiter;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use asker::Asker;
pub use holder::Holder;
use membership::Heard;
pub use membership::{Membership, SHARDS, shard};

use crate::message::{
    Answer, Ask, Asks, Beat, Cancel, Cannot, Incarnation, Load, Message, NodeName, Offer,
    OfferReply, Outcome, Phase, Wanted, Who, WhoReply,
};

/// A waiting client of this node. The id is unique within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// A request of this engine to the pool of its node, and the lease that it gets. Each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ticket {
    /// For a client of this node.
    Own(u64),
    /// For a client of another node.
    Remote(u64),
}

/// A request of the engine to the pool of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// The client's request.
    pub request: Arc<Wanted>,
    /// Time that the client has waited so far (`Request::waited`).
    pub waited: Duration,
    /// Time that it will continue to wait.
    pub left: Duration,
    /// A resource may be created for it; otherwise the request is made with
    /// `Request::without_creating`.
    pub creates: bool,
}

/// The response of the node's pool to an [`Effect::Acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pooled {
    /// A resource is leased. The driver holds it under the ticket; the id names it in the fleet.
    Granted(Arc<str>),
    /// The request waits.
    Queued {
        /// A resource is being created for it, as far as anyone can tell.
        launching: bool,
    },
    /// The request is refused, either at once or after a wait.
    Refused(Cannot),
}

/// Subject on which a message is published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Beats of the nodes of a zone (empty for nodes without one) that hash into a shard.
    Beat {
        /// The zone.
        zone: Arc<str>,
        /// The shard, below [`SHARDS`].
        shard: u16,
    },
    /// Asks to a node.
    Ask(NodeName),
    /// Lists to a node of the asks that stand there.
    Asks(NodeName),
    /// Cancels to a node.
    Cancel(NodeName),
    /// Answers to a gateway.
    Answer(NodeName),
}

/// Beats to listen to. A part that is `None` matches all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// The zone.
    pub zone: Option<Arc<str>>,
    /// The shard.
    pub shard: Option<u16>,
}

/// Location of a client's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the pool of this node.
    Here {
        /// Ticket under which the driver holds the lease.
        ticket: Ticket,
        /// Id of the lease.
        lease: Arc<str>,
    },
    /// At another node. The driver connects to it and reports [`Engine::connected`] or
    /// [`Engine::connect_failed`] within [`Settings::connect`].
    There {
        /// The node.
        node: NodeName,
        /// The node's run.
        incarnation: Incarnation,
        /// Id of the lease.
        lease: Arc<str>,
        /// Address at which the node can be reached.
        address: Arc<str>,
    },
}

/// An action for the driver of an engine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Publish a message, without an answer.
    Publish(Topic, Message),
    /// Send an offer to a gateway and report its reply by [`Engine::offer_answered`], with `None` at
    /// once if nobody listens there. The engine itself gives up waiting after [`Settings::offer`].
    Offer(NodeName, Offer),
    /// Ask for the live node with a name, wait at most [`Settings::offer`] for the answer, and
    /// report it by [`Engine::who_answered`].
    Who(Who),
    /// Listen to these beats from now on, and to no others.
    Listen(BTreeSet<Listen>),
    /// Ask the pool of this node.
    Acquire(Ticket, Acquire),
    /// End a wait in the pool of this node; if the ticket is granted anyway, give that back
    /// untouched.
    Abandon(Ticket),
    /// Give back, untouched, what is held under the ticket.
    GiveBack(Ticket),
    /// A client has its lease.
    Serve(WaiterId, Place),
    /// A client gets no lease.
    Refuse(WaiterId, Cannot),
    /// The name is free: the node is part of the fleet, and must listen for messages to it.
    Joined,
    /// Another live node has this node's name. Before [`Effect::Joined`]: refuse to start. After
    /// it: this node is the younger one, and drains by itself.
    NameTaken(Arc<Beat>),
}

/// Actions for the driver of an engine, in order.
#[derive(Debug, Default)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Returns `true` if there is no action.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out all actions, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.0.drain(..)
    }
}

/// Times and counts of the protocol. The defaults are those that the simulation was run with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Time between two beats of a node. Default: 1 s.
    pub beat: Duration,
    /// Maximum number of beats in a second, including those for changes. Default: 4.
    pub beats: usize,
    /// Time without a beat after which a node is gone. Default: 3 s.
    pub gone: Duration,
    /// Time between two lists of standing asks. Default: 1 s.
    pub refresh: Duration,
    /// Time without a list after which all asks of a gateway are over. Default: 3 s.
    pub asks_expire: Duration,
    /// Number of nodes that are asked for one client at the same time, besides its own. Default: 6,
    /// which waits no longer than 8 in the simulation, and leaves messages for places that come
    /// free.
    pub width: usize,
    /// Time that the first node has before others are asked too. Default: 30 ms.
    pub first: Duration,
    /// Time that the node that may create has to answer before another one may create. Default: 500
    /// ms.
    pub creator: Duration,
    /// Time that a gateway has to answer an offer, and a node to answer `who`. Default: 500 ms.
    pub offer: Duration,
    /// Time that a gateway has to connect after it has accepted. Default: 2 s.
    pub connect: Duration,
    /// Time over which the asks of several gateways for one free place are spread. Default: 20 ms.
    pub jitter: Duration,
    /// Time after which a finished ask is called off: a node that has made an offer by then needs
    /// no cancel. Default: 5 ms.
    pub call_off: Duration,
    /// Maximum number of messages (asks, answers, offers and their replies, cancels) for one client.
    /// Default: 25.
    pub messages: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(1),
            beats: 4,
            gone: Duration::from_secs(3),
            refresh: Duration::from_secs(1),
            asks_expire: Duration::from_secs(3),
            width: 6,
            first: Duration::from_millis(30),
            creator: Duration::from_millis(500),
            offer: Duration::from_millis(500),
            connect: Duration::from_secs(2),
            jitter: Duration::from_millis(20),
            call_off: Duration::from_millis(5),
            messages: 25,
        }
    }
}

/// A client's request, as the gateway hands it to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The request.
    pub request: Arc<Wanted>,
    /// Time that it may wait; `Duration::MAX` for ever.
    pub timeout: Duration,
    /// Time that it has already waited elsewhere. Default: zero.
    pub waited: Duration,
    /// Handicap added to its arrival when waiters are ranked, as decided by the node's policies;
    /// the asker ranks its own waiters by it. Default: zero.
    pub handicap: Duration,
    /// Nodes to ask first, for example those with the newest copy of its profile. Default: none.
    pub prefer: Vec<NodeName>,
    /// The only node that may serve it, if there is one: the home of its profile. Default: any
    /// node.
    pub only: Option<NodeName>,
}

/// Longer than any wait, and short enough that no clock overflows when it is added.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Waiting {
    /// Shortens its times so that they can be added to any moment: `Duration::MAX` is a fair way to
    /// say "never".
    fn bounded(mut self) -> Self {
        self.timeout = self.timeout.min(FOREVER);
        self.handicap = self.handicap.min(FOREVER);
        self
    }

    /// Creates a request that any node may serve.
    #[must_use]
    pub fn new(request: Arc<Wanted>, timeout: Duration) -> Self {
        Self {
            request,
            timeout,
            waited: Duration::ZERO,
            handicap: Duration::ZERO,
            prefer: Vec::new(),
            only: None,
        }
    }
}

/// A node of the fleet: all three parts behind one interface.
#[derive(Debug)]
pub struct Engine {
    membership: Membership,
    asker: Asker,
    holder: Holder,
}

impl Engine {
    /// Creates the engine of a node from its first beat, which says who it is; equal seeds behave
    /// equally.
    #[must_use]
    pub fn new(own: Beat, settings: Settings, seed: u64) -> Self {
        let mut seeds = fastrand::Rng::with_seed(seed);
        Self {
            asker: Asker::new(&own, settings.clone(), seeds.fork()),
            holder: Holder::new(&own, settings.clone()),
            membership: Membership::new(own, settings, seeds),
        }
    }

    /// Joins the fleet: asks whether the name is taken; [`Effect::Joined`] or [`Effect::NameTaken`]
    /// follows. Clients can wait at the node before that.
    pub fn start(&mut self, fx: &mut Effects) {
        self.membership.start(fx);
    }

    /// Processes a message that was published to this node. Messages that need a reply have methods
    /// of their own ([`offered`](Self::offered), [`who`](Self::who)) and are ignored here.
    pub fn receive(&mut self, message: Message, now: Instant, fx: &mut Effects) {
        match message {
            Message::Beat(beat) => self.beat(&beat, now, fx),
            Message::Ask(ask) => self.holder.ask(&ask, now, fx),
            Message::Asks(asks) => self.holder.asks(&asks, now, fx),
            Message::Cancel(cancel) => self.holder.cancel(&cancel, now, fx),
            Message::Answer(answer) => self.asker.answer(&answer, &mut self.membership, now, fx),
            Message::Offer(_) | Message::OfferReply(_) | Message::Who(_) | Message::WhoReply(_) => {
            }
        }
    }

    fn beat(&mut self, beat: &Arc<Beat>, now: Instant, fx: &mut Effects) {
        match self.membership.beat(beat, now, fx) {
            Heard::Nothing => {}
            Heard::Alive => self.asker.heard(beat, now),
            Heard::Gone => {
                self.asker.lost(&beat.node, &mut self.membership, now, fx);
                if beat.phase == Phase::Running {
                    self.asker.heard(beat, now);
                }
            }
            Heard::Namesake => self.drain(now, fx),
        }
    }
}

/// Offers and names.
impl Engine {
    /// Processes an offer of another node, and returns the reply to it.
    pub fn offered(&mut self, offer: &Offer, now: Instant, fx: &mut Effects) -> OfferReply {
        self.asker.offered(offer, now, fx)
    }

    /// Processes the reply to an [`Effect::Offer`]; `None` if nobody listens there. A reply that
    /// comes later than [`Settings::offer`] has no effect.
    pub fn offer_answered(
        &mut self,
        offer: u64,
        reply: Option<OfferReply>,
        now: Instant,
        fx: &mut Effects,
    ) {
        self.holder.offer_answered(offer, reply, now, fx);
    }

    /// Returns the reply to `who`, if it is this node's to give.
    #[must_use]
    pub fn who(&self, who: &Who) -> Option<WhoReply> {
        self.membership.who(who)
    }

    /// Processes the reply to an [`Effect::Who`]; `None` if none came in time, or if nobody
    /// listens.
    pub fn who_answered(&mut self, reply: Option<&WhoReply>, now: Instant, fx: &mut Effects) {
        self.membership.who_answered(reply, now, fx);
        if self.membership.own().phase == Phase::Running {
            self.holder.open();
        }
    }
}

/// The pool of the node.
impl Engine {
    /// Processes the pool's response to an [`Effect::Acquire`].
    pub fn pooled(&mut self, ticket: Ticket, said: Pooled, now: Instant, fx: &mut Effects) {
        match ticket {
            Ticket::Own(ticket) => {
                self.asker.pooled(ticket, said, &mut self.membership, now, fx);
            }
            Ticket::Remote(ticket) => self.holder.pooled(ticket, said, now, fx),
        }
    }

    /// Records the load of the pool. Call it whenever that has changed.
    pub fn load(&mut self, load: Load, now: Instant) {
        self.membership.load(load, now);
    }

    /// Records that the gateway of an ask connects to the lease that is held under the ticket.
    /// Returns `false` if the gateway is too late and the lease is no longer its own. Otherwise the
    /// lease is no longer the engine's concern, and ends as leases do.
    pub fn taken(&mut self, ticket: Ticket, now: Instant, fx: &mut Effects) -> bool {
        match ticket {
            Ticket::Own(_) => false,
            Ticket::Remote(ticket) => self.holder.taken(ticket, now, fx),
        }
    }
}

/// The clients of the node.
impl Engine {
    /// Accepts a client's request. [`Effect::Serve`] or [`Effect::Refuse`] follows, at its timeout
    /// at the latest.
    pub fn acquire(&mut self, waiting: Waiting, now: Instant, fx: &mut Effects) -> WaiterId {
        self.asker.acquire(waiting, &mut self.membership, now, fx)
    }

    /// Records that a client has gone. Nothing follows for it.
    pub fn give_up(&mut self, waiter: WaiterId, now: Instant, fx: &mut Effects) {
        self.asker.give_up(waiter, now, fx);
    }

    /// Records that the driver is connected to the lease of [`Place::There`].
    pub fn connected(&mut self, waiter: WaiterId, now: Instant, fx: &mut Effects) {
        self.asker.connected(waiter, now, fx);
    }

    /// Records that the driver cannot connect to the lease of [`Place::There`]: the client keeps
    /// waiting, with its age.
    pub fn connect_failed(&mut self, waiter: WaiterId, now: Instant, fx: &mut Effects) {
        self.asker.connect_failed(waiter, &mut self.membership, now, fx);
    }
}

/// The node as a whole.
impl Engine {
    /// Stops making offers to other nodes, and tells them. Clients of this node keep waiting.
    pub fn drain(&mut self, now: Instant, fx: &mut Effects) {
        self.holder.close(fx);
        self.membership.phase(Phase::Draining, now, fx);
    }

    /// Serves again after a drain.
    pub fn undrain(&mut self, now: Instant, fx: &mut Effects) {
        self.membership.phase(Phase::Running, now, fx);
        if self.membership.own().phase == Phase::Running {
            self.holder.open();
        }
    }

    /// Leaves the fleet: refuses the clients that wait here, and beats for the last time.
    pub fn leave(&mut self, now: Instant, fx: &mut Effects) {
        self.asker.close(now, fx);
        self.holder.close(fx);
        self.membership.phase(Phase::Gone, now, fx);
    }

    /// Does everything that is due. Call it at [`alarm`](Self::alarm), or later.
    pub fn tick(&mut self, now: Instant, fx: &mut Effects) {
        if self.membership.alarm().is_some_and(|next| next <= now) {
            let (clients, oldest) = self.asker.demand(now);
            self.membership.demand(clients, oldest);
        }
        for gone in self.membership.tick(now, fx) {
            self.asker.lost(&gone, &mut self.membership, now, fx);
        }
        self.holder.tick(now, fx);
        self.asker.tick(&mut self.membership, now, fx);
    }

    /// Returns the next moment at which [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn alarm(&self) -> Option<Instant> {
        let alarms = [self.membership.alarm(), self.holder.alarm(), self.asker.alarm()];
        alarms.into_iter().flatten().min()
    }

    /// Returns this node's view of the nodes of the fleet.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the clients that wait here.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Returns the requests of other nodes that wait here.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}
