use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pool_core::ResourceId;
use serde_json::json;
use tokio::time::timeout;

use super::host::Version;
use super::hosts::{Hosts, Oxide, Seat};
use super::spec::BrowserSpec;
use crate::ChromeError;
use crate::cdp::CdpError;
use crate::mux::{Connection, EndReason, HolderCommands, LeaseKind, LeaseTarget, LeaseTerms};
use crate::process::Engine;

/// Maximum time that a screenshot may take. A page that shows a dialog does not paint.
const SCREENSHOT: Duration = Duration::from_secs(5);

/// Maximum time for a list of pages.
const LISTING: Duration = Duration::from_secs(1);

/// A browser for one holder: a lease in a Chromium, alone in it or one of many.
///
/// Clients connect to it as to a browser that they have launched themselves
/// ([`connect`](Self::connect) for the raw protocol, [`browser`](Self::browser) for
/// `chromiumoxide`). Everything that they make in it ends with the lease.
#[derive(Debug)]
pub struct VirtualBrowser {
    /// `None` only while it is being recycled or closed.
    pub(super) seat: Option<Seat>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) id: ResourceId,
    pub(super) spec: BrowserSpec,
}

impl VirtualBrowser {
    fn seat(&self) -> &Seat {
        self.seat
            .as_ref()
            .expect("only recycling and closing take the seat, and both own the browser")
    }

    /// Sets the terms of the lease, before the first connection. Only the first call counts;
    /// without one, the default terms apply, except that with [`browser`](Self::browser) it begins
    /// without a page.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`] with the reason if the browser is gone.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the terms apply all the same, and the first page is still made.
    pub async fn begin(&self, terms: &LeaseTerms) -> Result<(), CdpError> {
        self.seat().let_out(terms);
        self.seat().lease.begin(terms).await
    }

    /// Opens a connection for the Chrome DevTools Protocol. There may be several, one after another
    /// or at once.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`] with the reason if the browser is gone.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, there is no connection, but the lease has begun all the same.
    pub async fn connect(&self) -> Result<Connection, CdpError> {
        self.seat().let_out(&LeaseTerms::new());
        self.seat().lease.connect().await
    }

    /// Opens a connection for a client; commands that no Chromium has are answered by the caller.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As with [`connect`](Self::connect).
    pub async fn connect_with(
        &self,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Connection, CdpError> {
        self.seat().let_out(&LeaseTerms::new());
        self.seat().lease.connect_with(commands).await
    }

    /// Opens a connection whose root is a page: the one with this id, or else the first.
    ///
    /// # Errors
    ///
    /// As [`MuxLease::connect_page`](crate::mux::MuxLease::connect_page).
    ///
    /// # Cancel safety
    ///
    /// As with [`connect`](Self::connect). A page that is being made for it stays in the lease.
    pub async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Connection, CdpError> {
        self.seat().let_out(&LeaseTerms::new());
        self.seat().lease.connect_page(page, Some(commands)).await
    }

    /// Returns `true` if a client's command has not been answered, or a download has not ended: a
    /// client that is silent is then waiting.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.seat().lease.is_busy()
    }

    /// Returns the browser as a connected `chromiumoxide::Browser`. The first call connects.
    ///
    /// If no [terms](Self::begin) were set, the lease begins without a page, and the first new page
    /// in the default context is the one that was made ahead.
    ///
    /// # Errors
    ///
    /// [`ChromeError::Client`] if it could not connect.
    ///
    /// # Cancel safety
    ///
    /// Safe; the next call connects again.
    pub async fn browser(&self) -> Result<&chromiumoxide::Browser, ChromeError> {
        let seat = self.seat();
        let connect = || async {
            // The caller makes the pages itself: a first one would be left unused.
            self.begin(&LeaseTerms::new().first_page(false)).await?;
            let published = self.hosts.loopback().await?.publish(&seat.lease);
            Oxide::connect(published).await
        };
        Ok(seat.oxide.get_or_try_init(connect).await?.browser())
    }

    /// Opens a page at an address in one step.
    ///
    /// # Errors
    ///
    /// [`ChromeError::Client`] if the browser or the navigation failed.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the page may have been made. It then stays in the lease.
    pub async fn new_page(&self, url: &str) -> Result<chromiumoxide::Page, ChromeError> {
        // The warm page is only handed out for an empty address; navigating afterwards takes no
        // longer.
        let page =
            self.browser().await?.new_page("about:blank").await.map_err(ChromeError::client)?;
        if url != "about:blank" {
            page.goto(url).await.map_err(ChromeError::client)?;
        }
        Ok(page)
    }

