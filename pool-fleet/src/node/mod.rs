//! A running node of the fleet: the engine, driven over a transport and a pool.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

mod driver;

use driver::{Command, Driver};

use crate::engine::{Settings, Waiting};
use crate::local::LocalPool;
use crate::message::{Beat, Cannot, Incarnation, NodeName, Reason};
use crate::subject::{NameError, Subjects, check_node};
use crate::transport::{Connection, Transport, TransportError};

/// Describes a node to its fleet: names, address, labels.
#[derive(Clone, Debug)]
#[must_use]
pub struct Member {
    fleet: String,
    node: NodeName,
    advertise: Arc<str>,
    version: Arc<str>,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    profiles: Vec<Arc<str>>,
    any_profile: bool,
    regions: Vec<Arc<str>>,
    settings: Settings,
    seed: Option<u64>,
}

impl Member {
    /// Describes a node of a fleet, with the address at which the other nodes can reach its leases;
    /// what that address means is up to the nodes.
    pub fn new(fleet: &str, node: &str, advertise: &str) -> Self {
        Self {
            fleet: fleet.into(),
            node: node.into(),
            advertise: advertise.into(),
            version: "".into(),
            labels: BTreeMap::new(),
            profiles: Vec::new(),
            any_profile: false,
            regions: Vec::new(),
            settings: Settings::default(),
            seed: None,
        }
    }

    /// Sets the version of the program, as the other nodes show it. Default: empty.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    /// Sets a label; nodes ask those of their own `zone` first.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the profiles that this node can serve, and whether it makes others on demand. Default:
    /// none.
    pub fn profiles<'a>(
        mut self,
        names: impl IntoIterator<Item = &'a str>,
        on_demand: bool,
    ) -> Self {
        self.profiles = names.into_iter().map(Arc::from).collect();
        self.any_profile = on_demand;
        self
    }

    /// Sets the regions that this node can serve. Default: none.
    pub fn regions<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.regions = names.into_iter().map(Arc::from).collect();
        self
    }

    /// Sets the times and counts of the protocol. Default: [`Settings::default`].
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the seed for the choice of nodes, for tests. Default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    fn beat(&self) -> Beat {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let incarnation = Incarnation::new(now, fastrand::u32(..));
        let mut beat = Beat::new(Arc::clone(&self.node), incarnation, &self.advertise);
        beat.version = Arc::clone(&self.version);
        beat.labels.clone_from(&self.labels);
        beat.profiles = self.profiles.iter().cloned().collect();
        beat.any_profile = self.any_profile;
        beat.regions = self.regions.iter().cloned().collect();
        beat
    }
}

/// Error returned when a node cannot join its fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Another live node has the name.
    #[error("the name {} is taken by a node at {}", other.node, other.address)]
    NameTaken {
        /// The last beat of that node.
        other: Arc<Beat>,
    },
    /// The fleet's or the node's name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The transport does not let the node subscribe.
    #[error("the node cannot subscribe to the messages of its fleet")]
    Transport(#[from] TransportError),
}

/// A lease that a client has been granted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Grant<L> {
    /// A lease of this node's own pool.
    Here {
        /// Its id.
        id: Arc<str>,
        /// The lease.
        lease: L,
    },
    /// A lease of another node, which waits for a connection for [`Settings::connect`].
    There(RemoteLease),
}

/// A lease at another node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteLease {
    /// Its id, which includes its node.
    pub id: Arc<str>,
    /// The node.
    pub node: NodeName,
    /// The node's run.
    pub incarnation: Incarnation,
    /// The address that the node advertises.
    pub address: Arc<str>,
}

/// A client that waits for a lease; dropping it leaves all queues.
pub struct Waiter<P: LocalPool> {
    client: u64,
    grants: mpsc::UnboundedReceiver<Result<Grant<P::Lease>, Cannot>>,
    commands: mpsc::UnboundedSender<Command<P::Lease>>,
    pool: Arc<P>,
    done: bool,
}

