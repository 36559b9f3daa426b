//! Requests between the nodes of a fleet: those that others pass on to this one, and those of
//! clients here that another node serves.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pool_core::async_trait;
use pool_fleet::RemoteLease;
use pool_fleet::subject::split_lease_id;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::bridge::{Accepted, Socket};
use super::request::KeptBody;
use super::{Code, Gateway, LeaseEnd, LeaseId, Problem, tcp};
use crate::api::Node;
use crate::fleet::{Connect, Fleet, RELAY, Relayed, Unreachable};

/// The message for a node that comes too late for a lease that it was offered.
pub(super) const OFFER_OVER: &str = "the lease that was offered is no longer available";

/// Time within which a node reports that the lease of an offer belongs to somebody else by now.
/// After that, a call takes as long as its page does, and no longer than its limit.
const TAKEN: Duration = Duration::from_millis(1500);

/// Time within which a node begins to answer a request about a lease that it has.
const HEAD: Duration = Duration::from_secs(10);

/// Time within which a node answers a request about itself, and the maximum size of that answer.
const ANSWERED: Duration = Duration::from_secs(3);
const ANSWER: usize = 16 * 1024 * 1024;

/// Maximum size of a refusal that is read to find its code.
const REFUSAL: usize = 64 * 1024;

/// Accepts the word of other nodes: a request that one of them has passed on counts as its
/// client's, and was checked there.
pub(super) async fn receive(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(header) = request.headers_mut().remove(RELAY) else { return next.run(request).await };
    let relayed = gateway
        .fleet()
        .and_then(|fleet| fleet.relay().verify(&header, request.method(), request.uri()));
    let Some(relayed) = relayed else {
        let detail = "the header browser-pool-relay is for the nodes of one fleet, and this one \
                      was not signed for this node with its secret";
        return Problem::new(Code::Unauthorized, detail).into_response();
    };
    request.headers_mut().remove(header::HOST);
    if let Some(host) = relayed.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    request.extensions_mut().insert(relayed.client);
    request.extensions_mut().insert(Arc::new(relayed));
    next.run(request).await
}

/// Passes requests about leases of other nodes on to them, and lets all others be served wherever a
/// browser is free first.
pub(super) async fn send(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(fleet) = gateway.fleet() else { return next.run(request).await };
    if request.extensions().get::<Arc<Relayed>>().is_some() {
        return next.run(request).await;
    }
    if let Some(node) = elsewhere(request.uri().path(), fleet.name()) {
        return match Detour::of(&request, fleet).to(&node, request).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
    }
    let upgrade = request.extensions().get::<OnUpgrade>().cloned();
    let detour = Arc::new(Detour::of(&request, fleet));
    request.extensions_mut().insert(detour.body.clone());
    request.extensions_mut().insert(Arc::clone(&detour));
    loop {
        let response = next.clone().run(request).await;
        match detour.answer().await {
            None => return response,
            Some(Ok(Taken::Answer(answer))) => {
                return pass_on(&detour.fleet, detour.watched(answer), upgrade);
            }
            Some(Ok(Taken::By(_) | Taken::Gone)) => request = detour.again(),
            Some(Err(problem)) => return problem.into_response(),
        }
    }
}

/// Returns the other node that a path is about, or that has the lease it is about.
fn elsewhere(path: &str, own: &str) -> Option<String> {
    if let Some(of) = path.strip_prefix("/api/fleet/") {
        let node = of.split('/').next().unwrap_or_default();
        let node = percent_encoding::percent_decode_str(node).decode_utf8().ok()?;
        return (node != own).then(|| node.into_owned());
    }
    path.split('/').find_map(|part| {
        let part = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
        let (node, lease) = split_lease_id(&part)?;
        (node != own && lease.parse::<LeaseId>().is_ok()).then(|| node.to_owned())
    })
}

/// A client's request, which another node may serve instead of this one.
pub(super) struct Detour {
    fleet: Arc<Fleet>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    client: SocketAddr,
    body: KeptBody,
    answer: Mutex<Option<Answer>>,
    /// Time for which the request may have a browser, if the answer takes that long.
    call_limit: OnceLock<Duration>,
    began: Instant,
    /// Set if it was tried before, and the lease that was offered for it was gone.
    is_late: AtomicBool,
}

type Sending = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

enum Answer {
    Here(Response),
    UnderWay(Sending),
}

