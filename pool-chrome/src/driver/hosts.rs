//! The Chromiums of a driver, and the places that leases take in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chromiumoxide::Browser;
use chromiumoxide::handler::HandlerConfig;
use futures_util::StreamExt;
use pool_core::ResourceId;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinHandle;

use super::ChromeConfig;
use super::host::{Host, Place, Version};
use super::spec::BrowserSpec;
use super::watch::watch;
use crate::ChromeError;
use crate::egress::{Forwarder, Guard, Pass};
use crate::loopback::{LoopbackServer, Published};
use crate::mux::{
    Budget, ClientProxies, DefaultContext, EndReason, LeaseKind, LeaseOptions, LeaseTerms, MuxLease,
};
use crate::process::{Cgroups, StateDir};

/// All Chromiums of a driver, and who has a place in which.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) config: ChromeConfig,
    state_dir: StateDir,
    /// The budget that the clients of all its Chromiums share.
    pub(super) budget: Budget,
    pub(super) guard: Arc<Guard>,
    cgroups: Option<Cgroups>,
    /// Limits launches at the same time: on two cores, more than two only take longer each.
    launching: Semaphore,
    loopback: OnceCell<LoopbackServer>,
    /// Number of Chromiums being closed without anybody waiting for it.
    closing: watch::Sender<usize>,
    state: Mutex<HostsState>,
}

#[derive(Debug, Default)]
struct HostsState {
    /// Chromiums for shared leases, by what their leases have in common.
    shared: Vec<(String, Weak<Host>)>,
    launches: Vec<Launch>,
    next_launch: u64,
    resources: HashMap<ResourceId, Resource>,
    version: Option<Version>,
}

/// A launch whose places are being waited for.
#[derive(Debug)]
struct Launch {
    id: u64,
    key: String,
    promised: usize,
    result: watch::Receiver<Launched>,
}

/// The result of a launch, for everybody who waits for it.
type Launched = Option<Result<Arc<Host>, Arc<ChromeError>>>;

/// The lease and the Chromium behind a resource of the pool.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) lease: Weak<MuxLease>,
    pub(super) host: Weak<Host>,
    /// Its exit, if that is guarded.
    pub(super) forwarder: Weak<Forwarder>,
}

impl Hosts {
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

    /// Returns the directories that leases in this place must not write into.
    pub(super) fn reserved(&self, host: &Host) -> Vec<PathBuf> {
        let mut reserved = vec![self.state_dir.path().to_owned()];
        reserved.extend(host.directories());
        reserved
    }

    /// Returns a place in a Chromium that suits the spec: for an exclusive lease in a new one, for
    /// a shared one wherever a place is free. One launch serves as many requests as it has places.
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
                // The runtime is ending.
                None => return Err(crate::cdp::CdpError::Ended(EndReason::Closed).into()),
            }
        }
    }

    /// Waits for a launch under way that has places left, or begins one. The launch is a task of
    /// its own, since whoever asked for it first may give up while others wait.
    fn join_launch(
        self: &Arc<Self>,
        state: &mut HostsState,
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
        let (hosts, spec) = (Arc::clone(self), spec.clone());
        tokio::spawn(async move {
            let launched = hosts.launch(spec).await.map_err(Arc::new);
            {
                let mut state = hosts.state();
                state.launches.retain(|launch| launch.id != id);
                if let Ok(host) = &launched {
                    state.shared.push((key, Arc::downgrade(host)));
                }
            }
            if let Err(watch::error::SendError(Some(Ok(unwanted)))) = tell.send(Some(launched)) {
                unwanted.close_if_unused().await;
            }
        });
        result
    }

    /// Launches a Chromium when its turn has come.
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
        let host = Host::launch(config, state_dir, budget, guard, cgroups.as_ref(), spec).await?;
        watch(&host, config.hang_timeout);
        Ok(host)
    }

    /// Gives up a place in the background; with the last one, the Chromium is closed.
    pub(super) fn leave_later(self: &Arc<Self>, place: Place) {
        let closing = Closing::new(self);
        tokio::spawn(async move {
            place.leave().await;
            drop(closing);
        });
    }

    /// Waits for Chromiums that are closing in the background, if no others are left: whoever
    /// closes the last browser wants to know that all are gone.
    pub(super) async fn wait_if_last(&self) {
        if self.state().resources.is_empty() {
            // The sender is ours, so it cannot be gone.
            let _ = self.closing.subscribe().wait_for(|closing| *closing == 0).await;
        }
    }

    /// Returns the server for clients in this process, which listens from its first use on.
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
        // Chromiums of shared leases appear several times, but are measured once.
        for host in hosts {
            host.measure(age).await;
        }
    }

    /// Retires every Chromium of shared leases.
    pub(super) fn renew(&self) {
        let hosts: Vec<Arc<Host>> =
            self.state().shared.iter().filter_map(|(_, host)| host.upgrade()).collect();
        for host in hosts {
            host.retire("it is renewed");
        }
    }

    fn state(&self) -> MutexGuard<'_, HostsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as a closing Chromium until it is dropped.
