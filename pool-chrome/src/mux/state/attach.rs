//! The sessions of new targets, and the clients that get them.
//!
//! The root session attaches to every new target, paused. The lease that a target belongs to gets
//! that very session if one of its clients asked for it; otherwise the target is resumed and left
//! alone. Two clients cannot share a session, so further ones get theirs through a command of ours.
//!
//! The discovery of a browser session, which is its view of the targets, is answered from the
//! registry.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{
    AutoAttach, BrowserSession, ConnectionId, LeaseId, Owner, Relay, Reply, Session, State, Warm,
};
use crate::mux::end::EndReason;
use crate::mux::envelope;
use crate::mux::target::{Id, Info, SessionId, Target, TargetFilter};

/// The params of `Target.setAutoAttach`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AutoAttachParams {
    pub(crate) auto_attach: bool,
    pub(crate) wait_for_debugger_on_start: bool,
    #[serde(default)]
    pub(crate) flatten: bool,
    pub(crate) filter: Option<TargetFilter>,
}

/// A session of a client that is gone.
pub(super) struct Left {
    pub(super) session: SessionId,
    pub(super) target: Option<Id>,
    /// It is on a page or a frame, not on a worker.
    pub(super) is_page: bool,
    /// It belongs to the root session, rather than to a browser session of the client.
    pub(super) handed: bool,
}

impl State {
    /// Handles an attachment of the root session to a target.
    pub(super) fn attached_on_root(&mut self, session: SessionId, info: &Info, waiting: bool) {
        let target = info.target_id.clone();
        if info.kind == "browser" {
            self.sessions.set_browser_target(session, target);
            return;
        }
        // Targets attached automatically are paused; those that we attach to by a command are not.
        if !waiting && self.sessions.forget_attach(&target) {
            self.sessions.insert(session, Owner::Own, Some(target), None);
            return;
        }
        if !waiting && self.registry.target(&target).is_none() {
            // It was forgotten in the meantime, since it never started: it will not answer that it
            // has resumed.
            let params = json!({ "sessionId": session.as_str() });
            return self.own_command(None, "Target.detachFromTarget", &params, Reply::Nothing);
        }
        let context = info.browser_context_id.as_ref();
        let lease = context.and_then(|id| self.registry.lease_of_context(id));
        let lease = lease.filter(|_| info.kind != "browser_ui");
        let Some(lease) = lease.filter(|lease| self.leases.contains(*lease)) else {
            if self.is_stray(info) {
                self.close_target(&target);
            }
            return self.release(session, Some(target), None);
        };
        if self.ban_if_forbidden(&target) {
            return self.release(session, Some(target), None);
        }
        if info.kind == "page" && self.keep_warm(lease, session, &target, waiting) {
            return;
        }
        self.offer(lease, session, &target, waiting, None);
    }

    /// Keeps the first page of a lease out of sight, paused, until its client asks for one.
    fn keep_warm(
        &mut self,
        lease: LeaseId,
        session: SessionId,
        target: &Id,
        waiting: bool,
    ) -> bool {
        let Some(held) = self.leases.get_mut(lease) else { return false };
        if !matches!(held.warm, Warm::Creating) {
            return false;
        }
        held.warm = Warm::Attached { target: target.clone(), session, waiting };
        self.assumptions.page_attached(waiting);
        self.sessions.insert(session, Owner::Own, Some(target.clone()), None);
        true
    }

    /// Gives a session of the root's to a client of the lease that wants it: the one that made the
    /// target, if that is known, otherwise the first.
    pub(super) fn offer(
        &mut self,
        lease: LeaseId,
        session: SessionId,
        target: &Id,
        waiting: bool,
        maker: Option<ConnectionId>,
    ) {
        let Some(kind) = self.registry.target(target).map(|target| target.info.kind.clone()) else {
            return self.release(session, None, None);
        };
        let mut wanting: Vec<(ConnectionId, SessionId)> = self
            .sessions
            .browsers()
            .filter(|(_, browser)| browser.lease == lease)
            .filter(|(_, browser)| {
                browser.auto_attach.as_ref().is_some_and(|auto| auto.wants(&kind))
            })
            .map(|(session, browser)| (browser.connection, session))
            .collect();
        wanting.sort_by_key(|(connection, _)| (Some(*connection) != maker, *connection));
        let Some(((_, first), others)) = wanting.split_first() else {
            return self.release(session, Some(target.clone()), None);
        };
        self.hand_over(*first, session, target, waiting, None);
        for (_, other) in others {
            self.attach_for(*other, target);
        }
    }

