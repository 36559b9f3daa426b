//! The beginnings and ends of leases and connections.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::oneshot;

use super::attach::Left;
use super::target_command::BYPASS_NONE;
use super::{
    BoundPage, BrowserSession, CallResult, Client, ConnectionId, LeaseId, Owner, Remains, Reply,
    State, Warm,
};
use crate::cdp::CdpError;
use crate::mux::end::{EndReason, Ending};
use crate::mux::lease_options::{DefaultContext, HolderCommands, LeaseOptions, LeaseTerms};
use crate::mux::link::Link;
use crate::mux::target::{Id, SessionId, Target};

impl State {
    /// Adds a lease, and returns the handle to its end.
    pub(crate) fn new_lease(&mut self, options: LeaseOptions) -> (LeaseId, Arc<Ending>) {
        let (id, lease) = self.leases.insert(options);
        if let Some(reason) = self.ending.reason() {
            lease.end(reason, &mut self.effects);
        }
        if lease.options.default_context == DefaultContext::Real {
            lease.default = self.registry.real_context().cloned();
        }
        let ending = Arc::clone(&lease.ending);
        self.set_gate();
        (id, ending)
    }

    /// Only an exclusive lease may be held back: a shared one would hold back the others.
    fn set_gate(&mut self) {
        self.gate.allow(self.leases.are_exclusive());
        self.effects.gate(&self.gate);
    }

    /// Keeps a browser session for the next connection to a lease, or closes it if the lease is
    /// gone.
    pub(crate) fn set_spare(&mut self, id: LeaseId, spare: SessionId) {
        match self.leases.get_mut(id) {
            Some(lease) => lease.spare = Some(spare),
            None => self.detach(spare),
        }
    }

    /// Takes the browser session that was kept for the next connection to a lease. The outer `None`
    /// means that the lease is gone.
    pub(crate) fn take_spare(&mut self, id: LeaseId) -> Option<Option<SessionId>> {
        Some(self.leases.get_mut(id)?.spare.take())
    }

    /// Returns the session of a lease's warm page, if there is one that is ready.
    pub(crate) fn warm_session(&self, id: LeaseId) -> Option<SessionId> {
        self.leases.get(id)?.warm.session()
    }

