//! Events that change the registry, from the root session and from sessions of clients; and pages
//! that nobody asked for.
//!
//! In `chromium`, the keys that a client presses reach the window as well: Ctrl+N opens a page in
//! the real profile, Ctrl+T the new tab page, F12 the developer tools. A page that is in no lease
//! is closed, or it would stay for ever; a page that a shared lease may not visit is closed before
//! its client learns of it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::{BoundPage, BrowserSession, ConnectionId, Lease, Owner, Reply, State, Warm};
use crate::mux::framing;
use crate::mux::lease_options::LeaseKind;
use crate::mux::target::{
    AttachedParams, GoneParams, Id, Info, InfoParams, Message, SessionId, Target,
};

impl State {
    pub(super) fn root_event(&mut self, method: &str, params: &RawValue) {
        match method {
            "Target.targetCreated" => self.target_changed("Target.targetCreated", params),
            "Target.targetInfoChanged" => self.target_changed("Target.targetInfoChanged", params),
            "Target.targetDestroyed" => self.target_destroyed(params),
            "Target.targetCrashed" => self.target_crashed(params),
            "Target.attachedToTarget" => {
                let Some((session, info, waiting)) = self.read_attached(params) else { return };
                self.attached_on_root(session, &info, waiting);
            }
            "Target.detachedFromTarget" => {
                if let Some(session) =
                    gone(params).and_then(|gone| SessionId::parse(&gone.session_id))
                {
                    self.session_gone(session);
                }
            }
            "Browser.downloadWillBegin" => self.download_begins(params),
            "Browser.downloadProgress" => self.download_goes_on(params),
            _ => {}
        }
    }

    /// Reads `Target.attachedToTarget` and adopts its information about the target.
    fn read_attached(&mut self, params: &RawValue) -> Option<(SessionId, Info, bool)> {
        let params: AttachedParams<'_> = serde_json::from_str(params.get()).ok()?;
        let session = SessionId::parse(&params.session_id)?;
        let info: Info = serde_json::from_str(params.target_info.get()).ok()?;
        if let Some(target) = self.registry.target_mut(&info.target_id) {
            target.update(info.clone(), params.target_info);
        }
        Some((session, info, params.waiting_for_debugger))
    }

    fn target_changed(&mut self, method: &'static str, params: &RawValue) {
        let Ok(params) = serde_json::from_str::<InfoParams<'_>>(params.get()) else { return };
        let raw = params.target_info;
        let Ok(info) = serde_json::from_str::<Info>(raw.get()) else { return };
        let id = info.target_id.clone();
        match self.registry.target_mut(&id) {
            Some(target) => {
                let stays = target.closing && target.info.url != info.url;
                target.update(info, raw);
                if stays {
                    self.close_target(&id);
                }
            }
            // It was forgotten because it never started, so it is not new: see `forget_ghost`.
            None if method == "Target.targetInfoChanged" && info.kind.ends_with("worker") => return,
            None => self.insert_target(info, raw),
        }
        self.follow_tab(&id);
        if !self.ban_if_forbidden(&id) {
            self.announce(&id, method);
        }
    }

    fn insert_target(&mut self, info: Info, raw: &RawValue) {
        let id = info.target_id.clone();
        let mut target = Target::new(info, raw);
        let lease = self.registry.lease_of(&target).and_then(|lease| self.leases.get_mut(lease));
        let mut invented = None;
        if let Some(lease) = lease {
            match target.info.kind.as_str() {
                "tab" => {
                    target.hidden = matches!(lease.warm, Warm::Creating);
                    lease.new_tab = Some(id);
                }
                "page" => {
                    target.hidden = matches!(lease.warm, Warm::Creating);
                    // Chromium does not name the tab of a page, but it announces the tab right
                    // before.
                    target.tab = lease.new_tab.take();
                    if target.tab.is_none() && target.info.subtype.is_none() {
                        let mut tab = Target::invented_tab(&target.info);
                        tab.hidden = target.hidden;
                        target.tab = Some(tab.info.target_id.clone());
                        invented = Some(tab);
                    }
                }
                _ => {}
            }
        }
        if let Some(tab) = invented {
            let tab_id = tab.info.target_id.clone();
            self.registry.insert_target(tab);
            self.announce(&tab_id, "Target.targetCreated");
        }
        self.registry.insert_target(target);
    }