    /// Attaches to a target that exists, because a client auto-attaches.
    fn attach_for(&mut self, browser: SessionId, target: &Id) {
        if let Some(held) = self.sessions.browser_mut(browser) {
            held.attaching.insert(target.clone());
        }
        let reply = Reply::AutoAttached { browser, target: target.clone() };
        let params = json!({ "targetId": &**target, "flatten": true });
        self.own_command(Some(browser), "Target.attachToTarget", &params, reply);
    }

    /// Tells a client that it is attached. A client that wants tabs first gets a session on the
    /// page's tab, which only we know: Chromium attaches us to pages, not to tabs.
    pub(super) fn hand_over(
        &mut self,
        browser: SessionId,
        session: SessionId,
        target: &Id,
        mut waiting: bool,
        maker: Option<SessionId>,
    ) {
        let Some(held) = self.sessions.browser(browser) else {
            return self.release(session, Some(target.clone()), maker);
        };
        let (connection, auto) = (held.connection, held.auto_attach.clone());
        let (wait, in_tabs) =
            auto.map_or((true, false), |auto| (auto.wait, auto.filter.wants_tabs()));
        self.sessions.insert(session, Owner::Page(connection), Some(target.clone()), maker);
        self.apply_to_new_page(connection, session);
        if waiting && !wait {
            self.own_command(
                Some(session),
                "Runtime.runIfWaitingForDebugger",
                &json!({}),
                Reply::Nothing,
            );
            waiting = false;
        }
        let Some(page) = self.registry.target(target) else { return };
        let tab = page.tab.clone().filter(|_| in_tabs && page.info.kind == "page");
        let (shown, info) = match tab.as_ref().and_then(|tab| self.registry.target(tab)) {
            None => (session, page.raw.clone()),
            Some(tab) => {
                let info = tab.raw_attached();
                let tab_session = SessionId::invent();
                let owner = Owner::Tab { connection, page: session };
                let tab = tab.info.target_id.clone();
                self.sessions.insert(tab_session, owner, Some(tab), None);
                (tab_session, info)
            }
        };
        self.sessions.set_parent(shown, browser, waiting);
        if shown != session {
            self.sessions.set_parent(session, shown, waiting);
        }
        let params = attached_params(shown, &info, waiting);
        self.emit(browser, "Target.attachedToTarget", &params);
    }

    /// Resumes a target that nobody wants, and detaches from it. Detaching before the resumption is
    /// answered strands service and shared workers.
    pub(super) fn release(
        &mut self,
        session: SessionId,
        target: Option<Id>,
        maker: Option<SessionId>,
    ) {
        self.sessions.insert(session, Owner::Own, target, maker);
        let reply = Reply::Release(session);
        self.own_command(Some(session), "Runtime.runIfWaitingForDebugger", &json!({}), reply);
    }

    /// Closes a session of a client that is gone, so that nothing of its target stays paused.
    ///
    /// A worker is stranded if it is left before it has answered that it has resumed. A page may
    /// never answer, if it is busy or shows a dialog, and must not be held until it does.
    pub(super) fn leave(&mut self, left: &Left) {
        let Left { session, target, is_page, handed } = left;
        let (session, is_page, handed) = (*session, *is_page, *handed);
        if is_page {
            // If the session that was told of a dialog ends, the whole browser leaves the dialog
            // open, and no other session can close it.
            let params = json!({ "accept": false });
            let method = "Page.handleJavaScriptDialog";
            self.own_command(Some(session), method, &params, Reply::Nothing);
        }
        match (handed, is_page) {
            // It ends with the browser session that it was made on.
            (false, _) => {}
            (true, false) => self.release(session, target.clone(), None),
            (true, true) => {
                self.sessions.insert(session, Owner::Own, None, None);
                let resume = "Runtime.runIfWaitingForDebugger";
                self.own_command(Some(session), resume, &json!({}), Reply::Nothing);
                self.detach(session);
            }
        }
    }