impl Detour {
    fn of(request: &Request, fleet: &Arc<Fleet>) -> Self {
        let client = request.extensions().get::<SocketAddr>().copied();
        Self {
            fleet: Arc::clone(fleet),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            client: client.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            body: KeptBody::default(),
            answer: Mutex::default(),
            call_limit: OnceLock::new(),
            began: Instant::now(),
            is_late: AtomicBool::new(false),
        }
    }

    /// Returns the request again, as it came.
    fn again(self: &Arc<Self>) -> Request {
        self.is_late.store(true, Ordering::Relaxed);
        let mut request = self.request(self.body.get().into());
        request.extensions_mut().insert(self.client);
        request.extensions_mut().insert(self.body.clone());
        request.extensions_mut().insert(Arc::clone(self));
        request
    }

    /// Returns how long the request had waited before this attempt.
    pub(super) fn waited(&self) -> Duration {
        if self.is_late.load(Ordering::Relaxed) { self.began.elapsed() } else { Duration::ZERO }
    }

    /// Lets the answer take as long as the request may have a browser.
    pub(super) fn allow(&self, limit: Duration) {
        self.call_limit.get_or_init(|| limit);
    }

    /// Returns how long a node may be silent during a call. A node that runs ends a call at its
    /// limit; a connection or a stream of events has none, and may be quiet for as long as it likes.
    fn longest_silence(&self) -> Option<Duration> {
        self.call_limit.get().map(|limit| *limit + HEAD)
    }

    /// Ends the answer to a call if its node stops in the middle of it.
    fn watched(&self, answer: Response) -> Response {
        let Some(limit) = self.longest_silence() else { return answer };
        answer.map(|body| {
            let pieces = stream::unfold(body.into_data_stream(), move |mut pieces| async move {
                let piece = match timeout(limit, pieces.next()).await {
                    Ok(piece) => piece?.map_err(io::Error::other),
                    Err(late) => Err(late.into()),
                };
                Some((piece, pieces))
            });
            Body::from_stream(pieces)
        })
    }

    /// Returns the facts that the other node is told about the request.
    fn relayed(&self, to: Arc<str>, offer: Option<Arc<str>>) -> Relayed {
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        Relayed {
            gateway: self.fleet.name().into(),
            to,
            client: self.client,
            host: host.map(str::to_owned),
            offer,
        }
    }

