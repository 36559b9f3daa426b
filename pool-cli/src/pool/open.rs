use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pool_chrome::egress::Guard;
use pool_chrome::process::StateDir;
use pool_chrome::{ChromeConfig, ChromeDriver, ChromeError};
use pool_core::{BuildError, Class, Limits, Pool};
use pool_policies::PolicyError;
use url::Url;

use super::BrowserPool;
use super::policies::{Policies, groups};
use crate::config::Config;
use crate::exit::{self, Failure};
use crate::fleet::TravellingProfiles;
use crate::metrics::Observer;

/// A pool of Chromium browsers as a configuration describes it.
pub struct Opened {
    pool: Pool<ChromeDriver>,
    policies: Policies<ChromeDriver>,
    terms: Mutex<Terms>,
}

/// The terms on which a pool runs.
struct Terms {
    config: Config,
    /// Number of nodes of the fleet that have browsers, including this one: each allows a tenant
    /// its part of the tenant's maximum. It is 1 outside of a fleet.
    nodes: usize,
}

/// Reasons why a pool could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no Chromium, or its directory cannot be used.
    #[error(transparent)]
    Chrome(#[from] ChromeError),
    /// A policy does not accept its configuration.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The sizes contradict each other.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl OpenError {
    /// Returns what a command prints: exit code 78 if no start with this configuration can succeed.
    pub(crate) fn failure(self) -> Failure {
        match &self {
            Self::Chrome(error) if error.is_permanent() => Failure::from(self)
                .hint("check all requirements: pool-cli doctor")
                .code(exit::CONFIG),
            Self::Chrome(_) | Self::Policy(_) | Self::Build(_) => Failure::from(self),
        }
    }
}

/// Opens the pool: takes the state directory, finds the Chromium, and begins to launch the minimum.
///
/// # Errors
///
/// An [`OpenError`]; nothing has been launched then.
pub async fn open(config: &Config, observer: &Observer) -> Result<Opened, OpenError> {
    open_tuned(config, observer, |chrome| chrome).await
}

/// Opens it with a driver that is tuned where the configuration has no key for it.
///
/// # Errors
///
/// As [`open`].
pub async fn open_tuned(
    config: &Config,
    observer: &Observer,
    tune: impl FnOnce(ChromeConfig) -> ChromeConfig + Send,
) -> Result<Opened, OpenError> {
    let wanted = tune(config.driver());
    if config.pool.max_size > 0 {
        // Checked now, since the pool would only try again and again.
        wanted.launch_options().check()?;
    }
    let driver = ChromeDriver::start(wanted).await?;
    if config.gateway.listen.port() != 0 {
        // A command has a pool of its own, next to the one that the configuration describes.
        driver.guard().protect(config.gateway.listen);
        protect_name(driver.guard(), config);
    }
    let settings = &config.pool;
    let builder = Pool::builder(driver)
        .min_size(settings.min_size)
        .max_size(settings.max_size)
        .max_creating(settings.max_creating)
        .max_waiting(settings.max_waiting)
        .acquire_timeout(Some(settings.acquire_timeout))
        // The launch has its own, shorter limit; the rest is for the warm-up.
        .create_timeout(config.chrome.launch_timeout + WARM_UP)
        // The driver judges by progress; this limit is for a driver whose checks do not end.
        .check_timeout(config.chrome.check_timeout * CHECKS)
        .max_idle_time(settings.max_idle_time)
        .max_lifetime(settings.max_lifetime)
        .max_use_count(settings.max_use_count)
        .health_check_interval(settings.health_check_interval)
        // Always: it may have stopped since the last check, and the proof costs a millisecond.
        .check_after_idle(settings.health_check_interval.map(|_| Duration::ZERO))
        // The gateway ends its leases itself; this limit is for one that it has lost.
        .hold_limit(settings.lease_timeout.map(|limit| limit + LOST));
    let (builder, policies) = Policies::add_to(builder, config, observer)?;
    let terms = Mutex::new(Terms { config: config.clone(), nodes: 1 });
    Ok(Opened { pool: builder.build()?, policies, terms })
}

/// Returns a configuration with the part of each tenant's limit that one of this many nodes may
/// give. It is rounded up, so that a tenant may have a lease at all: together they give up to
/// `nodes - 1` more.
fn parted(config: &Config, nodes: usize) -> Config {
    let mut config = config.clone();
    for tenant in config.tenants.values_mut() {
        tenant.max_leases = tenant.max_leases.map(|limit| limit.div_ceil(nodes));
    }
    config
}

fn protect_name(guard: &Guard, config: &Config) {
    let url = config.gateway.external_url.as_deref().map(Url::parse);
    let Some(Ok(url)) = url else { return guard.forget_names() };
    if let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) {
        guard.protect_name(&host.to_owned(), port);
    }
}

/// Maximum time that the warm-up of a new browser may take on top of its launch.
const WARM_UP: Duration = Duration::from_secs(10);

/// Multiple of the timeout of a check that all its questions together may take, on a machine that
/// has much else to do.
const CHECKS: u32 = 60;

