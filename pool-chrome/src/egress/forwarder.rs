use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use super::meter::Meter;
use super::session::serve;
use super::{ProxyError, Traffic, Upstream};

/// After an accept that failed, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A proxy on loopback, for one Chromium, in front of an [`Upstream`].
///
/// Give [`Self::proxy_server`] to
/// [`LaunchOptions::proxy_server`](crate::process::LaunchOptions::proxy_server) and keep the
/// forwarder as long as the Chromium: dropping it closes its port and all its connections. It has
/// no other way than the upstream, so when that fails there is an error and no direct connection.
/// See the [module](super) for which.
///
/// # Examples
///
/// ```no_run
/// use pool_chrome::egress::{Forwarder, Upstream};
/// use pool_chrome::process::LaunchOptions;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let upstream = Upstream::parse("socks5://user:secret@eu-1.example:1080")?;
/// upstream.probe(Duration::from_secs(5)).await?;
/// let forwarder = Forwarder::start(upstream).await?;
/// let options = LaunchOptions::new().proxy_server(forwarder.proxy_server());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: Upstream,
    pub(super) meter: Arc<Meter>,
    last_error: Mutex<Option<ProxyError>>,
}

impl Forwarder {
    /// Starts to listen, on a port that the system picks. Does not yet talk to the proxy.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`] if there is no port to be had, [`ProxyError::BadUrl`] for
    /// credentials that the protocol cannot carry.
    pub async fn start(upstream: Upstream) -> Result<Self, ProxyError> {
        let upstream = upstream.checked()?;
        let listen = |error: io::Error| ProxyError::Listen(Arc::new(error));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared =
            Arc::new(Shared { upstream, meter: Arc::default(), last_error: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens: 127.0.0.1 and a port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What Chromium is told, such as `http://127.0.0.1:41234`.
    #[must_use]
    pub fn proxy_server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The proxy behind it.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.shared.upstream
    }

    /// What has gone through it so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.meter.read()
    }

    /// Why the proxy does not work, as of the last request: `None` again as soon as one succeeds.
    ///
    /// A target that the proxy cannot reach is an error here too; see
    /// [`ProxyError::blames_proxy`].
    #[must_use]
    pub fn last_error(&self) -> Option<ProxyError> {
        self.shared.lock().clone()
    }

    /// [`Upstream::probe`], remembered as [`Self::last_error`].
    ///
    /// # Errors
    ///
    /// A [`ProxyError`] that blames the proxy.
    pub async fn probe(&self, timeout: Duration) -> Result<(), ProxyError> {
        let probed = self.shared.upstream.probe(timeout).await;
        match &probed {
            Ok(()) => self.shared.worked(),
            Err(error) => self.shared.failed(error.clone()),
        }
        probed
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    pub(super) fn worked(&self) {
        *self.lock() = None;
    }

    pub(super) fn failed(&self, error: ProxyError) {
        let mut last = self.lock();
        let news = last.as_ref().is_none_or(|last| !last.blames_proxy());
        // Once per outage: a page asks for hundreds of things.
        if news && error.blames_proxy() {
            tracing::warn!(%error, "an egress proxy does not work");
        }
        *last = Some(error);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProxyError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the forwarder, and takes all connections with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection of Chromium");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
