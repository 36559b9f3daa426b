//! The multiplexer without its pipe: every message in, every frame out, no I/O and no clock.
//!
//! One pipe carries the root session, which is the multiplexer's own and the only one that
//! attaches by itself to what is new, and any number of sessions below it. Frames for Chromium go
//! to the [`Outbox`], messages for clients into their connections' queues.

mod attach;
mod client;
mod command;
mod departure;
mod event;
mod lease;
mod lifecycle;
mod page_command;
mod pending;
mod reply;
#[cfg(any(test, fuzzing))]
pub(crate) mod stage;
mod target_command;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use attach::BrowserSession;
use bytes::Bytes;
pub(crate) use departure::Departure;
use indexmap::IndexMap;
pub(crate) use lease::{Lease, LeaseId, Remains};
use page_command::Running;
pub(crate) use pending::{Pending, Relay, Reply, Watch};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::assumptions::Assumptions;
use super::budget::{Budget, Gate};
use super::end::EndReason;
use super::lease_options::HolderCommands;
use super::link::{Frame, Link, Outbox};
use super::target::{Id, Message, SessionId, Target};
use super::{envelope, framing};

/// Which connection; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The multiplexer's: events on it are of no interest.
    Own,
    /// A browser session of a client. The one that stands for its root has no id for the client.
    Browser { connection: ConnectionId, root: bool },
    /// A session of a page, frame or worker of a client.
    Page(ConnectionId),
    /// A tab's session that only exists here, above the session of its page.
    Tab { connection: ConnectionId, page: SessionId },
}

impl Owner {
    /// The connection that a session is of.
    fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Own => None,
            Self::Browser { connection, .. }
            | Self::Page(connection)
            | Self::Tab { connection, .. } => Some(connection),
        }
    }
}

/// A session in the registry.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) owner: Owner,
    pub(crate) target: Option<Id>,
    /// The session that it was made on; `None` for the root session.
    pub(crate) maker: Option<SessionId>,
    /// The session that its client believes it was made on: another one than the maker for
    /// sessions that the control session handed over.
    pub(crate) parent: Option<SessionId>,
    /// It stood still when its client was told of it.
    pub(crate) waiting: bool,
    /// It came by auto-attach, not by a command of its client.
    pub(crate) automatic: bool,
    /// To its client it is not flattened: its messages travel inside of its parent's.
    pub(crate) nested: bool,
    /// So are those that attach by themselves below it.
    pub(crate) nests: bool,
    /// Commands of its client that Chromium has not answered.
    pub(crate) unanswered: u32,
    /// Its client takes it for the root, and names no session for it.
    pub(crate) is_root: bool,
}

/// A browser context in the registry.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) lease: LeaseId,
    /// The session whose end disposes it.
    pub(crate) maker: SessionId,
    /// Directory that its downloads were to go to and may not: then they are canceled.
    pub(crate) no_downloads: Option<String>,
}

impl Context {
    pub(crate) fn new(lease: LeaseId, maker: SessionId) -> Self {
        Self { lease, maker, no_downloads: None }
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) lease: LeaseId,
    /// The browser session that stands for the client's root.
    pub(crate) root: SessionId,
    /// The page that the client speaks to where it names no session, if not to the browser.
    pub(crate) page: Option<BoundPage>,
    pub(crate) link: Arc<Link>,
    pub(crate) ignore_certificates: bool,
    /// It has asked for sessions that are nested.
    pub(crate) nests: bool,
    /// Replies of `Target.createTarget` that wait until their target is attached: Playwright looks
    /// for the page when it reads the reply.
    pub(crate) held: Vec<(Id, Bytes)>,
    pub(crate) downloads: page_command::Downloads,
    /// Answers what no Chromium has.
    pub(crate) commands: Option<Arc<dyn HolderCommands>>,
}

/// The page that stands for a client's root.
#[derive(Debug)]
pub(crate) enum BoundPage {
    /// It is being attached to.
    Attaching(Id),
    /// This session is attached to it.
    Attached(SessionId),
}

