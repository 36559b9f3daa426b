//! Names of sessions across the fleet: a name belongs to one lease of one tenant.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::message::{Incarnation, Message, NodeName, Who};
use crate::subject::{Subjects, encode};
use crate::transport::{Store, Transport, TransportError};

/// Time that a session's node has to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Time that the node has to show that it is alive: three beats, as elsewhere in the fleet, and
/// some more, since after a restart of the server, nodes come back one after another.
const GONE: Duration = Duration::from_millis(3500);

/// Time between two questions if the server knows of nobody to ask, and between two looks for a
/// name that is being withdrawn.
const PAUSE: Duration = Duration::from_millis(250);

/// Maximum number of looks for a name that is being withdrawn: ten seconds of them.
const WITHDRAWALS: u32 = 40;

/// Time between a change in the fleet and the resulting sweep, and so the minimum between any two
/// sweeps: nodes come and go together.
const SETTLE: Duration = Duration::from_secs(10);

/// Longest time between two sweeps: if a node's run is followed at once by another one of the same
/// name, that does not count as a change in the fleet.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// The lease that has a name, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Id of the lease.
    pub lease: Arc<str>,
    /// The node that has it.
    pub node: NodeName,
    /// The node's run.
    pub incarnation: Incarnation,
    /// Profile, region and kind of the lease.
    #[serde(flatten)]
    pub shape: Shape,
}

impl Session {
    /// Returns the session of a lease.
    #[must_use]
    pub fn new(lease: &str, node: NodeName, incarnation: Incarnation, shape: Shape) -> Self {
        Self { lease: lease.into(), node, incarnation, shape }
    }
}

/// Profile, region and kind, on which everybody who joins a session must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Its profile.
    pub profile: Option<Arc<str>>,
    /// Its region.
    pub region: Option<Arc<str>>,
    /// Its kind of lease.
    pub kind: Option<Arc<str>>,
}

impl Shape {
    /// Returns the first member in which two shapes differ, and its value in the held one.
    fn difference<'a>(&self, held: &'a Self) -> Option<(&'static str, Option<&'a str>)> {
        [
            ("profile", &self.profile, &held.profile),
            ("region", &self.region, &held.region),
            ("kind", &self.kind, &held.kind),
        ]
        .into_iter()
        .find(|(_, asked, held)| asked != held)
        .map(|(member, _, held)| (member, held.as_deref()))
    }
}

/// Error about a session's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The name belongs to a lease of a different shape (409 `session_differs`).
    #[error("the session {name} has the {member} {}", held.as_deref().unwrap_or("none"))]
    Differs {
        /// The name.
        name: String,
        /// `profile`, `region` or `kind`.
        member: &'static str,
        /// The held lease's value.
        held: Option<String>,
    },
    /// The store cannot be reached (503).
    #[error("the store of session names cannot be reached")]
    Unavailable(#[source] TransportError),
}

/// Result of an attempt to give a lease a name.
#[derive(Debug)]
pub enum Named {
    /// The name is this lease's until [`Sessions::remove`].
    Created(SessionEntry),
    /// Another lease has the name: give this one back untouched, and join that one.
    Join(Session),
}

/// A name that a lease of this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    key: String,
    revision: u64,
}

/// A name that is being created. If it is dropped while it may have been written, it is withdrawn.
struct Attempt<'a> {
    sessions: &'a Sessions,
    key: &'a str,
    session: &'a Session,
    in_doubt: bool,
}

impl Attempt<'_> {
    fn created(&mut self, revision: u64) -> SessionEntry {
        self.in_doubt = false;
        SessionEntry { key: self.key.to_owned(), revision }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.in_doubt {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (sessions, key) = (self.sessions.clone(), self.key.to_owned());
            let session = self.session.clone();
            runtime.spawn(async move { sessions.withdraw(&key, &session).await });
        }
    }
}

/// The names of sessions in the store. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    subjects: Subjects,
}