    /// Returns `true` if a lease used a command whose effects outlive it.
    pub(crate) fn is_tainted(&self, id: LeaseId) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.tainted)
    }

    /// Returns `true` if one of a lease's renderers has died.
    pub(crate) fn has_crashed_page(&self, id: LeaseId) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.crashed)
    }

    /// Returns `true` if a lease has something to do for its clients: a command that is not
    /// answered, or a download that has not ended.
    pub(crate) fn is_busy(&self, id: LeaseId) -> bool {
        let is_its = |connection| self.leases.is_client_of(id, connection);
        self.sessions.any_unanswered(is_its)
            || self.pending.any_relayed(is_its)
            || self.leases.is_downloading(id)
    }

    /// Returns the targets that a lease shows, in the order they were made.
    pub(crate) fn shown_targets(&self, id: LeaseId) -> impl Iterator<Item = &Target> {
        self.registry
            .targets()
            .filter(|target| !target.hidden && target.info.kind != "tab")
            .filter(move |target| self.registry.lease_of(target) == Some(id))
    }

    /// Asks for a browser session for a lease.
    pub(crate) fn make_browser_session(
        &mut self,
        lease: LeaseId,
        reply: oneshot::Sender<Result<SessionId, CdpError>>,
    ) {
        let reply = Reply::BrowserSession { lease, reply };
        self.own_command(None, "Target.attachToBrowserTarget", &json!({}), reply);
    }

    /// Makes a session the one that the lease's contexts depend on, and asks for the default
    /// context.
    pub(crate) fn make_default_context(
        &mut self,
        lease: LeaseId,
        base: SessionId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    ) {
        let Some(held) = self.leases.get_mut(lease) else { return };
        held.base = Some(base);
        if let Some(real) = held.default.clone() {
            self.registry.insert_context(real, lease, base);
            return self.effects.done(reply, Ok(()));
        }
        let mut params = json!({ "disposeOnDetach": true });
        if let Some(proxy) = &held.options.proxy {
            params["proxyServer"] = json!(proxy);
            params["proxyBypassList"] = json!(BYPASS_NONE);
        }
        let reply = Reply::DefaultContext { lease, maker: base, reply };
        self.own_command(Some(base), "Target.createBrowserContext", &params, reply);
    }

    /// Sets the terms of a lease, once. Returns `true` if its first page has yet to be made.
    pub(crate) fn begin_lease(&mut self, id: LeaseId, terms: &LeaseTerms) -> bool {
        let Some(held) = self.leases.get_mut(id) else { return false };
        if std::mem::replace(&mut held.begun, true) || !terms.first_page {
            return false;
        }
        held.owes_page = true;
        self.show_first_page(id);
        self.leases.get(id).is_some_and(|held| held.owes_page)
    }

    /// Shows the first page that a lease begins with, if it is ready.
    pub(super) fn show_first_page(&mut self, id: LeaseId) {
        if self.leases.get(id).is_some_and(|held| held.owes_page)
            && self.show_warm(id, None).is_some()
            && let Some(held) = self.leases.get_mut(id)
        {
            held.owes_page = false;
        }
    }

    /// Shows the warm page as if it had just been made, to the client that asked for it or to any
    /// that comes.
    pub(super) fn show_warm(&mut self, id: LeaseId, maker: Option<ConnectionId>) -> Option<Id> {
        let held = self.leases.get_mut(id)?;
        let Warm::Ready { .. } = held.warm else { return None };
        let Warm::Ready { target, session, waiting } = std::mem::take(&mut held.warm) else {
            return None;
        };
        let tab = self.registry.target(&target)?.tab.clone();
        for id in tab.iter().chain([&target]) {
            if let Some(target) = self.registry.target_mut(id) {
                target.hidden = false;
                if maker.is_none() {
                    target.settle();
                }
            }
            self.announce(id, "Target.targetCreated");
        }
        self.offer(id, session, &target, waiting, maker);
        Some(target)
    }

    /// Asks for the warm page of a lease that no client has used yet.
    pub(crate) fn make_warm_page(
        &mut self,
        lease: LeaseId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    ) {
        let Some(held) = self.leases.get_mut(lease) else { return };
        // A page that the lease owes is made even if a client was quicker.
        let is_late = held.used && !held.owes_page;
        let (Some(base), Warm::None, false) = (held.base, &held.warm, is_late) else {
            return self.effects.done(reply, Ok(()));
        };
        held.warm = Warm::Creating;
        let mut params = json!({ "url": "about:blank" });
        if let (Some(context), DefaultContext::Fresh) =
            (&held.default, held.options.default_context)
        {
            params["browserContextId"] = json!(&**context);
        }
        self.own_command(Some(base), "Target.createTarget", &params, Reply::Warm { lease, reply });
    }

    /// Starts a connection on a browser session made for it.
    pub(crate) fn open_connection(
        &mut self,
        lease: LeaseId,
        root: SessionId,
        link: Arc<Link>,
        commands: Option<Arc<dyn HolderCommands>>,
    ) -> Option<ConnectionId> {
        let Some(held) = self.leases.get_mut(lease) else {
            self.detach(root);
            // Dropped outside of the lock, since it may be the holder's last handle.
            self.effects.closed(link, commands);
            return None;
        };
        held.made.remove(&root);
        held.used = true;
        let id = self.leases.connect(Client::new(lease, root, link, commands));
        let own_target = self.sessions.browser_target(root);
        self.sessions.insert(
            root,
            Owner::Browser { connection: id, root: true },
            own_target.clone(),
            None,
        );
        self.sessions.insert_browser(root, BrowserSession::new(id, lease, own_target));
        Some(id)
    }

    /// Binds a connection that its client has not used yet to a page of its lease, or else to a new
    /// one.
    pub(crate) fn bind_page(
        &mut self,
        id: ConnectionId,
        page: &str,
        reply: oneshot::Sender<CallResult>,
    ) {
        let own = self.registry.target(page).filter(|target| target.info.kind == "page");
        let own = own.map(|target| target.info.target_id.clone());
        let own = own.filter(|page| self.is_own_target(id, page));
        let (Some(page), Some(client)) = (own, self.leases.client_mut(id)) else {
            return self.effects.call(reply, Err(no_page()));
        };
        let root = client.root;
        let params = json!({ "targetId": &*page, "flatten": true });
        client.page = Some(BoundPage::Attaching(page));
        self.own_command(Some(root), "Target.attachToTarget", &params, Reply::Call(reply));
    }

    /// Returns the page of a lease that a connection is bound to if it names none.
    pub(crate) fn first_page(&self, id: ConnectionId) -> Option<Id> {
        let page = |target: &&Target| target.info.kind == "page" && target.info.subtype.is_none();
        let mut own = self.registry.targets().filter(page).map(|target| &target.info.target_id);
        own.find(|page| self.is_own_target(id, page)).cloned()
    }

    /// Makes a page in the default context, for a connection.
    pub(crate) fn make_page(&mut self, id: ConnectionId, reply: oneshot::Sender<CallResult>) {
        let Some(client) = self.leases.client(id) else {
            return self.effects.call(reply, Err(no_page()));
        };
        let (root, lease) = (client.root, self.leases.get(client.lease));
        let mut params = json!({ "url": "about:blank" });
        if let Some(lease) = lease
            && lease.options.default_context == DefaultContext::Fresh
            && let Some(context) = &lease.default
        {
            params["browserContextId"] = json!(&**context);
        }
        self.own_command(Some(root), "Target.createTarget", &params, Reply::Call(reply));
    }

    /// Ends a connection. What the lease keeps lives on; paused targets are resumed.
    pub(crate) fn close_connection(&mut self, id: ConnectionId, reason: EndReason) {
        let Some(client) = self.leases.disconnect(id) else { return };
        let (lease, root, link) = (client.lease, client.root, Arc::clone(&client.link));
        client.close(reason, &mut self.effects);
        // Looked up before the first session is forgotten, with everything that depends on it.
        let sessions = self.sessions.of(id);
        let pages: Vec<_> = sessions.iter().filter_map(|id| self.left_on(*id)).collect();
        self.behind_client(&link, |state| {
            for session in sessions {
                state.forget_session(session);
            }
            for left in pages {
                state.leave(&left);
            }
            state.registry.forget_contexts_of(root);
            state.sessions.insert(root, Owner::Own, None, None);
            state.detach(root);
        });
        if reason == EndReason::BrowserClosed
            && let Some(lease) = self.leases.get(lease)
        {
            lease.end(reason, &mut self.effects);
        }
    }

    /// Returns what a departing client leaves on a session of a page, frame or worker.
    fn left_on(&self, session: SessionId) -> Option<Left> {
        let held = self.sessions.get(session)?;
        let Owner::Page(_) = held.owner else { return None };
        let target = held.target.as_ref().and_then(|id| self.registry.target(id));
        let is_page = target.is_some_and(|it| matches!(&*it.info.kind, "page" | "iframe"));
        let (target, handed) = (held.target.clone(), held.maker.is_none());
        Some(Left { session, target, is_page, handed })
    }

    /// Removes a lease from the registry and returns what must be removed from Chromium with it.
    pub(crate) fn close_lease(&mut self, id: LeaseId, reason: EndReason) -> Remains {
        let Some(lease) = self.leases.remove(id) else { return Remains::default() };
        self.set_gate();
        lease.end(reason, &mut self.effects);
        let reason = lease.ending.reason().unwrap_or(reason);
        let mut remains = Remains { screens: lease.screens, ..Remains::default() };
        for connection in self.leases.clients_of(id) {
            let Some(client) = self.leases.disconnect(connection) else { continue };
            let root = client.root;
            client.close(reason, &mut self.effects);
            // Its pages go with their context, so there is no need to resume paused ones.
            for session in self.sessions.of(connection) {
                self.forget_session(session);
            }
            remains.sessions.push(root);
        }
        remains.sessions.extend(&lease.made);
        for context in self.registry.take_contexts_of(id) {
            if Some(&context) == self.registry.real_context() {
                remains.pages = self.registry.pages_in(&context);
            } else {
                remains.contexts.push(context);
            }
        }
        if self.end_reason().is_some() {
            return Remains::default();
        }
        remains
    }

    /// Issues the commands that end what remains of a lease, without waiting for them.
    pub(crate) fn dispose(&mut self, remains: &Remains) {
        for page in &remains.pages {
            self.close_target(page);
        }
        for session in &remains.sessions {
            let params = json!({ "sessionId": session.as_str() });
            self.own_command(None, "Target.detachFromTarget", &params, Reply::Nothing);
        }
    }

    /// Returns the workers of contexts that are neither listed here nor known to the registry.
    pub(crate) fn workers_outside(&self, contexts: &[String]) -> Vec<Id> {
        self.registry.workers_outside(contexts)
    }

    /// Forgets a worker that Chromium goes on listing, with every session on it.
    pub(crate) fn forget_ghost(&mut self, worker: &Id) {
        self.registry.remove_target(worker);
        self.sessions.expect_none(worker);
        for session in self.sessions.on(worker) {
            self.detach(session);
            self.forget_session(session);
        }
    }

    /// Returns the targets of a lease that are still alive: those in its contexts, and its pages in
    /// the real default context.
    pub(crate) fn left_of(&self, remains: &Remains) -> Vec<Id> {
        self.registry.left_of(&remains.contexts, &remains.pages)
    }
}

fn no_page() -> CdpError {
    CdpError::unexpected("Target.attachToTarget", "the lease has no such page")
}