    fn request(&self, body: Body) -> Request {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Keeps the body, which can only be read from the request once.
    pub(super) fn keep(&self, body: &Bytes) {
        self.body.keep(body);
    }

    /// Sends a request to another node, and returns its answer.
    async fn to(&self, node: &str, request: Request) -> Result<Response, Problem> {
        let address = self.fleet.address_of(node).await.ok_or_else(|| node_lost(node))?;
        let upgrade = request.extensions().get::<OnUpgrade>().cloned();
        let sending = self.sending(address, node.into(), None, request.into_body());
        let answer = timeout(HEAD, sending).await.unwrap_or_else(|_| Err(node_lost(node)));
        Ok(pass_on(&self.fleet, answer?, upgrade))
    }

    /// Asks another node the client's question, with an address of that node's own.
    pub(super) async fn ask(&self, node: &Node, uri: &Uri) -> Result<Bytes, Problem> {
        let mut request = self.request(Body::empty());
        *request.uri_mut() = uri.clone();
        let relayed = self.relayed(node.name.as_str().into(), None);
        let asked = async {
            let address = node.address.as_str().into();
            let answer = self.fleet.relay().send(&address, &relayed, request).await;
            let answer = answer.map_err(|error| unreachable(&node.name, &error))?;
            let status = answer.status();
            let body = to_bytes(Body::new(answer), ANSWER).await.ok();
            body.filter(|_| status.is_success()).ok_or_else(|| node_lost(&node.name))
        };
        timeout(ANSWERED, asked).await.unwrap_or_else(|_| Err(node_lost(&node.name)))
    }

    /// Lets another node answer the request, if this is the id of a lease there.
    ///
    /// # Errors
    ///
    /// If another node answers, or cannot be reached.
    pub(super) async fn leave_for(&self, lease: &str) -> Result<(), Problem> {
        match elsewhere(lease, self.fleet.name()) {
            Some(node) => {
                self.go(&node).await?;
                Err(Problem::elsewhere())
            }
            None => Ok(()),
        }
    }

    /// Lets any node with browsers answer the request. Returns a stand-in for the answer until
    /// then, or the refusal if there is no such node.
    pub(super) async fn anywhere(&self) -> Problem {
        let snapshot = self.fleet.snapshot().await;
        let nodes = snapshot.iter().flat_map(|snapshot| &snapshot.nodes);
        match nodes.into_iter().find(|beat| beat.load.places > 0) {
            Some(beat) => self.go(&beat.node).await.err().unwrap_or_else(Problem::elsewhere),
            None => {
                let detail = "no live node of the fleet with browsers is known";
                Problem::new(Code::BrowserUnavailable, detail).retry_after(Duration::from_secs(1))
            }
        }
    }

    /// Lets the node answer that has a page, if one has it: the id of a page does not say where it
    /// is.
    pub(super) async fn find_page(&self) -> bool {
        let Some(snapshot) = self.fleet.snapshot().await else { return false };
        for beat in snapshot.nodes {
            let (address, node) = (Arc::clone(&beat.address), Arc::clone(&beat.node));
            let found = timeout(HEAD, self.sending(address, node, None, Body::empty())).await;
            if let Ok(Ok(response)) = found
                && response.status() != StatusCode::NOT_FOUND
            {
                self.put(Answer::Here(response));
                return true;
            }
        }
        false
    }

    /// Lets another node answer the request.
    ///
    /// # Errors
    ///
    /// If that node is not heard; then nobody answers yet.
    pub(super) async fn go(&self, node: &str) -> Result<(), Problem> {
        let address = self.fleet.address_of(node).await.ok_or_else(|| node_lost(node))?;
        let sending = self.sending(address, node.into(), None, self.body.get().into());
        let lost = node_lost(node);
        self.put(Answer::UnderWay(Box::pin(async move {
            timeout(HEAD, sending).await.unwrap_or(Err(lost))
        })));
        Ok(())
    }

    fn sending(
        &self,
        address: Arc<str>,
        to: Arc<str>,
        offer: Option<Arc<str>>,
        body: Body,
    ) -> impl Future<Output = Result<Response, Problem>> + Send + use<> {
        let relayed = self.relayed(to, offer);
        let request = self.request(body);
        let fleet = Arc::clone(&self.fleet);
        async move {
            let answer = fleet.relay().send(&address, &relayed, request).await;
            answer
                .map(|answer| answer.map(Body::new))
                .map_err(|error| unreachable(&relayed.to, &error))
        }
    }

    fn put(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Returns the answer of the node that has served the request, if one has.
    async fn answer(&self) -> Option<Result<Taken, Problem>> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(match answer? {
            Answer::Here(response) => Ok(Taken::Answer(response)),
            Answer::UnderWay(sending) => match sending.await {
                Ok(response) => Ok(taken(response).await),
                Err(problem) => Err(problem),
            },
        })
    }
}

#[async_trait]
impl Connect for Detour {
    async fn connect(&self, lease: &RemoteLease) -> Result<(), String> {
        let (address, node) = (Arc::clone(&lease.address), Arc::clone(&lease.node));
        let offer = Some(Arc::clone(&lease.id));
        let mut sending: Sending =
            Box::pin(self.sending(address, node, offer, self.body.get().into()));
        let answer = match timeout(TAKEN, &mut sending).await {
            // The answer to a handshake comes at once.
            Err(_) if self.headers.contains_key(header::UPGRADE) => {
                return Err("it does not answer in time".to_owned());
            }
            Err(_) => {
                let limit = self.longest_silence().unwrap_or(HEAD);
                let silent = silent(&lease.node, limit);
                Answer::UnderWay(Box::pin(async move {
                    timeout(limit, sending).await.unwrap_or(Err(silent))
                }))
            }
            Ok(Err(problem)) => return Err(problem.detail().to_owned()),
            // The nodes have different tokens, as happens while these are being changed.
            Ok(Ok(response)) if response.status() == StatusCode::UNAUTHORIZED => {
                return Err("it refuses the token".to_owned());
            }
            Ok(Ok(response)) => match taken(response).await {
                Taken::Answer(response) => Answer::Here(response),
                Taken::Gone => return Err(OFFER_OVER.to_owned()),
                Taken::By(node) => {
                    let gone = self.go(&node).await;
                    return gone.map_err(|problem| problem.detail().to_owned());
                }
            },
        };
        self.put(answer);
        Ok(())
    }
}

/// The outcome of a request at the node whose lease was offered for it.
enum Taken {
    Answer(Response),
    /// The lease was no longer there.
    Gone,
    /// Another lease at this node has got the session's name in the meantime.
    By(String),
}

async fn taken(response: Response) -> Taken {
    if response.status() != StatusCode::CONFLICT {
        return Taken::Answer(response);
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, REFUSAL).await else { return Taken::Gone };
    let refusal: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if refusal["code"] == Code::OfferOver.word() {
        return Taken::Gone;
    }
    if refusal["code"] == Code::SessionElsewhere.word()
        && let Some(node) = refusal["node"].as_str()
    {
        return Taken::By(node.to_owned());
    }
    Taken::Answer(Response::from_parts(parts, body.into()))
}

pub(super) fn node_lost(node: &str) -> Problem {
    let detail = format!(
        "nothing is heard from the node {node:?}: its leases have ended, or cannot be reached"
    );
    lost(detail)
}

fn lost(detail: String) -> Problem {
    Problem::new(Code::NodeLost, detail).retry_after(Duration::from_secs(3))
}

/// Returns the problem of a call whose node says nothing, although its limit has passed there.
fn silent(node: &str, waited: Duration) -> Problem {
    let detail = format!(
        "the node {node:?} has not answered within {waited:?}, which is longer than a call may \
         take there: it stands still, or cannot be reached"
    );
    lost(detail)
}

fn unreachable(node: &str, error: &Unreachable) -> Problem {
    let detail = format!("the node {node:?} cannot be reached: {}", crate::exit::chain(error));
    lost(detail)
}

/// Passes the answer of another node on to the client, and whatever follows an upgrade.
fn pass_on(fleet: &Arc<Fleet>, mut answer: Response, upgrade: Option<OnUpgrade>) -> Response {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            answer.headers_mut().remove(name);
        }
        return answer;
    }
    let node = hyper::upgrade::on(&mut answer);
    let Some(client) = upgrade else {
        let detail = "this connection cannot be upgraded";
        return Problem::new(Code::BadHandshake, detail).into_response();
    };
    let node_ends = answer.extensions().get::<tcp::Ends>().copied();
    let relay = fleet.begin_relay();
    tokio::spawn(async move {
        let Some(client) = Accepted::of(client).socket().await else { return };
        let Ok(node) = node.await else { return };
        splice(client, TokioIo::new(node), node_ends, relay.ended()).await;
    });
    answer
}