impl<P: LocalPool> Waiter<P> {
    /// Waits for a lease or a refusal, which comes at the request's timeout at the latest.
    ///
    /// After [`Grant::There`], the caller connects and calls [`connected`](Self::connected), or
    /// calls [`failed`](Self::failed) and waits again.
    ///
    /// # Errors
    ///
    /// The worst reason of all the nodes that were asked.
    ///
    /// # Cancel safety
    ///
    /// No grant is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Grant<P::Lease>, Cannot> {
        let answer = self.grants.recv().await.unwrap_or_else(|| Err(left()));
        self.done = !matches!(answer, Ok(Grant::There(_)));
        answer
    }

    /// Reports that the caller has connected to the remote lease, which is now the caller's.
    pub fn connected(mut self) {
        self.done = true;
        self.commands.send(Command::Connected { client: self.client }).ok();
    }

    /// Reports that the remote lease could not be connected to. The client keeps waiting, with its
    /// age.
    pub fn failed(&mut self) {
        self.commands.send(Command::ConnectFailed { client: self.client }).ok();
    }
}

impl<P: LocalPool> Drop for Waiter<P> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.grants.close();
        while let Ok(answer) = self.grants.try_recv() {
            if let Ok(Grant::Here { lease, .. }) = answer {
                self.pool.return_untouched(lease);
            }
        }
        self.commands.send(Command::GiveUp { client: self.client }).ok();
    }
}

impl<P: LocalPool> fmt::Debug for Waiter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("client", &self.client).finish_non_exhaustive()
    }
}

fn left() -> Cannot {
    Cannot::new(Reason::Draining, "draining", "this node has left the fleet")
}

/// The fleet as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The connection to the server.
    pub connection: Connection,
    /// This node.
    pub own: Beat,
    /// Last beats of the other nodes that are heard, sorted by node name.
    pub nodes: Vec<Arc<Beat>>,
    /// Clients that wait at this node.
    pub clients: usize,
    /// Requests of other nodes that stand in this node's queue.
    pub remote: usize,
    /// Totals of this node.
    pub counters: Counters,
}

/// Totals of a node since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Clients that got a lease of this node.
    pub granted_here: u64,
    /// Clients that got a lease of another node and connected to it.
    pub granted_there: u64,
    /// Remote leases that could not be connected to.
    pub connections_failed: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Asks that were sent to other nodes.
    pub asks: u64,
    /// Offers made to other nodes.
    pub offers: u64,
    /// Offers that were accepted.
    pub offers_accepted: u64,
    /// Offers that were declined.
    pub offers_declined: u64,
    /// Offers that were not answered in time.
    pub offers_unanswered: u64,
    /// Leases of this node that other nodes connected to.
    pub taken: u64,
    /// Messages that this node could not send.
    pub unsent: u64,
    /// Messages that this node could not read.
    pub unreadable: u64,
}

/// A node's part in its fleet; a handle that is cheap to clone.
///
/// Without a connection to the server, the node goes on alone with what it has. When the last
/// handle is dropped, the node leaves silently, and the others notice when they no longer hear it;
/// call [`leave`](Self::leave) to tell them.
///
/// # Examples
///
/// Two nodes with one resource each:
///
/// ```
/// use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
/// use pool_fleet::engine::Waiting;
/// use pool_fleet::{Fleet, Grant, Member, MemoryNetwork, Wanted};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// struct Greeters(&'static str);
///
/// #[async_trait]
/// impl Driver for Greeters {
///     type Spec = ();
///     type Resource = String;
///     type Error = std::io::Error;
///
///     async fn create(&self, _: &(), _: &Meta, _: Reporter) -> Result<String, Self::Error> {
///         Ok(format!("hello from {}", self.0))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // `NatsTransport::connect` in real life.
/// let network = MemoryNetwork::new();
/// let pool = |node| Pool::builder(Greeters(node)).max_size(1).build();
/// let a = Fleet::join(Member::new("demo", "a", "a:1"), pool("a")?, network.member("a")).await?;
/// let b = Fleet::join(Member::new("demo", "b", "b:1"), pool("b")?, network.member("b")).await?;
/// tokio::time::sleep(Duration::from_secs(1)).await;
///
/// let request = Arc::new(Wanted { class: "default".into(), ..Wanted::default() });
/// let wanted = || Waiting::new(Arc::clone(&request), Duration::from_secs(5));
/// let mut first = a.acquire(wanted());
/// let Grant::Here { lease, .. } = first.next().await? else { panic!("its own comes first") };
/// assert_eq!(*lease, "hello from a");
///
/// let mut second = a.acquire(wanted());
/// let Grant::There(remote) = second.next().await? else { panic!("its own is leased") };
/// assert_eq!((&*remote.node, &*remote.address), ("b", "b:1"));
/// // Connecting is up to the program; at the other end:
/// let lease = b.take(&remote.id).await.expect("it waits for two seconds");
/// second.connected();
/// assert_eq!(*lease, "hello from b");
/// # Ok(())
/// # }
/// ```
pub struct Fleet<P: LocalPool> {
    shared: Arc<Shared<P>>,
}