/// Number of things a [`Multiplexer`](super::Multiplexer) holds, for metrics and to find leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Leases that have not ended.
    pub leases: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Browser contexts of leases.
    pub contexts: usize,
    /// Targets of all kinds, the browser's own included.
    pub targets: usize,
    /// Sessions, our own included.
    pub sessions: usize,
    /// Commands of our own that are not answered yet.
    pub pending: usize,
}

/// Everything that the multiplexer knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) outbox: Outbox,
    pub(crate) ended: watch::Sender<Option<EndReason>>,
    pub(crate) assumptions: Assumptions,
    next_id: i32,
    next_serial: u64,
    pending: HashMap<i32, Pending>,
    /// In the order they were made: clients see existing pages in this order.
    pub(crate) targets: IndexMap<Id, Target>,
    contexts: HashMap<Id, Context>,
    sessions: HashMap<SessionId, Session>,
    /// The virtual side of browser sessions of clients.
    browsers: HashMap<SessionId, BrowserSession>,
    /// Browser targets by the session on them: each session has one of its own.
    browser_targets: HashMap<SessionId, Id>,
    pub(crate) leases: HashMap<LeaseId, Lease>,
    clients: HashMap<ConnectionId, Client>,
    /// Targets that we attach to by ourselves, over the root session.
    own_attaches: HashMap<Id, usize>,
    /// Contexts of the multiplexer's own.
    own_contexts: HashSet<Id>,
    /// The Chromium's real default context, once it is known.
    pub(crate) real_context: Option<Id>,
    /// Downloads that have not ended, of all leases.
    running: Running,
    /// Whether Chromium's messages are read.
    pub(crate) gate: Arc<Gate>,
    /// Bytes that may wait for the clients of all Chromiums together.
    pub(crate) budget: Budget,
    /// Pages that were made empty and go to their addresses later.
    pub(crate) departures: HashMap<Id, Departure>,
    /// Where it is told which of them there are.
    departing: (UnboundedSender<Id>, Option<UnboundedReceiver<Id>>),
}

impl State {
    pub(crate) fn new(budget: Budget) -> Self {
        let (departing, pages) = unbounded_channel();
        Self {
            outbox: Outbox::default(),
            ended: watch::Sender::new(None),
            assumptions: Assumptions::default(),
            next_id: framing::OWN_IDS_FROM,
            next_serial: 0,
            pending: HashMap::new(),
            targets: IndexMap::new(),
            contexts: HashMap::new(),
            sessions: HashMap::new(),
            browsers: HashMap::new(),
            browser_targets: HashMap::new(),
            leases: HashMap::new(),
            clients: HashMap::new(),
            own_attaches: HashMap::new(),
            own_contexts: HashSet::new(),
            real_context: None,
            running: Running::default(),
            gate: Arc::default(),
            budget,
            departures: HashMap::new(),
            departing: (departing, Some(pages)),
        }
    }

    /// Takes one message from Chromium.
    pub(crate) fn browser_message(&mut self, message: Bytes) {
        if let Some(id) = framing::own_reply(&message) {
            // Nothing waits for an answer on a session that is gone.
            if let Some(pending) = self.pending.remove(&id) {
                self.own_reply(pending, &message);
            }
            return;
        }
        let Some(session) = framing::session_of(&message) else {
            return self.root_message(&message);
        };
        let owner = self.sessions.get_mut(&session).map(|session| {
            if framing::is_reply(&message) {
                session.unanswered = session.unanswered.saturating_sub(1);
            }
            (session.owner, session.is_root)
        });
        match owner {
            Some((Owner::Page(connection), is_root)) => {
                if framing::is_target_event(&message) {
                    return self.page_target_event(connection, session, message);
                }
                let message =
                    if is_root { framing::without_session(&message).into() } else { message };
                let message = match self.departure_of(session) {
                    Some(departure) => departure.withhold(connection, message),
                    None => Some(message),
                };
                if let Some(message) = message {
                    self.deliver(connection, message);
                }
            }
            Some((Owner::Browser { connection, root }, _)) => {
                if framing::is_browser_event(&message) {
                    self.browser_session_event(session, &message);
                } else if root {
                    self.deliver(connection, framing::without_session(&message));
                } else {
                    self.deliver(connection, message);
                }
            }
            // A session that has just ended, or one of ours: nobody waits for it.
            Some((Owner::Own | Owner::Tab { .. }, _)) | None => {}
        }
    }

