//! The multiplexer without its pipe: every message in, every frame out, no I/O and no clock.
//!
//! One pipe carries the root session, which is the multiplexer's own and the only one that attaches
//! automatically to new targets, and any number of sessions below it. Frames for Chromium go to the
//! [`Outbox`], messages for clients into the queues of their connections. The [`Effects`] say who
//! must be woken or answered once the lock around the state is released.
//!
//! [`State`] combines parts that keep their data to themselves: the [`Registry`] of targets, the
//! [`Sessions`], the [`Leases`] with their clients, and the [`Pending`] commands of our own.

mod attach;
mod client;
mod command;
mod event;
mod leases;
mod lifecycle;
mod page_command;
mod pending;
mod registry;
mod reply;
mod sessions;
#[cfg(any(test, fuzzing))]
pub(crate) mod stage;
mod target_command;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::budget::{Budget, Gate};
use super::end::{EndReason, Ending};
use super::link::{Closed, Frame, LargeFrame, Link, Outbox, Pushed};
use super::target::{Id, Message, SessionId, Target};
use super::{envelope, framing};
use crate::cdp::CdpError;

pub(crate) use leases::Remains;
use leases::{BoundPage, Client, Lease, Leases, Warm};
pub(crate) use pending::Effects;
use pending::{CallResult, Pending, Relay, Reply, Unanswered, Watch};
use registry::{Departure, Registry};
use sessions::{AutoAttach, BrowserSession, Owner, Session, Sessions};

/// Identifies a lease; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(u64);

/// Identifies a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// Numbers of things that a [`Multiplexer`](super::Multiplexer) holds, for metrics and to find
/// leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Leases that have not ended.
    pub leases: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Browser contexts of leases.
    pub contexts: usize,
    /// Targets of all kinds, including the browser's own.
    pub targets: usize,
    /// Sessions, including our own.
    pub sessions: usize,
    /// Commands of our own that have not been answered yet.
    pub pending: usize,
}

/// Everything that the multiplexer knows.
#[derive(Debug)]
pub(crate) struct State {
    registry: Registry,
    sessions: Sessions,
    leases: Leases,
    pending: Pending,
    outbox: Outbox,
    effects: Effects,
    ending: Arc<Ending>,
    assumptions: Assumptions,
    /// Valve in front of Chromium's messages.
    gate: Arc<Gate>,
    /// Bytes that may wait for the clients of all Chromiums together.
    budget: Budget,
}

impl State {
    pub(crate) fn new(budget: Budget, gate: Arc<Gate>, ending: Arc<Ending>) -> Self {
        Self {
            registry: Registry::default(),
            sessions: Sessions::default(),
            leases: Leases::default(),
            pending: Pending::default(),
            outbox: Outbox::default(),
            effects: Effects::default(),
            ending,
            assumptions: Assumptions::default(),
            gate,
            budget,
        }
    }

