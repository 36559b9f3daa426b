//! Dialling: to a proxy, through it to a target, and counting the bytes.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use url::Host;

use super::ProxyError;
use super::guard::Mark;
use super::target::Target;
use super::upstream::{Credentials, Protocol, Upstream};

/// Maximum time that a proxy may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Maximum time that a proxy may take to connect to a target.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a target.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) type Connection = Metered<TcpStream>;

impl Upstream {
    /// Checks within `timeout` that the proxy is there, answers, and accepts the credentials.
    ///
    /// With SOCKS5 this is the handshake up to the point where a target would be named. An HTTP
    /// proxy is asked to connect to a name that cannot exist (`.invalid`), which it must refuse in
    /// one way if it accepts us and in another if it does not; so no site is ever contacted.
    ///
    /// # Errors
    ///
    /// A [`ProxyError`] that blames the proxy.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn probe(&self, timeout: Duration) -> Result<(), ProxyError> {
        self.checked_ref()?;
        let probed = tokio::time::timeout(timeout, probe(self)).await;
        probed.map_err(|_| ProxyError::Timeout { proxy: self.name(), waited: timeout })?
    }
}

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

/// Connects to a target through a proxy.
pub(super) async fn open(
    upstream: &Upstream,
    meter: &Arc<Meter>,
    target: &Target,
) -> Result<Box<dyn Io>, ProxyError> {
    let mut connection = dial(upstream, meter).await?;
    let opened = async {
        match upstream.protocol {
            Protocol::Http => tunnel(upstream, connection, &target.authority()).await,
            Protocol::Socks5 => {
                let failed = |failure| named(upstream, target, failure);
                let credentials = upstream.credentials.as_ref();
                greet(&mut connection, credentials).await.map_err(failed)?;
                name_target(&mut connection, target).await.map_err(failed)?;
                Ok(Box::new(connection) as Box<dyn Io>)
            }
        }
    };
    tokio::time::timeout(ANSWER, opened)
        .await
        .map_err(|_| ProxyError::Timeout { proxy: upstream.name(), waited: ANSWER })?
}

/// Talks to a proxy as far as is possible without naming a target.
async fn probe(upstream: &Upstream) -> Result<(), ProxyError> {
    let mut connection = dial(upstream, &Arc::default()).await?;
    match upstream.protocol {
        Protocol::Socks5 => greet(&mut connection, upstream.credentials.as_ref())
            .await
            .map_err(|failure| named(upstream, "", failure)),
        Protocol::Http => {
            let nowhere = Authority::from_static("proxy-check.invalid:443");
            match tunnel(upstream, connection, &nowhere).await {
                Err(error) if error.blames_proxy() => Err(error),
                _ => Ok(()),
            }
        }
    }
}

/// Asks an HTTP proxy to connect to `target`.
async fn tunnel(
    upstream: &Upstream,
    connection: Connection,
    target: &Authority,
) -> Result<Box<dyn Io>, ProxyError> {
    let broken = |error| broken(upstream, error);
    let (mut sender, connection) = http1::Builder::new()
        .handshake::<_, Empty<Bytes>>(TokioIo::new(connection))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection.with_upgrades().fuse());
    let asked = sender.send_request(request(upstream, target));
    let answer = drive(connection.as_mut(), asked).await.map_err(broken)?;
    check_status(upstream, answer.status())?;
    if !answer.status().is_success() {
        let (target, reason) = (target.as_str().into(), answer.status().as_str().into());
        return Err(ProxyError::Refused { proxy: upstream.name(), target, reason });
    }
    let tunnel = drive(connection, hyper::upgrade::on(answer)).await.map_err(broken)?;
    Ok(Box::new(TokioIo::new(tunnel)))
}

