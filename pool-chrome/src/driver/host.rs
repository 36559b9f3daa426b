use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pool_core::{Reporter, ResourceId};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::ChromeConfig;
use super::health::Health;
use super::spec::BrowserSpec;
use crate::ChromeError;
use crate::cdp::CdpError;
use crate::egress::{Forwarder, Guard};
use crate::mux::{Budget, EndReason, LeaseKind, Multiplexer};
use crate::process::{Cgroups, Chromium, Contents, Engine, StateDir, UserData, Work};

/// Maximum time that a proxy may take to show that it is there.
const PROXY_PROBE: Duration = Duration::from_secs(5);

/// One Chromium with its multiplexer, and the places that leases take in it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) mux: Multiplexer,
    pub(super) kind: LeaseKind,
    pub(super) pid: u32,
    pub(super) engine: Engine,
    pub(super) version: Version,
    pub(super) health: Health,
    /// The contents of its directories before its first lease.
    contents: Contents,
    chromium: Chromium,
    /// The proxy that it was launched with. This field and those below must outlive the processes,
    /// so they are dropped after the processes are killed.
    pub(super) forwarder: Option<Arc<Forwarder>>,
    pub(super) spec: BrowserSpec,
    launched_at: Instant,
    /// Number of places, and number of leases that it takes in its life.
    places: usize,
    max_leases: u64,
    max_age: Duration,
    max_memory: Option<u64>,
    grace: Duration,
    memory: AtomicU64,
    state: Mutex<HostState>,
    closed: OnceCell<()>,
}

#[derive(Debug, Default)]
struct HostState {
    taken: usize,
    leases: u64,
    /// Reason why it takes no more leases.
    retired: Option<&'static str>,
    measured_at: Option<Instant>,
    reporters: HashMap<ResourceId, Reporter>,
    /// Forwarders whose ports may still be used by remains of a lease that is over.
    kept: Vec<Arc<Forwarder>>,
}

/// A taken place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Host>);

impl std::ops::Deref for Place {
    type Target = Arc<Host>;

    fn deref(&self) -> &Arc<Host> {
        &self.0
    }
}

impl Place {
    /// Gives up the place. With the last one, the Chromium is closed.
    pub(super) async fn leave(self) {
        let host = Arc::clone(&self);
        drop(self);
        host.close_if_unused().await;
        if let Some(host) = Arc::into_inner(host) {
            host.spec.give_back().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
    }
}

impl Host {
    /// Launches a Chromium and takes over its pipe. Nobody watches over it yet.
    pub(super) async fn launch(
        config: &ChromeConfig,
        state_dir: &StateDir,
        budget: &Budget,
        guard: &Arc<Guard>,
        cgroups: Option<&Cgroups>,
        spec: BrowserSpec,
    ) -> Result<Arc<Self>, ChromeError> {
        let kind = spec.kind(config.lease);
        let mut options = config.launch_options();
        options.cgroups = cgroups.cloned();
        if let Some(directory) = spec.directory().await? {
            options = options.user_data(UserData::Persistent(directory));
        }
        let upstream = spec.upstream()?;
        let forwarder = if upstream.is_some() || config.egress.is_some() {
            Some(Arc::new(Forwarder::guarded(Arc::clone(guard), upstream).await?))
        } else {
            None
        };
        if let Some(forwarder) = &forwarder {
            // If the proxy is down, find out before a browser is launched for it.
            let probed = forwarder.probe(PROXY_PROBE).await;
            spec.report_proxy(probed.is_ok());
            probed?;
            options = options.proxy_server(forwarder.proxy_server());
            options.resolves_names = !config.client_proxies.is_empty();
        }
        let launched_at = Instant::now();
        let (chromium, pipe) = Chromium::launch(options, state_dir).await?;
        let answer = async {
            let mux = Multiplexer::start_within(budget.clone(), pipe.reader, pipe.writer).await?;
            let version = mux.call(None, "Browser.getVersion", &json!({})).await?;
            Ok::<_, ChromeError>((mux, version))
        };
        let ready = async {
            match answer.await {
                Ok(ready) => Some(ready),
                // The pipe closes before the process ends, and some seconds before if Chromium
                // cannot open the profile: its exit says why.
                Err(_) => {
                    chromium.exited().await;
                    None
                }
            }
        };
        let ready = timeout(config.launch_timeout, ready).await.ok().flatten();
        let Some((mux, version)) = ready else {
            let error = chromium.not_ready();
            chromium.close(Duration::ZERO).await;
            return Err(error);
        };
        let version = serde_json::from_value(version).map_err(|error| {
            crate::cdp::CdpError::unexpected("Browser.getVersion", error.to_string())
        })?;
        mux.ask_at_death(chromium.out_of_memory());
        let contents = chromium.contents().await;
        Ok(Arc::new(Self {
            mux,
            kind,
            pid: chromium.pid(),
            engine: chromium.engine(),
            version,
            health: Health::default(),
            contents,
            chromium,
            forwarder,
            spec,
            launched_at,
            places: if kind == LeaseKind::Shared { config.leases_per_browser.max(1) } else { 1 },
            max_leases: if kind == LeaseKind::Shared {
                config.max_browser_leases
            } else {
                u64::MAX
            },
            max_age: if kind == LeaseKind::Shared { config.max_browser_age } else { Duration::MAX },
            max_memory: config.max_memory,
            grace: config.close_grace,
            memory: AtomicU64::new(0),
            state: Mutex::default(),
            closed: OnceCell::new(),
        }))
    }