    /// Copies changes of a page to the tab that we made up for it.
    fn follow_tab(&mut self, page: &Id) {
        let Some(page) = self.registry.target(page) else { return };
        let Some(tab) = page.tab.as_ref().and_then(|tab| self.registry.target(tab)) else { return };
        if !tab.invented || (&tab.info.title, &tab.info.url) == (&page.info.title, &page.info.url) {
            return;
        }
        let id = tab.info.target_id.clone();
        let mut fresh = Target::invented_tab(&page.info);
        fresh.hidden = tab.hidden;
        fresh.raw = fresh.raw.replacen(&*fresh.info.target_id, &id, 1);
        fresh.info.target_id = id.clone();
        self.registry.insert_target(fresh);
        self.announce(&id, "Target.targetInfoChanged");
    }

    fn target_destroyed(&mut self, params: &RawValue) {
        let Some(gone) = gone(params) else { return };
        let id: Id = Arc::from(gone.target_id);
        self.announce_end(&id, "Target.targetDestroyed", params.get());
        self.registry.end_departure(&id);
        let Some(target) = self.registry.remove_target(&id) else { return };
        if let Some(lease) = self.registry.lease_of(&target).and_then(|id| self.leases.get_mut(id))
        {
            lease.remember_past(id.clone());
            lease.warm.forget(&id);
        }
        let tab =
            target.tab.filter(|tab| self.registry.target(tab).is_some_and(|tab| tab.invented));
        if let Some(tab) = tab {
            let params = json!({ "targetId": &*tab }).to_string();
            self.announce_end(&tab, "Target.targetDestroyed", &params);
            self.registry.remove_target(&tab);
        }
    }

