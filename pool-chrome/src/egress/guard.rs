use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use url::Host;

use super::pattern::undotted;
use super::rules::{ByName, Failure, Refusal};
use super::target::{Target, embedded, is_of_this_machine};
use super::{Pattern, Rules};

/// Maximum time for resolving a name.
const RESOLVE: Duration = Duration::from_secs(10);

/// Maximum number of names resolved at once, since threads are needed for other things too.
const ASKING: usize = 64;

/// Maximum time that a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);

/// Maximum time that an address may be silent before the next one is tried in parallel.
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of the name `localhost` and the names below it.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Age at which the addresses of the pool's own names are looked up again.
const ADVERTISED_AGE: Duration = Duration::from_secs(30);

/// Judges everything that the browsers of a pool ask for.
///
/// All [`Forwarder`](super::Forwarder)s of a pool share one guard: its [`Rules`], which can be
/// changed while they run, and the pool's own addresses, which none of its browsers may reach.
pub struct Guard {
    rules: watch::Sender<Arc<Rules>>,
    resolver: Box<dyn Resolve>,
    own: Mutex<Own>,
    /// Our ends of the connections that lead out. Two connections may have the same local address,
    /// if they lead to different ones.
    outgoing: Mutex<HashMap<SocketAddr, usize>>,
    requests: RequestCounts,
}

/// Addresses and listeners of this machine that belong to the pool.
#[derive(Debug, Default)]
struct Own {
    /// Addresses on which it listens. An unspecified address stands for all addresses of the
    /// machine.
    listeners: HashMap<SocketAddr, usize>,
    /// Names by which clients reach the pool.
    advertised: Vec<Advertised>,
    /// Names of machines that form one pool with this one.
    others: Vec<Advertised>,
}

impl Own {
    fn names(&self) -> impl Iterator<Item = &Advertised> {
        self.advertised.iter().chain(&self.others)
    }
}

/// A name and a port at which part of the pool can be reached.
#[derive(Debug)]
struct Advertised {
    host: Host<String>,
    port: u16,
    leads_to: Vec<IpAddr>,
    resolved_at: Option<Instant>,
}

impl Advertised {
    fn new(host: Host<String>, port: u16) -> Self {
        Self { host, port, leads_to: Vec::new(), resolved_at: None }
    }

    fn is_fresh(&self) -> bool {
        self.resolved_at.is_some_and(|at| at.elapsed() < ADVERTISED_AGE)
    }
}

/// Finds the addresses of names.
#[async_trait]
pub(super) trait Resolve: Send + Sync + 'static {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system, as other programs on this machine do.
struct System {
    /// Each question takes a thread, even if nobody waits for the answer any more.
    asking: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self { asking: Arc::new(Semaphore::new(ASKING)) }
    }
}

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let turn = Arc::clone(&self.asking).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let asked = tokio::spawn(async move {
            let found = tokio::net::lookup_host((name, 0)).await;
            drop(turn);
            found.map(|found| found.map(|address| address.ip()).collect())
        });
        asked.await?
    }
}

