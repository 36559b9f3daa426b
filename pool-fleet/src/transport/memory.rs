//! A transport and a store within one process, with the faults of a real network on demand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::transport::{
    Connection, Entry, Incoming, ServerInfo, Source, Store, Subscription, Transport,
    TransportError, Upload,
};

/// Number of messages that a listener may leave unread before it loses further ones.
const UNREAD: usize = 4096;

/// A network in memory, which any number of transports join.
///
/// For tests: on request it loses, delays and duplicates messages, cuts single members off, and
/// forgets everything that it stores. It needs a runtime only if messages are delayed.
///
/// # Examples
///
/// ```
/// use pool_fleet::{MemoryNetwork, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new();
/// let (ann, bob) = (network.member("ann"), network.member("bob"));
/// let mut heard = bob.subscribe("greetings.*").await?;
/// ann.publish("greetings.bob", "hello".into()).await?;
/// assert_eq!(heard.next().await.unwrap().payload, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

/// The faults that a [`MemoryNetwork`] makes; none by default.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Share of the deliveries that are lost, 0.0 to 1.0.
    pub loss: f64,
    /// Share of the deliveries that are made twice, 0.0 to 1.0.
    pub doubling: f64,
    /// Shortest and longest delay of a delivery.
    pub delay: (Duration, Duration),
    /// Time that each answer of the store takes.
    pub store_delay: Duration,
}

impl Faults {
    /// Returns no faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the share of lost deliveries.
    #[must_use]
    pub fn loss(mut self, share: f64) -> Self {
        self.loss = share;
        self
    }

    /// Sets the share of deliveries that are made twice.
    #[must_use]
    pub fn doubling(mut self, share: f64) -> Self {
        self.doubling = share;
        self
    }

    /// Sets the shortest and the longest delay.
    #[must_use]
    pub fn delay(mut self, shortest: Duration, longest: Duration) -> Self {
        self.delay = (shortest, longest);
        self
    }

    /// Sets the time between the store's action and its answer; the answer is lost if its member is
    /// cut off in the meantime.
    #[must_use]
    pub fn store_delay(mut self, delay: Duration) -> Self {
        self.store_delay = delay;
        self
    }
}

#[derive(Default)]
struct State {
    listeners: Vec<Listener>,
    members: HashMap<Arc<str>, watch::Sender<Connection>>,
    cut: HashSet<Arc<str>>,
    faults: Faults,
    rng: Option<fastrand::Rng>,
    revision: u64,
    inboxes: u64,
    entries: HashMap<String, BTreeMap<String, Entry>>,
    objects: HashMap<String, BTreeMap<String, Bytes>>,
}

struct Listener {
    member: Arc<str>,
    pattern: String,
    messages: mpsc::Sender<Incoming>,
}

/// A delivery that is made at once or later.
struct Delivery {
    to: mpsc::Sender<Incoming>,
    after: Duration,
    message: Incoming,
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNetwork {
    /// Returns a network without faults and with nothing stored.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default() }
    }

    /// Returns the transport of a member; two with the same name are cut off together.
    #[must_use]
    pub fn member(&self, name: &str) -> Arc<MemoryTransport> {
        let name: Arc<str> = name.into();
        let mut state = self.lock();
        if !state.members.contains_key(&name) {
            state.members.insert(Arc::clone(&name), watch::Sender::new(Connection::Connected));
        }
        drop(state);
        Arc::new(MemoryTransport { network: self.clone(), name })
    }

    /// Makes faults from now on, drawn from a seed.
    pub fn set_faults(&self, faults: Faults, seed: u64) {
        let mut state = self.lock();
        state.faults = faults;
        state.rng = Some(fastrand::Rng::with_seed(seed));
    }

    /// Cuts a member off from everybody and from the store, or reconnects it.
    pub fn cut(&self, member: &str, off: bool) {
        let mut state = self.lock();
        let connection = if off {
            state.cut.insert(member.into());
            Connection::Disconnected
        } else {
            state.cut.remove(member);
            Connection::Connected
        };
        if let Some(told) = state.members.get(member) {
            told.send_replace(connection);
        }
    }

    /// Forgets every entry and every object, like a server that starts with an empty disk.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.entries.clear();
        state.objects.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the network")
    }

    fn send(&self, from: &str, message: &Incoming) -> Result<usize, TransportError> {
        let (reached, deliveries) = {
            let mut state = self.lock();
            if state.cut.contains(from) {
                return Err(TransportError::Disconnected);
            }
            state.deliveries(message)
        };
        for Delivery { to, after, message } in deliveries {
            if after.is_zero() {
                // A listener that does not read loses messages, as with a real server.
                to.try_send(message).ok();
            } else {
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    to.try_send(message).ok();
                });
            }
        }
        Ok(reached)
    }
}