    fn target_crashed(&mut self, params: &RawValue) {
        let Some(gone) = gone(params) else { return };
        let id: Id = Arc::from(gone.target_id);
        let lease = self.registry.target(&id).and_then(|target| self.registry.lease_of(target));
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(lease)) {
            lease.crashed = true;
        }
        // What its renderer has not answered by now, it never will.
        self.sessions.give_up_on(&id);
        self.announce_end(&id, "Target.targetCrashed", params.get());
    }

    /// Handles a `Target` event on a session of a page, frame or worker, whose children come and go
    /// there.
    pub(super) fn page_target_event(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        message: Bytes,
    ) {
        let is_root = self.sessions.get(session).is_some_and(|held| held.is_root);
        let Ok(parsed) = serde_json::from_slice::<Message<'_>>(&message) else { return };
        let Some(params) = parsed.params else { return };
        match parsed.method {
            "Target.attachedToTarget" => {
                let Some((child, info, _)) = self.read_attached(params) else { return };
                if !self.is_own_child(connection, &info) {
                    return self.release(child, None, Some(session));
                }
                let target = info.target_id;
                let owner = Owner::Page(connection);
                self.sessions.insert(child, owner, Some(target.clone()), Some(session));
                self.nest(child, session, &target);
                self.apply_to_new_page(connection, child);
            }
            "Target.detachedFromTarget" => {
                let child = gone(params).and_then(|gone| SessionId::parse(&gone.session_id));
                let Some(child) = child.filter(|child| self.sessions.contains(*child)) else {
                    return;
                };
                self.forget_session(child);
            }
            "Target.receivedMessageFromTarget" => return,
            _ => {
                // Discovery on a page's session is refused, so nothing else is expected; anything
                // that comes all the same must at least concern the client's own targets.
                let target = self.named_target(params);
                let own = target.is_some_and(|id| self.is_own_target(connection, &id));
                if !own {
                    return;
                }
            }
        }
        if is_root {
            self.deliver(connection, framing::without_session(&message));
        } else {
            self.deliver(connection, message);
        }
    }

    /// Notes that a connection is attached to the page that stands for its root.
    fn bound(&mut self, connection: ConnectionId, child: SessionId, info: &Info, maker: SessionId) {
        let target = Some(info.target_id.clone());
        self.sessions.insert(child, Owner::Page(connection), target, Some(maker));
        if let Some(held) = self.sessions.get_mut(child) {
            held.is_root = true;
        }
        if let Some(client) = self.leases.client_mut(connection) {
            client.page = Some(BoundPage::Attached(child));
        }
        self.apply_to_new_page(connection, child);
    }

    /// Returns `true` if a target is the one that a connection is being bound to.
    fn is_bound(&self, connection: ConnectionId, target: &Id) -> bool {
        let page = self.leases.client(connection).and_then(|client| client.page.as_ref());
        matches!(page, Some(BoundPage::Attaching(bound)) if bound == target)
    }

    /// Returns `true` if a child is in a context of the client's lease. Without a context of its
    /// own, it is in its parent's.
    fn is_own_child(&self, connection: ConnectionId, info: &Info) -> bool {
        let Some(client) = self.leases.client(connection) else { return false };
        info.browser_context_id
            .as_ref()
            .is_none_or(|context| self.registry.is_context_of(client.lease, context))
    }

    /// Handles an event on a browser session that may concern others, or things that the client
    /// does not know.
    pub(super) fn browser_session_event(&mut self, session: SessionId, message: &Bytes) {
        let Ok(parsed) = serde_json::from_slice::<Message<'_>>(message) else { return };
        let Some(params) = parsed.params else { return };
        let Some(browser) = self.sessions.browser(session) else { return };
        let connection = browser.connection;
        match parsed.method {
            "Target.attachedToTarget" => {
                let Some((child, info, waiting)) = self.read_attached(params) else { return };
                self.attached_on_browser(session, child, &info, waiting, params);
            }
            "Target.detachedFromTarget" => {
                if let Some(child) =
                    gone(params).and_then(|gone| SessionId::parse(&gone.session_id))
                {
                    self.session_gone(child);
                }
            }
            "Browser.downloadWillBegin" | "Browser.downloadProgress" => {
                self.download_event(connection, session, parsed.method, params, message);
            }
            // Targets are announced from the registry; the session's own discovery is never on.
            _ => {}
        }
    }

    /// Handles the attachment of a browser session to a target: by its client, or by us for its
    /// auto-attach.
    fn attached_on_browser(
        &mut self,
        session: SessionId,
        child: SessionId,
        info: &Info,
        waiting: bool,
        params: &RawValue,
    ) {
        let Some(browser) = self.sessions.browser(session) else { return };
        let (connection, lease) = (browser.connection, browser.lease);
        if self.is_bound(connection, &info.target_id) {
            return self.bound(connection, child, info, session);
        }
        if browser.attaching.contains(&info.target_id) {
            let target = info.target_id.clone();
            return self.hand_over(session, child, &target, waiting, Some(session));
        }
        if info.kind == "browser" {
            let owner = Owner::Browser { connection, root: false };
            self.sessions.insert(child, owner, Some(info.target_id.clone()), Some(session));
            let fresh = BrowserSession::new(connection, lease, Some(info.target_id.clone()));
            self.sessions.insert_browser(child, fresh);
        } else if self.is_own_target(connection, &info.target_id)
            && !self.ban_if_forbidden(&info.target_id)
        {
            let target = Some(info.target_id.clone());
            self.sessions.insert(child, Owner::Page(connection), target, Some(session));
            self.apply_to_new_page(connection, child);
        } else {
            return self.release(child, None, Some(session));
        }
        self.nest(child, session, &info.target_id);
        self.emit(session, "Target.attachedToTarget", params.get());
    }

    /// Returns the target that an event is about.
    fn named_target(&self, params: &RawValue) -> Option<Id> {
        if let Ok(params) = serde_json::from_str::<InfoParams<'_>>(params.get()) {
            let info: Info = serde_json::from_str(params.target_info.get()).ok()?;
            return Some(info.target_id);
        }
        gone(params).map(|gone| Arc::from(gone.target_id))
    }

    /// Returns `true` if a client may know of a target.
    pub(super) fn is_own_target(&self, connection: ConnectionId, target: &str) -> bool {
        let Some(client) = self.leases.client(connection) else { return false };
        self.registry
            .target(target)
            .is_some_and(|target| self.is_visible_to(target, client.lease, connection))
    }

    /// Applies to a new page session what its client had set for all of them.
    pub(super) fn apply_to_new_page(&mut self, connection: ConnectionId, session: SessionId) {
        if self.leases.client(connection).is_some_and(|client| client.ignore_certificates) {
            self.ignore_certificates(session, true);
        }
    }

    pub(super) fn ignore_certificates(&mut self, session: SessionId, ignore: bool) {
        let params = json!({ "ignore": ignore });
        let method = "Security.setIgnoreCertificateErrors";
        self.own_command(Some(session), method, &params, Reply::Nothing);
    }
}

