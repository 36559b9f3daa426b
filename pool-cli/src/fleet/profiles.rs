//! Travelling profiles: which profiles are, and the claims of this node.

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

use super::waiters::{ProfileWaiter, ProfileWaiters};
use crate::api::MakeNew;
use crate::config::{Config, FleetConfig, ProfileConfig};
use crate::exit::chain;
use crate::gateway::Code;
use crate::metrics::Metrics;

/// The label of requests, and of classes, that names a profile.
pub(super) const LABEL: &str = "profile";

/// Time for which a save is retried while the store cannot be reached.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Time for which the end of a node waits for its profiles to be saved.
const SETTLE: Duration = Duration::from_secs(20);

/// Time that an instance in use may take to be saved before a client gets a new one, since an
/// instance with a login is better than one without.
const SAVING: Duration = Duration::from_secs(3);

/// Interval at which untaken browsers are looked for, since they keep their profiles from being
/// free.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Files and directories of a profile that hold nothing that its Chromium cannot make again.
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
    /// Any node, one after another: this many at a time in the whole fleet, each with a state of
    /// its own.
    Travels { instances: usize },
    /// Only this node.
    Home(NodeName),
    /// Any node, each with directories of its own.
    Everywhere,
}

/// The nodes where a request may be served, and the best ones among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) only: Option<NodeName>,
    pub(crate) prefer: Vec<NodeName>,
}

/// The travelling profiles of a configuration, as this node has them. Clones are handles to the
/// same profiles.
///
/// As a policy, it hands the directory of a claimed profile to the browser that is created for it.
#[derive(Clone)]
pub struct TravellingProfiles {
    inner: Arc<Inner>,
}

struct Inner {
    places: RwLock<Places>,
    /// Set once the node has joined its fleet.
    joined: OnceLock<(Profiles, watch::Receiver<Connection>)>,
    /// The directories of profiles that do not travel, and of those from before the pool was in a
    /// fleet.
    directory: PathBuf,
    /// The requests that wait for a profile, which are served one after another.
    waiters: ProfileWaiters,
    /// The claims for which browsers are about to be created.
    ready: Mutex<HashMap<Arc<str>, Ready>>,
    /// Number of claims that have not been given up yet.
    claims: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

/// The place of each profile in a configuration.
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
        self.known(profile).unwrap_or(Place::Everywhere)
    }

    /// Returns the place of a profile that the configuration has, or lets clients make.
    fn known(&self, profile: &str) -> Option<Place> {
        self.named.get(profile).or(self.on_demand.as_ref()).cloned()
    }
}

/// Reasons why a profile was not made new.
#[derive(Debug)]
pub(crate) enum NotMadeNew {
    /// The configuration has no such profile.
    Unknown,
    /// It has so many states, and not this one.
    NoInstance { instances: usize },
    /// It does not travel.
    Stays,
    /// The store cannot be reached.
    Alone,
    /// It is not lost, or that cannot be said.
    Profile(ProfileError),
}

/// A claim held by a client that waits for a browser.
struct Ready {
    claim: Arc<ProfileClaim>,
    /// The browser that uses its directory, as long as there is one.
    used: Weak<()>,
}

/// A claimed profile, for its browser: it is held until the Chromium is gone.
#[derive(Clone, Debug)]
pub struct ProfileInUse {
    pub(super) claim: Arc<ProfileClaim>,
    _used: Arc<()>,
}

/// A profile that only this node has. Dropping it saves the profile and gives it up.
pub struct ProfileClaim {
    profiles: TravellingProfiles,
    /// Set until the drop.
    claimed: Option<ClaimedProfile>,
    use_of_it: AtomicU8,
    runtime: Handle,
}

/// The use that was made of a claim.
const UNTOUCHED: u8 = 0;
/// A Chromium was launched, but nobody has used it.
const LAUNCHED: u8 = 1;
pub(super) const LEASED: u8 = 2;

/// A spec that holds the claimed profile of a new browser.
pub trait TravelSpec {
    /// Sets the directory that the new browser uses; the browser must keep the profile until its
    /// Chromium is gone.
    fn set_travelling(&mut self, directory: &Path, profile: ProfileInUse);
}

impl ProfileInUse {
    /// Returns `true` once another node may soon have the profile: from then on it must not be
    /// used.
    pub(crate) fn is_lost(&self) -> bool {
        self.claim.claimed().is_lost()
    }

    /// Waits until [`is_lost`](Self::is_lost) is true.
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
        // A failed launch has nothing worth saving, and may have left anything behind.
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
            "a profile was not saved: the next lease gets it as it was before the last one"
        ),
    }
}

impl TravellingProfiles {
    /// Returns the travelling profiles of a configuration: none if it has no fleet. Their transfers are counted.
    #[must_use]
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let inner = Inner {
            places: RwLock::new(Places::new(config)),
            joined: OnceLock::new(),
            directory: config.pool.state_dir.join("profiles"),
            waiters: ProfileWaiters::new(config.pool.max_waiting),
            ready: Mutex::default(),
            claims: watch::Sender::new(0),
            metrics: Arc::clone(metrics),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Switches to those of another configuration. Held claims stay.
    pub(crate) fn change(&self, config: &Config) {
        let mut places = self.inner.places.write().unwrap_or_else(PoisonError::into_inner);
        *places = Places::new(config);
    }

    /// Starts to claim profiles in a fleet that was joined, and to answer other nodes about the
    /// copies here.
    pub(super) fn join<P: LocalPool>(
        &self,
        joined: &pool_fleet::Fleet<P>,
        store: Arc<dyn Store>,
    ) -> AbortHandle {
        let metrics = Arc::clone(&self.inner.metrics);
        // Next to the profiles that stay, and under a name that none of them can have.
        let settings = ProfileSettings::new(self.inner.directory.join(".travelling"))
            .packing(Packing::new().without(CACHES))
            .on_transfer(move |transfer| metrics.profile_transferred(transfer));
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
        // A node joins only one fleet in its life.
        let _ = self.inner.joined.set((profiles, joined.transport().connection()));
        let serve = async move {
            loop {
                if let Err(error) = serving.serve().await {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot answer the questions of other nodes about profiles"
                    );
                }
                sleep(LOOK).await;
            }
        };
        tokio::spawn(serve).abort_handle()
    }

