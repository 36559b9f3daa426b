mod directory;
mod profile;
mod store;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use pool_core::{
    Adjustment, BoxError, Class, Driver, Limits, Meta, Policy, Rejection, RejectionKind, Request,
    Stats, Verdict,
};
use profile::{Entry, LABEL};
pub use profile::{Profile, ProfileMode};
use rustc_hash::FxHashMap;
pub use store::ProfileInstance;
use store::Store;

use crate::part::{Announce, check_name, shorten, unknown};
use crate::{PolicyError, geo_proxy};

/// A spec that can be told which profile directory a new resource must use.
///
/// [`Profiles`] calls it before each creation for a request that names a profile. Keep the
/// [`ProfileInstance`] with whatever uses the directory, for as long as it does: the directory is
/// given back when the last clone is dropped. In particular, keep it with the process rather than
/// with the holder's handle, so that a revoked lease gives it back too.
///
/// # Examples
///
/// ```
/// use pool_policies::{ProfileInstance, ProfileSpec};
///
/// #[derive(Default)]
/// struct Spec {
///     profile: Option<ProfileInstance>,
/// }
///
/// impl ProfileSpec for Spec {
///     fn set_profile(&mut self, instance: ProfileInstance) {
///         self.profile = Some(instance);
///     }
/// }
/// ```
pub trait ProfileSpec {
    /// Hands over the directory, which only the new resource uses.
    fn set_profile(&mut self, instance: ProfileInstance);
}

/// A class of resources per profile, each resource with a directory of its own.
///
/// A request names its profile with the label `profile`; one without it gets a resource without a
/// profile. The class of a profile comes into being with the first request for it, or at once if it
/// keeps a minimum. A request for a profile that is not configured is refused with the code
/// `unknown_profile`, unless profiles are made [on demand](ProfilesBuilder::on_demand).
///
/// The contents of the directories depend on the [`ProfileMode`]: in `persistent` mode they are
/// kept and reused, by one resource at a time, even if several processes share the root; in
/// `template` mode each is a copy of a saved state and lives for one lease. They are locked by the
/// operating system, so a lock never outlives its process. All of them are private to the user
/// (0700), and no symlink below the root is followed.
///
/// Limits are per class. If a profile is used in several regions, each combination has its own
/// maximum, but all share the profile's directories: when these run out, a creation fails with
/// [`PolicyError::ProfileBusy`].
///
/// Clones are handles to the same profiles: keep one to [save a template](Self::save_template).
///
/// # Examples
///
/// ```
/// use pool_core::{Driver, Meta, Pool, Reporter, Request, async_trait};
/// use pool_policies::{PolicyError, Profile, ProfileInstance, ProfileSpec, Profiles};
///
/// #[derive(Default)]
/// struct Spec(Option<ProfileInstance>);
///
/// impl ProfileSpec for Spec {
///     fn set_profile(&mut self, instance: ProfileInstance) {
///         self.0 = Some(instance);
///     }
/// }
///
/// struct Notebooks;
///
/// #[async_trait]
/// impl Driver for Notebooks {
///     type Spec = Spec;
///     type Resource = Option<ProfileInstance>;
///     type Error = PolicyError;
///
///     async fn create(
///         &self,
///         spec: &Spec,
///         _: &Meta,
///         _: Reporter,
///     ) -> Result<Self::Resource, PolicyError> {
///         if let Some(profile) = &spec.0 {
///             std::fs::write(profile.open().await?.join("note"), "hello").expect("it is ours");
///         }
///         Ok(spec.0.clone())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// let profiles = Profiles::builder(root).profile("work", Profile::new().max_size(2)).build()?;
/// let pool = Pool::builder(Notebooks).policy(profiles).build()?;
/// let lease = pool.acquire_with(Request::new().label("profile", "work")).await?;
/// assert_eq!(lease.as_ref().unwrap().number(), Some(0));
/// assert!(pool.acquire_with(Request::new().label("profile", "play")).await.is_err());
/// # drop(lease);
/// # pool.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Profiles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Ordered by name. It is searched twice per acquire, where a few comparisons beat a hash.
    named: Vec<(Arc<str>, Entry)>,
    on_demand: Option<OnDemand>,
    default: Option<Arc<str>>,
    announce: Announce,
    /// At least one profile ends its resources with their leases, so releases must be judged.
    any_ends_with_lease: bool,
}

/// Profiles that were made because somebody asked for them.
#[derive(Debug)]
struct OnDemand {
    like: Profile,
    limit: usize,
    made: RwLock<FxHashMap<Arc<str>, Arc<Entry>>>,
}