fn gone(params: &RawValue) -> Option<GoneParams> {
    serde_json::from_str(params.get()).ok()
}

/// The schemes of Chromium's own pages. `chrome-error` is not among them: it is the scheme of a
/// page that failed to load.
const OWN_SCHEMES: &[&str] = &["chrome", "chrome-untrusted", "chrome-search", "devtools"];

/// The schemes of pages that need no further look, and the empty one of a page that has loaded
/// nothing yet.
const LOADED: &[&str] = &["http", "https", "data", "blob", "about", "chrome-error", ""];

impl State {
    /// Returns `true` if a new target is a page in a context that belongs to nobody.
    pub(super) fn is_stray(&self, info: &Info) -> bool {
        matches!(&*info.kind, "page" | "other")
            && info.browser_context_id.as_ref().is_some_and(|id| self.registry.is_nobodys(id))
    }

    /// Bans a target that has come to show what its lease may not see. Returns `true` if it is
    /// banned.
    pub(super) fn ban_if_forbidden(&mut self, id: &Id) -> bool {
        let Some(target) = self.registry.target(id) else { return false };
        if target.banned {
            return true;
        }
        let shared = self
            .registry
            .lease_of(target)
            .and_then(|lease| self.leases.get(lease))
            .filter(|lease| lease.options.kind == LeaseKind::Shared);
        let Some(rule) = shared.map(Lease::address_rule) else { return false };
        let url = target.info.url.as_str();
        let scheme = url.split(':').next().unwrap_or_default();
        let may_show = match &*target.info.kind {
            "page" => LOADED.contains(&scheme) || rule.allows(url),
            _ => !OWN_SCHEMES.contains(&scheme) && (scheme != "file" || rule.files),
        };
        if may_show {
            return false;
        }
        if let Some(target) = self.registry.target_mut(id) {
            target.banned = true;
        }
        self.close_target(id);
        // Nobody may read it until it is closed.
        for session in self.sessions.pages_on(id) {
            self.session_gone(session);
        }
        true
    }

    /// Has Chromium close a target, without waiting for it.
    pub(super) fn close_target(&mut self, target: &Id) {
        self.note_closing(target);
        let params = json!({ "targetId": &**target });
        self.own_command(None, "Target.closeTarget", &params, Reply::Nothing);
    }

    /// Notes that Chromium is about to be told to close a target.
    pub(super) fn note_closing(&mut self, target: &Id) {
        if let Some(target) = self.registry.target_mut(target) {
            target.closing = true;
        }
    }
}
