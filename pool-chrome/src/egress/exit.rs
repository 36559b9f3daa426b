use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

use super::error::Failure;
use super::forwarder::Pass;
use super::guard::{Direct, Guard};
use super::meter::{Meter, Metered};
use super::socks5;
use super::target::Target;
use super::upstream::{Protocol, Upstream};
use super::{ProxyError, http};

/// Maximum time a proxy may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Maximum time a proxy may take to connect to a target.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a target.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) type Connection = Metered<TcpStream>;

/// The way out of a browser: by a proxy, or directly, with what has been seen of it.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) upstream: Option<Upstream>,
    pub(super) meter: Arc<Meter>,
    last_error: Mutex<Option<ProxyError>>,
}

impl Exit {
    pub(super) fn new(upstream: Option<Upstream>) -> Self {
        Self { upstream, meter: Arc::default(), last_error: Mutex::default() }
    }

    /// Connects to a target, by whichever way that is, if that is allowed.
    pub(super) async fn open(
        &self,
        guard: &Arc<Guard>,
        target: &Target,
        pass: &Pass,
    ) -> Result<Box<dyn Io>, Failure> {
        match &self.upstream {
            None => {
                let Direct { stream, mark } = guard.connect(target, pass.allowed()).await?;
                Ok(Box::new(Metered::new(stream, Arc::clone(&self.meter)).marked(mark)))
            }
            Some(upstream) => {
                guard.admit(target, pass.allowed())?;
                Ok(open(upstream, &self.meter, target).await?)
            }
        }
    }

    pub(super) fn worked(&self) {
        if self.upstream.is_some() {
            *self.lock() = None;
        }
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

    pub(super) fn last_error(&self) -> Option<ProxyError> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProxyError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to a proxy itself.
pub(super) async fn dial(
    upstream: &Upstream,
    meter: &Arc<Meter>,
) -> Result<Connection, ProxyError> {
    let connected = match &upstream.host {
        Host::Domain(name) => {
            timed(upstream, TcpStream::connect((name.as_str(), upstream.port))).await
        }
        Host::Ipv4(address) => timed(upstream, TcpStream::connect((*address, upstream.port))).await,
        Host::Ipv6(address) => timed(upstream, TcpStream::connect((*address, upstream.port))).await,
    };
    let stream = connected?;
    // A failure costs only speed.
    let _ = stream.set_nodelay(true);
    Ok(Metered::new(stream, Arc::clone(meter)))
}

async fn timed(
    upstream: &Upstream,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> Result<TcpStream, ProxyError> {
    let proxy = || upstream.name();
    tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| ProxyError::Timeout { proxy: proxy(), waited: CONNECT })?
        .map_err(|source| ProxyError::Connect { proxy: proxy(), source: Arc::new(source) })
}

/// Connects to a target through a proxy.
async fn open(
    upstream: &Upstream,
    meter: &Arc<Meter>,
    target: &Target,
) -> Result<Box<dyn Io>, ProxyError> {
    let mut connection = dial(upstream, meter).await?;
    let opened = async {
        match upstream.protocol {
            Protocol::Http => http::connect(upstream, connection, &target.authority()).await,
            Protocol::Socks5 => {
                let failed = |failure| socks5::named(upstream, target, failure);
                let credentials = upstream.credentials.as_ref();
                socks5::greet(&mut connection, credentials).await.map_err(failed)?;
                socks5::connect(&mut connection, target).await.map_err(failed)?;
                Ok(Box::new(connection) as Box<dyn Io>)
            }
        }
    };
    tokio::time::timeout(ANSWER, opened)
        .await
        .map_err(|_| ProxyError::Timeout { proxy: upstream.name(), waited: ANSWER })?
}

/// Goes as far as a proxy lets us without a target.
pub(super) async fn probe(upstream: &Upstream) -> Result<(), ProxyError> {
    let mut connection = dial(upstream, &Arc::default()).await?;
    match upstream.protocol {
        Protocol::Socks5 => socks5::greet(&mut connection, upstream.credentials.as_ref())
            .await
            .map_err(|failure| socks5::named(upstream, "", failure)),
        Protocol::Http => {
            let nowhere = Authority::from_static("proxy-check.invalid:443");
            match http::connect(upstream, connection, &nowhere).await {
                Err(error) if error.blames_proxy() => Err(error),
                _ => Ok(()),
            }
        }
    }
}