/// Waits for an answer on a connection, and drives the connection meanwhile.
async fn drive<T>(
    mut connection: Pin<&mut Fuse<impl Future<Output = hyper::Result<()>>>>,
    wanted: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    let mut wanted = pin!(wanted);
    tokio::select! {
        biased;
        wanted = &mut wanted => wanted,
        ended = &mut connection => {
            ended?;
            // The driver ends where the tunnel begins, perhaps before the answer has been looked
            // at.
            wanted.await
        }
    }
}

/// Refuses a 407, which is an error of its own in any context.
pub(super) fn check_status(upstream: &Upstream, status: StatusCode) -> Result<(), ProxyError> {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let given = upstream.credentials.is_some();
        return Err(ProxyError::Credentials { proxy: upstream.name(), given });
    }
    Ok(())
}

pub(super) fn broken(upstream: &Upstream, error: hyper::Error) -> ProxyError {
    ProxyError::Broken { proxy: upstream.name(), source: Arc::new(error) }
}

fn request(upstream: &Upstream, target: &Authority) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from(target.clone());
    let host = HeaderValue::from_str(target.as_str()).expect("an authority is visible ASCII");
    request.headers_mut().insert(HOST, host);
    if let Some(credentials) = &upstream.credentials {
        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.basic());
    }
    request
}

/// The version of SOCKS (RFC 1928, with user name and password of RFC 1929).
const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USERNAME_PASSWORD: u8 = 2;

/// Reasons why a handshake failed.
#[derive(Debug)]
enum HandshakeError {
    /// The proxy requires credentials, or different ones.
    Credentials,
    /// The proxy does not connect to the target; its reply in words.
    Refused(&'static str),
    /// The connection or the protocol broke.
    Broken(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Agrees on a version and a method, and authenticates.
async fn greet<S>(stream: &mut S, credentials: Option<&Credentials>) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match credentials {
        None => stream.write_all(&[VERSION, 1, NO_AUTHENTICATION]).await?,
        Some(_) => {
            stream.write_all(&[VERSION, 2, NO_AUTHENTICATION, USERNAME_PASSWORD]).await?;
        }
    }
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => Ok(()),
        ([VERSION, USERNAME_PASSWORD], Some(credentials)) => {
            authenticate(stream, credentials).await
        }
        ([VERSION, _], _) => Err(HandshakeError::Credentials),
        _ => Err(unexpected("it does not speak SOCKS5")),
    }
}

async fn authenticate<S>(stream: &mut S, credentials: &Credentials) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut message = vec![1];
    for secret in [&credentials.username, &credentials.password] {
        let secret = secret.expose_secret().as_bytes();
        let length = u8::try_from(secret.len()).map_err(|_| unexpected("credentials too long"))?;
        message.push(length);
        message.extend_from_slice(secret);
    }
    stream.write_all(&message).await?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    if reply[1] == 0 { Ok(()) } else { Err(HandshakeError::Credentials) }
}

/// Asks a proxy, after the greeting, to connect to a target, by name if the target has one.
async fn name_target<S>(stream: &mut S, target: &Target) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut message = vec![VERSION, 1, 0];
    match &target.host {
        Host::Ipv4(address) => {
            message.push(1);
            message.extend_from_slice(&address.octets());
        }
        Host::Domain(name) => {
            let length = u8::try_from(name.len())
                .map_err(|_| HandshakeError::Refused("its name is too long"))?;
            message.extend_from_slice(&[3, length]);
            message.extend_from_slice(name.as_bytes());
        }
        Host::Ipv6(address) => {
            message.push(4);
            message.extend_from_slice(&address.octets());
        }
    }
    message.extend_from_slice(&target.port.to_be_bytes());
    stream.write_all(&message).await?;

    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    if reply[0] != VERSION {
        return Err(unexpected("its reply is not SOCKS5"));
    }
    if reply[1] != 0 {
        return Err(HandshakeError::Refused(reason(reply[1])));
    }
    // The address that the proxy connected from, which is of no interest here.
    let length = match reply[3] {
        1 => 4,
        3 => usize::from(stream.read_u8().await?),
        4 => 16,
        _ => return Err(unexpected("its reply holds an unknown kind of address")),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await?;
    Ok(())
}

