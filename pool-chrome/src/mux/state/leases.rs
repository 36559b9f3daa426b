//! Leases: what belongs together and ends together; and the clients that are connected to them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::pending::Effects;
use super::{ConnectionId, LeaseId};
use crate::mux::address::AddressRule;
use crate::mux::end::{EndReason, Ending};
use crate::mux::lease_options::{DefaultContext, FileUse, HolderCommands, LeaseKind, LeaseOptions};
use crate::mux::link::Link;
use crate::mux::parameters;
use crate::mux::target::{Id, SessionId};

/// Number of a lease's targets that are remembered after their end: a download may be reported
/// after the page that began it is gone.
const PAST_TARGETS: usize = 64;

/// Maximum number of downloads that are remembered. One whose end Chromium has not reported would
/// stay for ever.
const MOST_RUNNING: usize = 1024;

/// One lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) options: LeaseOptions,
    /// The session that the lease's contexts depend on. Its end disposes of them.
    pub(super) base: Option<SessionId>,
    /// Browser sessions made for the lease that do not belong to a connection.
    pub(super) made: HashSet<SessionId>,
    /// The context that its clients take for the default one.
    pub(super) default: Option<Id>,
    pub(super) warm: Warm,
    /// Its terms are set.
    pub(super) begun: bool,
    /// It begins with a page, which is shown as soon as it is there.
    pub(super) owes_page: bool,
    /// A client has been connected: whatever opens from now on may be the client's own.
    pub(super) used: bool,
    /// Commands that would make a page while the warm one is being made, with the nested sessions
    /// that they came in.
    pub(super) waiting_for_warm: Vec<(ConnectionId, Option<SessionId>, String)>,
    /// A browser session made ahead for the next connection.
    pub(super) spare: Option<SessionId>,
    pub(super) windows: HashSet<i64>,
    /// Pixels of the largest window that it has asked for, or of a usual one.
    pub(super) window: f64,
    pub(super) downloads: HashSet<Id>,
    /// The files outside of its directories that its holder has been told of.
    pub(super) refused_files: HashSet<(FileUse, String)>,
    /// The tab that the next page belongs to.
    pub(super) new_tab: Option<Id>,
    past_targets: VecDeque<Id>,
    /// It used a command whose effects outlive it.
    pub(super) tainted: bool,
    /// It added screens.
    pub(super) screens: bool,
    /// One of its renderers has died.
    pub(super) crashed: bool,
    pub(super) ending: Arc<Ending>,
}

/// A page made ahead: the first page that the lease begins with, or, if it begins without one, the
/// client's first `newPage`.
#[derive(Debug, Default)]
pub(super) enum Warm {
    /// None, or used up.
    #[default]
    None,
    /// Asked for.
    Creating,
    /// It is there, but its creation has not been answered yet.
    Attached { target: Id, session: SessionId, waiting: bool },
    /// It is ready to be handed out, still paused.
    Ready { target: Id, session: SessionId, waiting: bool },
}

impl Warm {
    /// Returns the session of the page, when it is ready.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Ready { session, .. } => Some(*session),
            Self::None | Self::Creating | Self::Attached { .. } => None,
        }
    }

    /// Forgets the page if it is this one, which is gone.
    pub(super) fn forget(&mut self, gone: &Id) {
        if let Self::Attached { target, .. } | Self::Ready { target, .. } = self
            && target == gone
        {
            *self = Self::None;
        }
    }
}

/// Remains of a closed lease, which must be gone before the lease is.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Sessions of ours on the root session, to be detached.
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
            begun: false,
            owes_page: false,
            used: false,
            waiting_for_warm: Vec::new(),
            spare: None,
            windows: HashSet::new(),
            window: parameters::USUAL,
            downloads: HashSet::new(),
            refused_files: HashSet::new(),
            new_tab: None,
            past_targets: VecDeque::new(),
            tainted: false,
            screens: false,
            crashed: false,
            ending: Arc::default(),
        }
    }

    /// Ends the lease; the first reason counts.
    pub(super) fn end(&self, reason: EndReason, effects: &mut Effects) {
        if self.ending.set(reason) {
            effects.ended(&self.ending);
        }
    }

    /// Remembers a target that is gone.
    pub(super) fn remember_past(&mut self, target: Id) {
        if self.past_targets.len() == PAST_TARGETS {
            self.past_targets.pop_front();
        }
        self.past_targets.push_back(target);
    }

    /// Returns `true` if a target belonged to the lease until recently.
    pub(super) fn had(&self, target: &str) -> bool {
        self.past_targets.iter().any(|past| &**past == target)
    }

    /// Returns the rule for the addresses that its pages may visit.
    pub(super) fn address_rule(&self) -> AddressRule {
        let exclusive = self.options.kind == LeaseKind::Exclusive;
        AddressRule {
            kind: self.options.kind,
            // Chromium's own pages could make a real context bypass its proxy.
            off_the_record: self.options.default_context == DefaultContext::Fresh
                || self.options.proxy.is_some(),
            files: self.options.file_urls.unwrap_or(exclusive),
        }
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) lease: LeaseId,
    /// The browser session that stands for the client's root.
    pub(super) root: SessionId,
    /// The page that receives commands without a session, if the root is not the browser.
    pub(super) page: Option<BoundPage>,
    pub(super) link: Arc<Link>,
    pub(super) ignore_certificates: bool,
    /// It has asked for sessions that are nested.
    pub(super) nests: bool,
    /// Replies to `Target.createTarget` that wait until their target is attached: Playwright looks
    /// for the page when it reads the reply.
    pub(super) held: Vec<(Id, Bytes)>,
    pub(super) downloads: Downloads,
    /// Answers commands that no Chromium has.
    pub(super) commands: Option<Arc<dyn HolderCommands>>,
}

