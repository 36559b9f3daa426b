use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, unconstrained};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::{Counters, GOODBYE, Grant, RemoteLease, Snapshot};
use crate::engine::{
    Acquire, Effect, Effects, Engine, Listen, Place, Pooled, Settings, Ticket, WaiterId, Waiting,
};
use crate::local::LocalPool;
use crate::message::{
    Beat, Cannot, DecodeError, Message, NodeName, Offer, OfferReply, Who, WhoReply,
};
use crate::subject::{Subjects, lease_id};
use crate::transport::{Incoming, Subscription, Transport, TransportError};

/// Number of messages that may wait for the engine before the transport has to keep them.
const INBOX: usize = 1024;

/// Number of messages that may wait for the transport. Any beyond that are lost, as messages may
/// be: a node that cannot send must not keep messages that will be useless by the time it can.
const OUTBOX: usize = 1024;

/// Time between two looks at the load of the pool.
const LOOK: Duration = Duration::from_millis(100);

/// Minimum time between two log lines about messages that cannot be read.
const COMPLAINT: Duration = Duration::from_secs(60);

/// A command from a node's handles to its driver.
pub(super) enum Command<L> {
    Acquire {
        client: u64,
        waiting: Waiting,
        answers: mpsc::UnboundedSender<Result<Grant<L>, Cannot>>,
    },
    GiveUp {
        client: u64,
    },
    Connected {
        client: u64,
    },
    ConnectFailed {
        client: u64,
    },
    Take {
        id: Arc<str>,
        answer: oneshot::Sender<Option<L>>,
    },
    Drain,
    Undrain,
    Leave {
        answer: oneshot::Sender<()>,
    },
    Snapshot {
        answer: oneshot::Sender<Snapshot>,
    },
}

/// A report from one of the driver's tasks.
enum Report<L> {
    Pooled(Ticket, Result<L, Cannot>),
    OfferAnswered(u64, Option<OfferReply>),
    WhoAnswered(Option<WhoReply>),
    Unsent,
}

pub(super) struct Parts<P: LocalPool> {
    pub(super) beat: Beat,
    pub(super) settings: Settings,
    pub(super) seed: u64,
    pub(super) pool: Arc<P>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) subjects: Subjects,
    pub(super) commands: mpsc::UnboundedReceiver<Command<P::Lease>>,
    pub(super) joined: oneshot::Sender<Result<(), Arc<Beat>>>,
    pub(super) namesake: watch::Sender<Option<Arc<Beat>>>,
    pub(super) nodes: watch::Sender<Arc<[NodeName]>>,
}

/// Carries out the effects of a node's engine, and tells the engine what has happened, in one task.
///
/// It never waits for the network or the pool itself; tasks of its own do that, and report back.
pub(super) struct Driver<P: LocalPool> {
    engine: Engine,
    fx: Effects,
    settings: Settings,
    pool: Arc<P>,
    transport: Arc<dyn Transport>,
    subjects: Subjects,
    node: NodeName,
    commands: mpsc::UnboundedReceiver<Command<P::Lease>>,
    reports: mpsc::UnboundedSender<Report<P::Lease>>,
    reported: mpsc::UnboundedReceiver<Report<P::Lease>>,
    inbox: mpsc::Sender<Incoming>,
    received: mpsc::Receiver<Incoming>,
    outbox: mpsc::Sender<(String, Vec<u8>)>,
    sender: JoinHandle<()>,
    /// Waits in the pool, and leases from it, by ticket.
    tickets: FxHashMap<Ticket, Held<P::Lease>>,
    /// Tickets of leases that other nodes may connect to, by the id of the lease.
    offered: HashMap<Arc<str>, Ticket>,
    clients: FxHashMap<u64, Client<P::Lease>>,
    waiters: FxHashMap<WaiterId, u64>,
    listening: HashMap<Listen, AbortHandle>,
    /// Everything else that runs for as long as the driver.
    tasks: Vec<AbortHandle>,
    joined: Option<oneshot::Sender<Result<(), Arc<Beat>>>>,
    namesake: watch::Sender<Option<Arc<Beat>>>,
    nodes: watch::Sender<Arc<[NodeName]>>,
    counters: Counters,
    complained: Option<Instant>,
}

/// A wait in the pool, or a lease from it.
enum Held<L> {
    Waiting(AbortHandle),
    Leased { id: Arc<str>, lease: L },
}