    /// Takes a place, if one is free and if the Chromium still takes leases.
    pub(super) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        if self.retire_if_due(&mut state).is_some() || state.taken == self.places {
            return None;
        }
        state.taken += 1;
        Some(Place(Arc::clone(self)))
    }

    /// Returns why it takes no more leases, if that is so.
    pub(super) fn retired(&self) -> Option<&'static str> {
        self.retire_if_due(&mut self.state())
    }

    fn retire_if_due(&self, state: &mut HostState) -> Option<&'static str> {
        let memory = self.memory.load(Relaxed);
        let due = if self.mux.end_reason().is_some() {
            Some("it has ended")
        } else if state.leases >= self.max_leases {
            Some("it was leased as often as allowed")
        } else if self.launched_at.elapsed() >= self.max_age {
            Some("it is as old as allowed")
        } else if self.max_memory.is_some_and(|max| memory > max) {
            Some("it uses more memory than allowed")
        } else {
            None
        };
        state.retired = state.retired.or(due);
        state.retired
    }

    /// Makes it take no more leases from now on.
    pub(super) fn retire(&self, why: &'static str) {
        self.state().retired.get_or_insert(why);
    }

    /// Returns `true` if no lease has been opened in it yet.
    pub(super) fn is_new(&self) -> bool {
        self.state().leases == 0
    }

    /// Counts a lease that was opened.
    pub(super) fn count_lease(&self) {
        self.state().leases += 1;
    }

    pub(super) fn taken(&self) -> usize {
        self.state().taken
    }

    /// Makes the Chromium's death known to the pool for this resource.
    pub(super) fn report_to(&self, id: ResourceId, reporter: Reporter) {
        self.state().reporters.insert(id, reporter);
        // It may have died before anybody had registered.
        if let Some(reason) = self.mux.end_reason() {
            self.broken(&reason.to_string());
        }
    }

    pub(super) fn forget(&self, id: ResourceId) -> Option<Reporter> {
        self.state().reporters.remove(&id)
    }

    /// Tells the pool that every resource of this Chromium is broken.
    pub(super) fn broken(&self, why: &str) {
        // Reports call into the pool: never under our lock.
        let reporters = std::mem::take(&mut self.state().reporters);
        for reporter in reporters.values() {
            reporter.broken(why);
        }
    }

    /// Ends all connections with this reason and kills the process tree.
    pub(super) fn kill(&self, reason: EndReason) {
        self.mux.end(reason);
        self.chromium.kill();
    }

    pub(super) fn exited(&self) -> impl Future<Output = crate::process::Exit> + Send + use<> {
        self.chromium.exited()
    }

    /// Returns what its processes have done so far.
    pub(super) async fn work(&self) -> Work {
        self.chromium.work().await
    }

    /// Returns the memory that was last measured, in bytes, and the time of the measurement.
    pub(super) fn memory(&self) -> Option<(u64, Instant)> {
        self.state().measured_at.map(|at| (self.memory.load(Relaxed), at))
    }

    /// Measures the memory unless that was done within `age`.
    pub(super) async fn measure(&self, age: Duration) {
        let now = Instant::now();
        if self.state().measured_at.is_some_and(|at| now.duration_since(at) < age) {
            return;
        }
        let memory = self.chromium.memory().await;
        self.memory.store(memory, Relaxed);
        // Not earlier: a caller that gives up in the meantime has measured nothing.
        self.state().measured_at = Some(now);
    }

    /// Checks that the proxy, if there is one, worked at the last request.
    pub(super) fn check_proxy(&self) -> Result<(), ChromeError> {
        let error = self.forwarder.as_ref().and_then(|forwarder| forwarder.last_error());
        match error.filter(crate::egress::ProxyError::blames_proxy) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Reports to whoever assigned the proxy how it worked for this lease.
    pub(super) fn report_proxy(&self) {
        if self.forwarder.is_some() {
            self.spec.report_proxy(self.check_proxy().is_ok());
        }
    }

    /// Returns the directories that it writes into.
    pub(super) fn directories(&self) -> [PathBuf; 2] {
        [self.chromium.user_data_dir().to_owned(), self.chromium.temp_dir().to_owned()]
    }

    /// Removes the downloads of an exclusive lease, and verifies that the Chromium's directories
    /// hold nothing that Chromium has not put there itself.
    pub(super) async fn tidy(&self) -> Result<(), ChromeError> {
        match self.chromium.tidy(&self.contents).await? {
            None => Ok(()),
            Some(path) => Err(CdpError::Leftover(format!("the file {}", path.display())).into()),
        }
    }

    /// Keeps a forwarder until the processes are gone.
    pub(super) fn keep(&self, forwarder: Arc<Forwarder>) {
        self.state().kept.push(forwarder);
    }

    /// Returns a directory for a lease's files, which is removed with the process at the latest.
    pub(super) fn lease_directory(&self) -> PathBuf {
        self.chromium.temp_dir().join(format!("lease-{:016x}", fastrand::u64(..)))
    }

    /// Ends the Chromium unless somebody has a place in it, and returns when nothing of it is left.
    /// Nobody gets a place in it any more.
    ///
    /// With a profile, it is told to close first: otherwise data stored just before would be lost.
    pub(super) async fn close_if_unused(&self) {
        {
            let mut state = self.state();
            if state.taken > 0 {
                return;
            }
            state.retired.get_or_insert("nobody uses it");
        }
        self.closed.get_or_init(|| self.close()).await;
    }

    async fn close(&self) {
        if self.spec.has_profile() && self.mux.end_reason().is_none() {
            let params = json!({});
            let asked = self.mux.call(None, "Browser.close", &params);
            let _ =
                timeout(self.grace, async { tokio::join!(asked, self.chromium.exited()) }).await;
        }
        self.mux.end(EndReason::Closed);
        self.chromium.end(self.grace).await;
    }

    fn state(&self) -> MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Version of a Chromium, as `Browser.getVersion` reports it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Version {
    /// The version of the protocol.
    pub protocol_version: String,
    /// Product and version, such as `Chrome/156.0.8078.79`.
    pub product: String,
    /// The revision of the source.
    pub revision: String,
    /// The default user agent.
    pub user_agent: String,
    /// The version of V8.
    pub js_version: String,
}