    fn root_message(&mut self, message: &Bytes) {
        let Ok(parsed) = serde_json::from_slice::<Message<'_>>(message) else {
            tracing::warn!(length = message.len(), "Chromium sent something that is not a message");
            return;
        };
        if parsed.session.is_some() {
            // The suffix would have been there if it were the last member.
            self.assumptions.session_not_last();
            if let Some(moved) = framing::with_session_last(message) {
                self.browser_message(moved.into());
            }
            return;
        }
        let Some(params) = parsed.params else { return };
        self.root_event(parsed.method, params);
    }

    /// A message was too large for the budget and was dropped, all but its end. Its receiver is cut
    /// off; an answer to a command of our own never comes.
    pub(crate) fn lost_message(&mut self, end: &[u8]) {
        let session = framing::session_of(end);
        let owner = session.and_then(|session| self.sessions.get(&session)).map(|held| held.owner);
        match owner {
            Some(
                Owner::Page(connection)
                | Owner::Browser { connection, .. }
                | Owner::Tab { connection, .. },
            ) => self.close_connection(connection, EndReason::SlowReader),
            Some(Owner::Own) | None => {}
        }
    }

    /// The whole Chromium is gone, or about to be: every connection ends with this reason.
    pub(crate) fn end_all(&mut self, reason: EndReason) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(reason);
            first
        });
        let reason = (*self.ended.borrow()).unwrap_or(reason);
        self.pending.clear();
        for (_, client) in self.clients.drain() {
            client.link.end(reason);
        }
        for lease in self.leases.values_mut() {
            lease.end(reason);
        }
        self.sessions.clear();
        self.browsers.clear();
        self.targets.clear();
        self.departures.clear();
        self.contexts.clear();
    }

    /// Returns why the Chromium is gone, if it is.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        *self.ended.borrow()
    }

    /// Sends a command of our own.
    fn own_command(
        &mut self,
        session: Option<SessionId>,
        method: &str,
        params: &serde_json::Value,
        reply: Reply,
    ) {
        let id = self.register(Pending::new(session, method, reply));
        let frame = envelope::write(id, method, Some(&params.to_string()), session);
        self.outbox.push_own(frame);
    }

    /// Sends a command of our own for somebody outside, who awaits the answer.
    pub(crate) fn call(
        &mut self,
        session: Option<SessionId>,
        method: &str,
        params: &serde_json::Value,
        reply: Reply,
    ) {
        self.own_command(session, method, params, reply);
    }

    /// The root session is about to attach to a target by a command of ours.
    pub(crate) fn expect_attach(&mut self, target: &str) {
        *self.own_attaches.entry(target.into()).or_default() += 1;
    }

    /// One that was expected has come, or cannot. Whether any was expected.
    pub(crate) fn forget_attach(&mut self, target: &str) -> bool {
        let Some(count) = self.own_attaches.get_mut(target) else { return false };
        *count -= 1;
        if *count == 0 {
            self.own_attaches.remove(target);
        }
        true
    }

    /// Disposes a context that is no lease's.
    pub(crate) fn dispose_context_now(&mut self, context: &str) {
        self.own_contexts.remove(context);
        let params = serde_json::json!({ "browserContextId": context });
        self.own_command(None, "Target.disposeBrowserContext", &params, Reply::Nothing);
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            leases: self.leases.len(),
            connections: self.clients.len(),
            contexts: self.contexts.len(),
            targets: self.targets.len(),
            sessions: self.sessions.len() + self.browser_targets.len(),
            pending: self.pending.len(),
        }
    }

    pub(crate) fn has_clients(&self) -> bool {
        self.leases.values().any(|lease| lease.used)
    }

    /// Returns `true` if a lease has something to do for its clients: a command that is not answered, or a
    /// download that has not ended.
    pub(crate) fn is_busy(&self, lease: LeaseId) -> bool {
        let is_its =
            |id: &ConnectionId| self.clients.get(id).is_some_and(|client| client.lease == lease);
        let waits = |held: &Session| {
            held.unanswered > 0 && held.owner.connection().is_some_and(|id| is_its(&id))
        };
        let relayed = |pending: &Pending| match &pending.reply {
            Reply::Relay(relay, _) => is_its(&relay.connection),
            _ => false,
        };
        self.sessions.values().any(waits)
            || self.pending.values().any(relayed)
            || self.is_downloading(lease)
    }

    /// Leaves a session of ours.
    pub(crate) fn detach_own(&mut self, session: SessionId) {
        self.detach(session);
    }

    /// Sends a command for a client, whose answer we must see, in the client's turn.
    fn relay(
        &mut self,
        connection: ConnectionId,
        session: Option<SessionId>,
        method: &str,
        params: Option<&str>,
        reply: Reply,
    ) {
        let id = self.register(Pending::new(session, method, reply));
        let frame = envelope::write(id, method, params, session);
        self.push_client(connection, frame);
    }

    /// The target that a session is on.
    fn target_of_mut(&mut self, session: SessionId) -> Option<&mut Target> {
        let target = self.sessions.get(&session)?.target.as_ref()?;
        self.targets.get_mut(target)
    }

    /// The departure of the page that a session is on, while there is one.
    fn departure_of(&mut self, session: SessionId) -> Option<&mut Departure> {
        if self.departures.is_empty() {
            return None;
        }
        let target = self.sessions.get(&session)?.target.as_ref()?;
        self.departures.get_mut(target)
    }

    fn push_client(&mut self, connection: ConnectionId, frame: impl Into<Frame>) {
        if let Some(client) = self.clients.get(&connection) {
            self.outbox.push_client(&client.link, frame.into());
        }
    }

    fn register(&mut self, pending: Pending) -> i32 {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_sub(1).unwrap_or(framing::OWN_IDS_FROM);
            // After two thousand million commands an old one may still be unanswered.
            if let Entry::Vacant(entry) = self.pending.entry(id) {
                entry.insert(pending);
                return id;
            }
        }
    }

    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Queues a message for a client. One that was cut off, by whichever Chromium's messages the
    /// budget was spent, is closed here at the latest.
    fn deliver(&mut self, connection: ConnectionId, message: impl Into<Bytes>) {
        let Some(client) = self.clients.get(&connection) else { return };
        let message = message.into();
        let message = if client.nests { self.wrapped(message) } else { Ok(Some(message)) };
        let push = |message: Option<Bytes>| message.map_or(Ok(()), |it| client.link.push(it));
        if message.and_then(push).is_err() {
            self.close_connection(connection, EndReason::SlowReader);
        }
    }

    /// Forgets a session with everything below it. What waits for an answer on it fails.
    fn forget_session(&mut self, session: SessionId) {
        let mut gone = vec![session];
        while let Some(session) = gone.pop() {
            self.sessions.remove(&session);
            self.browsers.remove(&session);
            self.browser_targets.remove(&session);
            let below = |held: &Session| {
                held.maker == Some(session)
                    || matches!(held.owner, Owner::Tab { page, .. } if page == session)
            };
            gone.extend(self.sessions.iter().filter(|(_, held)| below(held)).map(|(id, _)| *id));
            let orphans: Vec<i32> = self
                .pending
                .iter()
                .filter(|(_, pending)| pending.session == Some(session))
                .map(|(id, _)| *id)
                .collect();
            for id in orphans {
                if let Some(pending) = self.pending.remove(&id) {
                    self.orphaned(pending);
                }
            }
        }
    }
}
