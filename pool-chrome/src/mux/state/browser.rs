//! What a browser session of a client sees of the targets: discovery.

use std::collections::HashSet;

use serde::Deserialize;

use super::super::filter::TargetFilter;
use super::super::session_id::SessionId;
use super::super::target::{Id, Target};
use super::{ConnectionId, LeaseId, Owner, Relay, State};
use crate::mux::envelope;

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
