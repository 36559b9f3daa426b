//! How leases and connections begin and end.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::attach::Left;
use super::lease::{Lease, LeaseId, Remains, Warm};
use super::pending::CallResult;
use super::target_command::BYPASS_NONE;
use super::{
    BoundPage, BrowserSession, Client, ConnectionId, Context, Owner, Reply, Session, State,
    page_command,
};
use crate::cdp::CdpError;
use crate::mux::end::EndReason;
use crate::mux::lease_options::{
    DefaultContext, HolderCommands, LeaseKind, LeaseOptions, LeaseTerms,
};
use crate::mux::link::Link;
use crate::mux::target::{Id, SessionId, Target};

impl State {
    pub(crate) fn new_lease(
        &mut self,
        options: LeaseOptions,
    ) -> (LeaseId, watch::Receiver<Option<EndReason>>) {
        let id = LeaseId(self.serial());
        let real = self.real_context.clone();
        let lease = self.leases.entry(id).or_insert_with(|| Lease::new(options));
        if let Some(reason) = *self.ended.borrow() {
            lease.end(reason);
        }
        if lease.options.default_context == DefaultContext::Real {
            lease.default = real;
        }
        let ended = lease.ended.subscribe();
        self.set_gate();
        (id, ended)
    }

    /// Only an exclusive lease may be held back: of shared ones one would hold back the others.
    fn set_gate(&self) {
        let is_exclusive = |lease: &Lease| lease.options.kind == LeaseKind::Exclusive;
        self.gate.allow(self.leases.values().all(is_exclusive));
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

    /// Takes a session as the one that the lease's contexts hang on, and asks for the default one.
    pub(crate) fn make_default_context(
        &mut self,
        lease: LeaseId,
        base: SessionId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    ) {
        let Some(held) = self.leases.get_mut(&lease) else { return };
        held.base = Some(base);
        if let Some(real) = held.default.clone() {
            self.contexts.insert(real, Context::new(lease, base));
            let _ = reply.send(Ok(()));
            return;
        }
        let mut params = json!({ "disposeOnDetach": true });
        if let Some(proxy) = &held.options.proxy {
            params["proxyServer"] = json!(proxy);
            params["proxyBypassList"] = json!(BYPASS_NONE);
        }
        let reply = Reply::DefaultContext { lease, maker: base, reply };
        self.own_command(Some(base), "Target.createBrowserContext", &params, reply);
    }

    /// Sets the terms of a lease, once. Whether its first page is still to be made.
    pub(crate) fn begin_lease(&mut self, id: LeaseId, terms: &LeaseTerms) -> bool {
        let Some(held) = self.leases.get_mut(&id) else { return false };
        if std::mem::replace(&mut held.begun, true) || !terms.first_page {
            return false;
        }
        held.owes_page = true;
        self.show_first_page(id);
        self.leases.get(&id).is_some_and(|held| held.owes_page)
    }

    /// Shows the first page that a lease begins with, if it is ready.
    pub(super) fn show_first_page(&mut self, id: LeaseId) {
        if self.leases.get(&id).is_some_and(|held| held.owes_page)
            && self.show_warm(id, None).is_some()
            && let Some(held) = self.leases.get_mut(&id)
        {
            held.owes_page = false;
        }
    }

    /// Brings the warm page into sight as if it had just been made, for the client that asked for
    /// it or for whichever comes.
    pub(super) fn show_warm(&mut self, id: LeaseId, maker: Option<ConnectionId>) -> Option<Id> {
        let held = self.leases.get_mut(&id)?;
        let Warm::Ready { .. } = held.warm else { return None };
        let Warm::Ready { target, session, waiting } = std::mem::take(&mut held.warm) else {
            return None;
        };
        let tab = self.targets.get(&target)?.tab.clone();
        for id in tab.iter().chain([&target]) {
            if let Some(target) = self.targets.get_mut(id) {
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
        let Some(held) = self.leases.get_mut(&lease) else { return };
        // One that it owes is made even if a client was quicker.
        let is_late = held.used && !held.owes_page;
        let (Some(base), Warm::None, false) = (held.base, &held.warm, is_late) else {
            let _ = reply.send(Ok(()));
            return;
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
        let Some(held) = self.leases.get_mut(&lease) else {
            self.detach(root);
            return None;
        };
        held.made.remove(&root);
        held.used = true;
        let id = ConnectionId(self.serial());
        let own_target = self.browser_targets.get(&root).cloned();
        self.insert_session(
            root,
            Owner::Browser { connection: id, root: true },
            own_target.clone(),
            None,
        );
        self.browsers.insert(root, BrowserSession::new(id, lease, own_target));
        let downloads = page_command::Downloads::default();
        let client = Client {
            lease,
            root,
            page: None,
            link,
            ignore_certificates: false,
            nests: false,
            held: Vec::new(),
            downloads,
            commands,
        };
        self.clients.insert(id, client);
        Some(id)
    }

    /// Binds a connection that its client has not used to a page of its lease, or else to a new one.
    pub(crate) fn bind_page(
        &mut self,
        id: ConnectionId,
        page: &str,
        reply: oneshot::Sender<CallResult>,
    ) {
        let own = self.targets.get(page).filter(|target| target.info.kind == "page");
        let own = own.map(|target| target.info.target_id.clone());
        let own = own.filter(|page| self.is_own_target(id, page));
        let (Some(page), Some(client)) = (own, self.clients.get_mut(&id)) else {
            let _ = reply.send(Err(no_page()));
            return;
        };
        let root = client.root;
        let params = json!({ "targetId": &*page, "flatten": true });
        client.page = Some(BoundPage::Attaching(page));
        self.own_command(Some(root), "Target.attachToTarget", &params, Reply::Call(reply));
    }

    /// Returns the page of a lease that a connection is bound to where it names none.
    pub(crate) fn first_page(&self, id: ConnectionId) -> Option<Id> {
        let page = |target: &&Target| target.info.kind == "page" && target.info.subtype.is_none();
        let mut own = self.targets.values().filter(page).map(|target| &target.info.target_id);
        own.find(|page| self.is_own_target(id, page)).cloned()
    }

    /// Makes a page in the default context, for a connection.
    pub(crate) fn make_page(&mut self, id: ConnectionId, reply: oneshot::Sender<CallResult>) {
        let Some(client) = self.clients.get(&id) else {
            let _ = reply.send(Err(no_page()));
            return;
        };
        let (root, lease) = (client.root, self.leases.get(&client.lease));
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
        let Some(client) = self.clients.remove(&id) else { return };
        client.link.end(reason);
        // Looked at before the first is forgotten, and all that hangs on it.
        let sessions = self.sessions_of(id);
        let pages: Vec<_> = sessions.iter().filter_map(|id| self.left_on(*id)).collect();
        for session in sessions {
            self.forget_session(session);
        }
        for left in pages {
            self.leave(&left);
        }
        self.contexts.retain(|_, context| context.maker != client.root);
        self.insert_session(client.root, Owner::Own, None, None);
        self.detach(client.root);
        if reason == EndReason::BrowserClosed
            && let Some(lease) = self.leases.get_mut(&client.lease)
        {
            lease.end(reason);
        }
    }

    /// Returns what a client that goes leaves on a session of a page, frame or worker.
    fn left_on(&self, session: SessionId) -> Option<Left> {
        let held = self.sessions.get(&session)?;
        let Owner::Page(_) = held.owner else { return None };
        let target = held.target.as_ref().and_then(|id| self.targets.get(id));
        let is_page = target.is_some_and(|it| matches!(&*it.info.kind, "page" | "iframe"));
        let (target, handed) = (held.target.clone(), held.maker.is_none());
        Some(Left { session, target, is_page, handed })
    }

    fn sessions_of(&self, connection: ConnectionId) -> Vec<SessionId> {
        let is_its = |held: &Session| held.owner.connection() == Some(connection);
        self.sessions.iter().filter(|(_, held)| is_its(held)).map(|(id, _)| *id).collect()
    }

    /// Takes a lease out of the registry and says what must go with it.
    pub(crate) fn close_lease(&mut self, id: LeaseId, reason: EndReason) -> Remains {
        let Some(mut lease) = self.leases.remove(&id) else { return Remains::default() };
        self.forget_downloads(id);
        self.set_gate();
        lease.end(reason);
        let reason = (*lease.ended.borrow()).unwrap_or(reason);
        let mut remains = Remains { screens: lease.screens, ..Remains::default() };
        let clients: Vec<ConnectionId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.lease == id)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in clients {
            let Some(client) = self.clients.remove(&connection) else { continue };
            client.link.end(reason);
            // Its pages go with their context: no need to resume what stands still.
            for session in self.sessions_of(connection) {
                self.forget_session(session);
            }
            remains.sessions.push(client.root);
        }
        remains.sessions.extend(&lease.made);
        let real = self.real_context.clone();
        let contexts: Vec<Id> =
            self.contexts.extract_if(|_, context| context.lease == id).map(|(id, _)| id).collect();
        for context in contexts {
            if Some(&context) == real.as_ref() {
                remains.pages = self.pages_in(&context);
            } else {
                remains.contexts.push(context);
            }
        }
        if self.end_reason().is_some() {
            return Remains::default();
        }
        remains
    }

    fn pages_in(&self, context: &Id) -> Vec<Id> {
        self.targets
            .values()
            .filter(|target| target.info.browser_context_id.as_ref() == Some(context))
            .filter(|target| target.info.kind == "page")
            .map(|target| target.info.target_id.clone())
            .collect()
    }

    /// Gives the commands that end what remains of a lease, without waiting for them.
    pub(crate) fn dispose(&mut self, remains: &Remains) {
        for page in &remains.pages {
            let params = json!({ "targetId": &**page });
            self.own_command(None, "Target.closeTarget", &params, Reply::Nothing);
        }
        for session in &remains.sessions {
            let params = json!({ "sessionId": session.as_str() });
            self.own_command(None, "Target.detachFromTarget", &params, Reply::Nothing);
        }
    }

    /// Returns `true` if a target belongs to a lease.
    pub(crate) fn is_of_lease(&self, target: &Target, lease: LeaseId) -> bool {
        self.lease_of(target) == Some(lease)
    }

    /// Workers of contexts that are neither among these nor known here.
    pub(crate) fn workers_outside(&self, contexts: &[String]) -> Vec<Id> {
        let is_known = |id: &Id| {
            self.contexts.contains_key(id)
                || self.own_contexts.contains(id)
                || self.real_context.as_ref() == Some(id)
                || contexts.iter().any(|listed| **listed == **id)
        };
        self.targets
            .values()
            .filter(|target| target.info.kind.ends_with("worker"))
            .filter(|target| match &target.info.browser_context_id {
                Some(id) => !is_known(id),
                // A service worker that is told about after its context is gone has none.
                None => target.info.kind == "service_worker",
            })
            .map(|target| target.info.target_id.clone())
            .collect()
    }

    /// Forgets a worker that Chromium goes on listing, with every session on it.
    pub(crate) fn forget_ghost(&mut self, worker: &Id) {
        self.targets.shift_remove(worker);
        self.own_attaches.remove(worker);
        let on_it = |held: &Session| held.target.as_ref() == Some(worker);
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, held)| on_it(held)).map(|(id, _)| *id).collect();
        for session in sessions {
            self.detach(session);
            self.forget_session(session);
        }
    }

    /// Targets of a lease that still live: those in its contexts, and its pages in the real one.
    pub(crate) fn left_of(&self, remains: &Remains) -> Vec<Id> {
        self.targets
            .values()
            .filter(|target| !target.invented)
            .filter(|target| {
                let context = target.info.browser_context_id.as_ref();
                context.is_some_and(|id| remains.contexts.contains(id))
                    || remains.pages.contains(&target.info.target_id)
            })
            .map(|target| target.info.target_id.clone())
            .collect()
    }
}

fn no_page() -> CdpError {
    CdpError::unexpected("Target.attachToTarget", "the lease has no such page")
}
