//! Who gets the session of a new target.
//!
//! The root session attaches to everything that is new, paused. The lease that a target belongs to
//! gets that very session if one of its clients asked for it; otherwise the target is resumed and
//! left alone. Two clients cannot share a session, so further ones get one by a command of ours.
//!
//! What a browser session sees of the targets, its discovery, is told out of the registry.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::json;

use super::lease::Warm;
use super::{ConnectionId, LeaseId, Owner, Relay, Reply, Session, State};
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
    /// It is of a page or a frame, not of a worker.
    pub(super) is_page: bool,
    /// The root session's, not one that goes with a browser session of the client.
    pub(super) handed: bool,
}

impl State {
    /// The root session was attached to a target.
    pub(super) fn attached_on_root(&mut self, session: SessionId, info: &Info, waiting: bool) {
        let target = info.target_id.clone();
        if info.kind == "browser" {
            self.browser_targets.insert(session, target);
            return;
        }
        // What attaches by itself stands still; what we attach to by a command does not.
        if !waiting && self.forget_attach(&target) {
            self.insert_session(session, Owner::Own, Some(target), None);
            return;
        }
        if !waiting && !self.targets.contains_key(&target) {
            // It was forgotten meanwhile, since it never began: it will not answer that it goes on.
            let params = json!({ "sessionId": session.as_str() });
            return self.own_command(None, "Target.detachFromTarget", &params, Reply::Nothing);
        }
        let context = info.browser_context_id.as_ref().and_then(|id| self.contexts.get(id));
        let lease = context.map(|context| context.lease).filter(|_| info.kind != "browser_ui");
        let Some(lease) = lease.filter(|lease| self.leases.contains_key(lease)) else {
            if self.is_stray(info) {
                self.close_stray(&target);
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
        let Some(held) = self.leases.get_mut(&lease) else { return false };
        if !matches!(held.warm, Warm::Creating) {
            return false;
        }
        held.warm = Warm::Attached { target: target.clone(), session, waiting };
        self.assumptions.page_attached(waiting);
        self.insert_session(session, Owner::Own, Some(target.clone()), None);
        true
    }

    /// Gives a session of the root's to a client of the lease that wants it: the one that made the
    /// target, if that is known, else the first.
    pub(super) fn offer(
        &mut self,
        lease: LeaseId,
        session: SessionId,
        target: &Id,
        waiting: bool,
        maker: Option<ConnectionId>,
    ) {
        let Some(kind) = self.targets.get(target).map(|target| target.info.kind.clone()) else {
            return self.release(session, None, None);
        };
        let mut wanting: Vec<(ConnectionId, SessionId)> = self
            .browsers
            .iter()
            .filter(|(_, browser)| browser.lease == lease)
            .filter(|(_, browser)| {
                browser.auto_attach.as_ref().is_some_and(|auto| wants(auto, &kind))
            })
            .map(|(id, browser)| (browser.connection, *id))
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
    pub(super) fn attach_for(&mut self, browser: SessionId, target: &Id) {
        if let Some(held) = self.browsers.get_mut(&browser) {
            held.attaching.insert(target.clone());
        }
        let reply = Reply::AutoAttached { browser, target: target.clone() };
        let params = json!({ "targetId": &**target, "flatten": true });
        self.own_command(Some(browser), "Target.attachToTarget", &params, reply);
    }

    /// Tells a client that it is attached. A client that wants tabs gets a session of the page's
    /// tab first, which is ours alone: Chromium attaches us to pages, not to tabs.
    pub(super) fn hand_over(
        &mut self,
        browser: SessionId,
        session: SessionId,
        target: &Id,
        mut waiting: bool,
        maker: Option<SessionId>,
    ) {
        let Some(held) = self.browsers.get(&browser) else {
            return self.release(session, Some(target.clone()), maker);
        };
        let (connection, auto) = (held.connection, held.auto_attach.clone());
        let (wait, in_tabs) =
            auto.map_or((true, false), |auto| (auto.wait, auto.filter.wants_tabs()));
        self.insert_session(session, Owner::Page(connection), Some(target.clone()), maker);
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
        let Some(page) = self.targets.get(target) else { return };
        let tab = page.tab.clone().filter(|_| in_tabs && page.info.kind == "page");
        let (shown, info) = match tab.as_ref().and_then(|tab| self.targets.get(tab)) {
            None => (session, page.raw.clone()),
            Some(tab) => {
                let info = tab.raw_attached();
                let tab_session = SessionId::invent();
                let owner = Owner::Tab { connection, page: session };
                let tab = tab.info.target_id.clone();
                self.insert_session(tab_session, owner, Some(tab), None);
                (tab_session, info)
            }
        };
        self.set_parent(shown, browser, waiting);
        if shown != session {
            self.set_parent(session, shown, waiting);
        }
        let params = attached_params(shown, &info, waiting);
        self.emit(browser, "Target.attachedToTarget", &params);
    }

    /// Resumes a target that nobody wants and leaves it. Detaching before the resumption is
    /// answered strands service and shared workers.
    pub(super) fn release(
        &mut self,
        session: SessionId,
        target: Option<Id>,
        maker: Option<SessionId>,
    ) {
        self.insert_session(session, Owner::Own, target, maker);
        let reply = Reply::Release(session);
        self.own_command(Some(session), "Runtime.runIfWaitingForDebugger", &json!({}), reply);
    }

    /// Leaves a session of a client that is gone, so that nothing of its target stands still.
    ///
    /// A worker is stranded if it is left before it has answered that it goes on. A page may never
    /// answer, as one that is busy or shows a dialog, and must not be held until then.
    pub(super) fn leave(&mut self, left: &Left) {
        let Left { session, target, is_page, handed } = left;
        let (session, is_page, handed) = (*session, *is_page, *handed);
        if is_page {
            // The whole browser leaves a dialog open when the session ends that was told of it,
            // and no other session can close it.
            let params = json!({ "accept": false });
            let method = "Page.handleJavaScriptDialog";
            self.own_command(Some(session), method, &params, Reply::Nothing);
        }
        match (handed, is_page) {
            // It goes with the browser session that it was made on.
            (false, _) => {}
            (true, false) => self.release(session, target.clone(), None),
            (true, true) => {
                self.insert_session(session, Owner::Own, None, None);
                let resume = "Runtime.runIfWaitingForDebugger";
                self.own_command(Some(session), resume, &json!({}), Reply::Nothing);
                self.detach(session);
            }
        }
    }

    /// Detaches a session by whoever made it.
    pub(super) fn detach(&mut self, session: SessionId) {
        let Some(held) = self.sessions.get(&session) else { return };
        let params = json!({ "sessionId": session.as_str() });
        self.own_command(held.maker, "Target.detachFromTarget", &params, Reply::Nothing);
    }

    /// Turns auto-attach on or off for a browser session. The client has its answer when all that
    /// exists is attached.
    pub(super) fn set_auto_attach(
        &mut self,
        browser: SessionId,
        params: AutoAttachParams,
        reply: Relay,
    ) {
        let Some(held) = self.browsers.get_mut(&browser) else { return };
        if !params.auto_attach {
            held.auto_attach = None;
            for session in self.handed_to(browser) {
                self.detach(session);
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
            state.handed_to(browser).iter().any(|session| {
                state.sessions.get(session).and_then(|held| held.target.as_ref()) == Some(id)
            })
        };
        let missing: Vec<Id> = self
            .targets
            .values()
            // Frames and dedicated workers are attached to below their pages.
            .filter(|target| !["tab", "browser", "iframe", "worker"].contains(&&*target.info.kind))
            .filter(|target| wants(&auto, &target.info.kind) && self.is_visible(target, browser))
            .filter(|target| target.info.subtype.is_none() && !has(self, target))
            .map(|target| target.info.target_id.clone())
            .collect();
        if missing.is_empty() {
            return self.answer(&reply, "{}");
        }
        if let Some(held) = self.browsers.get_mut(&browser) {
            held.auto_attach_replies.push(reply);
        }
        for target in missing {
            self.attach_for(browser, &target);
        }
    }

    /// One of the existing targets is attached, or could not be.
    pub(super) fn auto_attached(&mut self, browser: SessionId, target: &Id) {
        let Some(held) = self.browsers.get_mut(&browser) else { return };
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
    pub(super) fn deliver_held(&mut self, connection: ConnectionId) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut client.held);
        for (target, frame) in held {
            if self.is_attaching(connection, &target) {
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.held.push((target, frame));
                }
            } else {
                self.deliver(connection, frame);
            }
        }
    }

    pub(super) fn is_attaching(&self, connection: ConnectionId, target: &Id) -> bool {
        self.browsers
            .values()
            .any(|browser| browser.connection == connection && browser.attaching.contains(target))
    }

    /// A session has ended, by itself or by a command: its client learns it where it learned of
    /// the session.
    pub(super) fn session_gone(&mut self, session: SessionId) {
        let Some(held) = self.sessions.get(&session) else { return };
        let (target, parent) = (held.target.clone(), held.parent);
        if held.is_root {
            // As a Chromium says it on the socket of a page that is closed, before it closes that.
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
            }) = self.sessions.get(&parent)
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

    /// The page sessions that auto-attach gave to a browser session, directly or below a tab.
    fn handed_to(&self, browser: SessionId) -> Vec<SessionId> {
        let below = |held: &Session| {
            let parent = held.parent?;
            match self.sessions.get(&parent)?.owner {
                Owner::Tab { .. } => self.sessions.get(&parent)?.parent,
                _ => Some(parent),
            }
        };
        self.sessions
            .iter()
            .filter(|(_, held)| held.automatic && matches!(held.owner, Owner::Page(_)))
            .filter(|(_, held)| below(held) == Some(browser))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn insert_session(
        &mut self,
        session: SessionId,
        owner: Owner,
        target: Option<Id>,
        maker: Option<SessionId>,
    ) {
        let held = Session {
            owner,
            target,
            maker,
            parent: maker,
            waiting: false,
            automatic: false,
            nested: false,
            nests: false,
            unanswered: 0,
            is_root: false,
        };
        self.sessions.insert(session, held);
    }

    fn set_parent(&mut self, session: SessionId, parent: SessionId, waiting: bool) {
        if let Some(held) = self.sessions.get_mut(&session) {
            held.parent = Some(parent);
            held.waiting = waiting;
            held.automatic = true;
        }
    }
}

/// Returns `true` if auto-attach is about targets of this type.
pub(super) fn wants(auto: &AutoAttach, kind: &str) -> bool {
    auto.filter.wants(kind) || kind == "page" && auto.filter.wants_tabs()
}

/// The params of `Target.attachedToTarget`.
pub(super) fn attached_params(session: SessionId, info: &str, waiting: bool) -> String {
    format!(r#"{{"sessionId":"{session}","targetInfo":{info},"waitingForDebugger":{waiting}}}"#)
}

/// The virtual side of a browser session: its own discovery and auto-attach, as each session of a
/// Chromium has them.
#[derive(Debug)]
pub(crate) struct BrowserSession {
    pub(crate) connection: ConnectionId,
    pub(crate) lease: LeaseId,
    /// The session's own browser target.
    pub(crate) own_target: Option<Id>,
    pub(crate) discover: Option<TargetFilter>,
    /// Targets that the client was told of.
    pub(crate) announced: HashSet<Id>,
    pub(crate) auto_attach: Option<AutoAttach>,
    /// Existing targets that we attach to on this session for its auto-attach.
    pub(crate) attaching: HashSet<Id>,
    /// `Target.setAutoAttach` is answered when all that exists is attached.
    pub(crate) auto_attach_replies: Vec<Relay>,
}

/// Request of a client to `Target.setAutoAttach`.
#[derive(Clone, Debug)]
pub(crate) struct AutoAttach {
    pub(crate) wait: bool,
    pub(crate) filter: TargetFilter,
}

impl BrowserSession {
    pub(crate) fn new(connection: ConnectionId, lease: LeaseId, own_target: Option<Id>) -> Self {
        Self {
            connection,
            lease,
            own_target,
            discover: None,
            announced: HashSet::new(),
            auto_attach: None,
            attaching: HashSet::new(),
            auto_attach_replies: Vec::new(),
        }
    }
}

/// The params of `Target.setDiscoverTargets`.
#[derive(Deserialize)]
pub(crate) struct DiscoverParams {
    pub(crate) discover: bool,
    pub(crate) filter: Option<TargetFilter>,
}

impl State {
    /// Returns `true` if a target exists for this browser session.
    pub(super) fn is_visible(&self, target: &Target, session: SessionId) -> bool {
        let Some(browser) = self.browsers.get(&session) else { return false };
        self.is_visible_to(target, browser.lease, browser.connection)
    }

    pub(super) fn is_visible_to(
        &self,
        target: &Target,
        lease: LeaseId,
        connection: ConnectionId,
    ) -> bool {
        match target.info.kind.as_str() {
            "browser" => self.browsers.values().any(|browser| {
                browser.connection == connection
                    && browser.own_target.as_ref() == Some(&target.info.target_id)
            }),
            "browser_ui" => false,
            _ => !target.hidden && !target.banned && self.lease_of(target) == Some(lease),
        }
    }

    /// The lease that a target belongs to.
    pub(super) fn lease_of(&self, target: &Target) -> Option<LeaseId> {
        let context = target.info.browser_context_id.as_ref()?;
        self.contexts.get(context).map(|context| context.lease)
    }

    /// Starts or ends the discovery of a browser session; what exists is told at once.
    pub(super) fn set_discover(&mut self, session: SessionId, params: DiscoverParams) {
        let Some(browser) = self.browsers.get_mut(&session) else { return };
        browser.announced.clear();
        browser.discover = params.discover.then(|| params.filter.unwrap_or_default());
        let existing: Vec<Id> = self.targets.keys().cloned().collect();
        for target in existing {
            self.announce_to(session, &target, "Target.targetCreated");
        }
    }

    /// Tells everyone whom it concerns of a target, for the first time or again.
    pub(super) fn announce(&mut self, target: &Id, method: &'static str) {
        let sessions: Vec<SessionId> = self.browsers.keys().copied().collect();
        for session in sessions {
            self.announce_to(session, target, method);
        }
    }

    fn announce_to(&mut self, session: SessionId, id: &Id, method: &'static str) {
        let Some(target) = self.targets.get(id) else { return };
        if !self.is_visible(target, session) {
            return;
        }
        let Some(browser) = self.browsers.get(&session) else { return };
        if !browser.discover.as_ref().is_some_and(|filter| filter.wants(&target.info.kind)) {
            return;
        }
        let known = browser.announced.contains(id);
        let method = match (known, method) {
            (true, "Target.targetCreated") => return,
            (true, changed) => changed,
            // The first sight is always a creation: it may have been hidden until now.
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
        if let Some(browser) = self.browsers.get_mut(&session) {
            browser.announced.insert(id.clone());
        }
        self.emit(session, method, &format!(r#"{{"targetInfo":{info}}}"#));
    }

    /// Tells those who know a target that it is gone or has crashed.
    pub(super) fn announce_end(&mut self, id: &Id, method: &'static str, params: &str) {
        let gone = method == "Target.targetDestroyed";
        let knowing = |(session, browser): (&SessionId, &mut BrowserSession)| {
            let known =
                if gone { browser.announced.remove(id) } else { browser.announced.contains(id) };
            known.then_some(*session)
        };
        let sessions: Vec<SessionId> = self.browsers.iter_mut().filter_map(knowing).collect();
        for session in sessions {
            self.emit(session, method, params);
        }
    }

    /// Sends an event to the client, as if it came on this session.
    pub(super) fn emit(&mut self, session: SessionId, method: &str, params: &str) {
        let Some(held) = self.sessions.get(&session) else { return };
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