impl State {
    /// Returns the number of listeners, and the deliveries to them.
    fn deliveries(&mut self, message: &Incoming) -> (usize, Vec<Delivery>) {
        self.listeners.retain(|listener| !listener.messages.is_closed());
        let Self { listeners, cut, faults, rng, .. } = self;
        let mut deliveries = Vec::new();
        let mut reached = 0;
        for listener in listeners.iter() {
            if cut.contains(&listener.member) || !matches(&listener.pattern, &message.subject) {
                continue;
            }
            reached += 1;
            let mut happens = |share: f64| rng.as_mut().is_some_and(|rng| rng.f64() < share);
            let copies = match (happens(faults.loss), happens(faults.doubling)) {
                (true, _) => 0,
                (false, true) => 2,
                (false, false) => 1,
            };
            for _ in 0..copies {
                let (shortest, longest) = faults.delay;
                let place = rng.as_mut().map_or(0.0, fastrand::Rng::f64);
                let after = shortest + longest.saturating_sub(shortest).mul_f64(place);
                let to = listener.messages.clone();
                deliveries.push(Delivery { to, after, message: message.clone() });
            }
        }
        (reached, deliveries)
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}

/// Returns `true` if a subject matches a pattern with `*` and `>`.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            (_, _) => return false,
        }
    }
    tokens.next().is_none()
}

/// A member's connection to a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    name: Arc<str>,
}

impl MemoryTransport {
    fn connected(&self) -> Result<MutexGuard<'_, State>, TransportError> {
        let state = self.network.lock();
        if state.cut.contains(&self.name) { Err(TransportError::Disconnected) } else { Ok(state) }
    }

    /// Waits for an answer of the store.
    async fn answered(&self) -> Result<(), TransportError> {
        let delay = self.connected()?.faults.store_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.connected().map(|_| ())
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), TransportError> {
        let message = Incoming::new(subject.to_owned(), payload, None);
        self.network.send(&self.name, &message).map(|_| ())
    }

    async fn flush(&self) -> Result<(), TransportError> {
        self.connected().map(|_| ())
    }

    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let inbox = {
            let mut state = self.network.lock();
            state.inboxes += 1;
            format!("_INBOX.{}", state.inboxes)
        };
        let mut answers = self.subscribe(&inbox).await?;
        let message = Incoming::new(subject.to_owned(), payload, Some(inbox));
        if self.network.send(&self.name, &message)? == 0 {
            return Err(TransportError::NoResponders { subject: subject.to_owned() });
        }
        match tokio::time::timeout(timeout, answers.next()).await {
            Ok(Some(answer)) => Ok(answer.payload),
            Ok(None) => Err(TransportError::Disconnected),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn subscribe(&self, subject: &str) -> Result<Subscription, TransportError> {
        let (messages, mut receiver) = mpsc::channel(UNREAD);
        let (member, pattern) = (Arc::clone(&self.name), subject.to_owned());
        self.network.lock().listeners.push(Listener { member, pattern, messages });
        Ok(Subscription::new(stream::poll_fn(move |cx| receiver.poll_recv(cx))))
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        let state = self.network.lock();
        state.members.get(&self.name).expect("a member stays known").subscribe()
    }

    async fn server(&self) -> Result<ServerInfo, TransportError> {
        let started = Instant::now();
        drop(self.connected()?);
        Ok(ServerInfo {
            name: "memory".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            round_trip: started.elapsed(),
            stores: true,
        })
    }
}