/// Number of bytes that are copied at a time.
const CHUNK: usize = 64 * 1024;

/// Time that a client has to read why its connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Copies bytes between a client and the node that has its browser until one of them is gone, or
/// `ended` is. If the node did not close the client's connection properly, the client is told the
/// reason.
async fn splice<N>(
    client: Socket,
    node: N,
    node_ends: Option<tcp::Ends>,
    ended: impl Future<Output = LeaseEnd>,
) where
    N: AsyncRead + AsyncWrite + Unpin,
{
    let Socket { mut stream, read } = client;
    let ends = tcp::Ends::of(&stream).ok();
    let (mut from_client, mut to_client) = stream.split();
    let (mut from_node, mut to_node) = tokio::io::split(node);
    let mut frames = Frames::default();
    let end = tokio::select! {
        end = down(&mut from_node, &mut to_client, &mut frames, ended) => end,
        () = up(&read, &mut from_client, &mut to_node) => None,
        () = tcp::half_open(ends) => None,
        // Its machine is gone, or the network path to it.
        () = tcp::half_open(node_ends) => Some(LeaseEnd::NodeLost),
    };
    if let Some(end) = end.filter(|_| frames.is_between()) {
        let farewell = async {
            to_client.write_all(&close_frame(end)).await?;
            to_client.shutdown().await?;
            // If it were closed with unread data, the connection would be reset and the reason
            // lost.
            tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await
        };
        // A client that is gone needs no reason.
        let _ = timeout(GOODBYE, farewell).await;
    }
}

