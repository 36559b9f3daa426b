//! Sessions that are not flattened.
//!
//! A client that attaches without `flatten` talks to the new session inside of its parent's:
//! commands by `Target.sendMessageToTarget`, everything else by events
//! `Target.receivedMessageFromTarget`, and so on for sessions below. To Chromium all sessions are
//! flat, so that the rules judge what is inside as they judge anything else; a message is wrapped
//! on its way to the client.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::connection::Closed;
use super::super::outbox::LARGE;
use super::super::session_id::SessionId;
use super::super::suffix;
use super::super::target::Id;
use super::client::Request;
use super::command::{INVALID_PARAMS, Params, SERVER_ERROR};
use super::{Owner, Reply, State, Watch};
use crate::mux::envelope;

/// Nested sessions lie this deep at most: enough for a worker of a frame of a frame of a page. Each
/// level doubles the quotes and backslashes of a message.
const DEEPEST: usize = 4;

/// The params of `Target.sendMessageToTarget`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    message: String,
    session_id: Option<String>,
    target_id: Option<String>,
}

impl State {
    /// Takes a message for a nested session out of the one that it came in, and judges it.
    pub(super) fn send_to_target(&mut self, request: &Request<'_>) {
        let Some(Sent { message, session_id, target_id }) = self.read(request) else { return };
        let found = match (session_id, target_id) {
            (Some(session), _) => SessionId::parse(&session)
                .filter(|session| self.is_child(request, *session))
                .ok_or((INVALID_PARAMS, "No session with given id")),
            (None, Some(target)) => self.only_session_on(request, &target),
            (None, None) => Err((INVALID_PARAMS, "Session id must be specified")),
        };
        let found = found.and_then(|session| {
            let flat = "When using flat protocol, messages are routed to the target via the \
                        sessionId attribute.";
            let nested = self.sessions.get(&session).is_some_and(|held| held.nested);
            if nested { Ok(session) } else { Err((SERVER_ERROR, flat)) }
        });
        match found {
            Ok(session) => {
                self.answer(&request.relay(), "{}");
                let bytes = Bytes::from(message);
                let text = std::str::from_utf8(&bytes).expect("it was a string");
                let whole = (bytes.len() >= LARGE).then_some(&bytes);
                self.client_message_in(request.connection, Some(session), text, whole);
            }
            Err((code, message)) => self.refuse(request, code, message),
        }
    }

    /// Returns whether a session was made on the one that a command came on.
    fn is_child(&self, request: &Request<'_>, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|held| {
            held.parent == Some(request.session)
                && held.owner.connection() == Some(request.connection)
        })
    }

    /// Returns the session that was made on a command's session for a target, or what Chromium
    /// says where there are none or several.
    pub(super) fn only_session_on(
        &self,
        request: &Request<'_>,
        target: &str,
    ) -> Result<SessionId, (i32, &'static str)> {
        let mut on_it = self
            .sessions
            .iter()
            .filter(|(_, held)| held.target.as_deref() == Some(target))
            .map(|(session, _)| *session)
            .filter(|session| self.is_child(request, *session));
        match (on_it.next(), on_it.next()) {
            (Some(session), None) => Ok(session),
            (Some(_), Some(_)) => Err((SERVER_ERROR, "Multiple sessions attached, specify id.")),
            (None, _) => Err((INVALID_PARAMS, "No session for given target id")),
        }
    }

    /// Makes what attaches by itself below a page nested or not, as its client asks for it.
    pub(super) fn auto_attach_below(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(nested) = self.takes_nested(request, &mut params) else { return };
        if let Some(held) = self.sessions.get_mut(&request.session) {
            held.nests = nested;
        }
        self.send(request, &params);
    }

    /// Returns whether a command asks for sessions that are nested, and makes it ask Chromium for
    /// flat ones. A client that cannot have them is told.
    pub(super) fn takes_nested(
        &mut self,
        request: &Request<'_>,
        params: &mut Params,
    ) -> Option<bool> {
        let nested = match params.insert("flatten".to_owned(), json!(true)) {
            None => true,
            Some(Value::Bool(flat)) => !flat,
            Some(_) => {
                self.refuse(request, INVALID_PARAMS, "Invalid parameters");
                return None;
            }
        };
        if nested {
            if self.depth_of(request.session) >= DEEPEST {
                let message = format!(
                    "sessions that are not flattened lie {DEEPEST} deep at most: set \"flatten\""
                );
                self.refuse(request, SERVER_ERROR, &message);
                return None;
            }
            if let Some(client) = self.clients.get_mut(&request.connection) {
                client.nests = true;
            }
        }
        Some(nested)
    }

    /// Makes a session that was just attached nested or not: as the command asks that attached
    /// it, or as everything below its parent is that attaches by itself.
    pub(super) fn nest(&mut self, child: SessionId, parent: SessionId, target: &Id) {
        // The oldest command is the one that is answered now. Ids of our own descend.
        let asked = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.session == Some(parent))
            .filter_map(|(id, pending)| match &pending.reply {
                Reply::Relay(_, Watch::Attached { target: its, nested }) if its == target => {
                    Some((*id, *nested))
                }
                _ => None,
            })
            .max();
        let nests = self.sessions.get(&parent).is_some_and(|held| held.nests);
        if let Some(held) = self.sessions.get_mut(&child) {
            held.nested = asked.map_or(nests, |(_, nested)| nested);
        }
    }

    /// Returns the sessions from this one up to its client's root.
    fn upwards(&self, session: SessionId) -> impl Iterator<Item = SessionId> {
        let parent = |session: &SessionId| self.sessions.get(session)?.parent;
        std::iter::successors(Some(session), parent)
    }

    fn is_nested(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|held| held.nested)
    }

    /// Returns the nested session that a session's messages travel in: itself, or one above.
    pub(super) fn nest_of(&self, session: SessionId) -> Option<SessionId> {
        self.upwards(session).find(|session| self.is_nested(*session))
    }

    fn depth_of(&self, session: SessionId) -> usize {
        self.upwards(session).filter(|session| self.is_nested(*session)).count()
    }

    /// Wraps a message for a client as often as its session is nested. `None` where the session is
    /// gone: what it would be wrapped in is not known any more, and as it is the client could take
    /// it for an answer to something else.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the message becomes larger than all that may wait for clients.
    pub(super) fn wrapped(&self, mut message: Bytes) -> Result<Option<Bytes>, Closed> {
        while let Some(session) = suffix::session_of(&message) {
            if !self.sessions.contains_key(&session) {
                return Ok(None);
            }
            let Some((nest, held)) =
                self.nest_of(session).and_then(|nest| Some((nest, self.sessions.get(&nest)?)))
            else {
                break;
            };
            let above = held.parent.filter(|parent| !self.is_unnamed(*parent));
            let target = held.target.as_deref().unwrap_or_default();
            message = if nest == session {
                envelope::received(nest, target, &suffix::without_session(&message), above)
            } else {
                envelope::received(nest, target, &message, above)
            }
            .into();
            if message.len() > self.budget.limit() {
                return Err(Closed);
            }
        }
        Ok(Some(message))
    }

    /// Returns whether a session is one that its client has no id for.
    fn is_unnamed(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|held| {
            held.is_root || matches!(held.owner, Owner::Browser { root: true, .. })
        })
    }
}
