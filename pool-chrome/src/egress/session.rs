use std::collections::HashSet;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, server};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::ProxyError;
use super::forwarder::Shared;
use super::http::{broken, check};
use super::tunnel::{self, Io};
use super::upstream::Protocol;

/// Headers that are about one connection and not about the message, beside those that
/// `Connection` names.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// How long the head of an answer to a plain request may take; a site that polls for long stays
/// below it.
const RESPONSE: Duration = Duration::from_secs(300);

/// More than any page sends; hyper's own limit is 100.
const MAX_HEADERS: usize = 512;

type Body = Either<Incoming, Empty<Bytes>>;

/// One connection of Chromium.
///
/// It has its own connection to the proxy: one that were shared between two of Chromium's could
/// carry what one site has authenticated (as NTLM does, per connection) into another context.
#[derive(Default)]
struct Session {
    /// For plain requests, kept for the next one.
    onward: Mutex<Option<Onward>>,
    /// What to do once the answer to a `CONNECT` has been sent.
    tunnel: Lock<Option<(OnUpgrade, Box<dyn Io>)>>,
}

struct Onward {
    /// With SOCKS a connection leads to one site.
    site: Option<Authority>,
    sender: SendRequest<Incoming>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

/// Serves one connection of Chromium until it ends.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A failure costs only speed.
    let _ = stream.set_nodelay(true);
    let session = Arc::new(Session::default());
    let service = service_fn(|request| {
        let (session, shared) = (Arc::clone(&session), Arc::clone(&shared));
        async move { session.answer(request, &shared).await }
    });
    let served = server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of Chromium ended with an error");
    }
    let tunnel = session.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgrade, mut onward)) = tunnel
        && let Ok(upgraded) = upgrade.await
    {
        // How a tunnel ends is between Chromium and the site.
        let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut onward).await;
    }
}

impl Session {
    /// An error closes the connection without an answer.
    async fn answer(
        &self,
        request: Request<Incoming>,
        shared: &Shared,
    ) -> Result<Response<Body>, ProxyError> {
        let plain = request.uri().scheme_str() == Some("http");
        let answer = match request.uri().authority().cloned() {
            Some(target) if request.method() == Method::CONNECT => {
                Ok(self.connect(request, &target, shared).await)
            }
            Some(target) if plain => self.forward(request, target, shared).await,
            // A web page that has guessed the port, or somebody with a browser.
            _ => return Ok(status(StatusCode::BAD_REQUEST)),
        };
        if let Err(error) = &answer {
            shared.failed(error.clone());
        }
        answer
    }

    async fn connect(
        &self,
        mut request: Request<Incoming>,
        target: &Authority,
        shared: &Shared,
    ) -> Response<Body> {
        match tunnel::open(&shared.upstream, &shared.meter, target, 443).await {
            Ok(onward) => {
                shared.worked();
                let upgrade = hyper::upgrade::on(&mut request);
                let mut tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner);
                *tunnel = Some((upgrade, onward));
                status(StatusCode::OK)
            }
            Err(error) => {
                shared.failed(error);
                status(StatusCode::BAD_GATEWAY)
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        target: Authority,
        shared: &Shared,
    ) -> Result<Response<Body>, ProxyError> {
        let upstream = &shared.upstream;
        strip(request.headers_mut());
        // Chromium sends it; who does not is told by HTTP to.
        if !request.headers().contains_key(HOST) {
            let host =
                HeaderValue::from_str(target.as_str()).expect("an authority is visible ASCII");
            request.headers_mut().insert(HOST, host);
        }
        let site = match upstream.protocol {
            Protocol::Http => {
                if let Some(credentials) = &upstream.credentials {
                    request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.basic());
                }
                None
            }
            Protocol::Socks5 => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
                Some(target.clone())
            }
        };

        let mut slot = self.onward.lock().await;
        let mut kept = slot.take().filter(|kept| kept.site == site);
        if let Some(onward) = &mut kept
            && onward.sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut onward = match kept {
            Some(onward) => onward,
            None => Onward::new(site, &target, shared).await?,
        };
        let waited = tokio::time::timeout(RESPONSE, onward.sender.send_request(request));
        let timeout = |_| ProxyError::Timeout { proxy: upstream.name(), waited: RESPONSE };
        let mut answer = waited.await.map_err(timeout)?.map_err(|error| broken(upstream, error))?;
        if upstream.protocol == Protocol::Http {
            check(upstream, answer.status())?;
        }
        shared.worked();
        *slot = Some(onward);
        strip(answer.headers_mut());
        Ok(answer.map(Either::Left))
    }
}

impl Onward {
    async fn new(
        site: Option<Authority>,
        target: &Authority,
        shared: &Shared,
    ) -> Result<Self, ProxyError> {
        let upstream = &shared.upstream;
        let io: Box<dyn Io> = match upstream.protocol {
            Protocol::Http => Box::new(tunnel::dial(upstream, &shared.meter).await?),
            Protocol::Socks5 => tunnel::open(upstream, &shared.meter, target, 80).await?,
        };
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| broken(upstream, error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What goes wrong is seen by the request that it goes wrong for.
            let _ = connection.await;
        });
        Ok(Self { site, sender, _driver: driver })
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}

fn strip(headers: &mut HeaderMap) {
    let named: HashSet<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in named {
        headers.remove(name);
    }
}