#[async_trait]
impl Store for MemoryTransport {
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Entry>, TransportError> {
        let entry = {
            let state = self.connected()?;
            state.entries.get(bucket).and_then(|entries| entries.get(key)).cloned()
        };
        self.answered().await?;
        Ok(entry)
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, TransportError> {
        let written = {
            let mut state = self.connected()?;
            let held = state.entries.get(bucket).and_then(|entries| entries.get(key));
            if held.map(|entry| entry.revision) == expected {
                let revision = state.next_revision();
                let entries = state.entries.entry(bucket.to_owned()).or_default();
                entries.insert(key.to_owned(), Entry { value, revision });
                Ok(revision)
            } else {
                Err(TransportError::Conflict { key: key.to_owned() })
            }
        };
        self.answered().await?;
        written
    }

    async fn delete(&self, bucket: &str, key: &str, expected: u64) -> Result<(), TransportError> {
        let removed = {
            let mut state = self.connected()?;
            let entries = state.entries.entry(bucket.to_owned()).or_default();
            if entries.get(key).map(|entry| entry.revision) == Some(expected) {
                entries.remove(key);
                Ok(())
            } else {
                Err(TransportError::Conflict { key: key.to_owned() })
            }
        };
        self.answered().await?;
        removed
    }

    async fn keys(&self, bucket: &str) -> Result<Vec<String>, TransportError> {
        let keys = {
            let state = self.connected()?;
            state.entries.get(bucket).map_or_else(Vec::new, |held| held.keys().cloned().collect())
        };
        self.answered().await?;
        Ok(keys)
    }

    async fn put_object(
        &self,
        bucket: &str,
        name: &str,
        mut source: Source,
    ) -> Result<u64, TransportError> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).await?;
        let size = bytes.len() as u64;
        {
            let mut state = self.connected()?;
            let objects = state.objects.entry(bucket.to_owned()).or_default();
            objects.insert(name.to_owned(), bytes.into());
        }
        self.answered().await?;
        Ok(size)
    }

    async fn object(&self, bucket: &str, name: &str) -> Result<Option<Source>, TransportError> {
        let held = {
            let state = self.connected()?;
            state.objects.get(bucket).and_then(|objects| objects.get(name)).cloned()
        };
        self.answered().await?;
        Ok(held.map(|bytes| Box::pin(Cursor::new(bytes)) as Source))
    }

    async fn objects(&self, bucket: &str) -> Result<Vec<String>, TransportError> {
        let names = {
            let state = self.connected()?;
            state.objects.get(bucket).map_or_else(Vec::new, |held| held.keys().cloned().collect())
        };
        self.answered().await?;
        Ok(names)
    }

    async fn delete_object(&self, bucket: &str, name: &str) -> Result<(), TransportError> {
        if let Some(objects) = self.connected()?.objects.get_mut(bucket) {
            objects.remove(name);
        }
        self.answered().await
    }

    /// Returns none, since an object is stored as a whole.
    async fn uploads(&self, _: &str) -> Result<Vec<Upload>, TransportError> {
        self.answered().await?;
        Ok(Vec::new())
    }

    async fn delete_upload(&self, _: &str, _: &str) -> Result<(), TransportError> {
        self.answered().await
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryNetwork")
            .field("members", &state.members.len())
            .field("cut", &state.cut)
            .field("faults", &state.faults)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn a_pattern_fits_what_nats_says_it_fits() {
        for (pattern, subject, fits) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("*.b", "a.b", true),
            (">", "a", true),
            ("a.b", "a", false),
            ("a", "a.b", false),
        ] {
            assert_eq!(matches(pattern, subject), fits, "{pattern} {subject}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_or_says_why_not() {
        let network = MemoryNetwork::new();
        let (ann, bob) = (network.member("ann"), network.member("bob"));
        let asked = ann.request("who.bob", "?".into(), SOON).await;
        assert!(matches!(asked, Err(TransportError::NoResponders { .. })));

        let mut asks = bob.subscribe("who.bob").await.unwrap();
        let silent = ann.request("who.bob", "?".into(), SOON).await;
        assert!(matches!(silent, Err(TransportError::TimedOut)));
        asks.next().await.unwrap();

        let answer = tokio::spawn(async move {
            let asked = asks.next().await.unwrap();
            bob.publish(&asked.reply.unwrap(), "I".into()).await.unwrap();
        });
        assert_eq!(ann.request("who.bob", "?".into(), SOON).await.unwrap(), "I");
        answer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_cut_off_hears_and_says_nothing() {
        let network = MemoryNetwork::new();
        let (ann, bob) = (network.member("ann"), network.member("bob"));
        let mut heard = bob.subscribe("news").await.unwrap();
        let mut connection = bob.connection();
        network.cut("bob", true);
        assert_eq!(*connection.borrow_and_update(), Connection::Disconnected);
        ann.publish("news", "lost".into()).await.unwrap();
        let said = bob.publish("news", "lost".into()).await;
        assert!(matches!(said, Err(TransportError::Disconnected)));
        assert!(matches!(bob.get("b", "k").await, Err(TransportError::Disconnected)));
        network.cut("bob", false);
        assert!(connection.borrow_and_update().is_connected());
        ann.publish("news", "heard".into()).await.unwrap();
        assert_eq!(heard.next().await.unwrap().payload, "heard");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_lose_double_and_delay_as_told() {
        let network = MemoryNetwork::new();
        let ann = network.member("ann");
        let mut heard = ann.subscribe("n").await.unwrap();
        let longest = Duration::from_millis(9);
        network.set_faults(Faults::none().loss(0.3).doubling(0.2).delay(SOON / 50, longest), 1);
        for _ in 0..1_000 {
            ann.publish("n", Bytes::new()).await.unwrap();
        }
        assert!(heard.try_next().is_none(), "nothing comes before its delay");
        tokio::time::sleep(longest + SOON).await;
        let mut count = 0;
        while heard.try_next().is_some() {
            count += 1;
        }
        // 0.7 arrive, 0.2 of them twice.
        assert!((780..900).contains(&count), "{count}");
    }

    #[tokio::test]
    async fn of_two_writers_one_wins() {
        let network = MemoryNetwork::new();
        let (ann, bob) = (network.member("ann"), network.member("bob"));
        let first = ann.put("b", "k", "1".into(), None).await.unwrap();
        let lost = bob.put("b", "k", "2".into(), None).await;
        assert!(matches!(lost, Err(TransportError::Conflict { .. })));
        let second = bob.put("b", "k", "2".into(), Some(first)).await.unwrap();
        assert!(ann.put("b", "k", "3".into(), Some(first)).await.is_err());
        assert!(ann.delete("b", "k", first).await.is_err());
        assert_eq!(ann.get("b", "k").await.unwrap().unwrap().value, "2");
        ann.delete("b", "k", second).await.unwrap();
        assert_eq!(ann.get("b", "k").await.unwrap(), None);
        assert!(ann.put("b", "k", "4".into(), None).await.unwrap() > second);
    }
}
