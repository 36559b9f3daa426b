use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

use super::meter::{Meter, Metered};
use super::socks5::{self, Failure};
use super::upstream::{Protocol, Upstream};
use super::{ProxyError, http};

/// How long a proxy may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a proxy may take to connect to a target.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a target, through a proxy.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) type Connection = Metered<TcpStream>;

/// Connects to the proxy itself.
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

/// Connects to `target` through the proxy.
pub(super) async fn open(
    upstream: &Upstream,
    meter: &Arc<Meter>,
    target: &Authority,
    default_port: u16,
) -> Result<Box<dyn Io>, ProxyError> {
    let mut connection = dial(upstream, meter).await?;
    let opened = async {
        match upstream.protocol {
            Protocol::Http => http::connect(upstream, connection, target).await,
            Protocol::Socks5 => {
                let failed = |failure| named(upstream, target.as_str(), failure);
                let host =
                    host(target).ok_or_else(|| failed(Failure::Refused("it has no name")))?;
                let port = target.port_u16().unwrap_or(default_port);
                let credentials = upstream.credentials.as_ref();
                socks5::greet(&mut connection, credentials).await.map_err(failed)?;
                socks5::connect(&mut connection, &host, port).await.map_err(failed)?;
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
            .map_err(|failure| named(upstream, "", failure)),
        Protocol::Http => {
            let nowhere = Authority::from_static("proxy-check.invalid:443");
            match http::connect(upstream, connection, &nowhere).await {
                Err(error) if error.blames_proxy() => Err(error),
                _ => Ok(()),
            }
        }
    }
}

fn host(target: &Authority) -> Option<Host<&str>> {
    let host = target.host();
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (inner, host.parse()) {
        (Some(address), _) => address.parse().ok().map(Host::Ipv6),
        (None, Ok(address)) => Some(Host::Ipv4(address)),
        (None, Err(_)) => (!host.is_empty()).then_some(Host::Domain(host)),
    }
}

fn named(upstream: &Upstream, target: &str, failure: Failure) -> ProxyError {
    let proxy = upstream.name();
    match failure {
        Failure::Credentials => {
            ProxyError::Credentials { proxy, given: upstream.credentials.is_some() }
        }
        Failure::Refused(reason) => {
            ProxyError::Refused { proxy, target: target.into(), reason: reason.into() }
        }
        Failure::Broken(source) => ProxyError::Broken { proxy, source: Arc::new(source) },
    }
}
