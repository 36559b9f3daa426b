use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pool_core::{Driver, Meta, Reporter, ResourceId};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::host::{Host, Place, Version};
use super::hosts::{Hosts, Seat};
use super::scratch_page::wipe_clipboard;
use super::virtual_browser::VirtualBrowser;
use super::{BrowserSpec, ChromeConfig, Reset};
use crate::ChromeError;
use crate::egress::Guard;
use crate::mux::{Budget, EndReason, LeaseKind};
use crate::process::{Cgroups, KernelLimits, StateDir};

/// A span of what is done to a browser, with its number and class.
macro_rules! browser_span {
    ($name:literal, $meta:expr) => {
        tracing::info_span!(
            $name,
            browser = %$meta.id,
            class = %$meta.class,
            error = tracing::field::Empty,
        )
    };
}

/// Memory is measured no more often than this, since it takes some milliseconds of reading /proc.
const MEMORY_AGE: Duration = Duration::from_secs(10);

/// Makes a pool of virtual browsers. Clones drive the same Chromiums.
///
/// A resource is one lease's place in a Chromium: an exclusive one has a Chromium to itself,
/// shared ones are placed together, up to [`leases_per_browser`](ChromeConfig::leases_per_browser).
///
/// # Examples
///
/// ```no_run
/// use pool_chrome::{ChromeConfig, ChromeDriver};
/// use pool_core::Pool;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let driver = ChromeDriver::start(ChromeConfig::new()).await?;
/// let pool = Pool::builder(driver).min_size(1).max_size(4).build()?;
/// let browser = pool.acquire().await?;
/// let page = browser.new_page("https://example.org").await?;
/// println!("{:?}", page.get_title().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ChromeDriver {
    hosts: Arc<Hosts>,
}

/// The process behind a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vitals {
    /// The browser process, which shared leases have in common.
    pub pid: u32,
    /// The proportional set size of its process tree in bytes, and when it was measured.
    pub memory: Option<(u64, Instant)>,
}

impl ChromeDriver {
    /// Takes the state directory, ends what an earlier run has left in it, and gets ready to
    /// launch.
    ///
    /// # Errors
    ///
    /// [`ChromeError::StateDirBusy`] if another pool has it, [`ChromeError::File`] if it cannot be
    /// used, [`ChromeError::NoCgroup`] if limits are required that the kernel cannot enforce.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the remains of an earlier run are still removed in the background;
    /// after that the state directory is free again.
    pub async fn start(config: ChromeConfig) -> Result<Self, ChromeError> {
        let path = config.state_dir.clone().or_else(StateDir::default_path).ok_or_else(|| {
            let missing = std::io::Error::other("neither XDG_STATE_HOME nor HOME is set");
            ChromeError::system("choose a state directory")(missing)
        })?;
        let open = tokio::task::spawn_blocking(move || StateDir::open(path)).await;
        let state_dir = open.map_err(|_| {
            ChromeError::system("open the state directory")(std::io::Error::other("it panicked"))
        })??;
        let cgroups = cgroups(config.limits)?;
        Ok(Self { hosts: Arc::new(Hosts::new(config, state_dir, cgroups)) })
    }

    /// Returns the configuration that it launches and leases with.
    #[must_use]
    pub fn config(&self) -> &ChromeConfig {
        &self.hosts.config
    }

