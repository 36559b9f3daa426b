//! Profiles that travel: which do, and the claims of this node.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::select_ok;
use pool_core::{BoxError, Class, Driver, Policy};
use pool_fleet::{
    Cannot, ClaimedProfile, Connection, LocalPool, NodeName, Packing, ProfileError, ProfileId,
    ProfileSettings, Profiles, Reason, Record, Store, unpack,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Config, FleetConfig, ProfileConfig};
use crate::exit::chain;
use crate::gateway::Code;

/// The label of requests, and of classes, that names a profile.
pub(super) const LABEL: &str = "profile";

/// Time for which a save is tried again while the store cannot be reached.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Time that the end of a node waits for its profiles to be saved.
const SETTLE: Duration = Duration::from_secs(20);

/// Time that an instance which is in use may take to be saved before a client gets a new one: its login is better than
/// none.
const SAVING: Duration = Duration::from_secs(3);

/// Interval at which browsers are looked for that nobody has taken: their profiles are not free.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Files and directories of a profile that hold nothing that its Chromium does not make again.
const CACHES: [&str; 11] = [
    "BrowserMetrics",
    "Cache",
    "Code Cache",
    "Crash Reports",
    "Crashpad",
    "DawnGraphiteCache",
    "DawnWebGPUCache",
    "GPUCache",
    "GrShaderCache",
    "GraphiteDawnCache",
    "ShaderCache",
];

/// The nodes of a fleet that may have the browsers of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Any, one after another: this many at a time in the whole fleet, each with a state of its own.
    Travels { instances: usize },
    /// This one.
    Home(NodeName),
    /// Any, each with directories of its own.
    Everywhere,
}

/// Where a request may be served, and where it is best served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) only: Option<NodeName>,
    pub(crate) prefer: Vec<NodeName>,
}

/// The profiles that travel, as this node has them. Clones are handles to the same.
///
/// As a policy it hands the directory of a claimed profile to the browser that is created for it.
#[derive(Clone)]
pub struct TravellingProfiles {
    inner: Arc<Inner>,
}

struct Inner {
    places: RwLock<Places>,
    /// Once the node has joined its fleet.
    joined: OnceLock<(Profiles, watch::Receiver<Connection>)>,
    /// The directories of profiles that do not travel, and of those of the time before the fleet.
    directory: PathBuf,
    /// The clients of each profile, which are served one after another.
    lines: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
    /// The claims for which browsers are about to be created.
    ready: Mutex<HashMap<Arc<str>, Ready>>,
    /// Number of claims that are not given up yet.
    claims: watch::Sender<usize>,
}

/// The places of the profiles of a configuration.
#[derive(Debug, Default)]
struct Places {
    named: BTreeMap<String, Place>,
    on_demand: Option<Place>,
}

impl Places {
    fn new(config: &Config) -> Self {
        if !config.fleet.as_ref().is_some_and(FleetConfig::is_on) {
            return Self::default();
        }
        let place = |profile: &ProfileConfig| match &profile.home {
            Some(home) => Place::Home(home.as_str().into()),
            None if profile.travels(true) => Place::Travels { instances: profile.max(true) },
            None => Place::Everywhere,
        };
        let profiles = &config.profiles;
        let named = profiles.named.iter().map(|(name, profile)| (name.clone(), place(profile)));
        let on_demand = profiles.on_demand.then(|| place(&ProfileConfig::default()));
        Self { named: named.collect(), on_demand }
    }

    fn of(&self, profile: &str) -> Place {
        let place = self.named.get(profile).or(self.on_demand.as_ref());
        place.cloned().unwrap_or(Place::Everywhere)
    }
}

/// A claim in the hands of a client that waits for a browser.
struct Ready {
    claim: Arc<ProfileClaim>,
    /// The browser that has its directory, as long as there is one.
    used: Weak<()>,
}

/// A claimed profile, for its browser: kept until the Chromium is gone.
#[derive(Clone, Debug)]
pub struct ProfileInUse {
    pub(super) claim: Arc<ProfileClaim>,
    _used: Arc<()>,
}

/// A profile that this node has and no other one. Its drop saves it and gives it up.
pub struct ProfileClaim {
    profiles: TravellingProfiles,
    /// Some until the drop.
    claimed: Option<ClaimedProfile>,
    use_of_it: AtomicU8,
    runtime: Handle,
}

