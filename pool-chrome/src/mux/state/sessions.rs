//! Sessions on the pipe: their owners, and how they are nested.

use std::collections::{HashMap, HashSet};

use super::{ConnectionId, LeaseId, Relay};
use crate::mux::target::{Id, SessionId, TargetFilter};

/// The owner of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
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
    /// Returns the connection that a session belongs to.
    pub(super) fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Own => None,
            Self::Browser { connection, .. }
            | Self::Page(connection)
            | Self::Tab { connection, .. } => Some(connection),
        }
    }
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) owner: Owner,
    pub(super) target: Option<Id>,
    /// The session that it was made on; `None` for the root session.
    pub(super) maker: Option<SessionId>,
    /// The session on which its client believes it was made: it differs from the maker for sessions
    /// that the control session handed over.
    pub(super) parent: Option<SessionId>,
    /// It was paused when its client was told of it.
    pub(super) waiting: bool,
    /// It came by auto-attach, not by a command of its client.
    pub(super) automatic: bool,
    /// To its client it is not flattened: its messages travel inside of its parent's.
    pub(super) nested: bool,
    /// Sessions that attach automatically below it are nested too.
    pub(super) nests: bool,
    /// Commands of its client that Chromium has not answered.
    pub(super) unanswered: u32,
    /// Its client takes it for the root, and names no session for it.
    pub(super) is_root: bool,
}

/// The virtual side of a browser session: its own discovery and auto-attach, as each session of a
/// Chromium has them.
#[derive(Debug)]
pub(super) struct BrowserSession {
    pub(super) connection: ConnectionId,
    pub(super) lease: LeaseId,
    /// The session's own browser target.
    pub(super) own_target: Option<Id>,
    pub(super) discover: Option<TargetFilter>,
    /// Targets that the client was told of.
    pub(super) announced: HashSet<Id>,
    pub(super) auto_attach: Option<AutoAttach>,
    /// Existing targets that we attach to on this session for its auto-attach.
    pub(super) attaching: HashSet<Id>,
    /// Replies to `Target.setAutoAttach`, sent when all existing targets are attached.
    pub(super) auto_attach_replies: Vec<Relay>,
}

/// A client's request to `Target.setAutoAttach`.
#[derive(Clone, Debug)]
pub(super) struct AutoAttach {
    pub(super) wait: bool,
    pub(super) filter: TargetFilter,
}

impl AutoAttach {
    /// Returns `true` if auto-attach applies to targets of this type.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.filter.wants(kind) || kind == "page" && self.filter.wants_tabs()
    }
}

impl BrowserSession {
    pub(super) fn new(connection: ConnectionId, lease: LeaseId, own_target: Option<Id>) -> Self {
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

/// All sessions of a Chromium except its root session.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<SessionId, Session>,
    /// The virtual side of browser sessions of clients.
    browsers: HashMap<SessionId, BrowserSession>,
    /// Browser targets by the session on them: each session has one of its own.
    browser_targets: HashMap<SessionId, Id>,
    /// Targets that we attach to ourselves, over the root session, and how often.
    own_attaches: HashMap<Id, usize>,
}

impl Sessions {
    pub(super) fn get(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session)
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Adds a session, or gives it to another owner.
    pub(super) fn insert(
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

    /// Forgets one session; returns those that end with it.
    pub(super) fn remove(&mut self, session: SessionId) -> Vec<SessionId> {
        self.sessions.remove(&session);
        self.browsers.remove(&session);
        self.browser_targets.remove(&session);
        self.all(|held| {
            held.maker == Some(session)
                || matches!(held.owner, Owner::Tab { page, .. } if page == session)
        })
    }

    /// Returns the sessions that match a condition.
    fn all(&self, holds: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, held)| holds(held)).map(|(id, _)| *id).collect()
    }

    /// Returns all sessions of a connection.
    pub(super) fn of(&self, connection: ConnectionId) -> Vec<SessionId> {
        self.all(|held| held.owner.connection() == Some(connection))
    }

    /// Returns the sessions of a connection that are on pages, frames and workers.
    pub(super) fn pages_of(&self, connection: ConnectionId) -> Vec<SessionId> {
        self.all(|held| held.owner == Owner::Page(connection))
    }

    /// Returns all sessions on a target.
    pub(super) fn on(&self, target: &Id) -> Vec<SessionId> {
        self.all(|held| held.target.as_ref() == Some(target))
    }

    /// Returns the sessions of clients on a target that is a page, frame or worker.
    pub(super) fn pages_on(&self, target: &Id) -> Vec<SessionId> {
        self.all(|held| {
            held.target.as_ref() == Some(target) && matches!(held.owner, Owner::Page(_))
        })
    }

    /// Returns the page sessions that auto-attach gave to a browser session, directly or below a
    /// tab.
    pub(super) fn handed_to(&self, browser: SessionId) -> Vec<SessionId> {
        let below = |held: &Session| {
            let parent = held.parent?;
            match self.sessions.get(&parent)?.owner {
                Owner::Tab { .. } => self.sessions.get(&parent)?.parent,
                Owner::Own | Owner::Browser { .. } | Owner::Page(_) => Some(parent),
            }
        };
        self.all(|held| {
            held.automatic && matches!(held.owner, Owner::Page(_)) && below(held) == Some(browser)
        })
    }