    /// Returns the version of the Chromium launched last; `None` before the first launch.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.hosts.version()
    }

    /// Returns the budget that the clients of all Chromiums share, in bytes. Its limit can be
    /// changed at any time.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.hosts.budget
    }

    /// Returns the guard, which judges the requests of guarded or proxied browsers. Its rules can
    /// be changed while they run; whether browsers are guarded at all is decided by
    /// [`ChromeConfig::egress`].
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.hosts.guard
    }

    /// Returns the process behind a resource, with its memory as last [measured](Self::measure).
    #[must_use]
    pub fn vitals(&self, id: ResourceId) -> Option<Vitals> {
        let host = self.hosts.resource(id)?.host.upgrade()?;
        Some(Vitals { pid: host.pid, memory: host.memory() })
    }

    /// Measures the memory of every Chromium that was not measured within `age`.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the measurements made by then count.
    pub async fn measure(&self, age: Duration) {
        self.hosts.measure(age).await;
    }

    /// Lets no new leases into the present Chromiums of shared leases: leases that begin from now
    /// on get newly launched ones, and the present leases finish.
    ///
    /// It is for a caller that closes idle resources with
    /// [`Pool::flush_idle`](pool_core::Pool::flush_idle) to get newer Chromiums: otherwise their
    /// replacements would be placed in the same ones. An exclusive lease's Chromium ends with its
    /// resource anyway.
    pub fn renew(&self) {
        self.hosts.renew();
    }

    /// Gives a resource a new lease: in the same place, or elsewhere if the Chromium is retired.
    async fn reseat(
        &self,
        browser: &mut VirtualBrowser,
        place: Place,
        reporter: Option<Reporter>,
    ) -> Result<(), ChromeError> {
        let place = match place.retired() {
            None => place,
            Some(why) => {
                tracing::debug!(pid = place.pid, why, "a browser is replaced");
                self.replace(browser, place).await?
            }
        };
        let seat = self.take_seat(browser, place).await?;
        self.hosts.register(browser.id, &seat);
        if let Some(reporter) = reporter {
            seat.place.report_to(browser.id, reporter);
        }
        browser.seat = Some(seat);
        Ok(())
    }

    /// Opens a lease. If it is exclusive and not the first in its Chromium, it is made while the
    /// remains of the last one are wiped.
    async fn take_seat(&self, browser: &VirtualBrowser, place: Place) -> Result<Seat, ChromeError> {
        let (host, spec) = (Arc::clone(&place), &browser.spec);
        if host.kind == LeaseKind::Shared || host.is_new() {
            return Seat::take(&self.hosts, place, spec).await;
        }
        let (seat, ()) = tokio::join!(Seat::take(&self.hosts, place, spec), self.wipe(&host));
        if host.retired().is_none() {
            return seat;
        }
        let place = seat?.clear().await.0;
        drop(host);
        let place = self.replace(browser, place).await?;
        Seat::take(&self.hosts, place, spec).await
    }

    /// Returns a place in another Chromium. A shared lease finds or launches one before it gives up
    /// the old place; an exclusive one gives up its place first, since its profile must be closed.
    async fn replace(&self, browser: &VirtualBrowser, old: Place) -> Result<Place, ChromeError> {
        if old.kind == LeaseKind::Exclusive {
            old.leave().await;
            return self.hosts.place(&browser.spec).await;
        }
        old.forget(browser.id);
        let place = self.hosts.place(&browser.spec).await?;
        self.hosts.leave_later(old);
        Ok(place)
    }

    /// Wipes what an exclusive lease has left in its Chromium, or retires the Chromium.
    async fn wipe(&self, host: &Host) {
        let (wiped, tidied) = tokio::join!(wipe_clipboard(&host.mux), host.tidy());
        match wiped.map_err(ChromeError::from).and(tidied) {
            Ok(()) => host.health.proven(),
            Err(error) => {
                tracing::warn!(pid = host.pid, %error, "a browser cannot be wiped");
                host.retire("it could not be wiped");
            }
        }
    }
}

#[async_trait]
impl Driver for ChromeDriver {
    type Spec = BrowserSpec;
    type Resource = VirtualBrowser;
    type Error = ChromeError;

    async fn create(
        &self,
        spec: &BrowserSpec,
        meta: &Meta,
        reporter: Reporter,
    ) -> Result<VirtualBrowser, ChromeError> {
        within(browser_span!("launch", meta), self.launch(spec, meta.id, reporter)).await
    }

    async fn check(&self, browser: &mut VirtualBrowser, meta: &Meta) -> Result<(), ChromeError> {
        within(browser_span!("check", meta), self.check_seat(browser)).await
    }

    async fn recycle(&self, browser: &mut VirtualBrowser, meta: &Meta) -> Result<(), ChromeError> {
        within(browser_span!("reset", meta), self.recycle_seat(browser)).await
    }

    async fn close(&self, mut browser: VirtualBrowser, _: &Meta) {
        let seat = browser.seat.take();
        self.hosts.unregister(browser.id);
        let Some(seat) = seat else { return self.hosts.wait_if_last().await };
        seat.place.forget(browser.id);
        if seat.place.kind == LeaseKind::Exclusive {
            // Nothing of it stays, so there is nothing to check.
            seat.lease.revoke(EndReason::Released);
            let Seat { oxide, lease, outlet, place, .. } = seat;
            drop((oxide, lease, outlet));
            place.leave().await;
        } else {
            let (place, ended) = seat.clear().await;
            if ended.is_err() {
                place.retire("a lease could not be cleaned");
            }
            place.leave().await;
        }
        self.hosts.wait_if_last().await;
    }

    async fn revoke(&self, meta: &Meta) {
        let Some(resource) = self.hosts.resource(meta.id) else { return };
        if let Some(lease) = resource.lease.upgrade() {
            lease.revoke(EndReason::Revoked);
        }
        if let Some(forwarder) = resource.forwarder.upgrade() {
            forwarder.close();
        }
        if let Some(host) = resource.host.upgrade() {
            host.forget(meta.id);
            if host.kind == LeaseKind::Exclusive {
                let exited = host.exited();
                host.kill(EndReason::Revoked);
                drop(host);
                exited.await;
            }
        }
    }
}