/// Use that was made of a claim.
const UNTOUCHED: u8 = 0;
/// A Chromium was launched, and nobody has had it.
const LAUNCHED: u8 = 1;
pub(super) const LEASED: u8 = 2;

/// A spec that holds the claimed profile of a new browser.
pub trait TravelSpec {
    /// The new browser uses this directory, and keeps the profile until its Chromium is gone.
    fn set_travelling(&mut self, directory: &Path, profile: ProfileInUse);
}

impl ProfileInUse {
    /// Returns true once another node may have the profile soon: then nothing may be done with it.
    pub(crate) fn is_lost(&self) -> bool {
        self.claim.claimed().is_lost()
    }

    /// Waits until [`is_lost`](Self::is_lost).
    pub(crate) async fn lost(&self) {
        self.claim.claimed().lost().await;
    }
}

impl ProfileClaim {
    fn claimed(&self) -> &ClaimedProfile {
        self.claimed.as_ref().expect("only its drop takes it")
    }

    pub(super) fn used(&self, how: u8) {
        self.use_of_it.fetch_max(how, Ordering::Relaxed);
    }
}

impl Drop for ProfileClaim {
    fn drop(&mut self) {
        let Some(claimed) = self.claimed.take() else { return };
        let (profiles, used) = (self.profiles.clone(), *self.use_of_it.get_mut());
        self.runtime.spawn(async move {
            give_up(claimed, used).await;
            profiles.inner.claims.send_modify(|claims| *claims -= 1);
        });
    }
}

/// Saves a profile if a client has used it, and frees it for the other nodes.
async fn give_up(claimed: ClaimedProfile, used: u8) {
    let id = claimed.id().clone();
    let (profile, instance) = (&id.profile, id.instance);
    let given_up = match used {
        UNTOUCHED => claimed.release_untouched().await.map(|()| None),
        // A launch that came to nothing has nothing to save, and may have left anything.
        LAUNCHED => return drop(claimed),
        _ => claimed.release(PATIENCE).await.map(Some),
    };
    match given_up {
        Ok(Some(content)) => tracing::debug!(profile, instance, content, "a profile was saved"),
        Ok(None) => {}
        Err(error) if used == UNTOUCHED => {
            tracing::debug!(profile, instance, error = chain(&error), "a profile was not freed");
        }
        Err(error) => tracing::error!(
            profile,
            instance,
            error = chain(&error),
            "a profile was not saved: the next lease has it as it was before the last one"
        ),
    }
}

impl TravellingProfiles {
    /// Returns those of a configuration: none where it has no fleet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let inner = Inner {
            places: RwLock::new(Places::new(config)),
            joined: OnceLock::new(),
            directory: config.pool.state_dir.join("profiles"),
            lines: Mutex::default(),
            ready: Mutex::default(),
            claims: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Goes over to those of another configuration. Claims that are held stay.
    pub(crate) fn change(&self, config: &Config) {
        let mut places = self.inner.places.write().unwrap_or_else(PoisonError::into_inner);
        *places = Places::new(config);
    }

    /// Begins to claim profiles in a fleet that was joined, and to answer the other nodes about the copies of this one.
    pub(super) fn join<P: LocalPool>(
        &self,
        joined: &pool_fleet::Fleet<P>,
        store: Arc<dyn Store>,
    ) -> AbortHandle {
        // Beside those that stay, and under a name that none of them has.
        let settings = ProfileSettings::new(self.inner.directory.join(".travelling"))
            .packing(Packing::new().without(CACHES));
        let nodes = joined.nodes();
        let profiles = Profiles::new(
            settings,
            Arc::clone(joined.transport()),
            store,
            joined.subjects().clone(),
            (Arc::clone(joined.node()), joined.incarnation()),
            Arc::new(move || nodes.borrow().to_vec()),
        );
        let serving = profiles.clone();
        // A node joins one fleet in its life.
        let _ = self.inner.joined.set((profiles, joined.transport().connection()));
        let serve = async move {
            loop {
                if let Err(error) = serving.serve().await {
                    tracing::warn!(
                        error = chain(&error),
                        "other nodes are not told about profiles"
                    );
                }
                sleep(LOOK).await;
            }
        };
        tokio::spawn(serve).abort_handle()
    }