    /// Returns the sessions on a target that a client got through a session of its own.
    pub(super) fn children_on(
        &self,
        parent: SessionId,
        connection: ConnectionId,
        target: &str,
    ) -> impl Iterator<Item = SessionId> {
        self.sessions
            .iter()
            .filter(move |(_, held)| held.target.as_deref() == Some(target))
            .map(|(session, _)| *session)
            .filter(move |session| self.is_child(*session, parent, connection))
    }

    /// Returns `true` if a client got a session through another one of its own.
    pub(super) fn is_child(
        &self,
        session: SessionId,
        parent: SessionId,
        connection: ConnectionId,
    ) -> bool {
        self.sessions.get(&session).is_some_and(|held| {
            held.parent == Some(parent) && held.owner.connection() == Some(connection)
        })
    }

    /// Returns the target that a session is on.
    pub(super) fn target_of(&self, session: SessionId) -> Option<&Id> {
        self.sessions.get(&session)?.target.as_ref()
    }

    /// Makes a client believe that auto-attach made a session on this parent.
    pub(super) fn set_parent(&mut self, session: SessionId, parent: SessionId, waiting: bool) {
        if let Some(held) = self.sessions.get_mut(&session) {
            held.parent = Some(parent);
            held.waiting = waiting;
            held.automatic = true;
        }
    }

    /// Returns `true` if Chromium owes a client an answer on any session of this kind of owner.
    pub(super) fn any_unanswered(&self, is_its: impl Fn(ConnectionId) -> bool) -> bool {
        self.sessions
            .values()
            .any(|held| held.unanswered > 0 && held.owner.connection().is_some_and(&is_its))
    }

    /// Assumes that nothing on a target will be answered any more.
    pub(super) fn give_up_on(&mut self, target: &Id) {
        for held in self.sessions.values_mut().filter(|held| held.target.as_ref() == Some(target)) {
            held.unanswered = 0;
        }
    }

    pub(super) fn browser(&self, session: SessionId) -> Option<&BrowserSession> {
        self.browsers.get(&session)
    }

    pub(super) fn browser_mut(&mut self, session: SessionId) -> Option<&mut BrowserSession> {
        self.browsers.get_mut(&session)
    }

    pub(super) fn insert_browser(&mut self, session: SessionId, browser: BrowserSession) {
        self.browsers.insert(session, browser);
    }

    pub(super) fn browsers(&self) -> impl Iterator<Item = (SessionId, &BrowserSession)> {
        self.browsers.iter().map(|(session, browser)| (*session, browser))
    }

    /// Returns the browser sessions whose clients know a target. With `forget`, they no longer know
    /// it afterwards.
    pub(super) fn knowing(&mut self, target: &Id, forget: bool) -> Vec<SessionId> {
        let knowing = |(session, browser): (&SessionId, &mut BrowserSession)| {
            let known = if forget {
                browser.announced.remove(target)
            } else {
                browser.announced.contains(target)
            };
            known.then_some(*session)
        };
        self.browsers.iter_mut().filter_map(knowing).collect()
    }

    /// Returns `true` if we are attaching to a target for the auto-attach of a connection.
    pub(super) fn is_attaching(&self, connection: ConnectionId, target: &Id) -> bool {
        self.browsers
            .values()
            .any(|browser| browser.connection == connection && browser.attaching.contains(target))
    }

    /// Returns `true` if a target is the browser that a client of this connection sees.
    pub(super) fn is_browser_of(&self, connection: ConnectionId, target: &Id) -> bool {
        self.browsers.values().any(|browser| {
            browser.connection == connection && browser.own_target.as_ref() == Some(target)
        })
    }

    /// Returns `true` if a client wants new pages to be paused until it resumes them.
    pub(super) fn waits_for_debugger(&self, connection: ConnectionId) -> bool {
        let waits = |auto: &AutoAttach| auto.wait && auto.wants("page");
        self.browsers
            .values()
            .filter(|browser| browser.connection == connection)
            .any(|browser| browser.auto_attach.as_ref().is_some_and(waits))
    }

    /// Notes the browser target that a session of the root's is on.
    pub(super) fn set_browser_target(&mut self, session: SessionId, target: Id) {
        self.browser_targets.insert(session, target);
    }

    pub(super) fn browser_target(&self, session: SessionId) -> Option<Id> {
        self.browser_targets.get(&session).cloned()
    }

    /// Notes that the root session is about to attach to a target by a command of ours.
    pub(super) fn expect_attach(&mut self, target: &str) {
        *self.own_attaches.entry(target.into()).or_default() += 1;
    }

    /// Forgets an expected attachment, since it has come or will not come. Returns `true` if one
    /// was expected.
    pub(super) fn forget_attach(&mut self, target: &str) -> bool {
        let Some(count) = self.own_attaches.get_mut(target) else { return false };
        *count -= 1;
        if *count == 0 {
            self.own_attaches.remove(target);
        }
        true
    }