impl Sessions {
    /// Returns the session names of a fleet.
    pub fn new(transport: Arc<dyn Transport>, store: Arc<dyn Store>, subjects: Subjects) -> Self {
        Self { transport, store, subjects }
    }

    /// Removes the names that dead nodes have left behind: at the start, when the fleet changes and
    /// once an hour, one sweep after another and at most every 10 s. Of the nodes that hear each
    /// other, the first by name does it. It ends when the sender of `nodes`, the other nodes, is
    /// dropped.
    ///
    /// Pass the name of this node and [`Fleet::nodes`](crate::Fleet::nodes).
    pub async fn serve(&self, node: &NodeName, mut nodes: watch::Receiver<Arc<[NodeName]>>) {
        loop {
            sleep(SETTLE).await;
            let first = nodes.borrow_and_update().iter().all(|other| node < other);
            if first && let Err(error) = self.sweep().await {
                tracing::debug!(%error, "could not look for session names of dead nodes");
            }
            if let Ok(Err(_)) = timeout(SWEEP, nodes.changed()).await {
                return;
            }
        }
    }

    async fn sweep(&self) -> Result<(), SessionError> {
        let keys = self.store.keys(&self.bucket()).await.map_err(SessionError::Unavailable)?;
        let mut runs = HashMap::new();
        for key in keys {
            // An entry that cannot be read must not keep the others from being swept.
            let Ok(Some((revision, session))) = self.read(&key).await else { continue };
            let run = (Arc::clone(&session.node), session.incarnation);
            let alive = match runs.get(&run) {
                Some(alive) => *alive,
                None => {
                    let alive = self.is_alive(&session).await?;
                    runs.insert(run, alive);
                    alive
                }
            };
            if !alive {
                tracing::debug!(node = &*session.node, "removing the session name of a dead node");
                self.remove(&SessionEntry { key, revision }).await?;
            }
        }
        Ok(())
    }