    /// Waits until every profile of this node is saved and free, but only for some seconds.
    pub(super) async fn settled(&self) {
        let mut claims = self.inner.claims.subscribe();
        let none = claims.wait_for(|claims| *claims == 0);
        if timeout_at(Instant::now() + SETTLE, none).await.is_err() {
            tracing::error!("some profiles could not be saved before the end of this node");
        }
    }

    /// Returns `true` if a profile travels between the nodes of a fleet.
    pub(crate) fn travels(&self, profile: &str) -> bool {
        matches!(self.place(profile), Place::Travels { .. })
    }

    fn known_place(&self, profile: &str) -> Option<Place> {
        self.inner.places.read().unwrap_or_else(PoisonError::into_inner).known(profile)
    }

    pub(super) fn place(&self, profile: &str) -> Place {
        self.inner.places.read().unwrap_or_else(PoisonError::into_inner).of(profile)
    }

    /// Returns the nodes that should be asked for a browser of a profile.
    ///
    /// # Errors
    ///
    /// If the profile store cannot be reached and is needed.
    pub(super) async fn choose(&self, profile: Option<&str>) -> Result<Choice, Cannot> {
        let Some(profile) = profile else { return Ok(Choice::default()) };
        let prefer = match self.place(profile) {
            Place::Travels { instances } => self.newest(profile, instances).await?,
            Place::Home(home) => return Ok(Choice { only: Some(home), prefer: Vec::new() }),
            Place::Everywhere => None,
        };
        Ok(Choice { only: None, prefer: prefer.into_iter().collect() })
    }

    /// Returns the node with the newest copy of the first instance that is free, or of the first
    /// one.
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
        // That node may be about to save it.
        Ok(in_use.map(|holder| holder.node))
    }

    fn profiles(&self) -> Result<&Profiles, Cannot> {
        self.connected().ok_or_else(|| {
            unavailable(
                "the NATS server of the fleet, which stores the profiles, cannot be reached",
            )
        })
    }

    fn connected(&self) -> Option<&Profiles> {
        let joined = self.inner.joined.get();
        let joined = joined.filter(|(_, connection)| connection.borrow().is_connected());
        joined.map(|(profiles, _)| profiles)
    }

    /// Makes a state of a profile new whose content is lost, or is to be discarded.
    pub(super) async fn make_new(&self, profile: &str, of: &MakeNew) -> Result<(), NotMadeNew> {
        let MakeNew { instance, discard } = *of;
        let instances = match self.known_place(profile).ok_or(NotMadeNew::Unknown)? {
            Place::Travels { instances } => instances,
            Place::Home(_) | Place::Everywhere => return Err(NotMadeNew::Stays),
        };
        if numbers(instances).all(|number| number != instance) {
            return Err(NotMadeNew::NoInstance { instances });
        }
        let profiles = self.connected().ok_or(NotMadeNew::Alone)?;
        let id = ProfileId::new(profile, instance);
        let made = if discard {
            profiles.make_new(&id).await
        } else {
            profiles.make_new_if_lost(&id).await
        };
        made.map_err(NotMadeNew::Profile)
    }

    /// Claims an instance of a profile: one that has content, or the first new one if those are in
    /// use, or else whichever is free first.
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

    /// Starts a profile that the fleet does not have with the contents that this node had under its
    /// name before it travelled; the original stays where it is.
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

    pub(super) fn waiters(&self) -> &ProfileWaiters {
        &self.inner.waiters
    }

    /// Returns the reason why a request waits, as far as this node knows.
    pub(super) fn reason(&self, waiter: &ProfileWaiter) -> Option<String> {
        match self.in_use_at(&waiter.profile) {
            Some(node) => Some(format!("profile in use at {node}")),
            None if waiter.creates => None,
            None => Some("profile asked for at another node".to_owned()),
        }
    }

    /// Returns a node at which a profile is in use, as far as this one has seen.
    fn in_use_at(&self, profile: &str) -> Option<NodeName> {
        let Place::Travels { instances } = self.place(profile) else { return None };
        let (profiles, _) = self.inner.joined.get()?;
        numbers(instances).find_map(|number| profiles.in_use_at(&ProfileId::new(profile, number)))
    }
}

/// Returns the numbers of the instances of a profile.
fn numbers(instances: usize) -> impl Iterator<Item = u32> {
    0..u32::try_from(instances).unwrap_or(u32::MAX)
}

/// A browser was to be created for a profile that nobody is waiting for any more.
#[derive(Debug, thiserror::Error)]
#[error("the profile is not claimed: its client has gone")]
struct NotClaimed;

/// Offers a claim to the browser that is created next; dropping this withdraws the offer.
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
        // Outside of the lock, since dropping a claim gives it up.
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

/// Translates an error of a profile into the terms of the fleet.
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
