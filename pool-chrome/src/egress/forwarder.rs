use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::exit::Exit;
use super::session::serve;
use super::target::Target;
use super::{Guard, Pattern, ProxyError, Refusal, Rules, Traffic, Upstream};

/// After an accept that failed, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// So many different refusals of a lease are logged; a page can ask for anything, any number of
/// times.
const LOGGED: usize = 100;

/// A proxy on loopback for one Chromium, or for one context of it: the only way out that it has.
///
/// It leads to an [`Upstream`], or directly to where a browser wants to go, and lets through what
/// its [`Guard`] does. Give [`Self::proxy_server`] to
/// [`LaunchOptions::proxy_server`](crate::process::LaunchOptions::proxy_server) and keep the
/// forwarder as long as the Chromium: dropping it closes its port and all its connections. See the
/// [module](super) for what fails in which way.
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
    pub(super) guard: Arc<Guard>,
    pub(super) exit: Arc<Exit>,
    /// What may go through now; nothing without one.
    pass: watch::Sender<Option<Arc<Pass>>>,
}

/// Permission for a forwarder while it is open: everything that the rules of its guard allow,
/// or less.
#[derive(Default)]
pub struct Pass {
    domains: Option<Vec<Pattern>>,
    holder: Option<String>,
    logged: Mutex<HashSet<(Target, Refusal)>>,
}

impl Pass {
    /// Lets through what the rules allow.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets through nothing but these.
    #[must_use]
    pub fn domains(mut self, domains: impl Into<Option<Vec<Pattern>>>) -> Self {
        self.domains = domains.into();
        self
    }

    /// Names whoever it is for in the log.
    #[must_use]
    pub fn holder(mut self, holder: impl Into<Option<String>>) -> Self {
        self.holder = holder.into();
        self
    }

    pub(super) fn allowed(&self) -> Option<&[Pattern]> {
        self.domains.as_deref()
    }

    /// Writes a refusal to the log, unless it is there already.
    pub(super) fn log(&self, target: &Target, refusal: Refusal) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED || !logged.insert((target.clone(), refusal)) {
            return;
        }
        let last = logged.len() == LOGGED;
        drop(logged);
        let lease = self.holder.as_deref();
        tracing::info!(lease, %target, rule = refusal.code(), "egress refused: {refusal}");
        if last {
            tracing::info!(lease, "further refusals of this lease are only counted");
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("domains", &self.domains).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Starts to listen, on a port that the system picks, and lets everything through to a proxy.
    /// Does not yet talk to it.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`] if there is no port to be had, [`ProxyError::BadUrl`] for
    /// credentials that the protocol cannot carry.
    pub async fn start(upstream: Upstream) -> Result<Self, ProxyError> {
        let forwarder = Self::guarded(Guard::new(Rules::new()), upstream).await?;
        forwarder.open(Pass::new());
        Ok(forwarder)
    }

    /// Starts to listen, on a port that the system picks, in front of a proxy or, with `None`, of
    /// the network itself. Lets nothing through until it is [opened](Self::open).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn guarded(
        guard: Arc<Guard>,
        upstream: impl Into<Option<Upstream>>,
    ) -> Result<Self, ProxyError> {
        let upstream = upstream.into().map(Upstream::checked).transpose()?;
        Self::listen(guard, Arc::new(Exit::new(upstream))).await
    }

    /// Starts another one, closed, with the same guard and the same way out.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`] if there is no port to be had.
    pub async fn another(&self) -> Result<Self, ProxyError> {
        let Shared { guard, exit, .. } = &*self.shared;
        Self::listen(Arc::clone(guard), Arc::clone(exit)).await
    }

    async fn listen(guard: Arc<Guard>, exit: Arc<Exit>) -> Result<Self, ProxyError> {
        let listen = |error: io::Error| ProxyError::Listen(Arc::new(error));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        guard.protect(address);
        let shared = Arc::new(Shared { guard, exit, pass: watch::Sender::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Lets through what the guard and the pass allow, from now on.
    pub fn open(&self, pass: Pass) {
        self.shared.pass.send_replace(Some(Arc::new(pass)));
    }

    /// Lets nothing through any more, and cuts what goes through it.
    pub fn close(&self) {
        self.shared.pass.send_replace(None);
    }

    /// Returns where it listens: 127.0.0.1 and a port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what Chromium is told, such as `http://127.0.0.1:41234`.
    #[must_use]
    pub fn proxy_server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the proxy behind it; `None` where it leads out directly.
    #[must_use]
    pub fn upstream(&self) -> Option<&Upstream> {
        self.shared.exit.upstream.as_ref()
    }

    /// Returns what has gone out so far, by it and by [others](Self::another) of the same way.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.exit.meter.read()
    }

    /// Returns why the proxy does not work, as of the last request: `None` again as soon as one
    /// succeeds.
    ///
    /// A target that the proxy cannot reach is an error here too; see
    /// [`ProxyError::blames_proxy`].
    #[must_use]
    pub fn last_error(&self) -> Option<ProxyError> {
        self.shared.exit.last_error()
    }

    /// Does as [`Upstream::probe`], and has the result as [`Self::last_error`]. Without a proxy
    /// there is nothing to probe.
    ///
    /// # Errors
    ///
    /// A [`ProxyError`] that blames the proxy.
    pub async fn probe(&self, timeout: Duration) -> Result<(), ProxyError> {
        let Some(upstream) = self.upstream() else { return Ok(()) };
        let probed = upstream.probe(timeout).await;
        match &probed {
            Ok(()) => self.shared.exit.worked(),
            Err(error) => self.shared.exit.failed(error.clone()),
        }
        probed
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.guard.unprotect(self.address);
    }
}

impl Shared {
    fn pass(&self) -> Option<Arc<Pass>> {
        self.pass.borrow().clone()
    }
}

/// Ends with the forwarder, and takes all connections with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let (mut pass, mut rules) = (shared.pass.subscribe(), shared.guard.watch());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // What is accepted between a change and its notice is cut with the others.
                    connections.spawn(serve(stream, Arc::clone(&shared), shared.pass()));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection of Chromium");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            Ok(()) = pass.changed() => connections.abort_all(),
            Ok(()) = rules.changed() => connections.abort_all(),
        }
    }
}