    /// Returns the session with a name, if a live node has it.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unavailable`]; [`SessionError::Differs`] if it has another shape.
    pub async fn find(
        &self,
        tenant: &str,
        name: &str,
        shape: &Shape,
    ) -> Result<Option<Session>, SessionError> {
        match self.read(&key(tenant, name)).await? {
            Some((_, held)) if self.is_alive(&held).await? => fits(name, shape, held).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// Gives a name to a lease that this node has granted, and has not offered yet.
    ///
    /// If several try at the same time, one gets the name, and the others are told to join it. A
    /// name whose node has died is free.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, or fails, while the name may have been written, a task removes the
    /// name again: give the lease back, and do not try again with the same one. If the runtime or
    /// the store is gone, the name becomes free when this node's run ends.
    pub async fn create(
        &self,
        tenant: &str,
        name: &str,
        session: &Session,
    ) -> Result<Named, SessionError> {
        let (bucket, key) = (self.bucket(), key(tenant, name));
        let mut attempt = Attempt { sessions: self, key: &key, session, in_doubt: false };
        loop {
            let expected = match self.read(&key).await? {
                // An earlier, unconfirmed write was applied.
                Some((revision, held)) if held == *session => {
                    return Ok(Named::Created(attempt.created(revision)));
                }
                Some((_, held)) if self.is_alive(&held).await? => {
                    return fits(name, &session.shape, held).map(Named::Join);
                }
                Some((revision, _)) => Some(revision),
                None => None,
            };
            let value = serde_json::to_vec(session).expect("a session has only text and numbers");
            let doubted = std::mem::replace(&mut attempt.in_doubt, true);
            match self.store.put(&bucket, &key, value.into(), expected).await {
                Ok(revision) => return Ok(Named::Created(attempt.created(revision))),
                Err(TransportError::Conflict { .. }) => attempt.in_doubt = doubted,
                Err(error) => return Err(SessionError::Unavailable(error)),
            }
        }
    }

    /// Frees a name whose lease has ended; if another lease has the name by now, it stays.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unavailable`]; the name then becomes free when this node's run ends, and is
    /// swept by [`serve`](Self::serve).
    pub async fn remove(&self, entry: &SessionEntry) -> Result<(), SessionError> {
        match self.store.delete(&self.bucket(), &entry.key, entry.revision).await {
            Ok(()) | Err(TransportError::Conflict { .. }) => Ok(()),
            Err(error) => Err(SessionError::Unavailable(error)),
        }
    }

    /// Frees the name of a lease that its own node knows to have ended: if [`remove`](Self::remove)
    /// has failed, or has not got that far yet. If another lease has the name by now, it stays.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unavailable`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the name may or may not be free; call it again.
    pub async fn forget(
        &self,
        tenant: &str,
        name: &str,
        session: &Session,
    ) -> Result<(), SessionError> {
        let key = key(tenant, name);
        match self.read(&key).await? {
            Some((revision, held)) if held == *session => {
                self.remove(&SessionEntry { key, revision }).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes the name of a lease if it has been written, or is written within a moment.
    async fn withdraw(&self, key: &str, session: &Session) {
        for _ in 0..WITHDRAWALS {
            if let Ok(Some((revision, held))) = self.read(key).await {
                if held != *session {
                    return;
                }
                let entry = SessionEntry { key: key.to_owned(), revision };
                if self.remove(&entry).await.is_ok() {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }

    fn bucket(&self) -> String {
        self.subjects.bucket("sessions")
    }

    async fn read(&self, key: &str) -> Result<Option<(u64, Session)>, SessionError> {
        let entry = self.store.get(&self.bucket(), key).await.map_err(SessionError::Unavailable)?;
        let Some(entry) = entry else { return Ok(None) };
        match serde_json::from_slice(&entry.value) {
            Ok(session) => Ok(Some((entry.revision, session))),
            Err(error) => {
                let reason = format!("the entry of a session cannot be read: {error}");
                Err(SessionError::Unavailable(TransportError::Store { reason }))
            }
        }
    }

    /// Returns `true` if the node's run that has a session is still alive. Silence only counts as
    /// death after [`GONE`]: the name of a live lease must not go to another.
    async fn is_alive(&self, session: &Session) -> Result<bool, SessionError> {
        let who = Message::Who(Who { node: Arc::clone(&session.node), starting: None }).encode();
        let subject = self.subjects.who(&session.node);
        let until = Instant::now() + GONE;
        loop {
            match self.transport.request(&subject, who.clone().into(), ANSWER).await {
                Ok(answer) => {
                    return match Message::decode(&answer) {
                        Ok(Message::WhoReply(reply)) => {
                            Ok(reply.beat.incarnation == session.incarnation)
                        }
                        // It answers, whatever its version.
                        Ok(_) | Err(_) => Ok(true),
                    };
                }
                Err(error @ TransportError::Disconnected) => {
                    return Err(SessionError::Unavailable(error));
                }
                Err(TransportError::NoResponders { .. }) => sleep(PAUSE).await,
                Err(_) => {}
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("subjects", &self.subjects).finish_non_exhaustive()
    }
}

fn key(tenant: &str, name: &str) -> String {
    format!("{}.{}", encode(tenant), encode(name))
}

fn fits(name: &str, shape: &Shape, held: Session) -> Result<Session, SessionError> {
    match shape.difference(&held.shape) {
        None => Ok(held),
        Some((member, has)) => {
            let (name, held) = (name.to_owned(), has.map(str::to_owned));
            Err(SessionError::Differs { name, member, held })
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::message::{Beat, WhoReply};
    use crate::transport::memory::{Faults, MemoryNetwork, MemoryTransport};

    fn run(started: u64) -> Incarnation {
        Incarnation::new(Duration::from_secs(started), 0)
    }

    fn subjects() -> Subjects {
        Subjects::new("test").unwrap()
    }

    fn names(transport: &Arc<MemoryTransport>) -> Sessions {
        Sessions::new(Arc::clone(transport) as _, Arc::clone(transport) as _, subjects())
    }

    /// Answers `who` for a node, as a node does.
    async fn live(network: &MemoryNetwork, node: &str, incarnation: Incarnation) -> JoinHandle<()> {
        let transport = network.member(node);
        let mut asked = transport.subscribe(&subjects().who(node)).await.unwrap();
        let beat = Arc::new(Beat::new(node, incarnation, ""));
        tokio::spawn(async move {
            while let Some(asked) = asked.next().await {
                let reply = Message::WhoReply(WhoReply { beat: Arc::clone(&beat) }).encode();
                transport.publish(&asked.reply.unwrap(), reply.into()).await.unwrap();
            }
        })
    }

    fn session(lease: &str, node: &str, started: u64) -> Session {
        Session::new(lease, node.into(), run(started), Shape::default())
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_want_a_name_one_has_it_and_the_others_join() {
        let network = MemoryNetwork::new();
        let _a = live(&network, "a", run(1)).await;
        let tries = (0..20).map(|n| {
            let sessions = names(&network.member("a"));
            let asked = session(&format!("a.{n}"), "a", 1);
            tokio::spawn(async move { sessions.create("t", "n", &asked).await.unwrap() })
        });
        let mut created = 0;
        let mut joined = Vec::new();
        for named in futures_util::future::join_all(tries).await {
            match named.unwrap() {
                Named::Created(_) => created += 1,
                Named::Join(session) => joined.push(session.lease),
            }
        }
        assert_eq!(created, 1);
        assert_eq!(joined.len(), 19);
        joined.dedup();
        assert_eq!(joined.len(), 1, "all join the same lease");
    }

    #[tokio::test(start_paused = true)]
    async fn another_profile_region_or_kind_is_told_what_differs() {
        let network = MemoryNetwork::new();
        let _a = live(&network, "a", run(1)).await;
        let sessions = names(&network.member("a"));
        let shape = Shape { profile: Some("work".into()), ..Shape::default() };
        let held = Session { shape: shape.clone(), ..session("a.1", "a", 1) };
        sessions.create("t", "n", &held).await.unwrap();
        let refused = sessions.create("t", "n", &session("a.2", "a", 1)).await.unwrap_err();
        assert_eq!(refused.to_string(), "the session n has the profile work");
        let region = Shape { region: Some("eu".into()), ..shape.clone() };
        let refused = sessions.find("t", "n", &region).await.unwrap_err();
        assert!(matches!(refused, SessionError::Differs { member: "region", held: None, .. }));
        let kind = Shape { kind: Some("shared".into()), ..shape.clone() };
        let refused = sessions.find("t", "n", &kind).await.unwrap_err();
        assert!(matches!(refused, SessionError::Differs { member: "kind", .. }));
        assert_eq!(sessions.find("t", "n", &shape).await.unwrap(), Some(held));
        // Another tenant's name is another name, even if the two would read the same.
        assert_eq!(sessions.find("t.n", "", &shape).await.unwrap(), None);
        assert_eq!(sessions.find("other", "n", &region).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_name_of_a_node_that_died_or_restarted_is_free() {
        let network = MemoryNetwork::new();
        let first = live(&network, "a", run(1)).await;
        let sessions = names(&network.member("b"));
        let held = session("a.1", "a", 1);
        let Named::Created(old) = sessions.create("t", "n", &held).await.unwrap() else {
            panic!("the name is free");
        };
        first.abort();
        assert!(first.await.is_err());
        assert_eq!(sessions.find("t", "n", &Shape::default()).await.unwrap(), None);

        let _again = live(&network, "a", run(2)).await;
        assert_eq!(sessions.find("t", "n", &Shape::default()).await.unwrap(), None);
        let newer = session("a.2", "a", 2);
        assert!(matches!(sessions.create("t", "n", &newer).await.unwrap(), Named::Created(_)));
        // A late end takes nothing from the newer session.
        sessions.remove(&old).await.unwrap();
        assert_eq!(sessions.find("t", "n", &Shape::default()).await.unwrap(), Some(newer));
    }

    #[tokio::test(start_paused = true)]
    async fn the_name_of_a_node_that_is_silent_for_a_moment_stays_its_own() {
        let network = MemoryNetwork::new();
        let first = live(&network, "a", run(1)).await;
        let sessions = names(&network.member("b"));
        let held = session("a.1", "a", 1);
        sessions.create("t", "n", &held).await.unwrap();
        // As after a restart of the server, when it comes back later than others do.
        first.abort();
        assert!(first.await.is_err());
        let back = network.clone();
        let back = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let again = live(&back, "a", run(1)).await;
            again.await
        });
        let named = sessions.create("t", "n", &session("b.1", "b", 5)).await.unwrap();
        assert!(matches!(named, Named::Join(session) if session == held));
        back.abort();
    }

    /// Returns the names of the leases that have one.
    async fn held(transport: &MemoryTransport) -> Vec<String> {
        let bucket = subjects().bucket("sessions");
        let mut leases = Vec::new();
        for key in transport.keys(&bucket).await.unwrap() {
            let entry = transport.get(&bucket, &key).await.unwrap().unwrap();
            let session: Session = serde_json::from_slice(&entry.value).unwrap();
            leases.push(session.lease.to_string());
        }
        leases.sort();
        leases
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_dead_nodes_and_runs_are_removed_and_those_of_live_ones_stay() {
        let network = MemoryNetwork::new();
        let _a = live(&network, "a", run(1)).await;
        let b = live(&network, "b", run(1)).await;
        let store = network.member("a");
        let sessions = names(&store);
        for (lease, node, started) in
            [("a.1", "a", 1), ("a.0", "a", 0), ("b.1", "b", 1), ("b.2", "b", 1)]
        {
            sessions.create("t", lease, &session(lease, node, started)).await.unwrap();
        }
        let (heard, nodes) = watch::channel(Arc::from([NodeName::from("b")]));
        let of_b = names(&network.member("b"));
        let (told, also) = (sessions.clone(), nodes.clone());
        tokio::spawn(async move { told.serve(&"a".into(), nodes).await });
        // The second by name leaves the sweep to the first.
        tokio::spawn(async move { of_b.serve(&"c".into(), also).await });
        sleep(SETTLE * 2).await;
        assert_eq!(held(&store).await, ["a.1", "b.1", "b.2"], "the run before is over");

        b.abort();
        assert!(b.await.is_err());
        sleep(SETTLE * 2).await;
        assert_eq!(held(&store).await, ["a.1", "b.1", "b.2"], "nothing has changed yet");
        heard.send_replace(Arc::from([]));
        sleep(SETTLE * 2).await;
        assert_eq!(held(&store).await, ["a.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_creation_is_cancelled_at_any_moment_is_free() {
        for steps in 1..6 {
            let network = MemoryNetwork::new();
            let _a = live(&network, "a", run(1)).await;
            let store = network.member("a");
            let sessions = names(&store);
            let slow = Duration::from_millis(100);
            network.set_faults(Faults::none().store_delay(slow), 1);
            let cancelled = session("a.1", "a", 1);
            let creating = sessions.create("t", "n", &cancelled);
            let ended = tokio::time::timeout(slow * steps / 2, creating).await;
            network.set_faults(Faults::none(), 1);
            sleep(Duration::from_secs(1)).await;
            match ended {
                Ok(named) => assert!(matches!(named, Ok(Named::Created(_))), "{named:?}"),
                Err(_) => assert_eq!(held(&store).await, [""; 0], "cancelled after {steps}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_store_a_name_is_an_error_and_not_a_second_lease() {
        let network = MemoryNetwork::new();
        let sessions = names(&network.member("a"));
        network.cut("a", true);
        let found = sessions.find("t", "n", &Shape::default()).await;
        assert!(matches!(found, Err(SessionError::Unavailable(_))));
        let created = sessions.create("t", "n", &session("a.1", "a", 1)).await;
        assert!(matches!(created, Err(SessionError::Unavailable(_))));
    }
}