    /// Takes the effects, which must be carried out once the lock is released.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Returns `true` if the writer must write or end.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty() || self.end_reason().is_some()
    }

    /// Moves output to `batch`, up to `limit` bytes, and returns a large frame that follows it.
    pub(crate) fn take_output(&mut self, batch: &mut Vec<u8>, limit: usize) -> Option<LargeFrame> {
        self.outbox.take(batch, limit, |link| self.effects.room(link))
    }

    /// Takes one message from Chromium.
    pub(crate) fn browser_message(&mut self, message: Bytes) {
        if let Some(id) = framing::own_reply(&message) {
            // The answer is for a session that is gone, so nobody waits for it.
            if let Some(pending) = self.pending.take(id) {
                self.own_reply(pending, &message);
            }
            return;
        }
        let Some(session) = framing::session_of(&message) else {
            return self.root_message(&message);
        };
        let owner = self.sessions.get_mut(session).map(|session| {
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
                let message = if is_root { framing::without_session(&message) } else { message };
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
            // A session that has just ended, or one of ours: nobody waits for the message.
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

    /// Handles a message that was too large for the budget and was dropped, except for its end. Its
    /// receiver is cut off; if it was the answer to a command of our own, that never comes.
    pub(crate) fn lost_message(&mut self, end: &[u8]) {
        let session = framing::session_of(end);
        let owner = session.and_then(|session| self.sessions.get(session)).map(|held| held.owner);
        match owner {
            Some(
                Owner::Page(connection)
                | Owner::Browser { connection, .. }
                | Owner::Tab { connection, .. },
            ) => self.close_connection(connection, EndReason::SlowReader),
            Some(Owner::Own) | None => {}
        }
    }

    /// Ends every connection with this reason: the whole Chromium is gone, or about to be.
    pub(crate) fn end_all(&mut self, reason: EndReason) {
        if self.ending.set(reason) {
            self.effects.ended(&self.ending);
        }
        let reason = self.end_reason().unwrap_or(reason);
        self.pending.clear(&mut self.effects);
        self.leases.end_all(reason, &mut self.effects);
        self.sessions.clear();
        self.registry.clear();
    }

    /// Returns why the Chromium is gone, if it is.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.ending.reason()
    }

    /// Sends a command of our own.
    fn own_command(
        &mut self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
        reply: Reply,
    ) {
        let id = self.pending.insert(Unanswered::new(session, method, reply));
        let frame = envelope::write(id, method, Some(&params.to_string()), session);
        self.outbox.push_own(frame);
    }

    /// Sends commands of our own that end sessions of a client, behind everything that the client
    /// has sent: on a session that has ended, its commands would fail.
    fn behind_client(&mut self, link: &Arc<Link>, send: impl FnOnce(&mut Self)) {
        let before = self.outbox.own_count();
        send(self);
        self.outbox.put_behind(link, before);
    }

    /// Sends a command of our own for an outside caller, who waits for the answer.
    pub(crate) fn call(
        &mut self,
        session: Option<SessionId>,
        method: &str,
        params: &Value,
        reply: oneshot::Sender<CallResult>,
    ) {
        self.own_command(session, method, params, Reply::Call(reply));
    }

    /// Notes that the root session is about to attach to a target by a command of ours.
    pub(crate) fn expect_attach(&mut self, target: &str) {
        self.sessions.expect_attach(target);
    }

    /// Notes that an expected attachment will not come.
    pub(crate) fn forget_attach(&mut self, target: &str) {
        self.sessions.forget_attach(target);
    }

    /// Notes which context is the Chromium's real default one.
    pub(crate) fn set_real_context(&mut self, context: Option<Id>) {
        self.registry.set_real_context(context);
    }

    /// Adopts a context as one of the multiplexer's own, for a page of ours.
    pub(crate) fn adopt_context(&mut self, context: &str) {
        self.registry.adopt_context(context);
    }

    /// Disposes of a context that belongs to no lease.
    pub(crate) fn dispose_context_now(&mut self, context: &str) {
        self.registry.disown_context(context);
        let params = serde_json::json!({ "browserContextId": context });
        self.own_command(None, "Target.disposeBrowserContext", &params, Reply::Nothing);
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            leases: self.leases.count(),
            connections: self.leases.client_count(),
            contexts: self.registry.context_count(),
            targets: self.registry.target_count(),
            sessions: self.sessions.count(),
            pending: self.pending.count(),
        }
    }

    pub(crate) fn has_clients(&self) -> bool {
        self.leases.any_used()
    }

    /// Returns an error that says in which way this Chromium does not behave as virtual browsers
    /// require.
    pub(crate) fn check_suited(&self) -> Result<(), CdpError> {
        self.assumptions.check()
    }

    /// Returns `true` if a page has been seen to pause as it must.
    pub(crate) fn is_proven(&self) -> bool {
        self.assumptions.is_proven()
    }

    /// Closes a session of ours.
    pub(crate) fn detach_own(&mut self, session: SessionId) {
        self.detach(session);
    }

    /// Sends a command for a client, in the client's order, if we must see the answer.
    fn relay(
        &mut self,
        connection: ConnectionId,
        session: Option<SessionId>,
        method: &str,
        params: Option<&str>,
        reply: Reply,
    ) {
        let id = self.pending.insert(Unanswered::new(session, method, reply));
        let frame = envelope::write(id, method, params, session);
        self.push_client(connection, frame);
    }

    /// Returns the target that a session is on.
    fn target_of_mut(&mut self, session: SessionId) -> Option<&mut Target> {
        self.registry.target_mut(self.sessions.target_of(session)?)
    }

    /// Returns the pending departure of the page that a session is on, if there is one.
    fn departure_of(&mut self, session: SessionId) -> Option<&mut Departure> {
        if !self.registry.has_departures() {
            return None;
        }
        self.registry.departure_mut(self.sessions.target_of(session)?)
    }

    fn push_client(&mut self, connection: ConnectionId, frame: impl Into<Frame>) {
        if let Some(client) = self.leases.client(connection)
            && self.outbox.push_client(&client.link, frame.into())
        {
            self.effects.make_room(&self.budget);
        }
    }

    /// Queues a message for a client. A client that was cut off because some Chromium's messages
    /// spent the budget is closed here at the latest.
    fn deliver(&mut self, connection: ConnectionId, message: impl Into<Bytes>) {
        let Some(client) = self.leases.client(connection) else { return };
        let message = message.into();
        let message = if client.nests { self.wrapped(message) } else { Ok(Some(message)) };
        let push = |message: Option<Bytes>| {
            message.map_or_else(|| Ok(Pushed::default()), |it| client.link.push(it))
        };
        match message.and_then(push) {
            Ok(Pushed { reader, spent }) => {
                self.effects.wake(reader);
                if spent {
                    self.effects.make_room(&self.budget);
                }
            }
            Err(Closed) => self.close_connection(connection, EndReason::SlowReader),
        }
    }

    /// Forgets a session with everything below it. Commands that wait for an answer on it fail.
    fn forget_session(&mut self, session: SessionId) {
        let mut gone = vec![session];
        while let Some(session) = gone.pop() {
            gone.extend(self.sessions.remove(session));
            for id in self.pending.on(session) {
                if let Some(pending) = self.pending.take(id) {
                    self.orphaned(pending);
                }
            }
        }
    }
}