#[derive(Debug)]
struct Closing(Arc<Hosts>);

impl Closing {
    fn new(hosts: &Arc<Hosts>) -> Self {
        hosts.closing.send_modify(|closing| *closing += 1);
        Self(Arc::clone(hosts))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.send_modify(|closing| *closing -= 1);
    }
}

/// Returns a place in the Chromium of this kind that has the fewest leases.
fn free_place(state: &mut HostsState, key: &str) -> Option<Place> {
    state.shared.retain(|(_, host)| host.strong_count() > 0);
    let mut hosts: Vec<Arc<Host>> = state
        .shared
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

#[cfg(feature = "policies")]
impl Hosts {
    /// Launches again if the first Chromium ended before it was ready, and moves the profile aside
    /// if that is to blame.
    ///
    /// A Chromium may end for many reasons, and a profile holds somebody's logins. So the profile
    /// is to blame only if two Chromiums in a row end with it and one without it comes up.
    async fn launch_again(&self, spec: &BrowserSpec) -> Result<Arc<Host>, ChromeError> {
        let exit = match self.start(spec.clone()).await {
            Err(ChromeError::Exited(exit)) => exit,
            other => return other,
        };
        let Ok(other) = self.start(spec.without_profile()).await else {
            return Err(ChromeError::Exited(exit));
        };
        other.close_if_unused().await;
        drop(other);
        let moved_to = spec.quarantine().await?;
        Err(ChromeError::CorruptProfile { moved_to, exit })
    }
}

/// A lease in its place. When it is dropped, the lease goes first, and then the place is free.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) oxide: OnceCell<Oxide>,
    pub(super) lease: Arc<MuxLease>,
    /// Set if the lease is guarded or proxied. It comes after `lease`, whose contexts know its
    /// port.
    pub(super) outlet: Option<Outlet>,
    directory: Option<Directory>,
    pub(super) place: Place,
}

/// The directory of a shared lease's files; dropping this removes it.
#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Whatever cannot be removed now is removed with the process.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Seat {
    /// Opens a lease in a place.
    pub(super) async fn take(
        hosts: &Hosts,
        place: Place,
        spec: &BrowserSpec,
    ) -> Result<Self, ChromeError> {
        let kind = spec.kind(hosts.config.lease);
        let mut options = LeaseOptions::new(kind)
            .default_context(spec.default_context())
            .warm_page(hosts.config.warm_page);
        let outlet = Outlet::new(&place, options.default_context).await?;
        if let Some(outlet) = &outlet {
            options.proxy = Some(outlet.proxy_server());
            // Through the outlet or nowhere; this also applies to the contexts of its clients.
            options.client_proxies = ClientProxies::Only(hosts.config.client_proxies.clone());
        }
        options.reserved = hosts.reserved(&place);
        let mut directory = None;
        if kind == LeaseKind::Shared {
            let path = place.lease_directory();
            std::fs::create_dir(&path).map_err(ChromeError::file("create", &path))?;
            directory = Some(Directory(path.clone()));
            options = options.directory(path);
            options.directories.extend(hosts.config.directories.iter().cloned());
        }
        let lease = Arc::new(place.mux.open_lease(options).await?);
        place.count_lease();
        if hosts.config.warm_page {
            // A page was just made, so that need not be proved again.
            place.health.proven();
        }
        Ok(Self { oxide: OnceCell::new(), lease, outlet, directory, place })
    }

    /// Opens the lease's way out as its terms allow; only the first call counts.
    pub(super) fn let_out(&self, terms: &LeaseTerms) {
        if let Some(outlet) = &self.outlet {
            let pass =
                || Pass::new().domains(terms.allow_domains.clone()).holder(terms.holder.clone());
            outlet.open(pass);
        }
    }

    pub(super) fn forwarder(&self) -> Weak<Forwarder> {
        self.outlet.as_ref().map_or_else(Weak::new, |outlet| Arc::downgrade(outlet.forwarder()))
    }

    /// Ends the lease completely, verifies that, and returns the place for the next one.
    pub(super) async fn clear(self) -> (Place, Result<(), ChromeError>) {
        let Self { oxide, lease, outlet, directory, place } = self;
        drop(oxide);
        if let Some(outlet) = &outlet {
            outlet.close();
        }
        let ended = lease.end().await.map_err(Into::into);
        if let Some(outlet) = outlet
            && ended.is_ok()
        {
            outlet.finish();
        }
        drop(directory);
        (place, ended)
    }
}

