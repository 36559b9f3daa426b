//! A client's message on its way to Chromium.
//!
//! Sessions that are not flattened are handled here as well. A client that attaches without
//! `flatten` talks to the new session inside of its parent's: commands by
//! `Target.sendMessageToTarget`, everything else by events `Target.receivedMessageFromTarget`, and
//! so on for the sessions below. To Chromium all sessions are flat, so that the rules judge what is
//! inside in the same way as anything else; a message is wrapped on its way to the client.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::attach::attached_params;
use super::{BoundPage, ConnectionId, LeaseId, Owner, Relay, State};
use crate::mux::envelope::{self, Command};
use crate::mux::framing;
use crate::mux::lease_options::LeaseKind;
use crate::mux::link::{Closed, LARGE};
use crate::mux::rules::{self, SessionKind};
use crate::mux::target::{Id, SessionId};

/// The protocol's codes for errors of the caller.
pub(super) const SERVER_ERROR: i32 = -32000;
pub(super) const INVALID_PARAMS: i32 = -32602;
pub(super) const NOT_FOUND: i32 = -32601;

/// Chromium's message about a target that does not exist.
pub(super) const NO_TARGET: &str = "No target with given id found";

pub(super) type Params = Map<String, Value>;

/// A command of a client, with everything that the rules need to know about its origin.
pub(super) struct Request<'a> {
    pub(super) connection: ConnectionId,
    pub(super) lease: LeaseId,
    pub(super) kind: LeaseKind,
    /// The kind of that session.
    pub(super) on: SessionKind,
    /// The session that it is for.
    pub(super) session: SessionId,
    /// The nested session that it came in.
    pub(super) within: Option<SessionId>,
    /// The session as answers name it; `None` for the client's root.
    pub(super) visible: Option<SessionId>,
    pub(super) id: i32,
    pub(super) method: Cow<'a, str>,
    pub(super) params: Option<&'a RawValue>,
    /// The whole message.
    pub(super) text: &'a str,
    /// The same text in place, if it is too large to be copied.
    pub(super) whole: Option<&'a Bytes>,
}

/// Params as text.
pub(super) fn write(params: &Params) -> String {
    serde_json::to_string(params).expect("a JSON object can always be written to memory")
}

impl Request<'_> {
    pub(super) fn relay(&self) -> Relay {
        Relay { connection: self.connection, session: self.visible, id: self.id }
    }
}

impl State {
    /// Takes one message from a client.
    pub(crate) fn client_message(
        &mut self,
        connection: ConnectionId,
        text: &str,
        whole: Option<&Bytes>,
    ) {
        self.client_message_in(connection, None, text, whole);
    }

    /// Takes one message from a client, which may have come inside of a nested session.
    pub(super) fn client_message_in(
        &mut self,
        connection: ConnectionId,
        within: Option<SessionId>,
        text: &str,
        whole: Option<&Bytes>,
    ) {
        let Some(client) = self.leases.client(connection) else { return };
        let (lease, root, nests) = (client.lease, client.root, client.nests);
        let bare = match client.page {
            Some(BoundPage::Attached(page)) => page,
            Some(BoundPage::Attaching(_)) | None => root,
        };
        let command = match envelope::parse(text) {
            Ok(command) => command,
            Err(bad) => {
                let error = envelope::error(bad.id, bad.code, &bad.message, within);
                return self.deliver(connection, error);
            }
        };
        let (session, visible) = match &command.session {
            None => (within.unwrap_or(bare), within),
            Some(named) => match SessionId::parse(named) {
                Some(session) if ![Some(root), Some(bare), within].contains(&Some(session)) => {
                    (session, Some(session))
                }
                _ => return self.no_session(connection, command.id, within),
            },
        };
        // A session is only known inside the session in which its messages travel.
        if nests && self.sessions.nest_of(session) != within {
            return self.no_session(connection, command.id, within);
        }
        let owner = self.sessions.get(session).map(|held| held.owner);
        let on = match owner.filter(|owner| owner.connection() == Some(connection)) {
            Some(Owner::Browser { .. }) => SessionKind::Browser,
            Some(Owner::Page(_)) => {
                self.note_command(session);
                SessionKind::Page
            }
            Some(Owner::Tab { page, .. }) => {
                return self.tab_command(connection, session, page, &command);
            }
            Some(Owner::Own) | None => return self.no_session(connection, command.id, within),
        };
        let Some(held) = self.leases.get(lease) else { return };
        let Command { id, method, params, .. } = command;
        let kind = held.options.kind;
        let request = Request {
            connection,
            lease,
            kind,
            on,
            session,
            within,
            visible,
            id,
            method,
            params,
            text,
            whole,
        };
        let rule = rules::rule(&request.method, on, kind);
        self.apply(rule, &request);
    }

    /// Counts a command to a page that waits until its client has had its say.
    fn note_command(&mut self, session: SessionId) {
        if let Some(departure) = self.departure_of(session) {
            departure.note_command();
        }
    }

    fn no_session(&mut self, connection: ConnectionId, id: i32, within: Option<SessionId>) {
        let message = "Session with given id not found.";
        self.deliver(connection, envelope::error(Some(id), -32001, message, within));
    }

