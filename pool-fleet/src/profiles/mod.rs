//! Profiles that travel: each is in use at most once in the whole fleet.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

mod attempt;
mod claim;
mod claimed;
mod copies;
mod pack;
mod sweep;
mod transfer;

pub use claim::{ClaimTimes, Holder, Record};
pub use claimed::ClaimedProfile;
pub use copies::ProfileId;
pub use pack::{Packing, unpack};
pub use transfer::{Transfer, TransferDirection, TransferOutcome};

use attempt::Attempt;
use claim::{Claimant, Step, Version};
use copies::{Copies, Mark};
use pack::Scratch;
use sweep::Sweeper;
use transfer::Transfers;

use crate::message::{Incarnation, NodeName};
use crate::subject::Subjects;
use crate::transport::{Store, Transport, TransportError};

/// Time that a node has to answer which copy it has.
const ANSWER: Duration = Duration::from_millis(500);

/// Directory, contents and times of a node's profiles.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProfileSettings {
    root: PathBuf,
    packing: Packing,
    times: ClaimTimes,
    settle: Duration,
    unused: Duration,
    transfers: Transfers,
}

impl ProfileSettings {
    /// Returns settings with the directory in which the node keeps its copies.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            packing: Packing::new(),
            times: ClaimTimes::default(),
            settle: Duration::from_secs(5),
            unused: Duration::from_secs(60 * 60),
            transfers: Transfers::default(),
        }
    }

    /// Sets which parts of a profile travel. Default: everything.
    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Sets the times of a claim, which must be the same on all nodes. Default:
    /// [`ClaimTimes::default`].
    pub fn times(mut self, times: ClaimTimes) -> Self {
        self.times = times;
        self
    }

    /// Sets the time, after a start or a return of the store, in which an absent profile is not yet
    /// taken for a new one, since the other nodes must be heard first. Default: 5 s.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settle = settle;
        self
    }

    /// Sets the time after which an object that no profile refers to is removed, and likewise the
    /// parts of a failed upload. One sweep removes at most a hundred of each, and there are six
    /// sweeps in that time. Default: an hour.
    pub fn unused(mut self, unused: Duration) -> Self {
        self.unused = unused;
        self
    }

    /// Sets what is told of each [`Transfer`] at its end. It must not wait: the transfer's task does
    /// meanwhile. Default: nothing.
    pub fn on_transfer(mut self, report: impl Fn(&Transfer) + Send + Sync + 'static) -> Self {
        self.transfers = Transfers::told_to(report);
        self
    }
}

/// Error of a travelling profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Another lease has the profile, on this node or on another one.
    #[error("the profile is in use{}", at(holder.as_ref()))]
    Busy {
        /// The holder, as far as is known.
        holder: Option<Holder>,
    },
    /// The store cannot be reached.
    #[error("the profile store cannot be reached")]
    Unavailable(#[source] TransportError),
    /// The store has no such profile, and nodes that may have a copy do not answer.
    #[error(
        "the store has no such profile, and {} did not say whether they have a copy",
        nodes.join(", ")
    )]
    Unknown {
        /// The nodes that did not answer.
        nodes: Vec<String>,
    },
    /// The saved content is gone from the store, and no node has a copy.
    #[error("the content of the profile is gone from the store, and no node has a copy")]
    ContentLost,
    /// The profile is not lost, so it is not made new: its next lease gets the copy.
    #[error("the profile still has a copy: {}", at.join(", "))]
    Kept {
        /// Where its copies are.
        at: Vec<String>,
    },
    /// Somebody else has the profile by now: changes made since cannot be saved.
    #[error("the profile was lost to another holder")]
    Lost,
    /// The directory could not be packed, unpacked or replaced.
    #[error("the profile's directory could not be read or written")]
    Io(#[from] io::Error),
}

fn at(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(" at {}", holder.node)).unwrap_or_default()
}

/// Question to a node about its copy of a profile.
#[derive(Debug, Serialize, Deserialize)]
struct CopyQuestion {
    id: ProfileId,
    /// The node must put its copy into the store.
    publish: bool,
}

/// Answer to a [`CopyQuestion`].
#[derive(Debug, Serialize, Deserialize)]
struct CopyAnswer {
    /// Version of its copy, if it has one.
    copy: Option<Version>,
    /// The profile is in use there.
    held: bool,
}

/// When a profile is made new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// Only if there is no copy of it.
    IfLost,
    Always,
}