impl Profiles {
    /// Starts to build a policy whose directories are `<root>/<profile>/<n>`.
    pub fn builder(root: impl Into<PathBuf>) -> ProfilesBuilder {
        ProfilesBuilder::new(root.into())
    }

    /// Takes a directory of a persistent profile for use outside of any pool: to log in by hand, to
    /// look at it, or to save a template from it.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Unknown`], [`PolicyError::ProfileBusy`] or [`PolicyError::Disk`].
    pub fn claim(&self, profile: &str) -> Result<ProfileInstance, PolicyError> {
        let (name, max) = self
            .inner
            .with(profile, |entry| (entry.name().clone(), entry.profile.instances()))
            .ok_or_else(|| unknown(LABEL, profile))?;
        self.inner.store.persistent(&name, max)
    }

    /// Saves the present contents of an instance as the state from which every lease of its profile
    /// starts in `template` mode.
    ///
    /// Close whatever uses the directory first, or the template lacks what has not been written
    /// yet. The new state replaces the old one at once; copies under way are of one or the other,
    /// never a mixture.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Disk`]; the old state is then kept.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the saving goes on in the background.
    pub async fn save_template(&self, instance: &ProfileInstance) -> Result<(), PolicyError> {
        let (inner, instance) = (self.inner.clone(), instance.clone());
        let save = move || inner.store.save_template(&instance);
        tokio::task::spawn_blocking(save).await.map_err(|_| PolicyError::RuntimeGone)?
    }
}

impl Inner {
    /// Calls `f` with a profile, if it exists.
    fn with<T>(&self, name: &str, f: impl FnOnce(&Entry) -> T) -> Option<T> {
        if let Ok(at) = self.named.binary_search_by(|(held, _)| (**held).cmp(name)) {
            return Some(f(&self.named[at].1));
        }
        let made = self.on_demand.as_ref()?.made.read().unwrap_or_else(PoisonError::into_inner);
        made.get(name).map(|entry| f(entry))
    }

    /// Makes a profile because somebody asked for it, if that is allowed.
    fn make(&self, name: &str) -> Result<Arc<Entry>, Rejection> {
        let Some(on_demand) = &self.on_demand else {
            let name = shorten(name);
            let message = format!("there is no profile {name:?}");
            return Err(Rejection::new(RejectionKind::Unknown, "unknown_profile", message));
        };
        check_name(LABEL, name).map_err(|error| {
            Rejection::new(RejectionKind::Invalid, "invalid_profile", error.to_string())
        })?;
        let mut made = on_demand.made.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = made.get(name) {
            return Ok(entry.clone());
        }
        if made.len() >= on_demand.limit {
            let limit = on_demand.limit;
            let message =
                format!("there are already {limit} profiles, and no more are created on demand");
            return Err(Rejection::new(RejectionKind::Exhausted, "too_many_profiles", message));
        }
        let entry = Arc::new(Entry::new(name.into(), on_demand.like.clone()));
        made.insert(entry.name().clone(), entry.clone());
        Ok(entry)
    }
}

#[async_trait]
impl<D> Policy<D> for Profiles
where
    D: Driver,
    D::Spec: ProfileSpec,
{
    fn watches(&self) -> bool {
        false
    }

    fn admit(&self, request: &mut Request) -> Result<(), Rejection> {
        let name = match (request.labels.value(LABEL), &self.inner.default) {
            (Some(name), _) => name,
            (None, None) => return Ok(()),
            (None, Some(default)) => {
                request.set(LABEL, default.clone());
                default
            }
        };
        // The label is cloned here and added below, since `name` borrows the request until then.
        let region = match self.inner.with(name, |entry| entry.region().cloned()) {
            Some(region) => region,
            None => self.inner.make(name)?.region().cloned(),
        };
        if let Some((label, region)) = region
            && request.get(&label).is_none()
        {
            request.set(label, region);
        }
        Ok(())
    }

    fn classify(&self, request: &Request, class: &mut Class) {
        if let Some(name) = request.get(LABEL) {
            self.inner.with(name, |entry| entry.part.join(class));
        }
    }

    fn limit(&self, class: &Class) -> Option<Limits> {
        self.inner.with(class.get(LABEL)?, |entry| entry.limits(class))
    }

    fn configure(&self, class: &Class, spec: &mut D::Spec) -> Result<(), BoxError> {
        let Some(name) = class.get(LABEL) else { return Ok(()) };
        let (name, profile) = self
            .inner
            .with(name, |entry| (entry.name().clone(), entry.profile.clone()))
            .ok_or_else(|| unknown(LABEL, name))?;
        if profile.kept_elsewhere {
            return Ok(());
        }
        spec.set_profile(match profile.mode {
            ProfileMode::Persistent => self.inner.store.persistent(&name, profile.instances())?,
            ProfileMode::Template => self.inner.store.copy(&name)?,
        });
        Ok(())
    }

    fn released(&self, meta: &Meta) -> Verdict {
        if !self.inner.any_ends_with_lease {
            return Verdict::Keep;
        }
        let ends = |entry: &Entry| entry.profile.ends_with_lease();
        match meta.class.get(LABEL).and_then(|name| self.inner.with(name, ends)) {
            Some(true) => Verdict::Discard,
            _ => Verdict::Keep,
        }
    }

    fn tick(&self, _: &Stats) -> Vec<Adjustment> {
        self.inner.announce.take()
    }
}