fn reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules forbid it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the connection timed out",
        7 | 8 => "it cannot do that",
        _ => "it failed",
    }
}

/// Turns a failed handshake into an error of this proxy.
fn named(
    upstream: &Upstream,
    target: impl std::fmt::Display,
    failure: HandshakeError,
) -> ProxyError {
    let proxy = upstream.name();
    match failure {
        HandshakeError::Credentials => {
            ProxyError::Credentials { proxy, given: upstream.credentials.is_some() }
        }
        HandshakeError::Refused(reason) => {
            let target = target.to_string().into();
            ProxyError::Refused { proxy, target, reason: reason.into() }
        }
        HandshakeError::Broken(source) => ProxyError::Broken { proxy, source: Arc::new(source) },
    }
}

fn unexpected(what: &'static str) -> HandshakeError {
    HandshakeError::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Traffic over the connections to a proxy, or to targets if there is none, in bytes including
/// handshakes: the amount that a provider counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Connections made.
    pub connections: u64,
}

/// Counters for all connections of one forwarder.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
    connections: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self) -> Traffic {
        Traffic {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
    /// Kept as long as the connection.
    _mark: Option<Mark>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, meter: Arc<Meter>) -> Self {
        meter.connections.fetch_add(1, Ordering::Relaxed);
        Self { stream, meter, _mark: None }
    }

    /// Marks the connection as one of a browser's.
    pub(super) fn marked(self, mark: Mark) -> Self {
        Self { _mark: Some(mark), ..self }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        self.meter.received.fetch_add(read, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.meter.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn greeted(
        answer: &[u8],
        credentials: Option<Credentials>,
    ) -> (Result<(), HandshakeError>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(1024);
        theirs.write_all(answer).await.unwrap();
        let result = greet(&mut ours, credentials.as_ref()).await;
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        (result, sent)
    }

    fn credentials() -> Option<Credentials> {
        let (username, password) = ("me".to_owned().into(), "pw".to_owned().into());
        Some(Credentials { username, password })
    }

    #[tokio::test]
    async fn credentials_are_sent_when_the_proxy_asks_for_them() {
        let (result, sent) = greeted(&[5, 2, 1, 0], credentials()).await;
        result.unwrap();
        assert_eq!(sent, b"\x05\x02\x00\x02\x01\x02me\x02pw");
    }

    #[tokio::test]
    async fn credentials_stay_here_when_the_proxy_does_not_ask() {
        let (result, sent) = greeted(&[5, 0], credentials()).await;
        result.unwrap();
        assert_eq!(sent, b"\x05\x02\x00\x02");
    }

    #[tokio::test]
    async fn every_refusal_of_credentials_is_told_apart_from_a_broken_proxy() {
        for (answer, given) in
            [(&[5, 2, 1, 1][..], credentials()), (&[5, 0xff], credentials()), (&[5, 0xff], None)]
        {
            assert!(matches!(greeted(answer, given).await.0, Err(HandshakeError::Credentials)));
        }
        for answer in [&b"HTTP/1.1 400"[..], &[4, 0]] {
            assert!(matches!(greeted(answer, None).await.0, Err(HandshakeError::Broken(_))));
        }
    }

    #[tokio::test]
    async fn a_target_is_named_and_not_resolved() {
        let (mut ours, mut theirs) = duplex(1024);
        theirs.write_all(&[5, 0, 0, 3, 2, b'h', b'i', 0, 80]).await.unwrap();
        let target = Target { host: Host::Domain("site.example".to_owned()), port: 443 };
        name_target(&mut ours, &target).await.unwrap();
        drop(ours);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x05\x01\x00\x03\x0csite.example\x01\xbb");
    }
}