    /// Detaches a session, through the session that it was made on.
    pub(super) fn detach(&mut self, session: SessionId) {
        let Some(held) = self.sessions.get(session) else { return };
        let params = json!({ "sessionId": session.as_str() });
        self.own_command(held.maker, "Target.detachFromTarget", &params, Reply::Nothing);
    }

    /// Detaches a session that its client no longer wants.
    pub(super) fn detach_for_client(&mut self, client: ConnectionId, session: SessionId) {
        let Some(link) = self.leases.client(client).map(|client| Arc::clone(&client.link)) else {
            return;
        };
        self.behind_client(&link, |state| state.detach(session));
    }

    /// Turns auto-attach on or off for a browser session. The client gets its answer when all
    /// existing targets are attached.
    pub(super) fn set_auto_attach(
        &mut self,
        browser: SessionId,
        params: AutoAttachParams,
        reply: Relay,
    ) {
        let Some(held) = self.sessions.browser_mut(browser) else { return };
        if !params.auto_attach {
            held.auto_attach = None;
            for session in self.sessions.handed_to(browser) {
                self.detach_for_client(reply.connection, session);
            }
            return self.answer(&reply, "{}");
        }
        let auto = AutoAttach {
            wait: params.wait_for_debugger_on_start,
            filter: params.filter.unwrap_or_default(),
        };
        held.auto_attach = Some(auto.clone());
        let has = |state: &Self, target: &Target| {
            let id = &target.info.target_id;
            let handed = state.sessions.handed_to(browser);
            handed.iter().any(|session| state.sessions.target_of(*session) == Some(id))
        };
        let missing: Vec<Id> = self
            .registry
            .targets()
            // Frames and dedicated workers are attached to below their pages.
            .filter(|target| !["tab", "browser", "iframe", "worker"].contains(&&*target.info.kind))
            .filter(|target| auto.wants(&target.info.kind) && self.is_visible(target, browser))
            .filter(|target| target.info.subtype.is_none() && !has(self, target))
            .map(|target| target.info.target_id.clone())
            .collect();
        if missing.is_empty() {
            return self.answer(&reply, "{}");
        }
        if let Some(held) = self.sessions.browser_mut(browser) {
            held.auto_attach_replies.push(reply);
        }
        for target in missing {
            self.attach_for(browser, &target);
        }
    }

    /// Notes that one of the existing targets is attached, or could not be.
    pub(super) fn auto_attached(&mut self, browser: SessionId, target: &Id) {
        let Some(held) = self.sessions.browser_mut(browser) else { return };
        held.attaching.remove(target);
        let connection = held.connection;
        if held.attaching.is_empty() {
            for reply in std::mem::take(&mut held.auto_attach_replies) {
                self.answer(&reply, "{}");
            }
        }
        self.deliver_held(connection);
    }

    /// Delivers replies whose target is attached by now.
    fn deliver_held(&mut self, connection: ConnectionId) {
        let Some(client) = self.leases.client_mut(connection) else { return };
        if client.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut client.held);
        for (target, frame) in held {
            if self.sessions.is_attaching(connection, &target) {
                if let Some(client) = self.leases.client_mut(connection) {
                    client.held.push((target, frame));
                }
            } else {
                self.deliver(connection, frame);
            }
        }
    }

    /// Handles the end of a session, by itself or by a command: its client is told where it was
    /// told of the session.
    pub(super) fn session_gone(&mut self, session: SessionId) {
        let Some(held) = self.sessions.get(session) else { return };
        let (target, parent) = (held.target.clone(), held.parent);
        if held.is_root {
            // A Chromium says the same on the socket of a closed page, before it closes the socket.
            let connection = held.owner.connection();
            self.emit(session, "Inspector.detached", r#"{"reason":"target_closed"}"#);
            self.forget_session(session);
            if let Some(connection) = connection {
                self.close_connection(connection, EndReason::PageClosed);
            }
            return;
        } else if let Some(parent) = parent {
            self.emit_detached(parent, session, target.as_ref());
            if let Some(Session {
                owner: Owner::Tab { .. }, target, parent: Some(browser), ..
            }) = self.sessions.get(parent)
            {
                let (target, browser) = (target.clone(), *browser);
                self.emit_detached(browser, parent, target.as_ref());
            }
        }
        self.forget_session(session);
    }

    fn emit_detached(&mut self, parent: SessionId, session: SessionId, target: Option<&Id>) {
        let params = json!({ "sessionId": session.as_str(), "targetId": target.map(|id| &**id) });
        self.emit(parent, "Target.detachedFromTarget", &params.to_string());
    }
}

