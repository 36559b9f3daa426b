use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::case::{TURNS, tail};
use crate::oracle::Oracle;
use crate::sockets::unused_port;
use crate::{Cable, Cdp, Exit, Home, Nats, Refused, Service, Setup, Site, eventually, pool_cli};

/// Maximum time until nodes hear of each other, or that one is gone.
const ACQUAINTED: Duration = Duration::from_secs(15);

const LOCALHOST: &str = "127.0.0.1";

/// Several services that are one pool, each with directories and a judge of its own, over one NATS
/// server, with a cable between every two parts.
#[derive(Debug)]
pub struct Fleet {
    /// The services.
    pub nodes: Vec<Node>,
    /// The server between them.
    pub nats: Nats,
    /// The site.
    pub site: Site,
}

/// A service of a fleet.
#[derive(Debug)]
pub struct Node {
    /// Its name in the fleet.
    pub name: String,
    /// The service.
    pub service: Service,
    /// The judge of what it leaves behind.
    pub oracle: Oracle,
    /// Its directories.
    pub home: Home,
    /// Its configuration.
    pub setup: Setup,
    /// The cable from it to the NATS server.
    pub nats: Cable,
    /// The cable from the other nodes to it.
    pub link: Cable,
}

/// Starts a node for each of these, does `body` to the fleet, and lets the
/// [oracle](crate::oracle) judge each node.
///
/// # Panics
///
/// If `body` does, or with what the oracle finds.
pub async fn fleet(setups: impl IntoIterator<Item = Setup>, body: impl AsyncFnOnce(&mut Fleet)) {
    let _turn = TURNS.acquire().await.expect("nobody closes it");
    let mut fleet = Fleet::start(setups).await;
    body(&mut fleet).await;
    fleet.finish().await;
}

impl Fleet {
    async fn start(setups: impl IntoIterator<Item = Setup>) -> Self {
        // Before ports are looked for: it may have to be built, and a free port is so for a moment.
        pool_cli();
        let nats = Nats::start().await;
        let site = Site::start().await;
        let mut parts = Vec::new();
        for (number, setup) in setups.into_iter().enumerate() {
            // As host names are: a lease's id is split at its last dot.
            let name = format!("node-{number}.test");
            let port = unused_port();
            let local = [LOCALHOST, LOCALHOST].map(str::to_owned);
            let [near, far] = setup.cable.clone().unwrap_or(local);
            let to_nats = Cable::from(&near, nats.port()).await;
            let link = Cable::from(LOCALHOST, port).await;
            let reached = match setup.cable {
                Some(_) => format!("ws://{far}:{port}"),
                None => format!("ws://{LOCALHOST}:{}", link.port),
            };
            let setup = setup
                .set("gateway.listen", format!("{far}:{port}"))
                .set("fleet.nats", vec![format!("nats://{near}:{}", to_nats.port)])
                .set("fleet.name", "test")
                .set("fleet.node", name.clone())
                .set("fleet.advertise", reached)
                .set("fleet.secret", "the secret of a fleet in a test");
            let home = Home::new();
            let oracle = Oracle::new(&home, setup.min_size());
            parts.push((name, setup, home, oracle, to_nats, link));
        }
        let started = parts.into_iter().map(|(name, setup, home, oracle, nats, link)| async {
            let service = Service::start(&home, &setup).await;
            Node { name, service, oracle, home, setup, nats, link }
        });
        let mut fleet = Self { nodes: join_all(started).await, nats, site };
        fleet.acquainted().await;
        fleet.begin().await;
        fleet
    }

    /// As each [oracle](crate::oracle) does by itself, but all hold their leases until the last one has its
    /// own: a node may be served by another one's browser, while its own is looked at.
    async fn begin(&mut self) {
        join_all(self.nodes.iter().map(|node| node.oracle.at_rest(&node.service))).await;
        let leases = self.nodes.iter().map(|node| node.oracle.lease_all(&node.service));
        let leases = join_all(leases).await;
        join_all(leases.into_iter().flatten().map(Cdp::close)).await;
        let taken = self.nodes.iter_mut().map(|node| node.oracle.take_down(&node.service));
        join_all(taken).await;
    }

    /// Waits until every node hears all others, and returns how long that took.
    ///
    /// # Panics
    ///
    /// If that does not come.
    pub async fn acquainted(&self) -> Duration {
        let began = Instant::now();
        for node in &self.nodes {
            node.hears(self.nodes.iter().map(|other| &*other.name)).await;
        }
        began.elapsed()
    }