/// Counts of browsers' requests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requests {
    /// Reached their targets, or the proxy in front of them.
    pub forwarded: u64,
    /// Were against the rules.
    pub refused: u64,
    /// Could not be carried out, because the target or the proxy could not be reached.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct RequestCounts {
    forwarded: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Guard {
    /// Creates a guard with these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Arc<Self> {
        Self::resolving(rules, System::default())
    }

    pub(super) fn resolving(rules: Rules, resolver: impl Resolve) -> Arc<Self> {
        Arc::new(Self {
            rules: watch::Sender::new(Arc::new(rules)),
            resolver: Box::new(resolver),
            own: Mutex::default(),
            outgoing: Mutex::default(),
            requests: RequestCounts::default(),
        })
    }

    /// Changes the rules. Every connection of every browser is cut, so new ones are made under the
    /// new rules.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.send_if_modified(|held| {
            let differ = **held != rules;
            *held = Arc::new(rules);
            differ
        });
    }

    /// Returns the rules now in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Keeps browsers from an address on which the pool listens; with an unspecified address, from
    /// this port on every address of this machine.
    pub fn protect(&self, address: SocketAddr) {
        *self.own().listeners.entry(address).or_default() += 1;
    }

    pub(super) fn unprotect(&self, address: SocketAddr) {
        less(&mut self.own().listeners, address);
    }

    /// Keeps browsers from a name by which others reach the pool, and from its addresses. It
    /// replaces the name given before.
    pub fn protect_name(&self, host: &Host<String>, port: u16) {
        self.own().advertised = vec![Advertised::new(host.clone(), port)];
    }

    /// Keeps browsers from the names of other machines that form one pool with this one, and from
    /// their addresses. It replaces the names given before.
    pub fn protect_others(&self, names: impl IntoIterator<Item = (Host<String>, u16)>) {
        let mut own = self.own();
        let mut held = std::mem::take(&mut own.others);
        for (host, port) in names {
            let known = held.iter().position(|held| held.host == host && held.port == port);
            let other = known.map(|at| held.swap_remove(at));
            own.others.push(other.unwrap_or_else(|| Advertised::new(host, port)));
        }
    }

    /// Forgets the name given to [`protect_name`](Self::protect_name), if there is one.
    pub fn forget_names(&self) {
        self.own().advertised.clear();
    }

    /// Returns `true` if a connection that the pool has accepted was made by a browser of the pool,
    /// by whatever route. This is known by the time that the connection carries any data.
    #[must_use]
    pub fn is_of_a_browser(&self, peer: SocketAddr) -> bool {
        self.outgoing().contains_key(&canonical(peer))
    }

    /// Returns the outcomes of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        let RequestCounts { forwarded, refused, failed } = &self.requests;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests { forwarded: read(forwarded), refused: read(refused), failed: read(failed) }
    }

    pub(super) fn count<T>(&self, outcome: &Result<T, Failure>) {
        let RequestCounts { forwarded, refused, failed } = &self.requests;
        let count = match outcome {
            Ok(_) => forwarded,
            // Requests of Chromium itself, for no lease.
            Err(Failure::Refused(Refusal::Closed)) => return,
            Err(Failure::Refused(_)) => refused,
            Err(Failure::Unreachable(_) | Failure::Proxy(_)) => failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Judges a target that a proxy resolves.
    pub(super) fn admit(
        &self,
        target: &Target,
        domains: Option<&[Pattern]>,
    ) -> Result<(), Failure> {
        let addresses: Vec<IpAddr> = match &target.host {
            Host::Domain(name) if is_localhost(name) => LOCALHOST.to_vec(),
            host => literal(host).into_iter().collect(),
        };
        if self.is_listener(&addresses, target.port) || self.is_advertised_name(target) {
            return Err(Refusal::Pool.into());
        }
        Ok(self.rules().judge_unresolved(target, domains)?)
    }

    /// Judges a target, resolves it once, judges all its addresses, and connects to one of those
    /// addresses.
    pub(super) async fn connect(
        self: &Arc<Self>,
        target: &Target,
        domains: Option<&[Pattern]>,
    ) -> Result<Direct, Failure> {
        let rules = self.rules();
        let by_name = rules.judge_name(target, domains)?;
        if self.is_advertised_name(target) {
            return Err(Refusal::Pool.into());
        }
        let addresses = match (literal(&target.host), &target.host) {
            (Some(address), _) => vec![address],
            // Chromium does the same, and asks nobody either.
            (None, Host::Domain(name)) if is_localhost(name) => LOCALHOST.to_vec(),
            (None, host) => self.resolve(&host.to_string()).await?,
        };
        if self.is_pool(&addresses, target.port).await {
            return Err(Refusal::Pool.into());
        }
        if by_name == ByName::Undecided {
            for address in &addresses {
                rules.judge_address(*address, target.port)?;
            }
        }
        let stream = timeout(CONNECT, first(&addresses, target.port));
        let stream = stream.await.map_err(|_| unreachable("it does not answer"))?;
        let stream = stream.map_err(Failure::unreachable)?;
        // A failure costs only speed.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().map_err(Failure::unreachable)?;
        Ok(Direct { stream, mark: Mark::new(self, local) })
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let resolved = timeout(RESOLVE, self.resolver.resolve(name)).await;
        let resolved = resolved.map_err(|_| unreachable("its name was not resolved in time"))?;
        let addresses = resolved.map_err(Failure::unreachable)?;
        if addresses.is_empty() {
            return Err(unreachable("its name has no address"));
        }
        Ok(addresses)
    }

    async fn is_pool(&self, addresses: &[IpAddr], port: u16) -> bool {
        self.is_listener(addresses, port) || self.is_advertised_address(addresses, port).await
    }

    /// Returns `true` if the pool listens on one of the addresses, or on an address embedded in
    /// one.
    fn is_listener(&self, addresses: &[IpAddr], port: u16) -> bool {
        let own = self.own();
        let mut listeners = own.listeners.keys().filter(|own| own.port() == port).peekable();
        if listeners.peek().is_none() {
            return false;
        }
        let addresses = || addresses.iter().flat_map(|address| readings(*address));
        listeners.any(|listener| {
            let listener = listener.ip().to_canonical();
            addresses().any(|address| {
                address == listener
                    || address.is_unspecified()
                    || listener.is_unspecified() && is_of_this_machine(address)
            })
        })
    }

    fn is_advertised_name(&self, target: &Target) -> bool {
        let own = self.own();
        own.names().filter(|own| own.port == target.port).any(|own| {
            match (&own.host, &target.host) {
                (Host::Domain(own), Host::Domain(name)) => undotted(own) == undotted(name),
                (own, other) => own == other,
            }
        })
    }

    /// Returns `true` if a name at which part of the pool can be reached leads to one of the
    /// addresses.
    async fn is_advertised_address(&self, addresses: &[IpAddr], port: u16) -> bool {
        let known: Vec<_> = {
            let own = self.own();
            let names = own.names().filter(|own| own.port == port);
            names.map(|own| (own.host.clone(), own.leads_to.clone(), own.is_fresh())).collect()
        };
        for (host, mut leads_to, is_fresh) in known {
            if !is_fresh {
                let resolved = match literal(&host) {
                    Some(address) => Ok(vec![address]),
                    None => self.resolve(&host.to_string()).await,
                };
                // If the name cannot be resolved now, the known addresses stay.
                leads_to = resolved.unwrap_or(leads_to);
                let mut own = self.own();
                let Own { advertised, others, .. } = &mut *own;
                let names = advertised.iter_mut().chain(others);
                for held in names.filter(|held| held.host == host && held.port == port) {
                    held.leads_to.clone_from(&leads_to);
                    held.resolved_at = Some(Instant::now());
                }
            }
            let mut addresses = addresses.iter().flat_map(|address| readings(*address));
            if addresses.any(|address| leads_to.iter().any(|own| own.to_canonical() == address)) {
                return true;
            }
        }
        false
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self) -> MutexGuard<'_, HashMap<SocketAddr, usize>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("rules", &self.rules()).finish_non_exhaustive()
    }
}