    /// Stops expecting attachments to a target.
    pub(super) fn expect_none(&mut self, target: &str) {
        self.own_attaches.remove(target);
    }

    /// Makes a newly attached session nested or not: as the attaching command asks, or, if it
    /// attached automatically, like everything below its parent.
    pub(super) fn nest(&mut self, child: SessionId, parent: SessionId, asked: Option<bool>) {
        let nests = self.sessions.get(&parent).is_some_and(|held| held.nests);
        if let Some(held) = self.sessions.get_mut(&child) {
            held.nested = asked.unwrap_or(nests);
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

    /// Returns the nested session in which a session's messages travel: itself, or one above it.
    pub(super) fn nest_of(&self, session: SessionId) -> Option<SessionId> {
        self.upwards(session).find(|session| self.is_nested(*session))
    }

    /// Returns the number of nested sessions in which a session's messages travel.
    pub(super) fn depth_of(&self, session: SessionId) -> usize {
        self.upwards(session).filter(|session| self.is_nested(*session)).count()
    }

    /// Returns `true` if its client has no id for a session.
    pub(super) fn is_unnamed(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|held| {
            held.is_root || matches!(held.owner, Owner::Browser { root: true, .. })
        })
    }

    pub(super) fn count(&self) -> usize {
        self.sessions.len() + self.browser_targets.len()
    }

    /// Forgets all sessions.
    pub(super) fn clear(&mut self) {
        self.sessions.clear();
        self.browsers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: ConnectionId = ConnectionId(1);
    const THEIRS: ConnectionId = ConnectionId(2);

    fn id() -> SessionId {
        SessionId::invent()
    }

    #[test]
    fn what_was_made_on_a_session_goes_with_it_and_so_does_the_tab_above_a_page() {
        let mut sessions = Sessions::default();
        let (root, page, worker, tab) = (id(), id(), id(), id());
        sessions.insert(root, Owner::Browser { connection: MINE, root: true }, None, None);
        sessions.insert(page, Owner::Page(MINE), Some("p".into()), Some(root));
        sessions.insert(worker, Owner::Page(MINE), Some("w".into()), Some(page));
        sessions.insert(tab, Owner::Tab { connection: MINE, page }, None, None);
        assert_eq!(sessions.remove(root), [page]);
        let mut below = sessions.remove(page);
        below.sort_unstable();
        let mut expected = [worker, tab];
        expected.sort_unstable();
        assert_eq!(below, expected);
    }

    #[test]
    fn a_session_is_found_by_its_connection_and_by_its_target() {
        let mut sessions = Sessions::default();
        let (mine, theirs, own) = (id(), id(), id());
        let page: Id = "p".into();
        sessions.insert(mine, Owner::Page(MINE), Some(page.clone()), None);
        sessions.insert(theirs, Owner::Page(THEIRS), None, None);
        sessions.insert(own, Owner::Own, Some(page.clone()), None);
        assert_eq!(sessions.of(MINE), [mine]);
        assert_eq!(sessions.pages_of(THEIRS), [theirs]);
        assert_eq!(sessions.pages_on(&page), [mine]);
        assert_eq!(sessions.on(&page).len(), 2);
    }

    #[test]
    fn what_auto_attach_gave_below_a_tab_was_given_to_the_tabs_browser() {
        let mut sessions = Sessions::default();
        let (browser, tab, page, asked) = (id(), id(), id(), id());
        sessions.insert(browser, Owner::Browser { connection: MINE, root: true }, None, None);
        sessions.insert(page, Owner::Page(MINE), None, None);
        sessions.insert(tab, Owner::Tab { connection: MINE, page }, None, None);
        sessions.insert(asked, Owner::Page(MINE), None, Some(browser));
        sessions.set_parent(tab, browser, true);
        sessions.set_parent(page, tab, true);
        assert_eq!(sessions.handed_to(browser), [page]);
    }

    #[test]
    fn a_message_travels_in_the_next_nested_session_above() {
        let mut sessions = Sessions::default();
        let (root, outer, inner) = (id(), id(), id());
        sessions.insert(root, Owner::Browser { connection: MINE, root: true }, None, None);
        sessions.insert(outer, Owner::Page(MINE), None, Some(root));
        sessions.nest(outer, root, Some(true));
        sessions.insert(inner, Owner::Page(MINE), None, Some(outer));
        sessions.nest(inner, outer, None);
        assert_eq!(sessions.nest_of(inner), Some(outer));
        assert_eq!((sessions.depth_of(inner), sessions.depth_of(root)), (1, 0));
        assert!(sessions.is_unnamed(root) && !sessions.is_unnamed(outer));
    }

    #[test]
    fn an_attach_of_ours_is_expected_as_often_as_it_was_asked_for() {
        let mut sessions = Sessions::default();
        sessions.expect_attach("p");
        sessions.expect_attach("p");
        assert!(sessions.forget_attach("p") && sessions.forget_attach("p"));
        assert!(!sessions.forget_attach("p"));
        sessions.expect_attach("p");
        sessions.expect_none("p");
        assert!(!sessions.forget_attach("p"));
    }
}