/// The location of a profile that the store does not have.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// One of the nodes uses it.
    Held,
    /// This node has the newest copy.
    Here,
    /// That node has the newest copy.
    There(NodeName),
    /// Nobody has a copy.
    Nowhere,
    /// These nodes have not answered, and none of the others uses it.
    Silent(Vec<String>),
}

/// Returns the other nodes of the fleet, as far as this one knows.
pub type Members = Arc<dyn Fn() -> Vec<NodeName> + Send + Sync>;

/// The travelling profiles of a fleet, as seen by one node.
///
/// A profile is claimed before anything is created for it, and given up when its lease ends; both
/// are compare-and-swap in the store, so it is in use at most once and only one holder can save.
/// Cheap to clone.
#[derive(Clone)]
pub struct Profiles {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    transport: Arc<dyn Transport>,
    subjects: Subjects,
    node: NodeName,
    incarnation: Incarnation,
    members: Members,
    settings: ProfileSettings,
    copies: Arc<Copies>,
    claims: AtomicU64,
    /// Instances that are being worked on here.
    busy: Mutex<HashMap<ProfileId, Use>>,
    /// Holders of instances that are waited for here, as last seen.
    holders: Mutex<HashMap<ProfileId, NodeName>>,
    /// Time at which the store was last seen to come back.
    returned: Mutex<Instant>,
}