/// A connection to a target with nothing in between.
pub(super) struct Direct {
    pub(super) stream: TcpStream,
    pub(super) mark: Mark,
}

/// Marks our end of a connection as one of a browser's.
pub(super) struct Mark {
    guard: Arc<Guard>,
    local: SocketAddr,
}

impl Mark {
    fn new(guard: &Arc<Guard>, local: SocketAddr) -> Self {
        let local = canonical(local);
        *guard.outgoing().entry(local).or_default() += 1;
        Self { guard: Arc::clone(guard), local }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mark").field(&self.local).finish()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        less(&mut self.guard.outgoing(), self.local);
    }
}

/// Decrements the count of an address.
fn less(counts: &mut HashMap<SocketAddr, usize>, address: SocketAddr) {
    if let Some(count) = counts.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&address);
        }
    }
}

fn unreachable(why: &'static str) -> Failure {
    Failure::unreachable(io::Error::other(why))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn literal(host: &Host<String>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
    }
}

/// Returns the address, and those that something on the way could read out of it.
fn readings(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let address = address.to_canonical();
    let within = match address {
        IpAddr::V4(_) => [None, None],
        IpAddr::V6(address) => embedded(address),
    };
    let within = within.into_iter().flatten().map(IpAddr::from);
    std::iter::once(address).chain(within)
}