    /// Handles a command on a tab's session, which only we know. Puppeteer sends these and no
    /// others.
    fn tab_command(
        &mut self,
        connection: ConnectionId,
        tab: SessionId,
        page: SessionId,
        command: &Command<'_>,
    ) {
        let reply = Relay { connection, session: Some(tab), id: command.id };
        match &*command.method {
            "Target.setAutoAttach" => {
                let on = command.params.is_some_and(|params| {
                    serde_json::from_str::<serde_json::Value>(params.get())
                        .is_ok_and(|params| params["autoAttach"] == json!(true))
                });
                if on {
                    self.show_page(tab, page);
                }
                self.answer(&reply, "{}");
            }
            "Runtime.runIfWaitingForDebugger" => self.answer(&reply, "{}"),
            "Target.detachFromTarget" => {
                self.detach_for_client(connection, page);
                self.answer(&reply, "{}");
            }
            "Target.getTargetInfo" => {
                let target = self.sessions.get(tab).and_then(|held| held.target.as_ref());
                let info =
                    target.and_then(|id| self.registry.target(id)).map(|tab| tab.raw_attached());
                let info = info.unwrap_or_else(|| "{}".to_owned());
                self.answer(&reply, &format!(r#"{{"targetInfo":{info}}}"#));
            }
            other => {
                let message = format!("'{other}' wasn't found");
                let error = envelope::error(Some(command.id), -32601, &message, Some(tab));
                self.deliver(connection, error);
            }
        }
    }

    /// Shows the page below a tab, once.
    fn show_page(&mut self, tab: SessionId, page: SessionId) {
        let Some(held) = self.sessions.get_mut(tab) else { return };
        if !std::mem::take(&mut held.automatic) {
            return;
        }
        let waiting = held.waiting;
        let target = self.sessions.get(page).and_then(|held| held.target.as_ref());
        let Some(info) =
            target.and_then(|id| self.registry.target(id)).map(|page| page.raw.clone())
        else {
            return;
        };
        let params = attached_params(page, &info, waiting);
        self.emit(tab, "Target.attachedToTarget", &params);
    }
}

/// Maximum depth of nested sessions: enough for a worker of a frame of a frame of a page. Each
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
    /// Takes a message for a nested session out of the message that it came in, and judges it.
    pub(super) fn send_to_target(&mut self, request: &Request<'_>) {
        let Some(Sent { message, session_id, target_id }) = self.read(request) else { return };
        let found = match (session_id, target_id) {
            (Some(session), _) => SessionId::parse(&session)
                .filter(|session| {
                    self.sessions.is_child(*session, request.session, request.connection)
                })
                .ok_or((INVALID_PARAMS, "No session with given id")),
            (None, Some(target)) => self.only_session_on(request, &target),
            (None, None) => Err((INVALID_PARAMS, "Session id must be specified")),
        };
        let found = found.and_then(|session| {
            let flat = "When using flat protocol, messages are routed to the target via the \
                        sessionId attribute.";
            let nested = self.sessions.get(session).is_some_and(|held| held.nested);
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

    /// Returns the session that was made on a command's session for a target, or Chromium's error
    /// if there are none or several.
    pub(super) fn only_session_on(
        &self,
        request: &Request<'_>,
        target: &str,
    ) -> Result<SessionId, (i32, &'static str)> {
        let mut on_it = self.sessions.children_on(request.session, request.connection, target);
        match (on_it.next(), on_it.next()) {
            (Some(session), None) => Ok(session),
            (Some(_), Some(_)) => Err((SERVER_ERROR, "Multiple sessions attached, specify id.")),
            (None, _) => Err((INVALID_PARAMS, "No session for given target id")),
        }
    }

    /// Makes sessions that attach automatically below a page nested or not, as its client asks.
    pub(super) fn auto_attach_below(&mut self, request: &Request<'_>) {
        let Some(mut params) = self.read::<Params>(request) else { return };
        let Some(nested) = self.takes_nested(request, &mut params) else { return };
        if let Some(held) = self.sessions.get_mut(request.session) {
            held.nests = nested;
        }
        self.send(request, &params);
    }

    /// Returns whether a command asks for nested sessions, and rewrites it to ask Chromium for flat
    /// ones. A client that cannot have them gets an error.
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
            if self.sessions.depth_of(request.session) >= DEEPEST {
                let message = format!(
                    "sessions that are not flattened may be nested {DEEPEST} deep at most: \
                     set \"flatten\""
                );
                self.refuse(request, SERVER_ERROR, &message);
                return None;
            }
            if let Some(client) = self.leases.client_mut(request.connection) {
                client.nests = true;
            }
        }
        Some(nested)
    }

    /// Makes a newly attached session nested or not: as the attaching command asks, or, if it
    /// attached automatically, like everything below its parent.
    pub(super) fn nest(&mut self, child: SessionId, parent: SessionId, target: &Id) {
        let asked = self.pending.asks_nested(parent, target);
        self.sessions.nest(child, parent, asked);
    }

    /// Wraps a message for a client as often as its session is nested. Returns `None` if the
    /// session is gone: the wrapping is no longer known then, and the client could take the bare
    /// message for an answer to something else.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the message becomes larger than the whole budget for waiting messages.
    pub(super) fn wrapped(&self, mut message: Bytes) -> Result<Option<Bytes>, Closed> {
        while let Some(session) = framing::session_of(&message) {
            if !self.sessions.contains(session) {
                return Ok(None);
            }
            let Some((nest, held)) = self
                .sessions
                .nest_of(session)
                .and_then(|nest| Some((nest, self.sessions.get(nest)?)))
            else {
                break;
            };
            let above = held.parent.filter(|parent| !self.sessions.is_unnamed(*parent));
            let target = held.target.as_deref().unwrap_or_default();
            message = if nest == session {
                envelope::received(nest, target, &framing::without_session(&message), above)
            } else {
                envelope::received(nest, target, &message, above)
            };
            if message.len() > self.budget.limit() {
                return Err(Closed);
            }
        }
        Ok(Some(message))
    }
}