struct Client<L> {
    waiter: WaiterId,
    answers: mpsc::UnboundedSender<Result<Grant<L>, Cannot>>,
}

impl<P: LocalPool> Driver<P> {
    pub(super) fn new(parts: Parts<P>) -> Self {
        let node = Arc::clone(&parts.beat.node);
        let mut engine = Engine::new(parts.beat, parts.settings.clone(), parts.seed);
        engine.load(parts.pool.load(), now());
        let (reports, reported) = mpsc::unbounded_channel();
        let (inbox, received) = mpsc::channel(INBOX);
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let sender = tokio::spawn(send(Arc::clone(&parts.transport), outgoing, reports.clone()));
        Self {
            engine,
            fx: Effects::new(),
            settings: parts.settings,
            pool: parts.pool,
            transport: parts.transport,
            subjects: parts.subjects,
            node,
            commands: parts.commands,
            reports,
            reported,
            inbox,
            received,
            outbox,
            sender,
            tickets: FxHashMap::default(),
            offered: HashMap::new(),
            clients: FxHashMap::default(),
            waiters: FxHashMap::default(),
            listening: HashMap::new(),
            tasks: Vec::new(),
            joined: Some(parts.joined),
            namesake: parts.namesake,
            nodes: parts.nodes,
            counters: Counters::default(),
            complained: None,
        }
    }

    /// Listens for messages to this node, then starts the driver's task.
    pub(super) async fn start(mut self) -> Result<JoinHandle<()>, TransportError> {
        let node = Arc::clone(&self.node);
        let subjects = &self.subjects;
        for subject in [
            subjects.who(&node),
            subjects.ask(&node),
            subjects.asks(&node),
            subjects.cancel(&node),
            subjects.answer(&node),
            subjects.offer(&node),
        ] {
            let task = listen(&*self.transport, &subject, self.inbox.clone()).await?;
            self.tasks.push(task);
        }
        Ok(tokio::spawn(self.run()))
    }