impl ChromeDriver {
    async fn launch(
        &self,
        spec: &BrowserSpec,
        id: ResourceId,
        reporter: Reporter,
    ) -> Result<VirtualBrowser, ChromeError> {
        let place = self.hosts.place(spec).await?;
        let hosts = Arc::clone(&self.hosts);
        let mut browser = VirtualBrowser { seat: None, hosts, id, spec: spec.clone() };
        self.reseat(&mut browser, place, Some(reporter)).await?;
        Ok(browser)
    }

    async fn check_seat(&self, browser: &mut VirtualBrowser) -> Result<(), ChromeError> {
        let seat = browser.seat.as_ref().ok_or_else(gone)?;
        if let Some(reason) = seat.lease.end_reason() {
            return Err(crate::cdp::CdpError::Ended(reason).into());
        }
        seat.place.check_proxy()?;
        let dead = seat.lease.has_crashed_page();
        let interval = self.hosts.config.page_check_interval;
        let limit = self.hosts.config.check_timeout;
        if let Err(error) = seat.place.probe(&seat.lease, interval, limit).await {
            // Otherwise the next shared lease could be placed where this one could not stay.
            seat.place.retire("a check has failed");
            return Err(error);
        }
        if !dead && seat.place.retired().is_none() {
            return Ok(());
        }
        // It is idle in a Chromium that is to be closed, or its warm page has died.
        self.recycle_seat(browser).await
    }

    async fn recycle_seat(&self, browser: &mut VirtualBrowser) -> Result<(), ChromeError> {
        let seat = browser.seat.take().ok_or_else(gone)?;
        let reporter = seat.place.forget(browser.id);
        if let Some(reason) = seat.place.mux.end_reason() {
            return Err(crate::cdp::CdpError::Ended(reason).into());
        }
        let exclusive = seat.place.kind == LeaseKind::Exclusive;
        if seat.lease.is_tainted() {
            seat.place.retire("a client changed something that cannot be restored");
        }
        if seat.lease.has_crashed_page() {
            seat.place.retire("one of its renderers has died");
        }
        if exclusive && (self.hosts.config.reset == Reset::Relaunch || browser.spec.has_profile()) {
            // A profile keeps what is on its disk; only a new process has forgotten everything
            // else.
            seat.place.retire("it is relaunched between leases");
        }
        seat.place.report_proxy();
        if seat.place.retired().is_none() {
            seat.place.measure(MEMORY_AGE).await;
        }
        let (place, ended) = if exclusive && seat.place.retired().is_some() {
            seat.lease.revoke(EndReason::Released);
            let Seat { oxide, lease, outlet, place, .. } = seat;
            drop((oxide, lease, outlet));
            (place, Ok(()))
        } else {
            seat.clear().await
        };
        if let Err(error) = ended {
            tracing::warn!(pid = place.pid, %error, "a lease could not be cleaned");
            place.retire("a lease could not be cleaned");
        }
        self.reseat(browser, place, reporter).await
    }
}

/// Takes the control groups that the limits need, and logs which limits cannot be enforced.
fn cgroups(limits: KernelLimits) -> Result<Option<Cgroups>, ChromeError> {
    if limits.is_none() {
        return Ok(None);
    }
    let taken = Cgroups::take(limits).and_then(|cgroups| match cgroups.shortcoming() {
        Some(shortcoming) if limits.required => Err(shortcoming),
        shortcoming => Ok((cgroups, shortcoming)),
    });
    match taken {
        Err(reason) if limits.required => Err(ChromeError::NoCgroup(reason)),
        Err(reason) => {
            tracing::warn!(%reason, "the kernel does not enforce the limits of browsers");
            Ok(None)
        }
        Ok((cgroups, shortcoming)) => {
            if let Some(reason) = shortcoming {
                tracing::warn!(%reason, "the kernel does not enforce all limits of browsers");
            }
            tracing::info!(cgroup = %cgroups.path().display(), "each browser has a cgroup");
            Ok(Some(cgroups))
        }
    }
}

fn gone() -> ChromeError {
    crate::cdp::CdpError::Ended(EndReason::Released).into()
}

/// Does work within a span, and records an error in it if there is one.
async fn within<T>(
    span: Span,
    work: impl Future<Output = Result<T, ChromeError>>,
) -> Result<T, ChromeError> {
    let outcome = work.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        span.record("error", tracing::field::display(error));
    }
    outcome
}