/// A connected `chromiumoxide::Browser` with the task that drives it.
#[derive(Debug)]
pub(super) struct Oxide {
    browser: Browser,
    handler: JoinHandle<()>,
    _published: Published,
}

impl Oxide {
    pub(super) async fn connect(published: Published) -> Result<Self, ChromeError> {
        // All contexts and pages belong to the lease; there are none that it should ignore.
        let config = HandlerConfig { viewport: None, ..HandlerConfig::default() };
        let (browser, mut events) = Browser::connect_with_config(published.url(), config)
            .await
            .map_err(ChromeError::client)?;
        let handler = tokio::spawn(async move {
            // Its timeouts only fire while it is polled: without the ticker, a frozen browser would
            // leave every call pending for ever.
            let mut ticker = tokio::time::interval(Duration::from_millis(250));
            loop {
                tokio::select! {
                    // An error is not the end: unknown events are reported as errors too.
                    event = events.next() => if event.is_none() { break },
                    _ = ticker.tick() => {}
                }
            }
        });
        Ok(Self { browser, handler, _published: published })
    }

    pub(super) fn browser(&self) -> &Browser {
        &self.browser
    }
}

impl Drop for Oxide {
    fn drop(&mut self) {
        self.handler.abort();
    }
}

/// The way out of one lease, or of one page of ours, in a Chromium that has none of its own.
///
/// It is closed until it is opened, and closed again when it is dropped. If it is dropped before
/// everything that could use it is known to be gone, its port stays taken for as long as the
/// Chromium lives, so that nobody else can be reached there.
#[derive(Debug)]
pub(super) struct Outlet {
    forwarder: Arc<Forwarder>,
    host: Weak<Host>,
    is_open: AtomicBool,
}

impl Outlet {
    /// Makes an outlet if the Chromium is guarded or proxied. A lease with the Chromium's real
    /// default context uses the Chromium's own forwarder.
    pub(super) async fn new(
        host: &Arc<Host>,
        context: DefaultContext,
    ) -> Result<Option<Self>, ChromeError> {
        let Some(own) = &host.forwarder else { return Ok(None) };
        let forwarder = match context {
            DefaultContext::Fresh => Arc::new(own.another().await?),
            DefaultContext::Real => Arc::clone(own),
        };
        let is_open = AtomicBool::new(false);
        Ok(Some(Self { forwarder, host: Arc::downgrade(host), is_open }))
    }

    /// Opens it; only the first call counts.
    pub(super) fn open(&self, pass: impl FnOnce() -> Pass) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.forwarder.open(pass());
        }
    }

    /// Closes it, and cuts the connections through it.
    pub(super) fn close(&self) {
        self.forwarder.close();
    }

    pub(super) fn proxy_server(&self) -> String {
        self.forwarder.proxy_server()
    }

    pub(super) fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
    }

    /// Frees its port: nothing is left that could use it.
    pub(super) fn finish(mut self) {
        self.host = Weak::new();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.forwarder.close();
        if let Some(host) = self.host.upgrade() {
            host.keep(Arc::clone(&self.forwarder));
        }
    }
}