    /// Waits until every profile of this node is saved and free, for some seconds at most.
    pub(super) async fn settled(&self) {
        let mut claims = self.inner.claims.subscribe();
        let none = claims.wait_for(|claims| *claims == 0);
        if timeout_at(Instant::now() + SETTLE, none).await.is_err() {
            tracing::error!("some profiles could not be saved before the end of this node");
        }
    }

    /// Returns true if a profile goes from node to node.
    pub(crate) fn travels(&self, profile: &str) -> bool {
        matches!(self.place(profile), Place::Travels { .. })
    }

    pub(super) fn place(&self, profile: &str) -> Place {
        self.inner.places.read().unwrap_or_else(PoisonError::into_inner).of(profile)
    }

    /// Returns the nodes that are to be asked for a browser of a profile.
    ///
    /// # Errors
    ///
    /// If the store of the profiles cannot be reached, where it is needed.
    pub(super) async fn choose(&self, profile: Option<&str>) -> Result<Choice, Cannot> {
        let Some(profile) = profile else { return Ok(Choice::default()) };
        let prefer = match self.place(profile) {
            Place::Travels { instances } => self.newest(profile, instances).await?,
            Place::Home(home) => return Ok(Choice { only: Some(home), prefer: Vec::new() }),
            Place::Everywhere => None,
        };
        Ok(Choice { only: None, prefer: prefer.into_iter().collect() })
    }

    /// Returns the node that has the newest copy of the first instance that is free, or of the first one.
    async fn newest(&self, profile: &str, instances: usize) -> Result<Option<NodeName>, Cannot> {
        let profiles = self.profiles()?;
        let mut in_use = None;
        for number in numbers(instances) {
            let record = profiles.record(&ProfileId::new(profile, number)).await;
            match record.map_err(|error| cannot(&error))? {
                None => break,
                Some(Record { holder: None, saved_by, .. }) => return Ok(saved_by),
                Some(Record { holder, .. }) => in_use = in_use.or(holder),
            }
        }
        // It may be about to save it.
        Ok(in_use.map(|holder| holder.node))
    }

    fn profiles(&self) -> Result<&Profiles, Cannot> {
        let joined = self.inner.joined.get();
        match joined.filter(|(_, connection)| connection.borrow().is_connected()) {
            Some((profiles, _)) => Ok(profiles),
            None => Err(unavailable(
                "the NATS server of the fleet, which has the profiles, cannot be reached",
            )),
        }
    }

    /// Claims an instance of a profile: one that has something, the first one that is new where those are in use, or
    /// else whichever is free first.
    pub(super) async fn claim(
        &self,
        profile: &str,
        instances: usize,
        deadline: Instant,
    ) -> Result<Arc<ProfileClaim>, Cannot> {
        let profiles = self.profiles()?;
        let left = || deadline.saturating_duration_since(Instant::now());
        if instances == 1 {
            let claimed = profiles.claim(&ProfileId::new(profile, 0), left()).await;
            return self.hold(claimed).await.map_err(|error| cannot(&error));
        }
        let mut held = Vec::new();
        let mut new = None;
        for number in numbers(instances) {
            let id = ProfileId::new(profile, number);
            match profiles.record(&id).await.map_err(|error| cannot(&error))? {
                None => {
                    new = Some(id);
                    break;
                }
                Some(Record { holder: Some(_), .. }) => held.push(id),
                Some(_) => match profiles.claim(&id, Duration::ZERO).await {
                    Err(ProfileError::Busy { .. }) => held.push(id),
                    claimed => return self.hold(claimed).await.map_err(|error| cannot(&error)),
                },
            }
        }
        let mut claimed = Err(ProfileError::Busy { holder: None });
        if !held.is_empty() {
            let patience = if new.is_some() { left().min(SAVING) } else { left() };
            let claims = held.iter().map(|id| Box::pin(profiles.claim(id, patience)));
            claimed = select_ok(claims).await.map(|(claimed, _)| claimed);
        }
        if let (Some(id), Err(ProfileError::Busy { .. })) = (new, &claimed) {
            claimed = profiles.claim(&id, left()).await;
        }
        self.hold(claimed).await.map_err(|error| cannot(&error))
    }

