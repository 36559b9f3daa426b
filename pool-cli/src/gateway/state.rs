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

/// The gateway's state, which every route works with.
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
    /// The fleet as last seen.
    seen: Mutex<Option<FleetView>>,
    pub(super) usage: Usage,
    phase: watch::Sender<Phase>,
    reload: OnceLock<Arc<dyn Reload>>,
    fleet: OnceLock<Arc<Fleet>>,
    pub(super) started: Instant,
}

/// The phase of a gateway: it gives new leases, or no longer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// New leases are given.
    #[default]
    Serving,
    /// New leases are refused; held ones may go on until the grace is over.
    Draining,
}

/// Source of a new configuration, for `POST /api/reload`.
#[async_trait]
pub trait Reload: Send + Sync + 'static {
    /// Validates the whole configuration, then applies everything that can be changed.
    ///
    /// # Errors
    ///
    /// The mistakes in it, for people; in that case nothing was changed.
    async fn reload(&self) -> Result<Reloaded, String>;
}

impl Gateway {
    /// Creates a gateway to a pool whose events this observer sees.
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

    /// Returns the present settings.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings; later requests use the new ones.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Returns the pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<dyn BrowserPool> {
        &self.pool
    }

    /// Returns the observer, with its counters and its memory of events.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Sets the fleet of which the pool is a node; once, before it is served.
    pub fn join(&self, fleet: Arc<Fleet>) {
        self.observer.metrics().join_fleet();
        // A second call would be a mistake in the program that changes nothing for clients.
        let _ = self.fleet.set(fleet);
    }

    /// Returns the fleet of which the pool is a node, if it is one.
    #[must_use]
    pub fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.get()
    }

    /// Sets what `POST /api/reload` does; once.
    pub fn on_reload(&self, reload: Arc<dyn Reload>) {
        // A second call would be a mistake in the program that changes nothing for clients.
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

    /// Asks for a drain, as SIGTERM does; whoever runs the gateway waits for it with
    /// [`drain_asked`](Self::drain_asked).
    pub fn ask_drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until a drain was asked for.
    pub async fn drain_asked(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// Refuses new leases, lets those that are held finish for `grace`, ends the others with 1001,
    /// and ends the pool. Returns how many had to be ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the gateway goes on refusing; call it again to finish.
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
            // Ending takes no longer than the closing handshake; the pool's own deadline comes
            // after it.
            let _ = timeout(Duration::from_secs(2), self.none()).await;
            left.len() + relays
        };
        // At once, so that waiting clients are told and idle browsers are closed.
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
    /// Returns the fleet as last seen, which is a second ago while somebody watches.
    pub(super) fn seen_fleet(&self) -> Option<FleetView> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember_fleet(&self, fleet: FleetView) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
    }

    /// Waits until no client has a lease here, or elsewhere through this node.
    async fn none(&self) {
        let relays = async {
            if let Some(fleet) = self.fleet() {
                fleet.no_relays().await;
            }
        };
        tokio::join!(self.leases.none(), relays);
    }

    /// Returns the name under which this tenant's leases are booked. Without configured tenants, a
    /// client may call itself anything, and names would pile up.
    pub(super) fn books_of<'a>(&self, tenant: Option<&'a str>) -> Option<&'a str> {
        tenant.filter(|_| !self.settings().tenants.is_empty())
    }

    /// Books what all leases have used until now.
    pub(super) fn book_all(&self) {
        for session in self.leases.all() {
            self.usage.book(self.books_of(session.asked.tenant.as_deref()), &session);
        }
    }

    /// Keeps the usage of tenants in a directory, where it outlives this gateway.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or its contents cannot be read.
    pub fn keep_usage_in(&self, directory: &Path) -> io::Result<()> {
        self.usage.keep_in(directory)
    }

    /// Writes down the usage of tenants; logs a failure.
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