/// Time after the end of its lease at which a browser is taken back by force.
const LOST: Duration = Duration::from_secs(30);

impl Opened {
    /// Returns the pool.
    #[must_use]
    pub fn pool(&self) -> &Pool<ChromeDriver> {
        &self.pool
    }

    /// Returns the profiles that travel between the nodes of a fleet.
    pub(crate) fn travelling(&self) -> &TravellingProfiles {
        self.policies.travelling()
    }

    /// Returns the pool, in the form that the gateway uses.
    #[must_use]
    pub fn browser_pool(&self) -> Arc<dyn BrowserPool> {
        Arc::new(self.pool.clone())
    }

    /// Keeps guarded browsers from the addresses on which the pool listens, and from those at which
    /// others find it.
    pub(crate) fn protect(&self, listen: SocketAddr, config: &Config) {
        let guard = self.pool.driver().guard();
        guard.protect(listen);
        protect_name(guard, config);
    }

    /// Switches from one configuration to another, as far as that is possible while it runs.
    ///
    /// # Errors
    ///
    /// If a policy or the pool does not accept it; then nothing was changed.
    pub fn change(&self, old: &Config, new: &Config) -> Result<(), OpenError> {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply(&parted(old, terms.nodes), &parted(new, terms.nodes))?;
        terms.config = new.clone();
        Ok(())
    }

    /// Divides the limits of tenants among this many nodes of a fleet.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub(crate) fn part_among(&self, nodes: usize) -> Result<(), OpenError> {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut terms.nodes, nodes.max(1));
        if before == terms.nodes {
            return Ok(());
        }
        self.apply(&parted(&terms.config, before), &parted(&terms.config, terms.nodes))
    }

    fn apply(&self, old: &Config, new: &Config) -> Result<(), OpenError> {
        let (min, max) = (new.pool.min_size, new.pool.max_size);
        if min > max {
            return Err(BuildError::MinAboveMax { min, max }.into());
        }
        self.policies.change(old, new)?;
        if let Some(egress) = &new.egress {
            self.pool.driver().guard().set_rules(egress.rules());
        }
        protect_name(self.pool.driver().guard(), new);
        if (old.pool.min_size, old.pool.max_size) != (min, max) {
            self.pool.resize(min, max)?;
        }
        self.pool.driver().budget().set_limit(new.buffer());
        self.limit_anew(old, new);
        for group in groups(new)? {
            self.pool.set_group(&group);
        }
        Ok(())
    }

    /// Updates the limits of the classes that the pool knows, and closes the browsers whose profile or
    /// region has changed or gone.
    fn limit_anew(&self, old: &Config, new: &Config) {
        let gone = |class: &Class| {
            let profile =
                |name: &str| new.profiles.on_demand || new.profiles.named.contains_key(name);
            class.get("profile").is_some_and(|name| !profile(name))
                || class
                    .get("region")
                    .is_some_and(|name| old.regions.get(name) != new.regions.get(name))
        };
        for stats in self.pool.stats().classes {
            if stats.class.is_default() {
                continue;
            }
            let limits = self.policies.limits(&stats.class);
            let limits = Limits {
                min: limits.min.or(Some(0)),
                max: limits.max.or(Some(new.pool.max_size)),
                warm: limits.warm.or(Some(0)),
            };
            let none = Limits { min: Some(0), max: None, warm: Some(0) };
            let known = !gone(&stats.class)
                || stats.class.get("region").is_some_and(|name| new.regions.contains_key(name));
            self.pool.set_limits(&stats.class, if known { limits } else { none });
        }
        self.pool.invalidate(|meta| gone(&meta.class));
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A state directory for one run of a command, so that runs can exist next to each other and next
/// to a service; it is removed when this is dropped, which must be after everything that uses it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Chooses a directory below the configured state directory, for a purpose of the command;
    /// nothing is made yet. Directories of runs that were killed are swept up and removed.
    pub(crate) fn choose(state_dir: &Path, purpose: &str) -> Self {
        let runs = state_dir.join(purpose);
        for entry in std::fs::read_dir(&runs).into_iter().flatten().flatten() {
            // If it is in use it is locked, and opening it fails.
            if let Ok(abandoned) = StateDir::open(entry.path()) {
                let _ = std::fs::remove_dir_all(abandoned.path());
            }
        }
        Self { path: runs.join(std::process::id().to_string()) }
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // The remains are swept away by the next run.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TenantConfig;

    #[test]
    fn each_node_gives_its_part_of_a_tenants_limit_and_at_least_one_lease() {
        let mut config = Config::default();
        for (name, max_leases) in [("ada", Some(10)), ("ben", Some(1)), ("eve", None)] {
            let tenant = TenantConfig { max_leases, ..TenantConfig::default() };
            config.tenants.insert(name.to_owned(), tenant);
        }
        for (nodes, expected) in [(1, [Some(10), Some(1), None]), (3, [Some(4), Some(1), None])] {
            let parts = parted(&config, nodes);
            let limits = parts.tenants.values().map(|tenant| tenant.max_leases);
            assert!(limits.eq(expected), "{nodes}");
        }
    }
}