    async fn hold(
        &self,
        claimed: Result<ClaimedProfile, ProfileError>,
    ) -> Result<Arc<ProfileClaim>, ProfileError> {
        let claimed = claimed?;
        if claimed.content() == 0 {
            self.adopt(&claimed).await?;
        }
        self.inner.claims.send_modify(|claims| *claims += 1);
        Ok(Arc::new(ProfileClaim {
            profiles: self.clone(),
            claimed: Some(claimed),
            use_of_it: AtomicU8::new(UNTOUCHED),
            runtime: Handle::current(),
        }))
    }

    /// Begins a profile that the fleet has not with what this node had under its name before it travelled, which stays
    /// where it is.
    async fn adopt(&self, claimed: &ClaimedProfile) -> io::Result<()> {
        let id = claimed.id();
        let own = self.inner.directory.join(&id.profile).join(id.instance.to_string());
        let directory = claimed.directory();
        let adopting = move || {
            if !own.is_dir() {
                return Ok(());
            }
            tracing::info!(from = %own.display(), "a profile of this node travels from now on");
            let packed = directory.with_file_name("adopted");
            Packing::new().without(CACHES).pack(&own, &packed)?;
            unpack(&packed, &directory)?;
            fs::remove_file(packed)
        };
        tokio::task::spawn_blocking(adopting).await.map_err(io::Error::other)?
    }

    /// Hands the directory of a claim to the browser that is created for it.
    fn hand_out(&self, profile: &str) -> Result<ProfileInUse, NotClaimed> {
        let mut ready = lock(&self.inner.ready);
        let ready = ready.get_mut(profile).filter(|ready| ready.used.strong_count() == 0);
        let ready = ready.ok_or(NotClaimed)?;
        let used = Arc::new(());
        ready.used = Arc::downgrade(&used);
        ready.claim.used(LAUNCHED);
        Ok(ProfileInUse { claim: Arc::clone(&ready.claim), _used: used })
    }

    pub(super) fn line(&self, profile: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut lines = lock(&self.inner.lines);
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        Arc::clone(lines.entry(profile.into()).or_default())
    }
}

/// The numbers of the instances of a profile.
fn numbers(instances: usize) -> impl Iterator<Item = u32> {
    0..u32::try_from(instances).unwrap_or(u32::MAX)
}

/// A browser was to be created for a profile that nobody waits for any more.
#[derive(Debug, thiserror::Error)]
#[error("the profile is not claimed: its client has gone")]
struct NotClaimed;

/// Offers a claim to the browser that is created next, until it is dropped.
pub(super) struct Offered<'a> {
    profiles: &'a TravellingProfiles,
    profile: Arc<str>,
}

impl<'a> Offered<'a> {
    pub(super) fn new(
        profiles: &'a TravellingProfiles,
        profile: &str,
        claim: Arc<ProfileClaim>,
    ) -> Self {
        let profile: Arc<str> = profile.into();
        let ready = Ready { claim, used: Weak::new() };
        lock(&profiles.inner.ready).insert(Arc::clone(&profile), ready);
        Self { profiles, profile }
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        let ready = lock(&self.profiles.inner.ready).remove(&self.profile);
        // Outside of the lock: the drop of a claim gives it up.
        drop(ready);
    }
}

impl<D: Driver<Spec: TravelSpec>> Policy<D> for TravellingProfiles {
    fn watches(&self) -> bool {
        false
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        if let Some(profile) = class.get(LABEL).filter(|profile| self.travels(profile)) {
            let used = self.hand_out(profile)?;
            spec.set_travelling(&used.claim.claimed().directory(), used.clone());
        }
        Ok(())
    }
}

/// Returns an error of a profile in the words of the fleet.
fn cannot(error: &ProfileError) -> Cannot {
    match error {
        ProfileError::Busy { .. } => {
            Cannot::new(Reason::Timeout, Code::AcquireTimeout.word(), &error.to_string())
        }
        error => unavailable(&chain(error)),
    }
}

fn unavailable(why: &str) -> Cannot {
    Cannot::new(Reason::Unavailable, Code::ProfileStoreUnavailable.word(), why)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for TravellingProfiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TravellingProfiles")
            .field("places", &self.inner.places)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProfileClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileClaim").field("claimed", &self.claimed).finish_non_exhaustive()
    }
}
