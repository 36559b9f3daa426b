use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pool_core::ResourceId;
use tokio::sync::{OnceCell, Semaphore, watch};

use super::ChromeConfig;
use super::host::{Host, Place};
use super::seat::Seat;
use super::spec::BrowserSpec;
use super::version::Version;
use crate::ChromeError;
use crate::egress::{Forwarder, Guard};
use crate::loopback::LoopbackServer;
use crate::mux::{Budget, EndReason, LeaseKind, MuxLease};
use crate::process::{Cgroups, StateDir};

/// All Chromiums of a driver, and who has a place in which.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) config: ChromeConfig,
    state_dir: StateDir,
    /// The budget that the clients of all its Chromiums share.
    pub(super) budget: Budget,
    pub(super) guard: Arc<Guard>,
    cgroups: Option<Cgroups>,
    /// Launches at the same time: more than two on two cores only take longer each.
    launching: Semaphore,
    loopback: OnceCell<LoopbackServer>,
    /// Number of Chromiums being closed with nobody waiting.
    closing: watch::Sender<usize>,
    state: Mutex<FleetState>,
}

#[derive(Debug, Default)]
struct FleetState {
    /// Chromiums for shared leases, by what their leases have in common.
    hosts: Vec<(String, Weak<Host>)>,
    launches: Vec<Launch>,
    next_launch: u64,
    resources: HashMap<ResourceId, Resource>,
    version: Option<Version>,
}

/// A launch whose places are waited for.
#[derive(Debug)]
struct Launch {
    id: u64,
    key: String,
    promised: usize,
    result: watch::Receiver<Launched>,
}

/// The result of a launch, for all who wait for it.
type Launched = Option<Result<Arc<Host>, Arc<ChromeError>>>;

/// What is behind a resource of the pool.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) lease: Weak<MuxLease>,
    pub(super) host: Weak<Host>,
    /// Its way out, where that is guarded.
    pub(super) forwarder: Weak<Forwarder>,
}

impl Fleet {
    pub(super) fn new(config: ChromeConfig, state_dir: StateDir, cgroups: Option<Cgroups>) -> Self {
        let launching = Semaphore::new(config.max_launching.max(1));
        let closing = watch::Sender::new(0);
        let guard = Guard::new(config.egress.clone().unwrap_or_default());
        let budget = Budget::new(config.buffer);
        Self {
            config,
            state_dir,
            budget,
            guard,
            cgroups,
            launching,
            loopback: OnceCell::new(),
            closing,
            state: Mutex::default(),
        }
    }

    /// The directories that no lease in this place may write into.
    pub(super) fn reserved(&self, host: &Host) -> Vec<PathBuf> {
        let mut reserved = vec![self.state_dir.path().to_owned()];
        reserved.extend(host.directories());
        reserved
    }

    /// A place in a Chromium that suits the spec: for an exclusive lease in a fresh one, for a
    /// shared one wherever a place is free. One launch serves as many as find a place in it.
    pub(super) async fn place(self: &Arc<Self>, spec: &BrowserSpec) -> Result<Place, ChromeError> {
        if spec.kind(self.config.lease) == LeaseKind::Exclusive {
            let host = self.launch(spec.clone()).await?;
            return host.take_place().ok_or_else(|| ended(&host));
        }
        let key = spec.key();
        loop {
            let mut launch = {
                let mut state = self.state();
                if let Some(place) = free_place(&mut state, &key) {
                    return Ok(place);
                }
                self.join_launch(&mut state, &key, spec)
            };
            let result = launch.wait_for(Option::is_some).await.map(|result| result.clone());
            match result.ok().flatten() {
                Some(Ok(host)) => {
                    if let Some(place) = host.take_place() {
                        return Ok(place);
                    }
                }
                Some(Err(error)) => return Err(ChromeError::Launch(error)),
                // The runtime ends.
                None => return Err(crate::cdp::CdpError::Ended(EndReason::Closed).into()),
            }
        }
    }

    /// Waits for a launch under way that has places left, or begins one. It is a task of its own:
    /// whoever asked for it first may give up while others wait.
    fn join_launch(
        self: &Arc<Self>,
        state: &mut FleetState,
        key: &str,
        spec: &BrowserSpec,
    ) -> watch::Receiver<Launched> {
        let places = self.config.leases_per_browser.max(1);
        let open = |launch: &&mut Launch| launch.key == key && launch.promised < places;
        if let Some(launch) = state.launches.iter_mut().find(open) {
            launch.promised += 1;
            return launch.result.clone();
        }
        let id = state.next_launch;
        state.next_launch += 1;
        let (tell, result) = watch::channel(None);
        let key = key.to_owned();
        state.launches.push(Launch { id, key: key.clone(), promised: 1, result: result.clone() });
        let (fleet, spec) = (Arc::clone(self), spec.clone());
        tokio::spawn(async move {
            let launched = fleet.launch(spec).await.map_err(Arc::new);
            {
                let mut state = fleet.state();
                state.launches.retain(|launch| launch.id != id);
                if let Ok(host) = &launched {
                    state.hosts.push((key, Arc::downgrade(host)));
                }
            }
            if let Err(watch::error::SendError(Some(Ok(unwanted)))) = tell.send(Some(launched)) {
                unwanted.close_if_unused().await;
            }
        });
        result
    }