struct Shared<P: LocalPool> {
    pool: Arc<P>,
    node: NodeName,
    incarnation: Incarnation,
    subjects: Subjects,
    transport: Arc<dyn Transport>,
    clients: AtomicU64,
    /// Maximum time to connect to a lease of another node.
    connect: Duration,
    commands: mpsc::UnboundedSender<Command<P::Lease>>,
    namesake: watch::Receiver<Option<Arc<Beat>>>,
    nodes: watch::Receiver<Arc<[NodeName]>>,
    driver: AbortHandle,
}

impl<P: LocalPool> Drop for Shared<P> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<P: LocalPool> Fleet<P> {
    /// Joins a fleet: asks whether the name is free, which takes a second, then listens and beats.
    ///
    /// # Errors
    ///
    /// [`JoinError::NameTaken`] if a live node has the name, [`JoinError::Name`] if a name cannot
    /// be used, and [`JoinError::Transport`] if the node cannot listen.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the node does not join.
    pub async fn join(
        member: Member,
        pool: P,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, JoinError> {
        let subjects = Subjects::new(&member.fleet)?;
        check_node(&member.node)?;
        let beat = member.beat();
        let (node, incarnation) = (Arc::clone(&beat.node), beat.incarnation);
        let connect = member.settings.connect;
        let pool = Arc::new(pool);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (joined, joining) = oneshot::channel();
        let (told, namesake) = watch::channel(None);
        let (listed, nodes) = watch::channel(Arc::from([]));
        let driver = Driver::new(driver::Parts {
            beat,
            settings: member.settings,
            seed: member.seed.unwrap_or_else(|| fastrand::u64(..)),
            pool: Arc::clone(&pool),
            transport: Arc::clone(&transport),
            subjects: subjects.clone(),
            commands: inbox,
            joined,
            namesake: told,
            nodes: listed,
        });
        let driver = driver.start().await?.abort_handle();
        let shared = Shared {
            pool,
            node,
            incarnation,
            subjects,
            transport,
            clients: AtomicU64::new(0),
            connect,
            commands,
            namesake,
            nodes,
            driver,
        };
        // Before the wait, so that the driver ends if the join is dropped.
        let fleet = Self { shared: Arc::new(shared) };
        match joining.await {
            Ok(Ok(())) => Ok(fleet),
            Ok(Err(other)) => Err(JoinError::NameTaken { other }),
            Err(_) => Err(JoinError::Transport(TransportError::Disconnected)),
        }
    }

    /// Asks for a lease, here and elsewhere.
    pub fn acquire(&self, waiting: Waiting) -> Waiter<P> {
        let client = self.shared.clients.fetch_add(1, Ordering::Relaxed);
        let (answers, grants) = mpsc::unbounded_channel();
        let commands = self.shared.commands.clone();
        commands.send(Command::Acquire { client, waiting, answers }).ok();
        Waiter { client, grants, commands, pool: Arc::clone(&self.shared.pool), done: false }
    }

    /// Asks for a lease and, if it is at another node, connects to it; tries again until one
    /// succeeds.
    ///
    /// # Errors
    ///
    /// As [`Waiter::next`]. An error of `connect` is logged, and the client keeps waiting, as it
    /// does if `connect` takes longer than [`Settings::connect`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client leaves all queues.
    pub async fn acquire_with<C, E: fmt::Display>(
        &self,
        waiting: Waiting,
        mut connect: impl AsyncFnMut(&RemoteLease) -> Result<C, E>,
    ) -> Result<Acquired<P::Lease, C>, Cannot> {
        let mut waiter = self.acquire(waiting);
        loop {
            match waiter.next().await? {
                Grant::Here { id, lease } => return Ok(Acquired::Here { id, lease }),
                Grant::There(remote) => {
                    match timeout(self.shared.connect, connect(&remote)).await {
                        Ok(Ok(connection)) => {
                            waiter.connected();
                            return Ok(Acquired::There { remote, connection });
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(
                                node = &*remote.node, %error, "could not connect to a remote lease"
                            );
                            waiter.failed();
                        }
                        Err(_) => {
                            tracing::debug!(
                                node = &*remote.node,
                                "could not connect to a remote lease in time"
                            );
                            waiter.failed();
                        }
                    }
                }
            }
        }
    }

    /// Takes the lease of this node that another node is connecting to; this works once. Returns
    /// `None` if there is no such lease, or if the connection comes too late: somebody else's
    /// resource is never returned.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease goes back to the pool.
    pub async fn take(&self, id: &str) -> Option<P::Lease> {
        let (answer, taken) = oneshot::channel();
        self.shared.commands.send(Command::Take { id: id.into(), answer }).ok()?;
        taken.await.ok().flatten()
    }

    /// Stops making offers to other nodes, and tells them. Clients of this node keep waiting.
    pub fn drain(&self) {
        self.shared.commands.send(Command::Drain).ok();
    }

    /// Serves other nodes again after [`drain`](Self::drain).
    pub fn undrain(&self) {
        self.shared.commands.send(Command::Undrain).ok();
    }

    /// Leaves the fleet: refuses the clients that wait here, and says goodbye. Returns once the
    /// server has the goodbye, or after 500 ms.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the node leaves all the same.
    pub async fn leave(&self) {
        let (answer, left) = oneshot::channel();
        if self.shared.commands.send(Command::Leave { answer }).is_ok() {
            left.await.ok();
        }
    }

    /// Returns the fleet as this node sees it, or `None` after it has left.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.shared.commands.send(Command::Snapshot { answer }).ok()?;
        snapshot.await.ok()
    }

