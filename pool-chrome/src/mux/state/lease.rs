//! Leases: what belongs together, and goes together.

use std::collections::{HashSet, VecDeque};

use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::super::address::AddressRule;
use super::super::connection::Outgoing;
use super::super::end::EndReason;
use super::super::lease_options::{DefaultContext, LeaseKind, LeaseOptions};
use super::super::session_id::SessionId;
use super::super::target::{Id, Target};
use super::{BrowserSession, Client, ConnectionId, Context, Owner, Reply, State, download};
use crate::cdp::CdpError;

/// Which lease; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(u64);

/// How many targets of a lease are remembered after their end: a download may be told of after the
/// page that began it is gone.
const PAST_TARGETS: usize = 64;

/// A lease in the registry.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) options: LeaseOptions,
    /// The session that the lease's contexts hang on. Its end disposes them.
    pub(crate) base: Option<SessionId>,
    /// Browser sessions made for the lease that are no connection's.
    pub(super) made: HashSet<SessionId>,
    /// The context that its clients take for the default one.
    pub(crate) default: Option<Id>,
    pub(crate) warm: Warm,
    /// Commands that would make a page, while the warm one is being made.
    pub(crate) waiting_for_warm: Vec<(ConnectionId, String)>,
    /// A browser session made ahead for the next connection.
    pub(crate) spare: Option<SessionId>,
    pub(crate) windows: HashSet<i64>,
    pub(crate) downloads: HashSet<Id>,
    /// The tab that the next page stands in.
    pub(crate) new_tab: Option<Id>,
    past_targets: VecDeque<Id>,
    /// It used a command whose effects outlive it.
    pub(crate) tainted: bool,
    /// It added screens.
    pub(crate) screens: bool,
    /// One of its renderers has died.
    pub(crate) crashed: bool,
    pub(crate) ended: watch::Sender<Option<EndReason>>,
}

/// A page made ahead for a client's first `newPage`.
#[derive(Debug, Default)]
pub(crate) enum Warm {
    /// None, or used up.
    #[default]
    None,
    /// Asked for.
    Creating,
    /// There, but its creation is not answered yet.
    Attached { target: Id, session: SessionId, waiting: bool },
    /// Ready to be handed out, still paused.
    Ready { target: Id, session: SessionId, waiting: bool },
}

impl Warm {
    /// Forgets the page if it is this one, which is gone.
    pub(super) fn forget(&mut self, gone: &Id) {
        if let Self::Attached { target, .. } | Self::Ready { target, .. } = self
            && target == gone
        {
            *self = Self::None;
        }
    }
}

/// What must go for a lease to be gone.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Sessions of ours on the root, to be detached.
    pub(crate) sessions: Vec<SessionId>,
    /// Contexts that must not exist afterwards.
    pub(crate) contexts: Vec<Id>,
    /// Pages of a real default context, to be closed.
    pub(crate) pages: Vec<Id>,
    /// The lease added screens.
    pub(crate) screens: bool,
}

impl Lease {
    fn new(options: LeaseOptions) -> Self {
        Self {
            options,
            base: None,
            made: HashSet::new(),
            default: None,
            warm: Warm::None,
            waiting_for_warm: Vec::new(),
            spare: None,
            windows: HashSet::new(),
            downloads: HashSet::new(),
            new_tab: None,
            past_targets: VecDeque::new(),
            tainted: false,
            screens: false,
            crashed: false,
            ended: watch::Sender::new(None),
        }
    }