impl Profiles {
    /// Returns the profiles of a node. [`serve`](Self::serve) must run alongside.
    pub fn new(
        settings: ProfileSettings,
        transport: Arc<dyn Transport>,
        store: Arc<dyn Store>,
        subjects: Subjects,
        (node, incarnation): (NodeName, Incarnation),
        members: Members,
    ) -> Self {
        let inner = Inner {
            copies: Arc::new(Copies::new(settings.root.clone())),
            store,
            transport,
            subjects,
            node,
            incarnation,
            members,
            settings,
            claims: AtomicU64::new(0),
            busy: Mutex::default(),
            holders: Mutex::default(),
            returned: Mutex::new(Instant::now()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers other nodes about this node's copies, puts copies back into a store that has lost
    /// them, and removes unreferenced objects and the parts of failed uploads. It ends only if the
    /// transport does.
    ///
    /// # Errors
    ///
    /// The errors of [`Transport::subscribe`].
    pub async fn serve(&self) -> Result<(), TransportError> {
        let subject = self.inner.subjects.copy(&self.inner.node);
        let mut questions = self.inner.transport.subscribe(&subject).await?;
        let answering = async {
            while let Some(question) = questions.next().await {
                let (this, reply) = (self.clone(), question.reply.clone());
                let Some(reply) = reply else { continue };
                tokio::spawn(async move { this.answer(&question.payload, &reply).await });
            }
        };
        let keeping = async {
            let mut connection = self.inner.transport.connection();
            loop {
                if connection.borrow_and_update().is_connected() {
                    *lock(&self.inner.returned) = Instant::now();
                    sleep(self.inner.settings.settle).await;
                    while connection.borrow().is_connected() && !self.put_back().await {
                        sleep(self.inner.settings.settle).await;
                    }
                }
                if connection.changed().await.is_err() {
                    return;
                }
            }
        };
        let cleaning = async {
            let mut sweeper = Sweeper::default();
            loop {
                sleep(self.inner.settings.unused / 6).await;
                if let Err(error) = self.sweep(&mut sweeper).await {
                    tracing::debug!(%error, "could not look for unused profile objects");
                }
            }
        };
        tokio::select! {
            () = answering => {}
            () = keeping => {}
            () = cleaning => {}
        }
        Ok(())
    }

    /// Returns the instances of which this node has a copy, with the content number of each.
    ///
    /// # Errors
    ///
    /// The errors of the file system.
    pub async fn copies(&self) -> io::Result<Vec<(ProfileId, u64)>> {
        let copies = self.inner.list().await?;
        Ok(copies.into_iter().map(|(id, mark)| (id, mark.version.content)).collect())
    }

    /// Returns the entry of an instance in the store: its holder, and the node with the newest copy.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Unavailable`].
    pub async fn record(&self, id: &ProfileId) -> Result<Option<Record>, ProfileError> {
        Ok(self.inner.read(id).await?.map(|(_, record)| record))
    }

    /// Returns the node at which an instance is in use that is in use here, or that a
    /// [`claim`](Self::claim) of this node waits for. Asks nobody.
    #[must_use]
    pub fn in_use_at(&self, id: &ProfileId) -> Option<NodeName> {
        let inner = &self.inner;
        if lock(&inner.busy).get(id) == Some(&Use::Held) {
            return Some(Arc::clone(&inner.node));
        }
        lock(&inner.holders).get(id).cloned()
    }

    /// Claims an instance of a profile and updates its directory to the saved content.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Busy`] and [`ProfileError::Unknown`] if that remained so for all of
    /// `patience`; any other error at once.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a task gives up the claim if it was made, or if it turns out later
    /// to have been made. If the runtime or the store is gone, the claim ends
    /// [`ClaimTimes::takeover`] later.
    pub async fn claim(
        &self,
        id: &ProfileId,
        patience: Duration,
    ) -> Result<ClaimedProfile, ProfileError> {
        let deadline = Instant::now() + patience;
        let busy = loop {
            match Busy::enter(&self.inner, id) {
                Some(busy) => break busy,
                None if Instant::now() >= deadline => {
                    return Err(ProfileError::Busy { holder: None });
                }
                None => sleep(self.inner.settings.times.look).await,
            }
        };
        let hold = Attempt::new(&busy).claim(&busy, deadline).await?;
        tracing::debug!(profile = id.profile, instance = id.instance, "claimed");
        let claimed = ClaimedProfile::start(hold, busy);
        claimed.shared.fetch().await?;
        Ok(claimed)
    }

    /// Makes a profile new, on an operator's command, if nobody has a copy that a lease could get.
    ///
    /// The store must not have its content, all nodes that are heard must say that they have no copy
    /// either, and nobody may hold it; it takes [`ClaimTimes::takeover`] to tell that a holder is dead.
    /// It becomes a new generation: the copy of a node that is not heard is never used again. A
    /// profile that has nothing saved is new already.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Busy`], [`ProfileError::Kept`], [`ProfileError::Unknown`] if a node does not
    /// say what it has, [`ProfileError::Unavailable`], and [`ProfileError::Io`]. The profile is as it
    /// was then.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the profile is as it was, or new.
    pub async fn make_new_if_lost(&self, id: &ProfileId) -> Result<(), ProfileError> {
        self.renew(id, Renewal::IfLost).await
    }

    /// Makes a profile new, on an operator's command, whatever there is of it: for content that is
    /// damaged, or that nobody wants any more. [`make_new_if_lost`](Self::make_new_if_lost) looks first.
    ///
    /// It becomes a new generation, which no copy and no holder of an earlier one overwrites. If
    /// neither the store nor any node that answers knows the earlier generation, the clock of this
    /// node decides which of the two is newer.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Busy`] if somebody holds it, [`ProfileError::Unavailable`], and
    /// [`ProfileError::Io`]. The profile is as it was then.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the profile is as it was, or new.
    pub async fn make_new(&self, id: &ProfileId) -> Result<(), ProfileError> {
        self.renew(id, Renewal::Always).await
    }

    async fn renew(&self, id: &ProfileId, renewal: Renewal) -> Result<(), ProfileError> {
        let inner = &self.inner;
        while !inner.has_settled() {
            sleep(inner.settings.times.look).await;
        }
        let entry = inner.unheld(id).await?;
        let record = entry.as_ref().map(|(_, record)| record);
        if record.is_some_and(|record| record.content == 0) {
            return Ok(());
        }
        if let Some(Record { object: Some(object), .. }) = record
            && renewal == Renewal::IfLost
        {
            let stored = inner.store.object(&inner.bucket(), object).await;
            if stored.map_err(ProfileError::Unavailable)?.is_some() {
                return Err(ProfileError::Kept { at: vec!["in the store".to_owned()] });
            }
        }
        // As a claim would find it.
        let is_kept = |copy: Version| match record {
            None => true,
            Some(record) if record.lacks_object() => copy.generation >= record.generation,
            Some(record) => copy == record.version(),
        };
        let mut known = record.map_or(0, |record| record.generation);
        let (mut at, mut silent) = (Vec::new(), Vec::new());
        let held = lock(&inner.busy).get(id) == Some(&Use::Held);
        let copy = inner.mark(id).await?.map(|mark| mark.version);
        let own = (Arc::clone(&inner.node), Some(CopyAnswer { copy, held }));
        for (node, answer) in inner.ask_all(id).await.into_iter().chain([own]) {
            match answer {
                None => silent.push(node.to_string()),
                Some(CopyAnswer { held: true, .. }) => {
                    return Err(ProfileError::Busy { holder: None });
                }
                Some(CopyAnswer { copy: Some(copy), .. }) => {
                    known = known.max(copy.generation);
                    if is_kept(copy) {
                        at.push(format!("at {node}"));
                    }
                }
                Some(CopyAnswer { copy: None, .. }) => {}
            }
        }
        if renewal == Renewal::IfLost {
            if !at.is_empty() {
                return Err(ProfileError::Kept { at });
            }
            if !silent.is_empty() {
                return Err(ProfileError::Unknown { nodes: silent });
            }
        }
        let expected = entry.map(|(revision, _)| revision);
        match inner.write(id, &Record::new(generation_after(known)), expected).await {
            Ok(_) => Ok(()),
            // Somebody has claimed it meanwhile, or has put a copy back.
            Err(TransportError::Conflict { .. }) => Err(ProfileError::Busy { holder: None }),
            Err(error) => Err(ProfileError::Unavailable(error)),
        }
    }

    async fn answer(&self, question: &[u8], reply: &str) {
        let question: CopyQuestion = match serde_json::from_slice(question) {
            Ok(question) => question,
            Err(error) => return tracing::debug!(%error, "not a question about a profile"),
        };
        let inner = &self.inner;
        let copy = inner.mark(&question.id).await.ok().flatten().map(|mark| mark.version);
        let held = lock(&inner.busy).get(&question.id) == Some(&Use::Held);
        let answer = json(&CopyAnswer { copy, held });
        if let Err(error) = inner.transport.publish(reply, answer).await {
            tracing::debug!(%error, "a question about a profile was not answered");
        }
        if question.publish && !held {
            inner.publish(&question.id).await;
        }
    }

    /// Puts copies of this node back into a store that has lost them. Returns `false` if it has to
    /// be tried again.
    async fn put_back(&self) -> bool {
        let inner = &self.inner;
        let copies = match inner.list().await {
            Ok(copies) => copies,
            Err(error) => {
                tracing::warn!(%error, "the copies of profiles cannot be listed");
                return false;
            }
        };
        let mut complete = true;
        for (id, mark) in copies {
            let behind = match inner.read(&id).await {
                Ok(None) => true,
                Ok(Some((_, record))) => record.holder.is_none() && record.version() < mark.version,
                Err(_) => return false,
            };
            if !behind {
                continue;
            }
            match inner.search(&id, 0).await {
                Found::Here => inner.publish(&id).await,
                Found::Silent(_) => complete = false,
                // Another node's copy is newer, and that node puts it back.
                Found::Held | Found::There(_) | Found::Nowhere => {}
            }
        }
        complete
    }

    async fn sweep(&self, sweeper: &mut Sweeper) -> Result<(), TransportError> {
        let inner = &self.inner;
        let bucket = inner.bucket();
        // In this order, so that an object that a save refers to in the meantime counts as referred
        // to.
        let objects = inner.store.objects(&bucket).await?;
        let mut current = HashMap::new();
        for key in inner.store.keys(&bucket).await? {
            let Some(entry) = inner.store.get(&bucket, &key).await? else { continue };
            match serde_json::from_slice::<Record>(&entry.value) {
                // Its object may come back with a copy.
                Ok(record) if record.lacks_object() => {}
                Ok(record) => {
                    current.insert(key, record.object);
                }
                Err(error) => tracing::debug!(key, %error, "not an entry of a profile"),
            }
        }
        let (now, unused) = (boot_time(), inner.settings.unused);
        for object in sweeper.unused(objects, &current, now, unused) {
            tracing::debug!(object, "removing an object that no profile refers to");
            inner.store.delete_object(&bucket, &object).await?;
        }
        for upload in sweeper.failed(inner.store.uploads(&bucket).await?, now, unused) {
            tracing::debug!(id = upload.id, "removing what a failed upload left behind");
            inner.store.delete_upload(&bucket, &upload.id).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles")
            .field("node", &self.inner.node)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

/// The use of an instance on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is claimed, or its copy is being put into the store: it may be in use elsewhere.
    Wanted,
    /// It is in use here.
    Held,
}

/// Keeps an instance from being used twice on this node, until its last clone is dropped.
struct Busy {
    inner: Arc<Inner>,
    id: ProfileId,
}

impl Busy {
    fn enter(inner: &Arc<Inner>, id: &ProfileId) -> Option<Arc<Self>> {
        let mut busy = lock(&inner.busy);
        if busy.contains_key(id) {
            return None;
        }
        busy.insert(id.clone(), Use::Wanted);
        Some(Arc::new(Self { inner: Arc::clone(inner), id: id.clone() }))
    }

    /// Tells other nodes, if they ask, that the instance is in use here.
    fn hold(&self) {
        lock(&self.inner.busy).insert(self.id.clone(), Use::Held);
    }

    /// Works on the copy of the instance, which stays busy until the work has ended, even if nobody
    /// waits for it any more: nobody else may find the directory half replaced, or marked too late.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Copies, &ProfileId) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let this = Arc::clone(self);
        blocking(move || work(&this.inner.copies, &this.id)).await
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.inner.busy).remove(&self.id);
    }
}

impl Inner {
    fn bucket(&self) -> String {
        self.subjects.bucket("profiles")
    }

    /// Returns the mark of this node's copy of an instance.
    async fn mark(&self, id: &ProfileId) -> io::Result<Option<Mark>> {
        let (copies, id) = (Arc::clone(&self.copies), id.clone());
        blocking(move || copies.mark(&id)).await
    }

    /// Lists the marked copies of this node.
    async fn list(&self) -> io::Result<Vec<(ProfileId, Mark)>> {
        let copies = Arc::clone(&self.copies);
        blocking(move || copies.list()).await
    }

    async fn read(&self, id: &ProfileId) -> Result<Option<(u64, Record)>, ProfileError> {
        let entry = self.store.get(&self.bucket(), &id.key()).await;
        let Some(entry) = entry.map_err(ProfileError::Unavailable)? else { return Ok(None) };
        match serde_json::from_slice(&entry.value) {
            Ok(record) => Ok(Some((entry.revision, record))),
            Err(error) => {
                let reason = format!("the entry of a profile cannot be read: {error}");
                Err(ProfileError::Unavailable(TransportError::Store { reason }))
            }
        }
    }

    async fn write(
        &self,
        id: &ProfileId,
        record: &Record,
        expected: Option<u64>,
    ) -> Result<u64, TransportError> {
        self.store.put(&self.bucket(), &id.key(), json(record), expected).await
    }

    /// Returns the entry of an instance that nobody holds; a claim that is overdue holds nothing.
    async fn unheld(&self, id: &ProfileId) -> Result<Option<(u64, Record)>, ProfileError> {
        // It claims nothing: no claim has this number.
        let me = Holder { node: Arc::clone(&self.node), incarnation: self.incarnation, claim: 0 };
        let mut claimant = Claimant::new(me, self.settings.times);
        let mut first = None;
        loop {
            let entry = self.read(id).await?;
            let step = claimant.look(entry.clone(), boot_time());
            let (Step::Wait, Some((revision, record))) = (step, &entry) else { return Ok(entry) };
            // One that lives renews its claim.
            if *first.get_or_insert(*revision) != *revision {
                return Err(ProfileError::Busy { holder: record.holder.clone() });
            }
            sleep(self.settings.times.look).await;
        }
    }

    fn has_settled(&self) -> bool {
        lock(&self.returned).elapsed() >= self.settings.settle
    }

    async fn ask(&self, node: &str, id: &ProfileId, publish: bool) -> Option<CopyAnswer> {
        let question = json(&CopyQuestion { id: id.clone(), publish });
        let subject = self.subjects.copy(node);
        let answer = self.transport.request(&subject, question, ANSWER).await.ok()?;
        serde_json::from_slice(&answer).ok()
    }

    /// Asks all other nodes for their copies of a profile.
    async fn ask_all(&self, id: &ProfileId) -> Vec<(NodeName, Option<CopyAnswer>)> {
        let others = (self.members)();
        let asked = others.into_iter().map(|node| async move {
            let answer = self.ask(&node, id, false).await;
            (node, answer)
        });
        join_all(asked).await
    }

    /// Looks for copies of a profile that the store does not have. Copies of a generation before
    /// `generation` belong to a profile that no longer exists.
    async fn search(&self, id: &ProfileId, generation: u64) -> Found {
        let answers = self.ask_all(id).await;
        let own = self.mark(id).await.ok().flatten().map(|mark| mark.version);
        let own = own.filter(|copy| copy.generation >= generation);
        let mut newest = own.map(|copy| (copy, None));
        let mut silent = Vec::new();
        for (node, answer) in answers {
            let Some(answer) = answer else {
                silent.push(node.to_string());
                continue;
            };
            if answer.held {
                return Found::Held;
            }
            // Of equal copies, the one on the node whose name sorts first is put into the store.
            let better = |copy: Version| match &newest {
                None => true,
                Some((held, other)) => {
                    let holder = other.as_ref().unwrap_or(&self.node);
                    copy > *held || copy == *held && node < *holder
                }
            };
            let copy = answer.copy.filter(|copy| copy.generation >= generation && better(*copy));
            if let Some(copy) = copy {
                newest = Some((copy, Some(node)));
            }
        }
        match newest {
            // A silent node may be using the profile, or have a newer copy. It will soon be heard,
            // or be gone from the fleet.
            _ if !silent.is_empty() => Found::Silent(silent),
            Some((_, None)) => Found::Here,
            Some((_, Some(node))) => Found::There(node),
            None => Found::Nowhere,
        }
    }

    /// Puts this node's copy into the store, unless the profile is in use here or the store's
    /// content is as new.
    async fn publish(self: &Arc<Self>, id: &ProfileId) {
        let Some(busy) = Busy::enter(self, id) else { return };
        let published = async {
            let entry = self.read(id).await?;
            let Some(own) = self.mark(id).await?.map(|mark| mark.version) else { return Ok(()) };
            let expected = match entry {
                Some((_, record)) if record.version() >= own && !record.lacks_object() => {
                    return Ok(());
                }
                // A copy of a profile that no longer exists.
                Some((_, record)) if record.generation > own.generation => return Ok(()),
                Some((_, Record { holder: Some(_), .. })) => return Ok(()),
                Some((revision, _)) => Some(revision),
                None => None,
            };
            self.publish_copy(&busy, expected).await
        };
        match published.await {
            Ok(()) => {}
            Err(error) => tracing::warn!(
                profile = id.profile,
                error = chain(&error),
                "the copy of a profile was not put back into the store"
            ),
        }
    }

    /// Packs the marked copy and stores it as the profile's content.
    async fn publish_copy(
        &self,
        busy: &Arc<Busy>,
        expected: Option<u64>,
    ) -> Result<(), ProfileError> {
        let id = &busy.id;
        let Some(mark) = self.mark(id).await? else { return Ok(()) };
        let storing = async {
            let packed = self.pack(busy).await?;
            self.store_packed(id, &packed.0).await
        };
        let object = self.settings.transfers.count(TransferDirection::Out, storing).await?;
        let Version { generation, content } = mark.version;
        let record = Record {
            content,
            object: Some(object.clone()),
            saved_by: Some(Arc::clone(&self.node)),
            ..Record::new(generation)
        };
        match self.write(id, &record, expected).await {
            Ok(_) => {
                let mark = Mark { object, ..mark };
                busy.on_disk(move |copies, id| copies.set_mark(id, &mark)).await?;
                tracing::info!(
                    profile = id.profile,
                    content,
                    "the copy of a profile was put back into the store"
                );
                Ok(())
            }
            // Another node was quicker.
            Err(TransportError::Conflict { .. }) => Ok(()),
            Err(error) => Err(ProfileError::Unavailable(error)),
        }
    }

    /// Packs the directory of an instance.
    async fn pack(&self, busy: &Arc<Busy>) -> io::Result<Scratch> {
        let packed = Scratch(self.copies.scratch(&busy.id, "packed"));
        let (packing, to) = (self.settings.packing.clone(), packed.0.clone());
        busy.on_disk(move |copies, id| packing.pack(&copies.directory(id), &to)).await?;
        Ok(packed)
    }

    /// Stores a packed directory as a new object. Returns its name and its size.
    async fn store_packed(
        &self,
        id: &ProfileId,
        file: &Path,
    ) -> Result<(String, u64), ProfileError> {
        let object = id.new_object();
        let source = Box::pin(tokio::fs::File::open(file).await?);
        let stored = self.store.put_object(&self.bucket(), &object, source).await;
        let bytes = stored.map_err(ProfileError::Unavailable)?;
        Ok((object, bytes))
    }
}

/// Returns the time since the machine was started, sleep included: a claim also runs out on a
/// machine that sleeps.
fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Returns a generation later than `known`, and, as far as the clocks agree, later than those of
/// nodes that are out of reach.
fn generation_after(known: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(known.saturating_add(1))
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"))
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("it has string keys and nothing that can fail").into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

/// Does disk work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
