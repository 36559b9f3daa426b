use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, io};

use pool_core::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::guard::Guesses;
use super::history::{History, Watchers};
use super::leases::Leases;
use super::request::Room;
use super::usage::Usage;
use super::{LeaseEnd, Settings};
use crate::api::{Fleet as FleetView, Reloaded};
use crate::fleet::Fleet;
use crate::metrics::Observer;
use crate::pool::BrowserPool;

/// The gateway's state: what every route works with.
///
/// It does not listen by itself; see [`Server`](super::Server).
pub struct Gateway {
    settings: RwLock<Arc<Settings>>,
    pool: Arc<dyn BrowserPool>,
    observer: Observer,
    pub(super) leases: Leases,
    pub(super) guesses: Guesses,
    pub(super) history: History,
    pub(super) watchers: Watchers,
    pub(super) room: Room,
    /// The fleet as it was last looked at.
    seen: Mutex<Option<FleetView>>,
    pub(super) usage: Usage,
    phase: watch::Sender<Phase>,
    reload: OnceLock<Arc<dyn Reload>>,
    fleet: OnceLock<Arc<Fleet>>,
    pub(super) started: Instant,
}

/// Phase of a gateway: it gives new leases, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// They are.
    #[default]
    Serving,
    /// They are refused; those that are held may go on until the grace is over.
    Draining,
}

/// Source of a new configuration, for `POST /api/reload`.
#[async_trait]
pub trait Reload: Send + Sync + 'static {
    /// Validates the whole configuration, then swaps in what can be swapped.
    ///
    /// # Errors
    ///
    /// The mistakes in it, for people; then nothing was changed.
    async fn reload(&self) -> Result<Reloaded, String>;
}

impl Gateway {
    /// A gateway to a pool whose events this observer sees.
    #[must_use]
    pub fn new(settings: Settings, pool: Arc<dyn BrowserPool>, observer: Observer) -> Arc<Self> {
        Arc::new(Self {
            settings: RwLock::new(Arc::new(settings)),
            pool,
            observer,
            leases: Leases::default(),
            guesses: Guesses::default(),
            history: History::default(),
            watchers: Watchers::default(),
            room: Room::default(),
            seen: Mutex::default(),
            usage: Usage::default(),
            phase: watch::Sender::default(),
            reload: OnceLock::new(),
            fleet: OnceLock::new(),
            started: Instant::now(),
        })
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings: requests from now on use the new ones.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<dyn BrowserPool> {
        &self.pool
    }

    /// Returns what is counted and remembered.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Sets the fleet of which the pool is a node; once, before it is served.
    pub fn join(&self, fleet: Arc<Fleet>) {
        self.observer.metrics().join_fleet();
        // A second one would be a mistake of the program that changes nothing for clients.
        let _ = self.fleet.set(fleet);
    }

    /// Returns the fleet of which the pool is a node, if it is one.
    #[must_use]
    pub fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.get()
    }

    /// Sets what `POST /api/reload` does; once.
    pub fn on_reload(&self, reload: Arc<dyn Reload>) {
        // A second one would be a mistake of the program that changes nothing for clients.
        let _ = self.reload.set(reload);
    }

    pub(super) fn reloader(&self) -> Option<&Arc<dyn Reload>> {
        self.reload.get()
    }

    /// Returns `true` if new leases are refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// Asks for a drain, as SIGTERM does; whoever runs the gateway waits for it by
    /// [`drain_asked`](Self::drain_asked).
    pub fn ask_drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until a drain was asked for.
    pub async fn drain_asked(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`, so that this cannot fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// Refuses new leases, lets those that are held finish for `grace`, ends the others with 1001,
    /// and ends the pool. Returns how many had to be ended.
    ///
    /// # Cancel safety
    ///
    /// The gateway goes on refusing when the future is dropped; call it again to finish.
    pub async fn drain(self: &Arc<Self>, grace: Duration) -> usize {
        self.ask_drain();
        let until = Instant::now() + grace;
        let clients = async {
            if timeout(grace, self.none()).await.is_ok() {
                return 0;
            }
            let left = self.leases.all();
            for session in &left {
                session.end(LeaseEnd::Drained);
            }
            let relays = self.fleet().map_or(0, |fleet| {
                fleet.end_relays(LeaseEnd::Drained);
                fleet.relays()
            });
            // Ending takes no longer than the goodbye; the pool's own deadline is behind it.
            let _ = timeout(Duration::from_secs(2), self.none()).await;
            left.len() + relays
        };
        // At once, so that those who wait are told and idle browsers are closed.
        let drained = self.pool.drain(grace + Duration::from_secs(3));
        if let Some(fleet) = self.fleet() {
            fleet.drain();
        }
        let (ended, report) = tokio::join!(clients, drained);
        if let Some(fleet) = self.fleet() {
            fleet.leave().await;
        }
        self.write_usage().await;
        tracing::debug!(?report, late = ?Instant::now().checked_duration_since(until), "drained");
        ended
    }
}

impl Gateway {
    /// Returns the fleet as it was last looked at: a second ago, while somebody watches.
    pub(super) fn seen_fleet(&self) -> Option<FleetView> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember_fleet(&self, fleet: FleetView) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
    }

    /// Waits until no client has a lease, here or through here.
    async fn none(&self) {
        let relays = async {
            if let Some(fleet) = self.fleet() {
                fleet.no_relays().await;
            }
        };
        tokio::join!(self.leases.none(), relays);
    }

    /// Returns whose books the leases of this tenant go into. Where there are no tenants in the
    /// configuration, a client may call itself anything, and names would pile up.
    pub(super) fn books_of<'a>(&self, tenant: Option<&'a str>) -> Option<&'a str> {
        tenant.filter(|_| !self.settings().tenants.is_empty())
    }

    /// Takes in what all leases have used until now.
    pub(super) fn book_all(&self) {
        for session in self.leases.all() {
            self.usage.book(self.books_of(session.asked.tenant.as_deref()), &session);
        }
    }

    /// Keeps what tenants use in a directory, beyond the end of this gateway.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or what is there cannot be read.
    pub fn keep_usage_in(&self, directory: &Path) -> io::Result<()> {
        self.usage.keep_in(directory)
    }

    /// Writes down what tenants have used; says in the log if that is impossible.
    pub(super) async fn write_usage(self: &Arc<Self>) {
        self.book_all();
        let gateway = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || gateway.usage.write()).await;
        if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
            tracing::warn!(%error, "the usage of tenants could not be written");
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("pool", &self.pool).finish_non_exhaustive()
    }
}
