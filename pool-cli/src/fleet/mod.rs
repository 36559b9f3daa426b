//! The fleet: leases at other nodes, and requests that are relayed to them.

mod pool;
mod profiles;
mod relay;
mod waiters;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pool_core::{AcquireError, Request, async_trait};
use pool_fleet::engine::Waiting;
use pool_fleet::subject::Subjects;
use pool_fleet::{
    Cannot, Grant, JoinError, Member, Message, NatsTransport, NodeName, Reason, RemoteLease,
    Sessions, Snapshot, Store, Transport, TransportError, Wanted, Who,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use url::{Host, Url};

use crate::api::MakeNew;
use crate::config::{Config, FleetConfig, Secret};
use crate::exit::{self, Failure};
use crate::pool::{Browser, BrowserDriver, LeaseEnd, Leased, Opened};

pub use pool::{NodePool, TravellingPool};
use profiles::Choice;
pub(crate) use profiles::NotMadeNew;
pub use profiles::{ProfileClaim, ProfileInUse, TravelSpec, TravellingProfiles};
pub(crate) use relay::{RELAY, Relay, Relayed, Unreachable};
pub(crate) use waiters::ProfileWaiter;

/// A node's part in its fleet.
pub struct Fleet {
    node: Arc<dyn Node>,
    relay: Relay,
    sessions: Sessions,
    /// `None` if the pool has no profiles, as in tests.
    profiles: Option<TravellingProfiles>,
    /// Tasks that remove the names that dead nodes have left behind, and answer about profiles.
    tasks: Vec<AbortHandle>,
    /// Number of connections of clients here to leases at other nodes.
    relays: watch::Sender<usize>,
    /// The end that those clients are told, once there is one.
    end: watch::Sender<Option<LeaseEnd>>,
}

/// A client's connection to a lease at another node.
pub(crate) struct RelayedConnection(Arc<Fleet>);

impl RelayedConnection {
    /// Waits until this node ends it.
    pub(crate) async fn ended(&self) -> LeaseEnd {
        let mut end = self.0.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(end)) => end,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for RelayedConnection {
    fn drop(&mut self) {
        self.0.relays.send_modify(|relays| *relays -= 1);
    }
}

/// [`pool_fleet::Fleet`] with any kind of pool.
#[async_trait]
trait Node: Send + Sync {
    async fn acquire(
        &self,
        request: Request,
        wait: Duration,
        elsewhere: Option<&dyn Connect>,
        choice: Choice,
    ) -> Result<Placed, NotPlaced>;
    async fn take(&self, offer: &str) -> Option<Arc<dyn Leased>>;
    async fn snapshot(&self) -> Option<Snapshot>;
    async fn leave(&self);
    fn drain(&self);
    fn undrain(&self);
    fn name(&self) -> &NodeName;
    fn nodes(&self) -> watch::Receiver<Arc<[NodeName]>>;
    fn incarnation(&self) -> pool_fleet::Incarnation;
    fn namesake(&self) -> watch::Receiver<Option<Arc<pool_fleet::Beat>>>;
}

/// Connects to a lease of another node.
#[async_trait]
pub(crate) trait Connect: Send + Sync {
    /// Returns once the connection is made; an error says why it is not, and the client then keeps
    /// waiting.
    async fn connect(&self, lease: &RemoteLease) -> Result<(), String>;
}

/// The place of a client's lease.
pub(crate) enum Placed {
    Here(Arc<dyn Leased>),
    /// At another node, and connected to.
    There,
}

/// Reasons why a client got no lease.
#[derive(Debug)]
pub(crate) enum NotPlaced {
    /// The policies of this node refuse it.
    Refused(AcquireError),
    /// No node can serve it.
    Cannot(Cannot),
}

/// Time limit for connecting to a lease of another node, which goes back to its node slightly
/// later.
const CONNECT: Duration = Duration::from_millis(1900);

#[async_trait]
impl<P: NodePool> Node for pool_fleet::Fleet<P> {
    async fn acquire(
        &self,
        mut request: Request,
        wait: Duration,
        elsewhere: Option<&dyn Connect>,
        choice: Choice,
    ) -> Result<Placed, NotPlaced> {
        let (class, handicap) = self.pool().decide(&mut request).map_err(NotPlaced::Refused)?;
        let wanted = Wanted {
            class: class.to_string().into(),
            labels: request
                .labels
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            priority: request.priority,
            trace: None,
        };
        let mut waiting = Waiting::new(Arc::new(wanted), wait);
        waiting.handicap = handicap;
        waiting.waited = request.waited;
        waiting.prefer = choice.prefer;
        waiting.only = choice.only;
        if elsewhere.is_none() {
            if let Some(home) = waiting.only.as_deref().filter(|home| *home != &**self.node()) {
                let why = format!("the profile is at {home}, to which this request cannot be sent");
                let cannot = Cannot::new(Reason::Unavailable, "node_unavailable", &why);
                return Err(NotPlaced::Cannot(cannot));
            }
            waiting.only = Some(Arc::clone(self.node()));
        }
        let mut waiter = Self::acquire(self, waiting);
        loop {
            let remote = match waiter.next().await.map_err(NotPlaced::Cannot)? {
                Grant::Here { lease, .. } => return Ok(Placed::Here(P::leased(lease))),
                Grant::There(remote) => remote,
                other => unreachable!("a grant of no known place: {other:?}"),
            };
            let why = match elsewhere {
                Some(elsewhere) => match timeout(CONNECT, elsewhere.connect(&remote)).await {
                    Ok(Ok(())) => {
                        waiter.connected();
                        return Ok(Placed::There);
                    }
                    Ok(Err(why)) => why,
                    Err(_) => "it does not answer in time".to_owned(),
                },
                None => "this request can only be served here".to_owned(),
            };
            tracing::debug!(node = &*remote.node, why, "a lease of another node was not used");
            waiter.failed();
        }
    }

    async fn take(&self, offer: &str) -> Option<Arc<dyn Leased>> {
        Self::take(self, offer).await.map(P::leased)
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        Self::snapshot(self).await
    }

    async fn leave(&self) {
        Self::leave(self).await;
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn undrain(&self) {
        Self::undrain(self);
    }

    fn name(&self) -> &NodeName {
        self.node()
    }

    fn nodes(&self) -> watch::Receiver<Arc<[NodeName]>> {
        Self::nodes(self)
    }

    fn incarnation(&self) -> pool_fleet::Incarnation {
        Self::incarnation(self)
    }

    fn namesake(&self) -> watch::Receiver<Option<Arc<pool_fleet::Beat>>> {
        Self::namesake(self)
    }
}

/// A node's entry into a fleet: a connection to its servers, and a name that no live node has.
pub(crate) struct Entry {
    settings: FleetConfig,
    secret: Secret,
    transport: Arc<NatsTransport>,
}

/// Time that a live node has to report that it has a name.
const WHO: Duration = Duration::from_secs(1);

impl Entry {
    /// Connects, and asks whether the name is free, before anything is launched.
    ///
    /// Without a NATS server the node goes on alone, and joins the others when there is one.
    ///
    /// # Errors
    ///
    /// The message to print: unusable credentials, or a name that is taken (exit code 78).
    pub(crate) async fn of(settings: &FleetConfig) -> Result<Self, Failure> {
        let secret = settings.secret.clone().ok_or_else(|| {
            Failure::new("a fleet requires a secret".to_owned())
                .hint("set [fleet] secret = { env = \"FLEET_SECRET\" }")
                .code(exit::CONFIG)
        })?;
        let unusable = |error: TransportError| Failure::from(error).code(exit::CONFIG);
        let options = settings.nats_options().map_err(unusable)?.start_without_server(true);
        let transport = NatsTransport::connect(options).await.map_err(unusable)?;
        // If nobody can be asked now, a namesake is met once there is a connection, and the younger
        // node drains.
        match namesake(settings, &*transport).await {
            Ok(Some(address)) => Err(taken(&settings.node_name(), &address)),
            Ok(None) | Err(_) => Ok(Self { settings: settings.clone(), secret, transport }),
        }
    }

    /// Joins the fleet with a pool and the profiles that travel, which takes up to a second.
    ///
    /// # Errors
    ///
    /// The message to print, as [`of`](Self::of).
    pub(crate) async fn join(
        self,
        config: &Config,
        opened: &Opened,
    ) -> Result<Arc<Fleet>, Failure> {
        let Self { settings, secret, transport } = self;
        let node = settings.node_name();
        let advertise = settings.advertised(config.gateway.listen).ok_or_else(|| {
            Failure::new("the other nodes do not know where to reach this one".to_owned())
                .hint("set [fleet] advertise = \"ws://ADDRESS:PORT\"")
                .code(exit::CONFIG)
        })?;
        let profiles = config.profiles.named.keys().map(String::as_str);
        let mut member = Member::new(&settings.name, &node, &advertise)
            .version(env!("CARGO_PKG_VERSION"))
            .profiles(profiles, config.profiles.on_demand)
            .regions(config.regions.keys().map(String::as_str));
        for (name, value) in &settings.labels {
            member = member.label(name, value);
        }
        let pool = TravellingPool::new(opened.pool().clone(), opened.travelling().clone());
        let joined = pool_fleet::Fleet::join(member, pool, transport.clone()).await;
        let joined = joined.map_err(|error| match &error {
            JoinError::NameTaken { other } => taken(&other.node, &other.address),
            _ => Failure::from(error),
        })?;
        Ok(Fleet::with_profiles(joined, transport, &secret))
    }
}

/// Returns the address of the live node that has the configured name, if there is one; it is empty
/// if that node's version cannot be read.
///
/// # Errors
///
/// If nobody can be asked.
pub(crate) async fn namesake(
    settings: &FleetConfig,
    transport: &dyn Transport,
) -> Result<Option<Arc<str>>, TransportError> {
    let node = settings.node_name();
    let subjects = Subjects::new(&settings.name)
        .map_err(|error| TransportError::Configuration(error.to_string()))?;
    let question = Message::Who(Who::new(node.as_str())).encode();
    match transport.request(&subjects.who(&node), question.into(), WHO).await {
        Ok(answer) => Ok(Some(match Message::decode(&answer) {
            Ok(Message::WhoReply(reply)) => Arc::clone(&reply.beat.address),
            Ok(_) | Err(_) => "".into(),
        })),
        Err(TransportError::NoResponders { .. } | TransportError::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

fn taken(name: &str, address: &str) -> Failure {
    Failure::new(format!("another node at {address} is called {name:?} in this fleet"))
        .hint("give this one a name of its own: [fleet] node = \"…\"")
        .code(exit::CONFIG)
}

impl Fleet {
    /// Wraps a node that has joined its fleet; names of sessions are kept in the store, and
    /// requests that nodes pass on to each other are signed with the secret.
    pub fn new<P: NodePool>(
        joined: pool_fleet::Fleet<P>,
        store: Arc<dyn Store>,
        secret: &Secret,
    ) -> Arc<Self> {
        Arc::new(Self::of(joined, store, secret))
    }

    /// Wraps a node that has joined its fleet, and whose profiles travel; they are kept in the store,
    /// too.
    pub fn with_profiles<D: BrowserDriver>(
        joined: pool_fleet::Fleet<TravellingPool<D>>,
        store: Arc<dyn Store>,
        secret: &Secret,
    ) -> Arc<Self>
    where
        D::Resource: Browser,
    {
        let profiles = joined.pool().profiles().clone();
        let tasks = [profiles.join(&joined, Arc::clone(&store)), joined.pool().close_idle()];
        let mut fleet = Self::of(joined, store, secret);
        fleet.tasks.extend(tasks);
        fleet.profiles = Some(profiles);
        Arc::new(fleet)
    }

    fn of<P: NodePool>(
        joined: pool_fleet::Fleet<P>,
        store: Arc<dyn Store>,
        secret: &Secret,
    ) -> Self {
        let transport = Arc::clone(joined.transport());
        let sessions = Sessions::new(transport, store, joined.subjects().clone());
        let (names, node, nodes) = (sessions.clone(), joined.node().clone(), joined.nodes());
        let relay = Relay::new(&node, secret);
        let sweep = tokio::spawn(async move { names.serve(&node, nodes).await }).abort_handle();
        Self {
            node: Arc::new(joined),
            relay,
            sessions,
            profiles: None,
            tasks: vec![sweep],
            relays: watch::Sender::new(0),
            end: watch::Sender::new(None),
        }
    }

    /// Returns the name of this node.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// Returns this node's view of the fleet, or `None` after it has left.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.node.snapshot().await
    }

    /// Stops making offers to other nodes. Clients of this node are still served.
    pub fn drain(&self) {
        self.node.drain();
    }

    /// Serves other nodes again.
    pub fn undrain(&self) {
        self.node.undrain();
    }

    /// Leaves the fleet once its profiles are saved, and tells the others.
    pub async fn leave(&self) {
        if let Some(profiles) = &self.profiles {
            profiles.settled().await;
        }
        self.node.leave().await;
    }

    /// Waits until an older node with this node's name is met, and returns its address.
    pub fn namesake(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let mut namesake = self.node.namesake();
        async move {
            match namesake.wait_for(Option::is_some).await.map(|other| other.clone()) {
                Ok(Some(other)) => Arc::clone(&other.address),
                // The node has left, so it will not meet anybody any more.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// Returns the part that carries requests to other nodes.
    pub(crate) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Returns the names of sessions.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Returns the run of this node.
    pub(crate) fn incarnation(&self) -> pool_fleet::Incarnation {
        self.node.incarnation()
    }

    /// Counts a client's connection to a lease at another node.
    pub(crate) fn begin_relay(self: &Arc<Self>) -> RelayedConnection {
        self.relays.send_modify(|relays| *relays += 1);
        RelayedConnection(Arc::clone(self))
    }

    /// Returns the number of connections of clients here to leases at other nodes.
    #[must_use]
    pub fn relays(&self) -> usize {
        *self.relays.borrow()
    }

    /// Waits until there are no connections to leases at other nodes.
    pub(crate) async fn no_relays(&self) {
        // The sender lives as long as `self`.
        let _ = self.relays.subscribe().wait_for(|relays| *relays == 0).await;
    }

    /// Ends all connections to leases at other nodes.
    pub(crate) fn end_relays(&self, end: LeaseEnd) {
        self.end.send_replace(Some(end));
    }

    /// Waits for a lease, here or, if the request can be relayed, at another node.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client leaves all queues.
    pub(crate) async fn acquire(
        &self,
        request: Request,
        wait: Duration,
        elsewhere: Option<&dyn Connect>,
    ) -> Result<Placed, NotPlaced> {
        let choice = match &self.profiles {
            Some(profiles) => {
                profiles.choose(request.get("profile")).await.map_err(NotPlaced::Cannot)?
            }
            None => Choice::default(),
        };
        self.node.acquire(request, wait, elsewhere, choice).await
    }

    /// Returns the requests that wait at this node for a profile which is in use, and are not in the queue of its pool.
    pub(crate) fn profile_waiters(&self) -> Vec<ProfileWaiter> {
        self.profiles.as_ref().map(|profiles| profiles.waiters().all()).unwrap_or_default()
    }

    /// Returns the reason why a request waits for a profile, as far as this node knows.
    pub(crate) fn reason_of(&self, waiter: &ProfileWaiter) -> Option<String> {
        self.profiles.as_ref()?.reason(waiter)
    }

    /// Makes a state of a profile new if its content is lost, or is to be discarded.
    pub(crate) async fn make_new(&self, profile: &str, of: &MakeNew) -> Result<(), NotMadeNew> {
        match &self.profiles {
            Some(profiles) => profiles.make_new(profile, of).await,
            None => Err(NotMadeNew::Unknown),
        }
    }

    /// Takes the lease of this node that was offered to another one; this works once.
    pub(crate) async fn take(&self, offer: &str) -> Option<Arc<dyn Leased>> {
        self.node.take(offer).await
    }

    /// Returns the address of a node, if it is heard.
    pub(crate) async fn address_of(&self, node: &str) -> Option<Arc<str>> {
        let snapshot = self.snapshot().await?;
        let found = snapshot.nodes.iter().find(|beat| *beat.node == *node);
        found.map(|beat| Arc::clone(&beat.address))
    }
}

/// The default port of NATS servers.
const NATS: u16 = 4222;

/// Time between two looks at the addresses of the nodes, which may change with a restart.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps track of the fleet's members for as long as this node is one: guarded browsers are kept
/// from the other nodes and from the servers, which belong to the pool as much as this node does,
/// and the limits of tenants are divided among the nodes with browsers.
pub(crate) async fn follow(fleet: Weak<Fleet>, opened: Weak<Opened>, servers: Vec<String>) {
    let Some(mut nodes) = fleet.upgrade().map(|fleet| fleet.node.nodes()) else { return };
    let servers = servers.iter().filter_map(|server| host_and_port(server, NATS));
    let servers: Vec<_> = servers.collect();
    while let (Some(fleet), Some(opened)) = (fleet.upgrade(), opened.upgrade()) {
        let Some(snapshot) = fleet.snapshot().await else { return };
        let beats =
            || std::iter::once(&snapshot.own).chain(snapshot.nodes.iter().map(|beat| &**beat));
        let nodes_at = beats().filter_map(|beat| host_and_port(&beat.address, 80));
        opened.pool().driver().guard().protect_others(servers.iter().cloned().chain(nodes_at));
        let with_browsers = beats().filter(|beat| beat.load.places > 0).count();
        if let Err(error) = opened.part_among(with_browsers) {
            tracing::warn!(%error, "the limits of tenants could not be divided among the nodes");
        }
        drop((fleet, opened));
        // The sender is gone when the node has left.
        if matches!(timeout(LOOK, nodes.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

fn host_and_port(address: &str, usual: u16) -> Option<(Host<String>, u16)> {
    let url = Url::parse(address).ok()?;
    let host = url.host()?.to_string();
    Some((Host::parse(&host).ok()?, url.port_or_known_default().unwrap_or(usual)))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("node", self.node.name()).finish_non_exhaustive()
    }
}
