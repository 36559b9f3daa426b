use std::collections::HashSet;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHORIZATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, server};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::error::Failure;
use super::exit::{self, Io};
use super::forwarder::{Pass, Shared};
use super::http::{broken, check};
use super::target::Target;
use super::upstream::{Protocol, Upstream};
use super::{ProxyError, Refusal};

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

/// Maximum time the head of an answer to a plain request may take; a site that polls for long stays
/// below it.
const RESPONSE: Duration = Duration::from_secs(300);

/// More than any page sends; hyper's own limit is 100.
const MAX_HEADERS: usize = 512;

type Body = Either<Incoming, Full<Bytes>>;

/// One connection of Chromium.
///
/// It has its own connection onward: one that were shared between two of Chromium's could carry
/// what one site has authenticated (as NTLM does, per connection) into another context.
#[derive(Default)]
struct Session {
    /// For plain requests, kept for the next one.
    onward: Mutex<Option<Onward>>,
    /// What to do once the answer to a `CONNECT` has been sent.
    tunnel: Lock<Option<(OnUpgrade, Box<dyn Io>)>>,
}

struct Onward {
    /// Where it leads; `None` for an HTTP proxy, which takes requests for any site.
    site: Option<Target>,
    sender: SendRequest<Incoming>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

/// Serves one connection of Chromium until it ends.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, pass: Option<Arc<Pass>>) {
    // A failure costs only speed.
    let _ = stream.set_nodelay(true);
    let session = Arc::new(Session::default());
    let service = service_fn(|request| {
        let (session, shared, pass) = (Arc::clone(&session), Arc::clone(&shared), pass.clone());
        async move { session.answer(request, &shared, pass.as_deref()).await }
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
        pass: Option<&Pass>,
    ) -> Result<Response<Body>, Failure> {
        let is_tunnel = request.method() == Method::CONNECT;
        let default_port = match (request.uri().scheme_str(), request.uri().authority()) {
            (Some("http"), Some(_)) => 80,
            (_, Some(_)) if is_tunnel => 443,
            // A web page that has guessed the port, or somebody with a browser.
            _ => return Ok(status(StatusCode::BAD_REQUEST)),
        };
        let authority = request.uri().authority();
        let target = authority.and_then(|authority| Target::read(authority, default_port));
        let answer = match (&target, pass) {
            (_, None) => Err(Refusal::Closed.into()),
            (None, _) => Err(Refusal::Unclear.into()),
            (Some(target), Some(pass)) if is_tunnel => {
                self.connect(request, target, shared, pass).await
            }
            (Some(target), Some(pass)) => self.forward(request, target, shared, pass).await,
        };
        shared.guard.count(&answer);
        let failure = match answer {
            Ok(answer) => {
                shared.exit.worked();
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        match &failure {
            Failure::Refused(refusal) => {
                if let (Some(target), Some(pass)) = (&target, pass) {
                    pass.log(target, *refusal);
                }
                return Ok(refused(*refusal));
            }
            Failure::Unreachable(error) => {
                tracing::debug!(target = target.map(tracing::field::display), %error, "not reached");
            }
            Failure::Proxy(error) => shared.exit.failed(error.clone()),
        }
        if is_tunnel { Ok(status(StatusCode::BAD_GATEWAY)) } else { Err(failure) }
    }

    async fn connect(
        &self,
        mut request: Request<Incoming>,
        target: &Target,
        shared: &Shared,
        pass: &Pass,
    ) -> Result<Response<Body>, Failure> {
        let onward = shared.exit.open(&shared.guard, target, pass).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, onward));
        Ok(status(StatusCode::OK))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        target: &Target,
        shared: &Shared,
        pass: &Pass,
    ) -> Result<Response<Body>, Failure> {
        strip(request.headers_mut());
        // What was judged is what is asked for, whatever else the request says.
        let authority = request.uri().authority().expect("a target was read from it").as_str();
        let host = HeaderValue::from_str(authority).expect("an authority is visible ASCII");
        request.headers_mut().insert(HOST, host);
        let upstream = shared.exit.upstream.as_ref();
        let proxy = upstream.filter(|upstream| upstream.protocol == Protocol::Http);
        let site = match proxy {
            Some(proxy) => {
                // It is one connection for all sites, so each request is judged by itself.
                shared.guard.admit(target, pass.allowed())?;
                if let Some(credentials) = &proxy.credentials {
                    request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.basic());
                }
                None
            }
            None => {
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
            None => Onward::new(site, target, shared, pass).await?,
        };
        let waited = tokio::time::timeout(RESPONSE, onward.sender.send_request(request)).await;
        let answer = match (waited, upstream) {
            (Ok(answer), None) => answer.map_err(Failure::unreachable)?,
            (Ok(answer), Some(upstream)) => answer.map_err(|error| broken(upstream, error))?,
            (Err(late), None) => return Err(Failure::unreachable(late)),
            (Err(_), Some(upstream)) => {
                let (proxy, waited) = (upstream.name(), RESPONSE);
                return Err(ProxyError::Timeout { proxy, waited }.into());
            }
        };
        if let Some(proxy) = proxy {
            check(proxy, answer.status())?;
        }
        *slot = Some(onward);
        let mut answer = answer;
        strip(answer.headers_mut());
        Ok(answer.map(Either::Left))
    }
}

impl Onward {
    async fn new(
        site: Option<Target>,
        target: &Target,
        shared: &Shared,
        pass: &Pass,
    ) -> Result<Self, Failure> {
        let upstream = shared.exit.upstream.as_ref();
        let io: Box<dyn Io> = match upstream {
            Some(proxy @ Upstream { protocol: Protocol::Http, .. }) => {
                Box::new(exit::dial(proxy, &shared.exit.meter).await?)
            }
            Some(Upstream { protocol: Protocol::Socks5, .. }) | None => {
                shared.exit.open(&shared.guard, target, pass).await?
            }
        };
        let handshake = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(io))
            .await;
        let (sender, connection) = match (handshake, upstream) {
            (Ok(made), _) => made,
            (Err(error), None) => return Err(Failure::unreachable(error)),
            (Err(error), Some(upstream)) => return Err(broken(upstream, error).into()),
        };
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What goes wrong is seen by the request that it goes wrong for.
            let _ = connection.await;
        });
        Ok(Self { site, sender, _driver: driver })
    }
}

/// The answer to a request that is against the rules. A page may read it as one of the site's own,
/// so it can run and remember nothing.
fn refused(refusal: Refusal) -> Response<Body> {
    let text = format!("Refused by the egress rules of this browser pool: {refusal}.\n");
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = StatusCode::FORBIDDEN;
    for (name, value) in [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::default()));
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