    /// Returns the name of this node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.shared.node
    }

    /// Returns the run of this node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation
    }

    /// Returns the subjects of the fleet.
    #[must_use]
    pub fn subjects(&self) -> &Subjects {
        &self.shared.subjects
    }

    /// Returns the transport.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.shared.transport
    }

    /// Returns the pool of this node.
    #[must_use]
    pub fn pool(&self) -> &P {
        &self.shared.pool
    }

    /// Returns the sorted names of the other nodes that are heard, as a value to read and wait on.
    #[must_use]
    pub fn nodes(&self) -> watch::Receiver<Arc<[NodeName]>> {
        self.shared.nodes.clone()
    }

    /// Returns the older node with this node's name, once one is met; this node has then begun to
    /// drain.
    #[must_use]
    pub fn namesake(&self) -> watch::Receiver<Option<Arc<Beat>>> {
        self.shared.namesake.clone()
    }
}

/// A lease that is ready for use.
#[derive(Debug)]
#[non_exhaustive]
pub enum Acquired<L, C> {
    /// A lease of this node.
    Here {
        /// Its id.
        id: Arc<str>,
        /// The lease.
        lease: L,
    },
    /// A lease of another node, and the connection to it.
    There {
        /// The lease.
        remote: RemoteLease,
        /// The connection to it.
        connection: C,
    },
}

impl<P: LocalPool> Clone for Fleet<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: LocalPool> fmt::Debug for Fleet<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("node", &self.shared.node)
            .field("incarnation", &self.shared.incarnation)
            .finish_non_exhaustive()
    }
}