    /// Waits until the browser ends before its lease does: its client sent `Browser.close`, or its
    /// Chromium died, hung, or was taken away.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ended(&self) -> EndReason {
        self.seat().lease.ended().await
    }

    /// Returns why it has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.seat().lease.end_reason()
    }

    /// Returns the id of the browser process, which shared leases have in common.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.seat().place.pid
    }

    /// Returns the proportional set size of the whole process tree in bytes, measured now.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
    pub async fn memory(&self) -> u64 {
        let host = &self.seat().place;
        host.measure(Duration::ZERO).await;
        host.memory().map_or(0, |(bytes, _)| bytes)
    }

    /// Returns the description that it was created from.
    #[must_use]
    pub fn spec(&self) -> &BrowserSpec {
        &self.spec
    }

    /// Returns which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.seat().place.engine
    }

    /// Returns the Chromium's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.seat().place.version
    }

    /// Returns the kind of the lease: with others in its Chromium, or alone.
    #[must_use]
    pub fn kind(&self) -> LeaseKind {
        self.seat().place.kind
    }

    /// Returns its open targets, without its client noticing.
    #[must_use]
    pub fn targets(&self) -> Vec<LeaseTarget> {
        self.seat().lease.targets()
    }

    /// Returns the page that was opened last, which is in front of the others; `None` while there
    /// is none.
    #[must_use]
    pub fn foremost_page(&self) -> Option<LeaseTarget> {
        self.targets().into_iter().rfind(|target| target.kind == "page")
    }

    /// Returns its pages with their present titles and addresses, oldest first, without its client
    /// noticing.
    ///
    /// Chromium does not announce every new title, so it is asked; if it does not answer within a
    /// second, the last announced titles are returned.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing has changed.
    pub async fn pages(&self) -> Vec<LeaseTarget> {
        let mut pages: Vec<_> = self.targets();
        pages.retain(|target| target.kind == "page");
        let mux = &self.seat().place.mux;
        let params = json!({ "filter": [{ "type": "page" }] });
        let listed = timeout(LISTING, mux.call(None, "Target.getTargets", &params)).await;
        let Ok(Ok(listed)) = listed else { return pages };
        for info in listed["targetInfos"].as_array().into_iter().flatten() {
            let page = pages.iter_mut().find(|page| info["targetId"] == *page.id);
            let text = |name: &str| info[name].as_str().map(ToOwned::to_owned);
            if let (Some(page), Some(title), Some(url)) = (page, text("title"), text("url")) {
                (page.title, page.url) = (title, url);
            }
        }
        pages
    }

    /// Takes a picture of a page, as a PNG, without its client noticing.
    ///
    /// Without a target, it is the [foremost page](Self::foremost_page).
    ///
    /// # Errors
    ///
    /// [`CdpError::Refused`] if there is no such page, [`CdpError::Timeout`] if it does not paint
    /// within 5 s.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the session on the page is closed again.
    pub async fn screenshot(&self, target: Option<&str>) -> Result<Vec<u8>, CdpError> {
        const METHOD: &str = "Page.captureScreenshot";
        let page = match target {
            Some(id) => {
                self.targets().into_iter().find(|page| page.kind == "page" && page.id == id)
            }
            None => self.foremost_page(),
        };
        let Some(page) = page else {
            return Err(CdpError::unexpected(METHOD, "there is no such page"));
        };
        let mux = &self.seat().place.mux;
        let params = json!({ "format": "png", "optimizeForSpeed": true });
        let shot = async {
            let look = mux.look_at(&page.id).await?;
            mux.call(Some(look.session()), METHOD, &params).await
        };
        let shot = timeout(SCREENSHOT, shot).await;
        let shot =
            shot.map_err(|_| CdpError::Timeout { method: METHOD.to_owned(), waited: SCREENSHOT })??;
        let data = shot["data"].as_str().unwrap_or_default();
        BASE64_STANDARD
            .decode(data)
            .map_err(|error| CdpError::unexpected(METHOD, error.to_string()))
    }
}

impl Drop for VirtualBrowser {
    fn drop(&mut self) {
        self.hosts.unregister(self.id);
        if let Some(seat) = &self.seat {
            seat.place.forget(self.id);
        }
    }
}

#[cfg(feature = "policies")]
impl pool_policies::ProxyResource for VirtualBrowser {
    fn proxy(&self) -> Option<&pool_policies::ProxyAssignment> {
        self.spec.assignment.as_ref()
    }
}

#[cfg(feature = "policies")]
#[async_trait::async_trait]
impl pool_policies::Warm for VirtualBrowser {
    /// Loads the page in a context of its own, which is then disposed of, so nobody finds it.
    async fn warm(&mut self, how: &pool_policies::WarmUp) -> Result<(), pool_core::BoxError> {
        use super::hosts::Outlet;
        use super::scratch_page::ScratchPage;
        use crate::egress::Pass;
        use crate::mux::DefaultContext;

        let Some(seat) = &self.seat else { return Ok(()) };
        // The operator wants this page: it may go wherever a lease may.
        let outlet = Outlet::new(&seat.place, DefaultContext::Fresh).await?;
        if let Some(outlet) = &outlet {
            outlet.open(Pass::new);
        }
        let proxy = outlet.as_ref().map(Outlet::proxy_server);
        let page = ScratchPage::open(&seat.place.mux, proxy.as_deref()).await?;
        if let Some((width, height)) = how.viewport {
            let params = json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
            });
            page.call("Emulation.setDeviceMetricsOverride", &params).await?;
        }
        if let Some(user_agent) = &how.user_agent {
            let params = json!({ "userAgent": user_agent });
            page.call("Emulation.setUserAgentOverride", &params).await?;
        }
        page.go(&how.url).await?;
        if let Some(script) = &how.script {
            page.run(script).await?;
        }
        page.close().await?;
        if let Some(outlet) = outlet {
            outlet.finish();
        }
        Ok(())
    }
}