/// Returns the params of `Target.attachedToTarget`.
pub(super) fn attached_params(session: SessionId, info: &str, waiting: bool) -> String {
    format!(r#"{{"sessionId":"{session}","targetInfo":{info},"waitingForDebugger":{waiting}}}"#)
}

/// The params of `Target.setDiscoverTargets`.
#[derive(Deserialize)]
pub(crate) struct DiscoverParams {
    pub(crate) discover: bool,
    pub(crate) filter: Option<TargetFilter>,
}

impl State {
    /// Returns `true` if a target exists for this browser session.
    fn is_visible(&self, target: &Target, session: SessionId) -> bool {
        let Some(browser) = self.sessions.browser(session) else { return false };
        self.is_visible_to(target, browser.lease, browser.connection)
    }

    pub(super) fn is_visible_to(
        &self,
        target: &Target,
        lease: LeaseId,
        connection: ConnectionId,
    ) -> bool {
        match target.info.kind.as_str() {
            "browser" => self.sessions.is_browser_of(connection, &target.info.target_id),
            "browser_ui" => false,
            _ => !target.hidden && !target.banned && self.registry.lease_of(target) == Some(lease),
        }
    }

    /// Starts or ends the discovery of a browser session; existing targets are announced at once.
    pub(super) fn set_discover(&mut self, session: SessionId, params: DiscoverParams) {
        let Some(browser) = self.sessions.browser_mut(session) else { return };
        browser.announced.clear();
        browser.discover = params.discover.then(|| params.filter.unwrap_or_default());
        for target in self.registry.target_ids() {
            self.announce_to(session, &target, "Target.targetCreated");
        }
    }

    /// Announces a target, or a change of one, to everyone concerned.
    pub(super) fn announce(&mut self, target: &Id, method: &'static str) {
        let sessions: Vec<SessionId> =
            self.sessions.browsers().map(|(session, _)| session).collect();
        for session in sessions {
            self.announce_to(session, target, method);
        }
    }

    fn announce_to(&mut self, session: SessionId, id: &Id, method: &'static str) {
        let Some(target) = self.registry.target(id) else { return };
        if !self.is_visible(target, session) {
            return;
        }
        let Some(browser) = self.sessions.browser(session) else { return };
        if !browser.discover.as_ref().is_some_and(|filter| filter.wants(&target.info.kind)) {
            return;
        }
        let known = browser.announced.contains(id);
        let method = match (known, method) {
            (true, "Target.targetCreated") => return,
            (true, changed) => changed,
            // The first announcement is always a creation: the target may have been hidden until
            // now.
            (false, _) => "Target.targetCreated",
        };
        let in_tabs = |browser: &BrowserSession| {
            browser.auto_attach.as_ref().is_some_and(|auto| auto.filter.wants_tabs())
        };
        let info = if target.info.kind == "tab" && in_tabs(browser) {
            target.raw_attached()
        } else {
            target.raw.clone()
        };
        if let Some(browser) = self.sessions.browser_mut(session) {
            browser.announced.insert(id.clone());
        }
        self.emit(session, method, &format!(r#"{{"targetInfo":{info}}}"#));
    }

    /// Tells those who know a target that it is gone or has crashed.
    pub(super) fn announce_end(&mut self, id: &Id, method: &'static str, params: &str) {
        let gone = method == "Target.targetDestroyed";
        let sessions = self.sessions.knowing(id, gone);
        for session in sessions {
            self.emit(session, method, params);
        }
    }

    /// Sends an event to the client, as if it came on this session.
    pub(super) fn emit(&mut self, session: SessionId, method: &str, params: &str) {
        let Some(held) = self.sessions.get(session) else { return };
        let (connection, visible) = match held.owner {
            Owner::Browser { connection, root: true } => (connection, None),
            Owner::Page(connection) if held.is_root => (connection, None),
            Owner::Browser { connection, root: false }
            | Owner::Tab { connection, .. }
            | Owner::Page(connection) => (connection, Some(session)),
            Owner::Own => return,
        };
        self.deliver(connection, envelope::event(method, params, visible));
    }
}