/// Copies to the client, and returns the reason for the end if the node has not told the client
/// itself.
async fn down<R, W>(
    node: &mut R,
    client: &mut W,
    frames: &mut Frames,
    ended: impl Future<Output = LeaseEnd>,
) -> Option<LeaseEnd>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK];
    tokio::pin!(ended);
    loop {
        let read = tokio::select! {
            read = node.read(&mut chunk) => read.unwrap_or(0),
            end = &mut ended, if frames.is_between() => return Some(end),
        };
        if read == 0 {
            return (!frames.closed).then_some(LeaseEnd::NodeLost);
        }
        frames.follow(&chunk[..read]);
        if client.write_all(&chunk[..read]).await.is_err() {
            return None;
        }
    }
}

/// Copies to the node, and returns when the client is gone.
async fn up<R, W>(read: &[u8], client: &mut R, node: &mut W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK];
    let mut written = node.write_all(read).await;
    while written.is_ok() {
        match client.read(&mut chunk).await {
            Ok(0) => {
                // It may still be reading.
                written = node.shutdown().await;
                break;
            }
            Ok(read) => written = node.write_all(&chunk[..read]).await,
            Err(_) => return,
        }
    }
    if let Err(error) = written {
        tracing::trace!(%error, "the node accepts no more data of a relayed connection");
    }
    // The other direction learns how it ends.
    std::future::pending::<()>().await;
}

/// Follows the frames of the server's side of a WebSocket, to know when another frame can be
/// inserted.
#[derive(Debug, Default)]
struct Frames {
    /// The head of the next frame, as far as it has arrived.
    head: Vec<u8>,
    /// Number of payload bytes that have yet to come.
    left: u64,
    /// The server has sent a close frame.
    closed: bool,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len() as u64);
                self.left -= taken;
                bytes = &bytes[taken as usize..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let Some(length) = payload(&self.head) else { continue };
            self.closed |= self.head[0] & 0x0f == 8;
            self.left = length;
            self.head.clear();
        }
    }
}

/// Returns the length of a frame's payload, once its head is complete. A server masks nothing.
fn payload(head: &[u8]) -> Option<u64> {
    let (_, rest) = head.split_first()?;
    let (short, rest) = rest.split_first()?;
    match short & 0x7f {
        126 => Some(u64::from(u16::from_be_bytes(rest.try_into().ok()?))),
        127 => Some(u64::from_be_bytes(rest.try_into().ok()?)),
        short => Some(u64::from(short)),
    }
}

fn close_frame(end: LeaseEnd) -> Vec<u8> {
    let reason = end.to_string();
    let mut frame = vec![0x88, (reason.len() + 2) as u8];
    frame.extend(end.close_code().to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_in_any_pieces() {
        let long =
            [vec![0x81, 127], 70_000_u64.to_be_bytes().to_vec(), vec![b'x'; 70_000]].concat();
        let middle = [vec![0x01, 126, 1, 0], vec![b'x'; 256]].concat();
        let frames =
            [vec![0x81, 0], long, middle, vec![0x89, 2, 1, 2], close_frame(LeaseEnd::Drained)];
        for size in [1, 3, 1000, 100_000] {
            let mut followed = Frames::default();
            for (index, frame) in frames.iter().enumerate() {
                assert!(followed.is_between() && !followed.closed, "{index}");
                for (at, piece) in frame.chunks(size).enumerate() {
                    followed.follow(piece);
                    let whole = (at + 1) * size >= frame.len();
                    assert_eq!(followed.is_between(), whole, "frame {index}, piece {at} of {size}");
                }
            }
            assert!(followed.closed);
        }
    }

    #[test]
    fn a_path_is_about_the_node_of_its_lease() {
        let id = LeaseId::random();
        for (path, node) in [
            (format!("/devtools/browser/b.{id}"), Some("b")),
            (format!("/devtools/browser/b.{id}/json/list"), Some("b")),
            (format!("/kill/host.example.{id}"), Some("host.example")),
            (format!("/browsers/b%2E{id}"), Some("b")),
            (format!("/devtools/browser/a.{id}"), None),
            (format!("/devtools/browser/{id}"), None),
            ("/kill/all".to_owned(), None),
            ("/api/fleet/host%2Eexample/drain".to_owned(), Some("host.example")),
            ("/api/fleet/a/undrain".to_owned(), None),
            ("/api/fleet".to_owned(), None),
            ("/kill/b.tracking".to_owned(), None),
        ] {
            assert_eq!(elsewhere(&path, "a").as_deref(), node, "{path}");
        }
    }
}