    pub(super) fn end(&mut self, reason: EndReason) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(reason);
            first
        });
    }

    pub(super) fn remember_past(&mut self, target: Id) {
        if self.past_targets.len() == PAST_TARGETS {
            self.past_targets.pop_front();
        }
        self.past_targets.push_back(target);
    }

    pub(super) fn had(&self, target: &str) -> bool {
        self.past_targets.iter().any(|past| &**past == target)
    }

    /// What addresses its pages may be sent to.
    pub(super) fn address_rule(&self) -> AddressRule {
        let exclusive = self.options.kind == LeaseKind::Exclusive;
        AddressRule {
            kind: self.options.kind,
            off_the_record: self.options.default_context == DefaultContext::Fresh,
            files: self.options.file_urls.unwrap_or(exclusive),
        }
    }
}

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
        (id, lease.ended.subscribe())
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
            self.contexts.insert(real, Context { lease, maker: base });
            let _ = reply.send(Ok(()));
            return;
        }
        let mut params = json!({ "disposeOnDetach": true });
        if let Some(proxy) = &held.options.proxy {
            params["proxyServer"] = json!(proxy);
            // Loopback would go round the proxy otherwise.
            params["proxyBypassList"] = json!("<-loopback>");
        }
        let reply = Reply::DefaultContext { lease, maker: base, reply };
        self.own_command(Some(base), "Target.createBrowserContext", &params, reply);
    }

    /// Asks for the warm page of a lease that no client has used yet.
    pub(crate) fn make_warm_page(
        &mut self,
        lease: LeaseId,
        reply: oneshot::Sender<Result<(), CdpError>>,
    ) {
        let used = self.clients.values().any(|client| client.lease == lease);
        let Some(held) = self.leases.get_mut(&lease) else { return };
        let (Some(base), Warm::None, false) = (held.base, &held.warm, used) else {
            let _ = reply.send(Ok(()));
            return;
        };
        held.warm = Warm::Creating;
        let mut params = json!({ "url": "about:blank" });
        if let (Some(context), DefaultContext::Fresh) = (&held.default, held.options.default_context) {
            params["browserContextId"] = json!(&**context);
        }
        self.own_command(Some(base), "Target.createTarget", &params, Reply::Warm { lease, reply });
    }

    /// Starts a connection on a browser session made for it.
    pub(crate) fn open_connection(
        &mut self,
        lease: LeaseId,
        root: SessionId,
        outgoing: Outgoing,
    ) -> Option<ConnectionId> {
        let Some(held) = self.leases.get_mut(&lease) else {
            self.detach(root);
            return None;
        };
        held.made.remove(&root);
        let id = ConnectionId(self.serial());
        let own_target = self.browser_targets.get(&root).cloned();
        self.insert_session(root, Owner::Browser { connection: id, root: true }, own_target.clone(), None);
        self.browsers.insert(root, BrowserSession::new(id, lease, own_target));
        let downloads = download::Downloads::default();
        let client = Client { lease, root, outgoing, ignore_certificates: false, held: Vec::new(), downloads };
        self.clients.insert(id, client);
        Some(id)
    }

    /// Ends a connection. What the lease keeps lives on; paused targets are resumed.
    pub(crate) fn close_connection(&mut self, id: ConnectionId, reason: EndReason) {
        let Some(client) = self.clients.remove(&id) else { return };
        let _ = client.outgoing.link.reason.set(reason);
        for session in self.sessions_of(id) {
            let Some(held) = self.sessions.get(&session) else { continue };
            let handed = held.maker.is_none() && matches!(held.owner, Owner::Page(_));
            self.forget_session(session);
            if handed {
                self.release(session, None);
            }
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

    fn sessions_of(&self, connection: ConnectionId) -> Vec<SessionId> {
        let is_its = |owner: Owner| match owner {
            Owner::Own => false,
            Owner::Browser { connection: its, .. }
            | Owner::Page(its)
            | Owner::Tab { connection: its, .. } => its == connection,
        };
        self.sessions.iter().filter(|(_, held)| is_its(held.owner)).map(|(id, _)| *id).collect()
    }

    /// Takes a lease out of the registry and says what must go with it.
    pub(crate) fn close_lease(&mut self, id: LeaseId, reason: EndReason) -> Remains {
        let Some(mut lease) = self.leases.remove(&id) else { return Remains::default() };
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
            let _ = client.outgoing.link.reason.set(reason);
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

    /// Whether a target belongs to a lease.
    pub(crate) fn is_of_lease(&self, target: &Target, lease: LeaseId) -> bool {
        self.lease_of(target) == Some(lease)
    }

    /// Targets that still live in one of these contexts.
    pub(crate) fn targets_in(&self, contexts: &[Id]) -> Vec<Id> {
        self.targets
            .values()
            .filter(|target| !target.invented)
            .filter(|target| {
                target.info.browser_context_id.as_ref().is_some_and(|id| contexts.contains(id))
            })
            .map(|target| target.info.target_id.clone())
            .collect()
    }
}