/// Maximum time for a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use pool_core::Pool;
    use pool_core::testing::FakeDriver;
    use tokio::time::Instant;

    use super::*;
    use crate::message::Wanted;
    use crate::transport::memory::MemoryNetwork;

    const LONG: Duration = Duration::from_secs(60);

    /// Makes a node with one place join.
    async fn join(network: &MemoryNetwork, node: &str) -> Fleet<Pool<FakeDriver>> {
        let pool = Pool::builder(FakeDriver::new()).max_size(1).build().unwrap();
        Fleet::join(Member::new("test", node, node), pool, network.member(node)).await.unwrap()
    }

    fn waiting() -> Waiting {
        let request = Wanted { class: "default".into(), ..Wanted::default() };
        Waiting::new(Arc::new(request), LONG)
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_nodes_are_sorted_by_name() {
        let network = MemoryNetwork::new();
        let first = join(&network, "m").await;
        let mut others = Vec::new();
        for name in ["k", "z", "b", "x", "a", "q", "c", "y"] {
            others.push(join(&network, name).await);
        }
        let expected = ["a", "b", "c", "k", "q", "x", "y", "z"];
        let mut heard = first.nodes();
        let names = heard.wait_for(|names| names.len() == others.len()).await.unwrap().clone();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
        let snapshot = first.snapshot().await.unwrap();
        let names: Vec<&str> = snapshot.nodes.iter().map(|beat| &*beat.node).collect();
        assert_eq!(names, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_everywhere_is_counted_at_its_own_node() {
        let network = MemoryNetwork::new();
        let (a, b) = (join(&network, "a").await, join(&network, "b").await);
        a.nodes().wait_for(|names| names.len() == 1).await.unwrap();
        let Ok(Grant::Here { lease: _held, .. }) = a.acquire(waiting()).next().await else {
            panic!("its own comes first");
        };
        let Ok(Grant::Here { lease: _also, .. }) = b.acquire(waiting()).next().await else {
            panic!("its own comes first");
        };
        let mut waiter = a.acquire(waiting());
        let third = tokio::spawn(async move { waiter.next().await.is_ok() });
        tokio::time::sleep(Duration::from_secs(5)).await;
        let seen = b.snapshot().await.unwrap();
        let queue = |beat: &Beat| beat.load.classes["default"].waiting;
        assert_eq!((queue(&seen.own), queue(&seen.nodes[0])), (1, 1), "it stands in both");
        assert_eq!((seen.own.clients, seen.nodes[0].clients), (0, 1));
        let oldest = seen.nodes[0].oldest_wait_ms;
        assert!((3000..=5000).contains(&oldest), "{oldest}");
        third.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_too_long_is_given_up_and_the_client_waits_on() {
        let network = MemoryNetwork::new();
        let (a, b) = (join(&network, "a").await, join(&network, "b").await);
        a.nodes().wait_for(|names| names.len() == 1).await.unwrap();
        b.nodes().wait_for(|names| names.len() == 1).await.unwrap();
        let Ok(Grant::Here { lease: _held, .. }) = a.acquire(waiting()).next().await else {
            panic!("its own comes first");
        };
        let (started, mut offered) = (Instant::now(), Vec::new());
        let acquired = a.acquire_with(waiting(), async |remote| {
            offered.push(Arc::clone(&remote.id));
            if offered.len() == 1 {
                pending::<()>().await;
            }
            b.take(&remote.id).await.ok_or("too late")
        });
        let Ok(Acquired::There { remote, .. }) = acquired.await else { panic!("b has one") };
        assert_eq!(offered.len(), 2, "{offered:?}");
        assert_eq!(offered[1], remote.id);
        assert_ne!(offered[0], remote.id, "the first went back to its node");
        let connect = Settings::default().connect;
        let waited = started.elapsed();
        assert!(waited >= connect && waited < connect * 2, "{waited:?}");
        let counters = a.snapshot().await.unwrap().counters;
        assert_eq!((counters.connections_failed, counters.granted_there), (1, 1));
    }
}
