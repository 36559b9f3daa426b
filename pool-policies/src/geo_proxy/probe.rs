use std::fmt;
use std::future::Future;
use std::io;

use async_trait::async_trait;
use pool_core::BoxError;
use tokio::net::TcpStream;

use super::ProxyAssignment;

/// Finds out whether a proxy works.
///
/// [`GeoProxy`](crate::GeoProxy) asks it from the pool's creating task, for each new resource of a
/// region before its first lease, and gives it the
/// [probe timeout](crate::GeoProxyBuilder::probe_timeout). An error takes the proxy out and fails
/// the creation; the next one goes through another proxy. It may be dropped at any await.
///
/// An async closure is a probe too.
///
/// # Examples
///
/// ```
/// use pool_policies::{GeoProxy, Proxy, ProxyAssignment, Region};
///
/// # fn main() -> Result<(), pool_policies::PolicyError> {
/// let policy = GeoProxy::builder()
///     .region("eu", Region::new().proxy(Proxy::parse("http://eu-1.example:8080")?))
///     .probe(|proxy: ProxyAssignment| async move {
///         match proxy.proxy().host() {
///             "eu-1.example" => Ok(()),
///             other => Err(format!("{other} is not known here").into()),
///         }
///     })
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ProxyProbe: Send + Sync + 'static {
    /// Proves that the proxy works, or says why it does not.
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError>;
}

#[async_trait]
impl<F, R> ProxyProbe for F
where
    F: Fn(ProxyAssignment) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), BoxError>> + Send,
{
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError> {
        self(proxy.clone()).await
    }
}

impl fmt::Debug for dyn ProxyProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyProbe")
    }
}

/// A probe that opens a TCP connection to the proxy, and closes it.
///
/// It finds the proxies that are down or out of reach, not those that refuse the credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectProbe;

#[async_trait]
impl ProxyProbe for ConnectProbe {
    async fn probe(&self, proxy: &ProxyAssignment) -> Result<(), BoxError> {
        let proxy = proxy.proxy();
        let connected: io::Result<TcpStream> =
            TcpStream::connect((proxy.host(), proxy.port())).await;
        Ok(connected.map(drop)?)
    }
}
