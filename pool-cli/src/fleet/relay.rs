//! Requests that are passed on to other nodes, and the signature by which a node recognizes them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_native_certs::load_native_certs;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use url::{Host, Url};

use crate::config::Secret;
use crate::gateway::tcp::{self, Ends};
use crate::telemetry::{self, TraceParent};

/// The header of a request that another node has passed on.
pub(crate) const RELAY: HeaderName = HeaderName::from_static("browser-pool-relay");

/// Time limit for connecting to another node.
const CONNECT: Duration = Duration::from_secs(2);

/// Facts about a request that another node has passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relayed {
    /// The node that the client is connected to.
    pub(crate) gateway: Arc<str>,
    /// The node that the request is for.
    pub(crate) to: Arc<str>,
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The `Host` that the client sent.
    pub(crate) host: Option<String>,
    /// The lease that was offered to the gateway for this request.
    pub(crate) offer: Option<Arc<str>>,
}

/// Passes requests on to other nodes, and recognizes those that others pass on.
pub(crate) struct Relay {
    node: Arc<str>,
    key: Hmac<Sha256>,
    tls: OnceLock<TlsConnector>,
}

/// Reasons why another node could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("{0:?} is not an address of a node")]
    Address(Arc<str>),
    #[error("no connection to {address}")]
    Connect { address: Arc<str>, source: std::io::Error },
    #[error("no answer from {address}")]
    Http { address: Arc<str>, source: hyper::Error },
}

impl Relay {
    pub(crate) fn new(node: &str, secret: &Secret) -> Self {
        let key = Hmac::new_from_slice(secret.expose().as_bytes());
        Self {
            node: node.into(),
            key: key.expect("a key of any length is good"),
            tls: OnceLock::new(),
        }
    }