/// Names the profiles of a [`Profiles`] policy.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProfilesBuilder {
    root: PathBuf,
    named: Vec<(String, Profile)>,
    on_demand: Option<Profile>,
    on_demand_limit: usize,
    default: Option<String>,
}

impl ProfilesBuilder {
    fn new(root: PathBuf) -> Self {
        Self { root, named: Vec::new(), on_demand: None, on_demand_limit: 256, default: None }
    }

    /// Adds a profile, or replaces the one with that name.
    ///
    /// A name has up to 64 ASCII letters, digits, dots, dashes and underscores, and begins with a
    /// letter or a digit.
    pub fn profile(mut self, name: impl Into<String>, profile: Profile) -> Self {
        let name = name.into();
        self.named.retain(|(held, _)| *held != name);
        self.named.push((name, profile));
        self
    }

    /// Makes a profile like this one for each new name that somebody asks for. Default: such a
    /// request is refused. A minimum of such a profile applies from its first request on.
    pub fn on_demand(mut self, like: Profile) -> Self {
        self.on_demand = Some(like);
        self
    }

    /// Sets the maximum number of profiles made on demand; requests for more are refused with the
    /// code `too_many_profiles`, since each profile holds memory and a directory. Default: 256.
    pub fn on_demand_limit(mut self, limit: usize) -> Self {
        self.on_demand_limit = limit;
        self
    }

    /// Sets the profile of requests that name none. Default: they get a resource without a profile.
    pub fn default_profile(mut self, name: impl Into<String>) -> Self {
        self.default = Some(name.into());
        self
    }

    /// Checks the profiles, makes the root if it does not exist, and removes copies under it that a
    /// dead process has left behind.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Name`], [`PolicyError::MinAboveMax`], [`PolicyError::Setting`],
    /// [`PolicyError::Unknown`] for a default profile that does not exist, or
    /// [`PolicyError::Disk`].
    pub fn build(self) -> Result<Profiles, PolicyError> {
        for (name, profile) in &self.named {
            check_name(LABEL, name)?;
            validate(name, profile)?;
        }
        if let Some(like) = &self.on_demand {
            validate("on_demand", like)?;
        }
        if let Some(default) = &self.default
            && self.named.iter().all(|(name, _)| name != default)
        {
            return Err(unknown(LABEL, default));
        }
        let store = Store::open(&self.root)?;
        let any_ends_with_lease = self
            .named
            .iter()
            .map(|(_, profile)| profile)
            .chain(&self.on_demand)
            .any(Profile::ends_with_lease);
        let mut named: Vec<(Arc<str>, Entry)> = self
            .named
            .into_iter()
            .map(|(name, profile)| {
                let name: Arc<str> = name.into();
                (name.clone(), Entry::new(name, profile))
            })
            .collect();
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        let inner = Inner {
            store,
            announce: Announce::new(named.iter().map(|(_, entry)| entry.home())),
            named,
            on_demand: self.on_demand.map(|like| OnDemand {
                like,
                limit: self.on_demand_limit,
                made: RwLock::default(),
            }),
            default: self.default.map(Into::into),
            any_ends_with_lease,
        };
        Ok(Profiles { inner: Arc::new(inner) })
    }
}

fn validate(name: &str, profile: &Profile) -> Result<(), PolicyError> {
    if let Some(region) = &profile.region {
        check_name(geo_proxy::LABEL, region)?;
    }
    match profile.limit() {
        Some(0) => {
            Err(PolicyError::Setting { setting: "max_size of a profile", why: "must not be zero" })
        }
        Some(max) if profile.min > max => Err(PolicyError::MinAboveMax {
            kind: LABEL,
            name: name.to_owned(),
            min: profile.min,
            max,
        }),
        _ => Ok(()),
    }
}
