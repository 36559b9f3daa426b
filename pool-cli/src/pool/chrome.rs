//! The browsers of `pool-chrome`, as the gateway and the policies see them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pool_chrome::cdp::{CdpError, Client};
use pool_chrome::egress::Requests;
use pool_chrome::mux::{
    Connection, ConnectionReceiver, ConnectionSender, HolderCommands, LeaseTarget, LeaseTerms,
};
use pool_chrome::{BrowserSpec, ChromeDriver, VirtualBrowser};
use pool_core::{BoxError, ResourceId, async_trait};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::policies::KindSpec;
use super::{
    Browser, BrowserDriver, Commands, Events, LeaseEnd, NoConnection, OpenPage, Version, Vitals,
    Wire,
};
use crate::config::LeaseKind;
use crate::fleet::{ProfileInUse, TravelSpec};

/// Age up to which a memory measurement is not repeated.
const MEMORY_AGE: Duration = Duration::from_secs(5);

/// Length from which messages are passed on in place, rather than copied.
const LARGE: usize = 64 * 1024;

impl KindSpec for BrowserSpec {
    fn set_kind(&mut self, wanted: LeaseKind) {
        self.lease = Some(wanted);
    }
}

impl TravelSpec for BrowserSpec {
    fn set_travelling(&mut self, directory: &Path, profile: ProfileInUse) {
        self.profile = Some(directory.to_owned());
        self.hold(profile);
    }
}

#[async_trait]
impl Browser for VirtualBrowser {
    async fn begin(&self, terms: &LeaseTerms) -> Result<(), LeaseEnd> {
        Self::begin(self, terms).await.map_err(|error| failed(self, &error))
    }

    fn is_busy(&self) -> bool {
        Self::is_busy(self)
    }

    async fn connect(&self, commands: Arc<dyn HolderCommands>) -> Result<Wire, LeaseEnd> {
        let connection = self.connect_with(commands).await.map_err(|error| failed(self, &error))?;
        Ok(wire(self, connection))
    }

    async fn drive(&self) -> Result<Client, LeaseEnd> {
        let connection = self.connect().await.map_err(|error| failed(self, &error))?;
        Ok(Client::new(connection))
    }

    async fn connect_page(
        &self,
        page: Option<&str>,
        commands: Arc<dyn HolderCommands>,
    ) -> Result<Wire, NoConnection> {
        let connection = Self::connect_page(self, page, commands).await.map_err(|error| {
            match (&error, self.end_reason()) {
                (CdpError::Ended(_), _) | (_, Some(_)) => NoConnection::Ended(failed(self, &error)),
                // A page that was named may have just gone.
                (_, None) if page.is_some() => NoConnection::NoPage,
                (_, None) => NoConnection::Ended(LeaseEnd::BrowserHung),
            }
        })?;
        Ok(wire(self, connection))
    }

    async fn pages(&self) -> Vec<OpenPage> {
        Self::pages(self).await.into_iter().map(open_page).collect()
    }

    fn has_page(&self, id: &str) -> bool {
        self.targets().iter().any(|target| target.kind == "page" && target.id == id)
    }

    async fn ended(&self) -> LeaseEnd {
        let Some(profile) = self.travelling() else { return Self::ended(self).await.into() };
        tokio::select! {
            biased;
            () = profile.lost() => LeaseEnd::ProfileLost,
            end = Self::ended(self) => end.into(),
        }
    }

    fn travelling(&self) -> Option<&ProfileInUse> {
        self.spec().held()
    }

    async fn screenshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(Self::screenshot(self, None).await?)
    }
}

fn wire(browser: &VirtualBrowser, connection: Connection) -> Wire {
    let (sender, receiver) = connection.split();
    let (commands, events) = (Box::new(sender), Box::new(receiver));
    match browser.travelling() {
        None => Wire { commands, events },
        Some(profile) => Wire {
            commands: Box::new(WhileHeld { wire: commands, profile: profile.clone() }),
            events: Box::new(WhileHeld { wire: events, profile: profile.clone() }),
        },
    }
}

/// Half of a wire to a browser whose profile another node may get: nothing passes it after that,
/// even if this program was stopped in the meantime.
struct WhileHeld<T> {
    wire: Box<T>,
    profile: ProfileInUse,
}

