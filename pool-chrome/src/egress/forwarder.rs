use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::dial::{Io, broken, check_status, dial};
use super::exit::{Exit, Pass};
use super::rules::Failure;
use super::target::Target;
use super::upstream::{Protocol, Upstream};
use super::{Guard, ProxyError, Refusal, Rules, Traffic};

/// Pause after an accept that failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A proxy on loopback for one Chromium, or for one context in it: its only way out.
///
/// It leads to an [`Upstream`], or directly to the target, and lets through what its [`Guard`]
/// allows. Give [`Self::proxy_server`] to
/// [`LaunchOptions::proxy_server`](crate::process::LaunchOptions::proxy_server) and keep the
/// forwarder as long as the Chromium: dropping it closes its port and all its connections. The
/// [module](super) describes how failures look to a page.
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
    door: Arc<Door>,
    accepting: AbortHandle,
}

/// State that the forwarder shares with the task that accepts connections for it.
#[derive(Debug)]
struct Door {
    exit: Arc<Exit>,
    /// The present permission; without one, nothing gets through.
    pass: watch::Sender<Option<Arc<Pass>>>,
}

impl Forwarder {
    /// Starts to listen on a port that the system picks, and lets everything through to a proxy. It
    /// does not contact the proxy yet.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`] if no port is available, [`ProxyError::BadUrl`] for credentials that
    /// the protocol cannot carry.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing listens.
    pub async fn start(upstream: Upstream) -> Result<Self, ProxyError> {
        let forwarder = Self::guarded(Guard::new(Rules::new()), upstream).await?;
        forwarder.open(Pass::new());
        Ok(forwarder)
    }

    /// Starts to listen on a port that the system picks, in front of a proxy or, with `None`, of
    /// the network itself. It lets nothing through until it is [opened](Self::open).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As with [`start`](Self::start).
    pub async fn guarded(
        guard: Arc<Guard>,
        upstream: impl Into<Option<Upstream>>,
    ) -> Result<Self, ProxyError> {
        let upstream = upstream.into().map(Upstream::checked).transpose()?;
        Self::listen(Arc::new(Exit::new(guard, upstream))).await
    }

    /// Starts another forwarder, closed, with the same guard and the same way out.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Listen`] if no port is available.
    ///
    /// # Cancel safety
    ///
    /// As with [`start`](Self::start).
    pub async fn another(&self) -> Result<Self, ProxyError> {
        Self::listen(Arc::clone(&self.door.exit)).await
    }

    async fn listen(exit: Arc<Exit>) -> Result<Self, ProxyError> {
        let listen = |error: io::Error| ProxyError::Listen(Arc::new(error));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        exit.guard.protect(address);
        let door = Arc::new(Door { exit, pass: watch::Sender::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&door))).abort_handle();
        Ok(Self { address, door, accepting })
    }

    /// Lets through what the guard and the pass allow, from now on.
    pub fn open(&self, pass: Pass) {
        self.door.pass.send_replace(Some(Arc::new(pass)));
    }

    /// Lets nothing more through, and cuts the present connections.
    pub fn close(&self) {
        self.door.pass.send_replace(None);
    }

    /// Returns the address on which it listens: 127.0.0.1 and a port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address to give to Chromium, such as `http://127.0.0.1:41234`.
    #[must_use]
    pub fn proxy_server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the proxy behind it; `None` if it leads out directly.
    #[must_use]
    pub fn upstream(&self) -> Option<&Upstream> {
        self.door.exit.upstream.as_ref()
    }

    /// Returns the traffic so far, through it and through [others](Self::another) with the same way
    /// out.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.door.exit.meter.read()
    }

    /// Returns why the proxy did not work for the last request; `None` again as soon as one
    /// succeeds.
    ///
    /// A target that the proxy cannot reach counts as an error here too; see
    /// [`ProxyError::blames_proxy`].
    #[must_use]
    pub fn last_error(&self) -> Option<ProxyError> {
        self.door.exit.last_error()
    }

    /// Does the same as [`Upstream::probe`], and keeps the result as [`Self::last_error`]. Without
    /// a proxy there is nothing to probe.
    ///
    /// # Errors
    ///
    /// A [`ProxyError`] that blames the proxy.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the connection is closed, and the last error stays as it was.
    pub async fn probe(&self, timeout: Duration) -> Result<(), ProxyError> {
        let Some(upstream) = self.upstream() else { return Ok(()) };
        let probed = upstream.probe(timeout).await;
        match &probed {
            Ok(()) => self.door.exit.worked(),
            Err(error) => self.door.exit.failed(error.clone()),
        }
        probed
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
        self.door.exit.guard.unprotect(self.address);
    }
}

impl Door {
    fn pass(&self) -> Option<Arc<Pass>> {
        self.pass.borrow().clone()
    }
}

