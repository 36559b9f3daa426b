//! A client's message on its way to Chromium.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::lease_options::LeaseKind;
use super::super::rules::{self, SessionKind};
use super::super::session_id::SessionId;
use super::attach::attached_params;
use super::{BoundPage, ConnectionId, LeaseId, Owner, Relay, State};
use crate::mux::envelope::{self, Command};

/// A command of a client, with all that the rules need to know about where it came from.
pub(super) struct Request<'a> {
    pub(super) connection: ConnectionId,
    pub(super) lease: LeaseId,
    pub(super) kind: LeaseKind,
    /// Which kind of session that is.
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
    /// The same where it lies, if it is too large to be copied.
    pub(super) whole: Option<&'a Bytes>,
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
        let Some(client) = self.clients.get(&connection) else { return };
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
        // A session is only known where its messages travel.
        if nests && self.nest_of(session) != within {
            return self.no_session(connection, command.id, within);
        }
        let on = match self.sessions.get(&session).map(|held| held.owner) {
            Some(Owner::Browser { connection: its, .. }) if its == connection => {
                SessionKind::Browser
            }
            Some(Owner::Page(its)) if its == connection => {
                self.note_command(session);
                SessionKind::Page
            }
            Some(Owner::Tab { connection: its, page }) if its == connection => {
                return self.tab_command(connection, session, page, &command);
            }
            _ => return self.no_session(connection, command.id, within),
        };
        let Some(held) = self.leases.get(&lease) else { return };
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

    /// Counts a command to a page that waits for its client to have had its say.
    fn note_command(&mut self, session: SessionId) {
        if let Some(departure) = self.departure_of(session) {
            departure.commands += 1;
        }
    }

    fn no_session(&mut self, connection: ConnectionId, id: i32, within: Option<SessionId>) {
        let message = "Session with given id not found.";
        self.deliver(connection, envelope::error(Some(id), -32001, message, within));
    }

    /// A command on a tab's session, which is ours alone. Puppeteer sends these and no others.
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
                self.detach(page);
                self.answer(&reply, "{}");
            }
            "Target.getTargetInfo" => {
                let target = self.sessions.get(&tab).and_then(|held| held.target.as_ref());
                let info = target.and_then(|id| self.targets.get(id)).map(|tab| tab.raw_attached());
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
        let Some(held) = self.sessions.get_mut(&tab) else { return };
        if !std::mem::take(&mut held.automatic) {
            return;
        }
        let waiting = held.waiting;
        let target = self.sessions.get(&page).and_then(|held| held.target.as_ref());
        let Some(info) = target.and_then(|id| self.targets.get(id)).map(|page| page.raw.clone())
        else {
            return;
        };
        let params = attached_params(page, &info, waiting);
        self.emit(tab, "Target.attachedToTarget", &params);
    }
}