impl<T> WhileHeld<T> {
    fn check(&self) -> Result<(), LeaseEnd> {
        if self.profile.is_lost() { Err(LeaseEnd::ProfileLost) } else { Ok(()) }
    }
}

#[async_trait]
impl<T: Commands> Commands for WhileHeld<T> {
    async fn send(&mut self, message: Utf8Bytes) -> Result<(), LeaseEnd> {
        self.check()?;
        self.wire.send(message).await
    }

    fn receiving(&mut self, bytes: usize) {
        self.wire.receiving(bytes);
    }
}

#[async_trait]
impl<T: Events> Events for WhileHeld<T> {
    async fn next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> Result<usize, LeaseEnd> {
        let counted = self.wire.next(limit, batch).await?;
        self.check().inspect_err(|_| batch.clear())?;
        Ok(counted)
    }

    fn try_next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> usize {
        if self.check().is_ok() { self.wire.try_next(limit, batch) } else { 0 }
    }

    fn taken(&self, counted: usize) {
        self.wire.taken(counted);
    }

    fn forget(&mut self) {
        self.wire.forget();
    }

    fn must_leave(&self) -> bool {
        self.wire.must_leave()
    }

    fn end(&self) -> Option<LeaseEnd> {
        self.check().err().or_else(|| self.wire.end())
    }
}

fn open_page(LeaseTarget { id, title, url, .. }: LeaseTarget) -> OpenPage {
    OpenPage { id, title, url }
}

/// Returns the end of a browser that could not do what every lease needs.
fn failed(browser: &VirtualBrowser, error: &CdpError) -> LeaseEnd {
    match error {
        CdpError::Ended(reason) => (*reason).into(),
        // It could not even provide a session or a page: it is as good as dead.
        _ => browser.end_reason().map_or(LeaseEnd::BrowserHung, LeaseEnd::from),
    }
}

#[async_trait]
impl Commands for ConnectionSender {
    async fn send(&mut self, message: Utf8Bytes) -> Result<(), LeaseEnd> {
        let sent = if message.len() < LARGE {
            Self::send(self, &message).await
        } else {
            self.send_bytes(message.into()).await
        };
        sent.map_err(LeaseEnd::from)
    }

    fn receiving(&mut self, bytes: usize) {
        Self::receiving(self, bytes);
    }
}

#[async_trait]
impl Events for ConnectionReceiver {
    async fn next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> Result<usize, LeaseEnd> {
        match self.recv_many(limit, |message| push_text(batch, message)).await {
            0 => Err(self.end_reason().map_or(LeaseEnd::Revoked, LeaseEnd::from)),
            counted => Ok(counted),
        }
    }

    fn try_next(&mut self, limit: usize, batch: &mut Vec<Utf8Bytes>) -> usize {
        self.try_recv_many(limit, |message| push_text(batch, message))
    }

    fn taken(&self, counted: usize) {
        Self::taken(self, counted);
    }

    fn forget(&mut self) {
        Self::forget(self);
    }

    fn must_leave(&self) -> bool {
        Self::must_leave(self)
    }

    fn end(&self) -> Option<LeaseEnd> {
        self.end_reason().map(LeaseEnd::from)
    }
}

fn push_text(batch: &mut Vec<Utf8Bytes>, message: Bytes) {
    // JSON is UTF-8, so anything else is not a message.
    batch.extend(Utf8Bytes::try_from(message));
}

#[async_trait]
impl BrowserDriver for ChromeDriver {
    fn version(&self) -> Option<Version> {
        let version = Self::version(self)?;
        Some(Version {
            browser: version.product,
            protocol: version.protocol_version,
            user_agent: version.user_agent,
            v8: version.js_version,
            webkit: format!("537.36 ({})", version.revision),
        })
    }

    fn vitals(&self, id: ResourceId) -> Option<Vitals> {
        let vitals = Self::vitals(self, id)?;
        Some(Vitals {
            pid: Some(vitals.pid),
            memory: vitals.memory.map(|(bytes, at)| (bytes, at.elapsed())),
        })
    }

    fn renew(&self) {
        Self::renew(self);
    }

    fn requests(&self) -> Requests {
        self.guard().requests()
    }

    fn is_a_browser(&self, peer: SocketAddr) -> bool {
        self.guard().is_of_a_browser(peer)
    }

    async fn measure(&self) {
        Self::measure(self, MEMORY_AGE).await;
    }
}