    /// Sends a request to the node at an address. Any upgrade is that of the answer, which has the
    /// [`Ends`] of the connection among its extensions.
    ///
    /// The client's trace goes on at that node, below a span of this one.
    ///
    /// # Errors
    ///
    /// If the node cannot be reached; it may have received the request all the same.
    pub(crate) async fn send(
        &self,
        address: &Arc<str>,
        relayed: &Relayed,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unreachable> {
        let span = relay_span(&relayed.to, request.headers_mut());
        let answer = self.send_request(address, relayed, request).instrument(span.clone()).await;
        match &answer {
            Ok(answer) => span.record("status", answer.status().as_u16()),
            Err(error) => span.record("error", tracing::field::display(error)),
        };
        answer
    }

    async fn send_request(
        &self,
        address: &Arc<str>,
        relayed: &Relayed,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unreachable> {
        let bad = || Unreachable::Address(Arc::clone(address));
        let url = Url::parse(address).map_err(|_| bad())?;
        let (host, port) = url.host().zip(url.port_or_known_default()).ok_or_else(bad)?;
        let signed = self.sign(relayed, request.method(), request.uri());
        let headers = request.headers_mut();
        strip(headers);
        headers.insert(
            header::HOST,
            HeaderValue::try_from(format!("{host}:{port}")).map_err(|_| bad())?,
        );
        headers.insert(RELAY, signed);
        let connect = async {
            let stream = match &host {
                Host::Domain(name) => TcpStream::connect((*name, port)).await?,
                Host::Ipv4(ip) => TcpStream::connect((*ip, port)).await?,
                Host::Ipv6(ip) => TcpStream::connect((*ip, port)).await?,
            };
            tcp::prepare(&stream);
            Ok::<_, std::io::Error>(stream)
        };
        let connected = timeout(CONNECT, connect).await.map_err(|late| late.into());
        let refused = |source| Unreachable::Connect { address: Arc::clone(address), source };
        let stream = connected.and_then(|connected| connected).map_err(refused)?;
        let ends = Ends::of(&stream).ok();
        let exchanged = if matches!(url.scheme(), "wss" | "https") {
            let name = ServerName::try_from(host.to_string()).map_err(|_| bad())?;
            let secured = timeout(CONNECT, self.tls().connect(name, stream)).await;
            let secured = secured.map_err(|late| late.into()).and_then(|secured| secured);
            exchange(secured.map_err(refused)?, request).await
        } else {
            exchange(stream, request).await
        };
        let failed = |source| Unreachable::Http { address: Arc::clone(address), source };
        let mut answer = exchanged.map_err(failed)?;
        if let Some(ends) = ends {
            answer.extensions_mut().insert(ends);
        }
        Ok(answer)
    }

    /// Returns what another node says about a request that it has passed on to this one, if it has.
    pub(crate) fn verify(
        &self,
        header: &HeaderValue,
        method: &Method,
        uri: &Uri,
    ) -> Option<Relayed> {
        let mut parts = header.to_str().ok()?.split('.');
        let (Some("v1"), Some(facts), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        self.mac(facts, method, uri).verify_slice(&tag).ok()?;
        let relayed: Relayed =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(facts).ok()?).ok()?;
        (relayed.to == self.node).then_some(relayed)
    }

    fn sign(&self, relayed: &Relayed, method: &Method, uri: &Uri) -> HeaderValue {
        let facts = serde_json::to_vec(relayed).expect("it is plain data");
        let facts = BASE64_URL_SAFE_NO_PAD.encode(facts);
        let tag = self.mac(&facts, method, uri).finalize().into_bytes();
        let signed = format!("v1.{facts}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
        HeaderValue::try_from(signed).expect("base64 makes a header")
    }

    fn mac(&self, facts: &str, method: &Method, uri: &Uri) -> Hmac<Sha256> {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut mac = self.key.clone();
        mac.update(format!("{method}\n{target}\n{facts}").as_bytes());
        mac
    }

    /// Returns the TLS connector, which trusts the certificates that the machine trusts.
    fn tls(&self) -> &TlsConnector {
        self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(load_native_certs().certs);
            let config =
                ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        })
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or with the upgrade.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// Creates the span of a request to another node, below that of the wait or else of the client, and puts it into the
/// request's headers.
fn relay_span(node: &str, headers: &mut HeaderMap) -> Span {
    let span = info_span!("relay", node, status = Empty, error = Empty);
    let is_root = Span::current().is_none();
    if let Some(parent) = TraceParent::of(headers).filter(|_| is_root) {
        telemetry::follow(&span, &parent);
    }
    if let Some(own) = telemetry::context(&span) {
        own.insert_into(headers);
    }
    span
}

/// Removes headers about the connection to the client; an upgrade is passed on.
fn strip(headers: &mut HeaderMap) {
    let upgrade = headers.remove(header::UPGRADE);
    for name in [
        header::CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        RELAY,
    ] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(node: &str, secret: &str) -> Relay {
        Relay::new(node, &Secret::new(secret))
    }

    #[test]
    fn only_what_another_node_has_sent_here_is_believed() {
        let relayed = Relayed {
            gateway: "a".into(),
            to: "b".into(),
            client: SocketAddr::from(([192, 0, 2, 1], 5)),
            host: Some("pool.example".to_owned()),
            offer: Some("b.00".into()),
        };
        let uri = Uri::from_static("/kill/all?x=1");
        let header = relay("a", "secret").sign(&relayed, &Method::POST, &uri);
        let node = relay("b", "secret");
        assert_eq!(node.verify(&header, &Method::POST, &uri), Some(relayed));
        assert_eq!(relay("b", "guessed").verify(&header, &Method::POST, &uri), None);
        assert_eq!(relay("c", "secret").verify(&header, &Method::POST, &uri), None);
        assert_eq!(node.verify(&header, &Method::GET, &uri), None);
        for other in ["/kill/all", "/kill/all?x=2", "/kill/none?x=1"] {
            assert_eq!(node.verify(&header, &Method::POST, &Uri::from_static(other)), None);
        }
        let text = header.to_str().expect("it is text").to_owned();
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = HeaderValue::from_bytes(&forged).expect("it is a header");
            assert_eq!(node.verify(&forged, &Method::POST, &uri), None, "{at}");
        }
    }
}