    /// Starts a node again, in the same directories and under the same name, after the test has
    /// ended it; waits until all nodes hear it.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.service = Service::start(&node.home, &node.setup).await;
        self.acquainted().await;
    }

    /// Leases this many browsers through one node.
    ///
    /// # Panics
    ///
    /// If one is refused.
    pub async fn lease(&self, gateway: usize, count: usize) -> Vec<Cdp> {
        let mut leases = Vec::new();
        for _ in 0..count {
            leases.push(self.nodes[gateway].service.connect("/").await);
        }
        leases
    }

    /// The node that has the browser of a client.
    ///
    /// # Panics
    ///
    /// If it is none of ours.
    #[must_use]
    pub fn node_of(&self, client: &Cdp) -> usize {
        let lease = client.lease.as_deref().expect("the pool tells the lease");
        let node = lease.rsplit_once('.').map(|(node, _)| node);
        let known = self.nodes.iter().position(|known| Some(&*known.name) == node);
        known.unwrap_or_else(|| panic!("{lease} is at no node of this fleet"))
    }

    /// Starts another service under the name of a node that runs, which must refuse to start; the
    /// oracle looks at what is left of it.
    ///
    /// # Panics
    ///
    /// If it starts, or with what the oracle finds.
    pub async fn namesake_of(&self, node: usize) -> (Exit, String) {
        let home = Home::new();
        let oracle = Oracle::new(&home, 0);
        let address = format!("127.0.0.1:{}", unused_port());
        let setup = self.nodes[node].setup.clone().set("gateway.listen", address);
        let refused = Service::refused(&home, &setup).await;
        oracle.judge_end(&home).await;
        refused
    }

    async fn finish(&mut self) {
        let judged = self.nodes.iter().map(|node| node.oracle.judge(&node.service, &node.home));
        join_all(judged).await;
        // One after another: what one node's fresh lease was taken from is at rest again.
        for node in &self.nodes {
            node.oracle.at_rest(&node.service).await;
        }
        for node in &self.nodes {
            node.service.signal(Signal::TERM);
        }
        for node in &mut self.nodes {
            let exit = node.service.exit(Duration::from_secs(20)).await;
            assert_eq!(exit.code, Some(0), "{} ends in order", node.name);
            node.oracle.judge_end(&node.home).await;
        }
    }
}

impl Node {
    /// `host:port`, for clients that are tasks of their own.
    #[must_use]
    pub fn address(&self) -> String {
        self.service.address.clone()
    }

    /// Asks for a lease in a task of its own.
    #[must_use]
    pub fn asks(&self, path: &str) -> tokio::task::JoinHandle<Result<Cdp, Refused>> {
        let (address, path) = (self.address(), path.to_owned());
        tokio::spawn(async move { Cdp::open(&address, &path, &[]).await })
    }

    /// Waits until it hears exactly these nodes, itself among them.
    ///
    /// # Panics
    ///
    /// If that does not come.
    pub async fn hears(&self, names: impl IntoIterator<Item = &str>) {
        let mut wanted: Vec<&str> = names.into_iter().collect();
        wanted.sort_unstable();
        eventually("the nodes are acquainted", ACQUAINTED, async || {
            let told = self.service.get("/api/fleet").await.json();
            let nodes = told["nodes"].as_array().cloned().unwrap_or_default();
            let runs = |phase: &str| ["running", "draining"].contains(&phase);
            let mut heard: Vec<&str> = nodes
                .iter()
                .filter(|node| node["phase"].as_str().is_some_and(runs))
                .filter_map(|node| node["name"].as_str())
                .collect();
            heard.sort_unstable();
            if heard == wanted { Ok(()) } else { Err(format!("{}: {told}", self.name)) }
        })
        .await;
    }

    /// Waits until this many clients wait in its queue, of itself and of other nodes.
    ///
    /// # Panics
    ///
    /// If that does not come.
    pub async fn until_waiting(&self, wanted: usize) {
        eventually("they stand in its queue", Duration::from_secs(30), async || {
            let waiting = self.service.state().await["load"]["waiting"].clone();
            if waiting == wanted { Ok(()) } else { Err(format!("{}: {waiting}", self.name)) }
        })
        .await;
    }

    /// Waits until this many of its browsers are leased.
    ///
    /// # Panics
    ///
    /// If that does not come.
    pub async fn until_leased(&self, wanted: usize) {
        eventually("they are leased", Duration::from_secs(10), async || {
            let leased = self.service.state().await["load"]["leased"].clone();
            if leased == wanted { Ok(()) } else { Err(format!("{}: {leased}", self.name)) }
        })
        .await;
    }

    /// Waits until none of its browsers is leased or cleaned up after.
    ///
    /// # Panics
    ///
    /// If that does not come within `limit`.
    pub async fn until_released(&self, limit: Duration) -> Duration {
        eventually("its leases are over", limit, async || {
            let load = self.service.state().await["load"].clone();
            let busy = ["leased", "recycling"].iter().any(|name| load[*name] != 0);
            if busy { Err(format!("{}: {load}", self.name)) } else { Ok(()) }
        })
        .await
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("-- the log of {} ends with\n{}\n--", node.name, tail(&node.home));
            }
        }
    }
}