/// Accepts connections; it ends with the forwarder, and ends all connections with it.
async fn accept(listener: TcpListener, door: Arc<Door>) {
    let (mut pass, mut rules) = (door.pass.subscribe(), door.exit.guard.watch());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // A connection that is accepted between a change and its notice is cut with the
                    // others.
                    connections.spawn(serve(stream, Arc::clone(&door.exit), door.pass()));
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

/// Headers that concern one connection and not the message, in addition to those that `Connection`
/// names.
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

/// Maximum time for the head of the answer to a plain request; long polling stays below it.
const RESPONSE: Duration = Duration::from_secs(300);

/// More than any page sends; hyper's own limit is 100.
const MAX_HEADERS: usize = 512;

type Body = Either<Incoming, Full<Bytes>>;

/// One connection of Chromium.
///
/// It has its own onward connection: one shared between two of Chromium's connections could carry
/// what one site has authenticated (NTLM does so per connection) into another context.
#[derive(Default)]
struct Inbound {
    /// The connection for plain requests, kept for the next one.
    onward: Mutex<Option<Onward>>,
    /// The tunnel to open once the answer to a `CONNECT` has been sent.
    tunnel: Lock<Option<(OnUpgrade, Box<dyn Io>)>>,
}

struct Onward {
    /// The site that it leads to; `None` for an HTTP proxy, which takes requests for any site.
    site: Option<Target>,
    sender: SendRequest<Incoming>,
    /// Drives the connection, and ends with it.
    _driver: JoinSet<()>,
}

/// Serves one connection of Chromium until it ends.
async fn serve(stream: TcpStream, exit: Arc<Exit>, pass: Option<Arc<Pass>>) {
    // A failure costs only speed.
    let _ = stream.set_nodelay(true);
    let inbound = Arc::new(Inbound::default());
    let service = service_fn(|request| {
        let (inbound, exit, pass) = (Arc::clone(&inbound), Arc::clone(&exit), pass.clone());
        async move { inbound.answer(request, &exit, pass.as_deref()).await }
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
    let tunnel = inbound.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgrade, mut onward)) = tunnel
        && let Ok(upgraded) = upgrade.await
    {
        // The end of a tunnel is between Chromium and the site.
        let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut onward).await;
    }
}

impl Inbound {
    /// Answers one request. An error closes the connection without an answer.
    async fn answer(
        &self,
        request: Request<Incoming>,
        exit: &Exit,
        pass: Option<&Pass>,
    ) -> Result<Response<Body>, Failure> {
        let is_tunnel = request.method() == Method::CONNECT;
        let default_port = match (request.uri().scheme_str(), request.uri().authority()) {
            (Some("http"), Some(_)) => 80,
            (_, Some(_)) if is_tunnel => 443,
            // Sent by a web page that has guessed the port, or by somebody with a browser.
            _ => return Ok(status(StatusCode::BAD_REQUEST)),
        };
        let authority = request.uri().authority();
        let target = authority.and_then(|authority| Target::read(authority, default_port));
        let answer = match (&target, pass) {
            (_, None) => Err(Refusal::Closed.into()),
            (None, _) => Err(Refusal::Unclear.into()),
            (Some(target), Some(pass)) if is_tunnel => {
                self.connect(request, target, exit, pass).await
            }
            (Some(target), Some(pass)) => self.forward(request, target, exit, pass).await,
        };
        exit.guard.count(&answer);
        let failure = match answer {
            Ok(answer) => {
                exit.worked();
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
            Failure::Proxy(error) => exit.failed(error.clone()),
        }
        if is_tunnel { Ok(status(StatusCode::BAD_GATEWAY)) } else { Err(failure) }
    }

    async fn connect(
        &self,
        mut request: Request<Incoming>,
        target: &Target,
        exit: &Exit,
        pass: &Pass,
    ) -> Result<Response<Body>, Failure> {
        let onward = exit.open(target, pass).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, onward));
        Ok(status(StatusCode::OK))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        target: &Target,
        exit: &Exit,
        pass: &Pass,
    ) -> Result<Response<Body>, Failure> {
        strip(request.headers_mut());
        // The request is sent for the target that was judged, whatever else it says.
        let authority = request.uri().authority().expect("a target was read from it").as_str();
        let host = HeaderValue::from_str(authority).expect("an authority is visible ASCII");
        request.headers_mut().insert(HOST, host);
        let upstream = exit.upstream.as_ref();
        let proxy = upstream.filter(|upstream| upstream.protocol == Protocol::Http);
        let site = match proxy {
            Some(proxy) => {
                // One connection serves all sites, so each request is judged by itself.
                exit.guard.admit(target, pass.allowed())?;
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
            None => Onward::new(site, target, exit, pass).await?,
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
            check_status(proxy, answer.status())?;
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
        exit: &Exit,
        pass: &Pass,
    ) -> Result<Self, Failure> {
        let upstream = exit.upstream.as_ref();
        let io: Box<dyn Io> = match upstream {
            Some(proxy @ Upstream { protocol: Protocol::Http, .. }) => {
                Box::new(dial(proxy, &exit.meter).await?)
            }
            Some(Upstream { protocol: Protocol::Socks5, .. }) | None => {
                exit.open(target, pass).await?
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
            // An error is seen by the request that it concerns.
            let _ = connection.await;
        });
        Ok(Self { site, sender, _driver: driver })
    }
}

/// Returns the answer to a request that is against the rules. To a page it may look like one of the
/// site's own, so it must run nothing and store nothing.
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