    /// Launches a Chromium, when it is this one's turn.
    pub(super) async fn launch(&self, spec: BrowserSpec) -> Result<Arc<Host>, ChromeError> {
        let _turn = self.launching.acquire().await.expect("the semaphore is never closed");
        let host = match self.start(spec.clone()).await {
            #[cfg(feature = "policies")]
            Err(ChromeError::Exited(_)) if spec.is_persistent() => self.launch_again(&spec).await?,
            started => started?,
        };
        self.state().version = Some(host.version.clone());
        Ok(host)
    }

    pub(super) async fn start(&self, spec: BrowserSpec) -> Result<Arc<Host>, ChromeError> {
        let Self { config, state_dir, budget, guard, cgroups, .. } = self;
        Host::launch(config, state_dir, budget, guard, cgroups.as_ref(), spec).await
    }

    /// Gives a place up in the background: with the last one the Chromium is closed.
    pub(super) fn leave_later(self: &Arc<Self>, place: Place) {
        let closing = Closing::new(self);
        tokio::spawn(async move {
            place.leave().await;
            drop(closing);
        });
    }

    /// Waits for what is closed in the background, when nothing else is left: whoever closes the
    /// last browser wants to know that all are gone.
    pub(super) async fn wait_if_last(&self) {
        if self.state().resources.is_empty() {
            // The sender is ours, so it cannot be gone.
            let _ = self.closing.subscribe().wait_for(|closing| *closing == 0).await;
        }
    }

    /// The server for clients in this process, which listens from its first use on.
    pub(super) async fn loopback(&self) -> Result<&LoopbackServer, ChromeError> {
        let start = || async {
            let started = LoopbackServer::start().await;
            let server = started.map_err(ChromeError::system("listen on loopback"))?;
            self.guard.protect(server.address());
            Ok(server)
        };
        self.loopback.get_or_try_init(start).await
    }

    pub(super) fn version(&self) -> Option<Version> {
        self.state().version.clone()
    }

    pub(super) fn register(&self, id: ResourceId, seat: &Seat) {
        let resource = Resource {
            lease: Arc::downgrade(&seat.lease),
            host: Arc::downgrade(&seat.place),
            forwarder: seat.forwarder(),
        };
        self.state().resources.insert(id, resource);
    }

    pub(super) fn unregister(&self, id: ResourceId) {
        self.state().resources.remove(&id);
    }

    pub(super) fn resource(&self, id: ResourceId) -> Option<Resource> {
        self.state().resources.get(&id).cloned()
    }

    /// Measures the memory of all Chromiums that were not measured within `age`.
    pub(super) async fn measure(&self, age: Duration) {
        let hosts: Vec<Arc<Host>> = {
            let state = self.state();
            let hosts = state.resources.values().filter_map(|resource| resource.host.upgrade());
            hosts.collect()
        };
        // Those of shared leases come several times, and are measured once.
        for host in hosts {
            host.measure(age).await;
        }
    }

    /// Retires every Chromium of shared leases.
    pub(super) fn renew(&self) {
        let hosts: Vec<Arc<Host>> =
            self.state().hosts.iter().filter_map(|(_, host)| host.upgrade()).collect();
        for host in hosts {
            host.retire("it is renewed");
        }
    }

    fn state(&self) -> MutexGuard<'_, FleetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as closing until it is dropped.
#[derive(Debug)]
struct Closing(Arc<Fleet>);

impl Closing {
    fn new(fleet: &Arc<Fleet>) -> Self {
        fleet.closing.send_modify(|closing| *closing += 1);
        Self(Arc::clone(fleet))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.send_modify(|closing| *closing -= 1);
    }
}

/// A place in the Chromium of this kind that has the fewest leases.
fn free_place(state: &mut FleetState, key: &str) -> Option<Place> {
    state.hosts.retain(|(_, host)| host.strong_count() > 0);
    let mut hosts: Vec<Arc<Host>> = state
        .hosts
        .iter()
        .filter(|(held, _)| held == key)
        .filter_map(|(_, host)| host.upgrade())
        .collect();
    hosts.sort_by_key(|host| host.taken());
    hosts.iter().find_map(Host::take_place)
}

fn ended(host: &Host) -> ChromeError {
    let reason = host.mux.end_reason().unwrap_or(EndReason::Crashed);
    crate::cdp::CdpError::Ended(reason).into()
}