    async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.engine.start(&mut self.fx);
        self.carry_out();
        loop {
            let alarm = self.engine.alarm().map(Instant::from_std);
            let due = async {
                match alarm {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    if let Some(answer) = self.command(command) {
                        self.leave().await;
                        answer.send(()).ok();
                        return;
                    }
                }
                report = self.reported.recv() => {
                    let report = report.expect("the driver has a sender itself");
                    self.report(report);
                }
                message = self.received.recv() => {
                    let message = message.expect("the driver has a sender itself");
                    self.message(&message);
                }
                () = due => self.engine.tick(now(), &mut self.fx),
                _ = look.tick() => self.look(),
            }
            self.carry_out();
        }
    }

    /// Does what a handle asks. Returns the sender to notify once the node has left, if it is to
    /// leave.
    fn command(&mut self, command: Command<P::Lease>) -> Option<oneshot::Sender<()>> {
        let fx = &mut self.fx;
        match command {
            Command::Acquire { client, waiting, answers } => {
                // Resources that the previous request has taken must not count for this one.
                self.engine.load(self.pool.load(), now());
                let waiter = self.engine.acquire(waiting, now(), fx);
                self.clients.insert(client, Client { waiter, answers });
                self.waiters.insert(waiter, client);
            }
            Command::GiveUp { client } => {
                if let Some(Client { waiter, .. }) = self.forget(client) {
                    self.engine.give_up(waiter, now(), &mut self.fx);
                }
            }
            Command::Connected { client } => {
                if let Some(Client { waiter, .. }) = self.forget(client) {
                    self.counters.granted_there += 1;
                    self.engine.connected(waiter, now(), &mut self.fx);
                }
            }
            Command::ConnectFailed { client } => {
                if let Some(Client { waiter, .. }) = self.clients.get(&client) {
                    self.counters.connections_failed += 1;
                    self.engine.connect_failed(*waiter, now(), fx);
                }
            }
            Command::Take { id, answer } => {
                let lease = self.take(&id);
                if let Err(Some(lease)) = answer.send(lease) {
                    self.pool.return_untouched(lease);
                }
            }
            Command::Drain => self.engine.drain(now(), fx),
            Command::Undrain => self.engine.undrain(now(), fx),
            Command::Snapshot { answer } => {
                answer.send(self.snapshot()).ok();
            }
            Command::Leave { answer } => return Some(answer),
        }
        None
    }

    fn forget(&mut self, client: u64) -> Option<Client<P::Lease>> {
        let forgotten = self.clients.remove(&client)?;
        self.waiters.remove(&forgotten.waiter);
        Some(forgotten)
    }

    fn take(&mut self, id: &str) -> Option<P::Lease> {
        let ticket = *self.offered.get(id)?;
        if !self.engine.taken(ticket, now(), &mut self.fx) {
            return None;
        }
        self.offered.remove(id);
        match self.tickets.remove(&ticket)? {
            Held::Leased { lease, .. } => {
                self.counters.taken += 1;
                Some(lease)
            }
            Held::Waiting(task) => {
                task.abort();
                None
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let membership = self.engine.membership();
        let mut nodes: Vec<Arc<Beat>> = membership.nodes().cloned().collect();
        nodes.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        Snapshot {
            connection: self.transport.connection().borrow().clone(),
            own: membership.own().clone(),
            nodes,
            clients: self.clients.len(),
            remote: self.engine.holder().waiting(),
            counters: self.counters,
        }
    }

    fn report(&mut self, report: Report<P::Lease>) {
        match report {
            Report::Pooled(ticket, answer) => {
                // If an abandoned wait was granted all the same, there is nobody to give it to.
                let stands = matches!(self.tickets.get(&ticket), Some(Held::Waiting(_)));
                match answer {
                    Ok(lease) if stands => self.granted(ticket, lease),
                    Ok(lease) => self.pool.return_untouched(lease),
                    Err(cannot) if stands => {
                        self.tickets.remove(&ticket);
                        self.engine.pooled(ticket, Pooled::Refused(cannot), now(), &mut self.fx);
                    }
                    Err(_) => {}
                }
            }
            Report::OfferAnswered(offer, reply) => {
                match reply {
                    Some(OfferReply::Accept) => self.counters.offers_accepted += 1,
                    Some(OfferReply::Decline) => self.counters.offers_declined += 1,
                    None => self.counters.offers_unanswered += 1,
                }
                self.engine.offer_answered(offer, reply, now(), &mut self.fx);
            }
            Report::WhoAnswered(reply) => {
                self.engine.who_answered(reply.as_ref(), now(), &mut self.fx);
            }
            Report::Unsent => self.counters.unsent += 1,
        }
    }

    fn message(&mut self, incoming: &Incoming) {
        let reply = match Message::decode(&incoming.payload) {
            Ok(Message::Who(who)) => self.engine.who(&who).map(Message::WhoReply),
            Ok(Message::Offer(offer)) => {
                let reply = self.engine.offered(&offer, now(), &mut self.fx);
                Some(Message::OfferReply(reply))
            }
            Ok(message) => {
                self.engine.receive(message, now(), &mut self.fx);
                None
            }
            Err(error) => {
                self.counters.unreadable += 1;
                self.complain(&incoming.subject, &error);
                None
            }
        };
        if let (Some(reply), Some(to)) = (reply, &incoming.reply) {
            self.post(to.clone(), &reply);
        }
    }

    fn complain(&mut self, subject: &str, error: &DecodeError) {
        let quiet = self.complained.is_some_and(|at| at.elapsed() < COMPLAINT);
        if !quiet {
            self.complained = Some(Instant::now());
            tracing::warn!(subject, %error, "a message of the fleet was ignored");
        }
    }

    fn post(&mut self, subject: String, message: &Message) {
        if self.outbox.try_send((subject, message.encode())).is_err() {
            self.counters.unsent += 1;
        }
    }

    fn look(&mut self) {
        self.engine.load(self.pool.load(), now());
        let nodes = self.engine.membership().nodes();
        let mut heard: Vec<&NodeName> = nodes.map(|beat| &beat.node).collect();
        heard.sort_unstable();
        let same = heard.iter().copied().eq(self.nodes.borrow().iter());
        if !same {
            self.nodes.send_replace(heard.into_iter().cloned().collect());
        }
    }

    /// Carries out what the engine has pushed, and what it pushes as a result.
    fn carry_out(&mut self) {
        loop {
            let effects: Vec<Effect> = self.fx.drain().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry_out_one(effect);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Publish(topic, message) => {
                if matches!(message, Message::Ask(_)) {
                    self.counters.asks += 1;
                }
                self.post(self.subjects.topic(&topic), &message);
            }
            Effect::Offer(gateway, offer) => self.offer(&gateway, offer),
            Effect::Who(who) => self.ask_who(who),
            Effect::Acquire(ticket, acquire) => self.acquire(ticket, &acquire),
            Effect::Abandon(ticket) | Effect::GiveBack(ticket) => self.give_back(ticket),
            Effect::Serve(waiter, place) => self.serve(waiter, place),
            Effect::Refuse(waiter, cannot) => {
                self.counters.refused += 1;
                if let Some(client) = self.waiters.get(&waiter).copied()
                    && let Some(Client { answers, .. }) = self.forget(client)
                {
                    answers.send(Err(cannot)).ok();
                }
            }
            Effect::Joined => {
                if let Some(joined) = self.joined.take() {
                    joined.send(Ok(())).ok();
                }
            }
            Effect::NameTaken(other) => self.name_taken(other),
            Effect::Listen(wanted) => self.listen_to(&wanted),
        }
    }

    fn name_taken(&mut self, other: Arc<Beat>) {
        if let Some(joined) = self.joined.take() {
            joined.send(Err(other)).ok();
            return;
        }
        let known = self.namesake.borrow().as_ref().map(|held| held.incarnation);
        if known != Some(other.incarnation) {
            tracing::error!(
                node = &*self.node,
                address = &*other.address,
                "an older live node has this node's name, so this one is draining"
            );
            self.namesake.send_replace(Some(other));
        }
        self.engine.drain(now(), &mut self.fx);
    }

    fn offer(&mut self, gateway: &str, offer: Offer) {
        self.counters.offers += 1;
        let (number, limit) = (offer.offer, self.settings.offer);
        let subject = self.subjects.offer(gateway);
        let (transport, reports) = (Arc::clone(&self.transport), self.reports.clone());
        tokio::spawn(async move {
            let message = Message::Offer(offer).encode();
            let reply = transport.request(&subject, message.into(), limit).await.ok();
            let reply = match reply.map(|reply| Message::decode(&reply)) {
                Some(Ok(Message::OfferReply(reply))) => Some(reply),
                Some(Ok(_) | Err(_)) | None => None,
            };
            reports.send(Report::OfferAnswered(number, reply)).ok();
        });
    }

    fn ask_who(&self, who: Who) {
        let (subject, limit) = (self.subjects.who(&who.node), self.settings.offer);
        let (transport, reports) = (Arc::clone(&self.transport), self.reports.clone());
        tokio::spawn(async move {
            let message = Message::Who(who).encode();
            let reply = transport.request(&subject, message.into(), limit).await.ok();
            let reply = match reply.map(|reply| Message::decode(&reply)) {
                Some(Ok(Message::WhoReply(reply))) => Some(reply),
                Some(Ok(_) | Err(_)) | None => None,
            };
            reports.send(Report::WhoAnswered(reply)).ok();
        });
    }

    /// Asks the pool: first for what is at hand, then in a task.
    fn acquire(&mut self, ticket: Ticket, acquire: &Acquire) {
        let pool = Arc::clone(&self.pool);
        let asked = acquire.clone();
        let mut wait = Box::pin(async move { pool.acquire(&asked).await });
        match unconstrained(&mut wait).now_or_never() {
            Some(Ok(lease)) => self.granted(ticket, lease),
            Some(Err(cannot)) => {
                self.engine.pooled(ticket, Pooled::Refused(cannot), now(), &mut self.fx);
            }
            None => {
                let reports = self.reports.clone();
                let pool = Arc::clone(&self.pool);
                let task = tokio::spawn(async move {
                    let report = Report::Pooled(ticket, wait.await);
                    if let Err(mpsc::error::SendError(Report::Pooled(_, Ok(lease)))) =
                        reports.send(report)
                    {
                        pool.return_untouched(lease);
                    }
                });
                self.tickets.insert(ticket, Held::Waiting(task.abort_handle()));
                let launching = self.pool.is_launching(acquire);
                self.engine.pooled(ticket, Pooled::Queued { launching }, now(), &mut self.fx);
            }
        }
    }

    fn granted(&mut self, ticket: Ticket, lease: P::Lease) {
        // The id becomes part of addresses, and must not be guessable.
        let id: Arc<str> = lease_id(&self.node, &format!("{:032x}", random())).into();
        if let Ticket::Remote(_) = ticket {
            self.offered.insert(Arc::clone(&id), ticket);
        }
        self.tickets.insert(ticket, Held::Leased { id: Arc::clone(&id), lease });
        self.engine.pooled(ticket, Pooled::Granted(id), now(), &mut self.fx);
    }

    fn give_back(&mut self, ticket: Ticket) {
        match self.tickets.remove(&ticket) {
            Some(Held::Waiting(task)) => task.abort(),
            Some(Held::Leased { id, lease }) => {
                self.offered.remove(&id);
                self.pool.return_untouched(lease);
            }
            None => {}
        }
    }

    fn serve(&mut self, waiter: WaiterId, place: Place) {
        let client = self.waiters.get(&waiter).copied();
        match place {
            Place::Here { ticket, lease: id } => {
                let Some(Held::Leased { lease, .. }) = self.tickets.remove(&ticket) else { return };
                let client = client.and_then(|client| self.forget(client));
                let Some(Client { answers, .. }) = client else {
                    return self.pool.return_untouched(lease);
                };
                self.counters.granted_here += 1;
                if let Err(back) = answers.send(Ok(Grant::Here { id, lease }))
                    && let Ok(Grant::Here { lease, .. }) = back.0
                {
                    self.pool.return_untouched(lease);
                }
            }
            Place::There { node, incarnation, lease: id, address } => {
                let client = client.and_then(|client| self.clients.get(&client));
                if let Some(Client { answers, .. }) = client {
                    let remote = RemoteLease { id, node, incarnation, address };
                    answers.send(Ok(Grant::There(remote))).ok();
                }
            }
        }
    }

    /// Listens to these beats, and to no others.
    fn listen_to(&mut self, wanted: &BTreeSet<Listen>) {
        self.listening.retain(|held, task| {
            let stays = wanted.contains(held);
            if !stays {
                task.abort();
            }
            stays
        });
        for beats in wanted {
            if self.listening.contains_key(beats) {
                continue;
            }
            let (subject, inbox) = (self.subjects.beats(beats), self.inbox.clone());
            let transport = Arc::clone(&self.transport);
            let task = tokio::spawn(async move {
                match transport.subscribe(&subject).await {
                    Ok(messages) => pass_on(messages, inbox).await,
                    Err(error) => tracing::warn!(subject, %error, "heartbeats cannot be received"),
                }
            });
            self.listening.insert(beats.clone(), task.abort_handle());
        }
    }

    /// Says goodbye, refuses the waiting clients, and gives back what is on offer.
    async fn leave(&mut self) {
        self.engine.leave(now(), &mut self.fx);
        self.carry_out();
        // The goodbye beat is in the outbox, which is closed behind it.
        self.outbox = mpsc::channel(1).0;
        timeout(GOODBYE, &mut self.sender).await.ok();
    }
}

impl<P: LocalPool> Drop for Driver<P> {
    fn drop(&mut self) {
        self.sender.abort();
        for task in self.tasks.iter().chain(self.listening.values()) {
            task.abort();
        }
        for (_, held) in self.tickets.drain() {
            match held {
                Held::Waiting(task) => task.abort(),
                Held::Leased { lease, .. } => self.pool.return_untouched(lease),
            }
        }
    }
}

/// Sends what is in the outbox, in order. When the outbox is closed, flushes everything to the
/// server.
async fn send<L>(
    transport: Arc<dyn Transport>,
    mut outgoing: mpsc::Receiver<(String, Vec<u8>)>,
    reports: mpsc::UnboundedSender<Report<L>>,
) {
    while let Some((subject, payload)) = outgoing.recv().await {
        if let Err(error) = transport.publish(&subject, payload.into()).await {
            tracing::debug!(subject, %error, "a message of the fleet was not sent");
            reports.send(Report::Unsent).ok();
        }
    }
    if let Err(error) = transport.flush().await {
        tracing::debug!(%error, "the last messages of the fleet may not have been sent");
    }
}

/// Passes on the messages of a subject.
async fn listen(
    transport: &dyn Transport,
    subject: &str,
    inbox: mpsc::Sender<Incoming>,
) -> Result<AbortHandle, TransportError> {
    let messages = transport.subscribe(subject).await?;
    Ok(tokio::spawn(pass_on(messages, inbox)).abort_handle())
}

async fn pass_on(mut messages: Subscription, inbox: mpsc::Sender<Incoming>) {
    while let Some(message) = messages.next().await {
        if inbox.send(message).await.is_err() {
            return;
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    u128::from_le_bytes(bytes)
}