/// Assumptions of virtual browsers about a Chromium, as far as this one has confirmed them.
///
/// Opening the first lease exercises all of them, so checking costs nothing: `sessionId` is the
/// last member of every message; a new page is attached and paused before the command that makes it
/// is answered; the commands that the multiplexer needs exist.
#[derive(Debug, Default)]
struct Assumptions {
    broken: Option<String>,
    paused_page_seen: bool,
}

impl Assumptions {
    /// Notes that a message named its session elsewhere than at its end.
    fn session_not_last(&mut self) {
        self.break_with("sessionId is not the last member of its messages");
    }

    /// Notes that a page was attached before the reply to its creation; `waiting` if it was paused.
    fn page_attached(&mut self, waiting: bool) {
        if waiting {
            self.paused_page_seen = true;
        } else {
            self.break_with("a new page is not paused");
        }
    }

    /// Notes that the reply to a creation came before its page was attached.
    fn page_not_attached(&mut self) {
        self.break_with("a new page is not attached before the reply that names it");
    }

    /// Notes that a command of ours does not exist.
    fn unknown_command(&mut self, method: &str) {
        self.break_with(&format!("it does not know {method}"));
    }

    fn break_with(&mut self, what: &str) {
        if self.broken.is_none() {
            tracing::warn!(what, "this Chromium does not behave as virtual browsers require");
            self.broken = Some(what.to_owned());
        }
    }

    fn check(&self) -> Result<(), CdpError> {
        match &self.broken {
            Some(what) => Err(CdpError::Unsuited(what.clone())),
            None => Ok(()),
        }
    }

    /// Returns `true` if a page has been seen to pause as it must.
    fn is_proven(&self) -> bool {
        self.paused_page_seen && self.broken.is_none()
    }
}