fn is_localhost(name: &str) -> bool {
    let name = undotted(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// Connects to the first of the addresses that answers. If one is silent, others are tried in
/// parallel, the first of the other family before the rest.
async fn first(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect((*only, port)).await;
    }
    let mut left = addresses.to_vec();
    if let Some(other) = left.iter().position(|address| address.is_ipv4() != left[0].is_ipv4()) {
        let other = left.remove(other);
        left.insert(1, other);
    }
    let mut left = left.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut next = left.next();
    loop {
        if let Some(address) = next.take() {
            attempts.push(TcpStream::connect((address, port)));
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = error;
                    next = left.next();
                }
            },
            () = sleep(STAGGER), if left.len() > 0 => next = left.next(),
            else => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;

    use super::*;
    use crate::egress::Private;

    /// A name server that gives a different answer each time, in turn.
    #[derive(Default)]
    struct Rebinding {
        answers: Vec<Vec<&'static str>>,
        asked: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Resolve for Rebinding {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let turn = self.asked.fetch_add(1, Ordering::Relaxed) % self.answers.len();
            Ok(self.answers[turn].iter().map(|text| text.parse().unwrap()).collect())
        }
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: Host::parse(host).unwrap(), port }
    }

    fn refusal<T>(result: &Result<T, Failure>) -> Option<Refusal> {
        let Err(Failure::Refused(refusal)) = result else { return None };
        Some(*refusal)
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_and_its_connection_goes_where_the_judgement_was() {
        let (listener, port) = listener().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = vec![vec!["127.0.0.7"], vec!["127.0.0.1"]];
        let resolver = Rebinding { answers, asked: Arc::clone(&asked) };
        let allow = ["127.0.0.7".parse().unwrap()];
        let guard = Guard::resolving(Rules::new().private(Private::Deny).allow(allow), resolver);
        for round in 0..3 {
            let direct = guard.connect(&target("rebinding.example", port), None).await.unwrap();
            assert_eq!(asked.load(Ordering::Relaxed), 2 * round + 1);
            assert_eq!(direct.stream.peer_addr().unwrap().ip().to_string(), "127.0.0.7");
            listener.accept().await.unwrap();
            let rebound = guard.connect(&target("rebinding.example", port), None).await;
            assert_eq!(refusal(&rebound), Some(Refusal::Private));
        }
    }

    #[tokio::test]
    async fn all_answers_are_judged_and_not_the_first_alone() {
        let (_listener, port) = listener().await;
        for answer in [["127.0.0.7", "127.0.0.1"], ["127.0.0.1", "127.0.0.7"]] {
            let resolver = Rebinding { answers: vec![answer.to_vec()], ..Rebinding::default() };
            let allow = ["127.0.0.7".parse().unwrap()];
            let rules = Rules::new().private(Private::Deny).allow(allow);
            let guard = Guard::resolving(rules, resolver);
            let refused = guard.connect(&target("both.example", port), None).await;
            assert_eq!(refusal(&refused), Some(Refusal::Private));
        }
    }

    #[tokio::test]
    async fn the_pool_is_not_reached_whatever_its_address_is_called() {
        let everything = ["*".parse().unwrap()];
        let (_listener, port) = listener().await;
        for own in ["0.0.0.0", "[::]", "127.0.0.1"] {
            let resolver = Rebinding { answers: vec![vec!["127.0.0.1"]], ..Rebinding::default() };
            let guard = Guard::resolving(Rules::new().allow(everything.clone()), resolver);
            guard.protect(format!("{own}:{port}").parse().unwrap());
            for host in [
                "127.0.0.1",
                "localhost",
                "pool.example",
                "0.0.0.0",
                "[::]",
                "[::ffff:127.0.0.1]",
                "[::127.0.0.1]",
                "[64:ff9b::127.0.0.1]",
                "[2002:7f00:1::]",
            ] {
                let refused = guard.connect(&target(host, port), None).await;
                assert_eq!(refusal(&refused), Some(Refusal::Pool), "{own} as {host}");
                // With a proxy, only a name that is known to lead here by itself is refused.
                let by_proxy = refusal(&guard.admit(&target(host, port), None));
                let expected = (host != "pool.example").then_some(Refusal::Pool);
                assert_eq!(by_proxy, expected, "{own} as {host}");
            }
            if own != "127.0.0.1" {
                let refused = guard.connect(&target("127.8.8.8", port), None).await;
                assert_eq!(refusal(&refused), Some(Refusal::Pool), "{own} is all of them");
            }
            let elsewhere = guard.connect(&target("127.0.0.1", port.wrapping_add(1)), None).await;
            assert_eq!(refusal(&elsewhere), None);
            guard.unprotect(format!("{own}:{port}").parse().unwrap());
            assert!(guard.connect(&target("127.0.0.1", port), None).await.is_ok());
        }
    }

    #[tokio::test]
    async fn the_advertised_address_is_not_reached_by_its_name_or_where_that_leads() {
        let resolver =
            Rebinding { answers: vec![vec!["192.0.2.7", "2001:db8::7"]], ..Rebinding::default() };
        let guard = Guard::resolving(Rules::new(), resolver);
        guard.protect_name(&Host::parse("pool.example").unwrap(), 443);
        for host in ["pool.example", "POOL.example.", "alias.example", "192.0.2.7", "[2001:db8::7]"]
        {
            let refused = guard.connect(&target(host, 443), None).await;
            assert_eq!(refusal(&refused), Some(Refusal::Pool), "{host}");
        }
        assert_eq!(refusal(&guard.admit(&target("pool.example", 443), None)), Some(Refusal::Pool));
        assert_eq!(refusal(&guard.admit(&target("pool.example", 444), None)), None);
    }

    #[tokio::test]
    async fn other_machines_of_the_pool_are_not_reached_either_until_they_have_left() {
        let resolver = Rebinding { answers: vec![vec!["192.0.2.8"]], ..Rebinding::default() };
        let guard = Guard::resolving(Rules::new(), resolver);
        guard.protect_name(&Host::parse("192.0.2.1").unwrap(), 443);
        let others = || ["192.0.2.9", "node.example"].map(|host| Host::parse(host).unwrap());
        guard.protect_others(others().map(|host| (host, 443)));
        for host in ["192.0.2.1", "192.0.2.8", "192.0.2.9", "node.example", "alias.example"] {
            let refused = guard.connect(&target(host, 443), None).await;
            assert_eq!(refusal(&refused), Some(Refusal::Pool), "{host}");
        }
        guard.protect_others([]);
        assert_eq!(refusal(&guard.admit(&target("node.example", 443), None)), None);
        let own = guard.connect(&target("192.0.2.1", 443), None).await;
        assert_eq!(refusal(&own), Some(Refusal::Pool));
    }

    #[tokio::test]
    async fn a_connection_of_a_browser_is_known_at_its_other_end() {
        let (listener, port) = listener().await;
        let guard = Guard::new(Rules::new());
        let direct = guard.connect(&target("127.0.0.1", port), None).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(guard.is_of_a_browser(peer));
        drop(direct);
        assert!(!guard.is_of_a_browser(peer));
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_time_where_there_is_another() {
        let (listener, port) = listener().await;
        let addresses = [Ipv6Addr::LOCALHOST.into(), IpAddr::from([127, 0, 0, 1])];
        let stream = first(&addresses, port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
        drop(listener);
        assert!(first(&addresses, port).await.is_err());
        assert!(first(&[], port).await.is_err());
    }
}