impl Client {
    pub(super) fn new(
        lease: LeaseId,
        root: SessionId,
        link: Arc<Link>,
        commands: Option<Arc<dyn HolderCommands>>,
    ) -> Self {
        Self {
            lease,
            root,
            page: None,
            link,
            ignore_certificates: false,
            nests: false,
            held: Vec::new(),
            downloads: Downloads::default(),
            commands,
        }
    }

    /// Ends the connection, and drops whoever answered for its lease.
    pub(super) fn close(self, reason: EndReason, effects: &mut Effects) {
        self.link.close(reason);
        effects.closed(self.link, self.commands);
    }
}

/// The page that stands for a client's root.
#[derive(Debug)]
pub(super) enum BoundPage {
    /// We are attaching to it.
    Attaching(Id),
    /// This session is attached to it.
    Attached(SessionId),
}

/// Downloads whose owner a connection waits to learn.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    open: HashMap<Id, Open>,
}

#[derive(Debug)]
struct Open {
    frame: String,
    events: Vec<Bytes>,
    /// Number of pages that have not listed their frames yet.
    asked: usize,
}

impl Downloads {
    /// Keeps an event as long as the owner of its download is unknown. Otherwise returns it.
    pub(super) fn keep(&mut self, guid: &Id, event: Bytes) -> Option<Bytes> {
        match self.open.get_mut(guid) {
            Some(open) => {
                open.events.push(event);
                None
            }
            None => Some(event),
        }
    }

    /// Keeps the first event of a download that begins in a frame, until this many pages have
    /// answered which frames they have.
    pub(super) fn ask(&mut self, guid: Id, frame: String, event: Bytes, asked: usize) {
        self.open.insert(guid, Open { frame, events: vec![event], asked });
    }

    /// Processes the frames that a page has listed. Returns the events if the download belongs to
    /// one of them; if it belongs to no page at all, they are forgotten.
    pub(super) fn listed(&mut self, guid: &Id, frames: &str) -> Option<Vec<Bytes>> {
        let open = self.open.get_mut(guid)?;
        open.asked -= 1;
        // Quotes inside of names and addresses are escaped, so this can only be the member itself.
        let own = frames.contains(&format!(r#""id":"{}""#, open.frame));
        if own {
            return self.open.remove(guid).map(|open| open.events);
        }
        if open.asked == 0 {
            self.open.remove(guid);
        }
        None
    }
}

/// All leases of a Chromium, their clients, and the running downloads.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    clients: HashMap<ConnectionId, Client>,
    /// Downloads that have not ended, with their lease if it is known; the root session is told of
    /// all of them.
    running: HashMap<Id, Option<LeaseId>>,
    next_serial: u64,
}

impl Leases {
    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Adds a lease.
    pub(super) fn insert(&mut self, options: LeaseOptions) -> (LeaseId, &mut Lease) {
        let id = LeaseId(self.serial());
        (id, self.leases.entry(id).or_insert_with(|| Lease::new(options)))
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.leases.get_mut(&id)
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Removes a lease, with its running downloads. Its clients stay.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.running.retain(|_, its| *its != Some(id));
        Some(lease)
    }

    pub(super) fn count(&self) -> usize {
        self.leases.len()
    }

    /// Returns `true` if each lease has the Chromium to itself, or is alone in asking for it.
    pub(super) fn are_exclusive(&self) -> bool {
        self.leases.values().all(|lease| lease.options.kind == LeaseKind::Exclusive)
    }

    /// Returns `true` if any lease has had a client.
    pub(super) fn any_used(&self) -> bool {
        self.leases.values().any(|lease| lease.used)
    }

    /// Adds a client to a lease.
    pub(super) fn connect(&mut self, client: Client) -> ConnectionId {
        let id = ConnectionId(self.serial());
        self.clients.insert(id, client);
        id
    }

    pub(super) fn client(&self, id: ConnectionId) -> Option<&Client> {
        self.clients.get(&id)
    }

    pub(super) fn client_mut(&mut self, id: ConnectionId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    /// Removes a client.
    pub(super) fn disconnect(&mut self, id: ConnectionId) -> Option<Client> {
        self.clients.remove(&id)
    }

    /// Returns the connections to a lease.
    pub(super) fn clients_of(&self, lease: LeaseId) -> Vec<ConnectionId> {
        self.clients
            .iter()
            .filter(|(_, client)| client.lease == lease)
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// Returns `true` if a connection belongs to this lease.
    pub(super) fn is_client_of(&self, lease: LeaseId, connection: ConnectionId) -> bool {
        self.clients.get(&connection).is_some_and(|client| client.lease == lease)
    }

    pub(super) fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Returns whoever answers for a lease, if one of its clients was connected with such a holder.
    pub(super) fn holder_of(&self, lease: LeaseId) -> Option<Arc<dyn HolderCommands>> {
        self.clients
            .values()
            .filter(|client| client.lease == lease)
            .find_map(|client| client.commands.clone())
    }

    /// Returns the lease that a target belonged to until recently.
    pub(super) fn that_had(&self, target: &str) -> Option<LeaseId> {
        self.leases.iter().find(|(_, lease)| lease.had(target)).map(|(id, _)| *id)
    }

    /// Notes that a download has begun.
    pub(super) fn download_begun(&mut self, guid: Id, lease: Option<LeaseId>) {
        if self.running.len() < MOST_RUNNING {
            self.running.insert(guid, lease);
        }
    }

    /// Notes that a download has ended.
    pub(super) fn download_ended(&mut self, guid: &Id) {
        self.running.remove(guid);
    }

    /// Returns `true` if a download of a lease has not ended.
    pub(super) fn is_downloading(&self, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get(&id) else { return false };
        let alone = lease.options.kind == LeaseKind::Exclusive;
        self.running.iter().any(|(guid, its)| match its {
            Some(its) => *its == id,
            None => alone || lease.downloads.contains(guid),
        })
    }

    /// Ends all leases, and all connections to them.
    pub(super) fn end_all(&mut self, reason: EndReason, effects: &mut Effects) {
        for (_, client) in self.clients.drain() {
            client.close(reason, effects);
        }
        for lease in self.leases.values() {
            lease.end(reason, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::Budget;

    fn shared() -> LeaseOptions {
        LeaseOptions::new(LeaseKind::Shared)
    }

    fn client(lease: LeaseId) -> Client {
        let link = Link::new(&Arc::default(), &Budget::default());
        Client::new(lease, SessionId::invent(), link, None)
    }

    #[test]
    fn no_id_is_used_twice() {
        let mut leases = Leases::default();
        let (first, _) = leases.insert(shared());
        let connection = leases.connect(client(first));
        leases.disconnect(connection);
        leases.remove(first);
        let (second, _) = leases.insert(shared());
        assert_ne!(first, second);
        assert_ne!(connection, leases.connect(client(second)));
    }

    #[test]
    fn a_download_runs_for_its_lease_until_either_ends() {
        let mut leases = Leases::default();
        let (mine, _) = leases.insert(shared());
        let (theirs, _) = leases.insert(shared());
        let guid: Id = "g".into();
        leases.download_begun(guid.clone(), Some(mine));
        assert!(leases.is_downloading(mine) && !leases.is_downloading(theirs));
        leases.download_ended(&guid);
        assert!(!leases.is_downloading(mine));
        leases.download_begun(guid, Some(mine));
        leases.remove(mine);
        assert!(leases.running.is_empty());
    }

    #[test]
    fn a_download_of_an_unknown_frame_runs_for_whoever_is_alone_or_has_learned_of_it() {
        let mut leases = Leases::default();
        let (shared, _) = leases.insert(shared());
        let (alone, _) = leases.insert(LeaseOptions::default());
        let guid: Id = "g".into();
        leases.download_begun(guid.clone(), None);
        assert!(leases.is_downloading(alone) && !leases.is_downloading(shared));
        leases.get_mut(shared).expect("it is there").downloads.insert(guid);
        assert!(leases.is_downloading(shared));
    }

    #[test]
    fn events_of_a_download_wait_until_a_page_has_its_frame() {
        let mut downloads = Downloads::default();
        let guid: Id = "g".into();
        let event = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(downloads.keep(&guid, event("0")), Some(event("0")));
        downloads.ask(guid.clone(), "frame".to_owned(), event("1"), 2);
        assert_eq!(downloads.keep(&guid, event("2")), None);
        assert_eq!(downloads.listed(&guid, r#"{"id":"other"}"#), None);
        let events = downloads.listed(&guid, r#"{"id":"frame"}"#);
        assert_eq!(events, Some(vec![event("1"), event("2")]));
        assert_eq!(downloads.keep(&guid, event("3")), Some(event("3")));
    }

    #[test]
    fn the_first_reason_for_an_end_counts_and_is_told_once() {
        let mut leases = Leases::default();
        let (id, _) = leases.insert(shared());
        let lease = leases.remove(id).expect("it is there");
        let mut effects = Effects::default();
        lease.end(EndReason::Revoked, &mut effects);
        lease.end(EndReason::Released, &mut effects);
        assert_eq!(lease.ending.reason(), Some(EndReason::Revoked));
        assert_eq!(effects.len(), 1);
    }
}
