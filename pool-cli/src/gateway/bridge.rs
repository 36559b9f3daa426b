//! The WebSocket of a client: its handshake, and the frames in both directions between it and its
//! browser. Nothing is parsed here.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::lease::{Attached, ClientLease};
use super::request::Heads;
use super::websocket::{BATCH, Fault, Reader, Received, Writer};
use super::{Code, LeaseEnd, Problem, tcp};
use crate::metrics::Metrics;
use crate::pool::{Commands, Events, Wire};

/// Time for which a client may take nothing at all, however little is waiting for it, before it is
/// cut off.
const STALL: Duration = Duration::from_secs(30);

/// Interval at which a pending write checks whether the client must be given up.
const LOOK: Duration = Duration::from_millis(250);

/// Interval at which a ping is sent, so that nothing in between takes the connection for dead.
/// Nobody waits for its pong.
const PING: Duration = Duration::from_secs(20);

/// Maximum time for the delivery of the browser's last messages, and for a silent client to answer
/// a close frame.
const CLOSING: Duration = Duration::from_secs(1);

/// Time that a close frame waits for a client that does not read, behind a message that it has half
/// received. Their memory is freed earlier if others need it.
const LINGER: Duration = Duration::from_secs(120);

/// Maximum time that a client may keep sending after its close frame was written. A client that
/// cannot read before it has sent a whole message learns the reason after that.
const DISCARD: Duration = Duration::from_secs(60);

/// The connection of a client, after its handshake.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// Bytes that the client sent after its handshake.
    pub(super) read: Vec<u8>,
}

/// Bridges until either side or the session ends, closes properly, and returns the reason.
pub(super) async fn bridge(
    socket: Socket,
    wire: Wire,
    attached: Attached,
    metrics: &Metrics,
) -> LeaseEnd {
    let session = attached.session().clone();
    let Wire { mut commands, mut events } = wire;
    let Socket { mut stream, read } = socket;
    let ends = tcp::Ends::of(&stream).ok();
    let (input, output) = stream.split();
    let (mut reader, mut writer) = (Reader::new(input, read), Writer::new(output));
    let pongs = Pongs::default();
    let why = tokio::select! {
        end = down(&mut *events, &mut writer, &pongs, &session, metrics) => Why::Ended(end),
        why = up(&mut reader, &mut *commands, &pongs, &session, metrics) => why,
        end = session.ended() => Why::Ended(end),
        () = tcp::half_open(ends) => Why::Ended(LeaseEnd::ClientGone),
    };
    drop(commands);
    // The lease ends here: the closing handshake below must not keep the browser from the next
    // client.
    let end = attached.detach(match why {
        Why::Ended(end) => end,
        Why::Closed(_) => LeaseEnd::Released,
    });
    match why {
        Why::Ended(LeaseEnd::ClientGone) => return end,
        Why::Ended(LeaseEnd::SlowReader) => {}
        // The browser's last messages, such as the answer to `Browser.close`.
        Why::Ended(_) => {
            let _ = timeout(CLOSING, rest(&mut *events, &mut writer)).await;
        }
        Why::Closed(code) => {
            events.forget();
            writer.close(code, "");
            let _ = timeout(CLOSING, writer.flush()).await;
            return end;
        }
    }
    events.forget();
    writer.close(Some(end.close_code()), &end.to_string());
    goodbye(&mut reader, &mut writer, &*events).await;
    end
}

/// Reasons why a bridge ends.
#[derive(Clone, Copy, Debug)]
enum Why {
    Ended(LeaseEnd),
    /// The client has closed, with this code.
    Closed(Option<u16>),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Ended(match fault {
            Fault::Gone => LeaseEnd::ClientGone,
            Fault::TooLong => LeaseEnd::TooLong,
            Fault::NotText => LeaseEnd::NotText,
            Fault::BadFrame => LeaseEnd::BadFrame,
        })
    }
}

/// The payload of the client's last ping, which is the only one that needs an answer.
#[derive(Debug, Default)]
struct Pongs {
    asked: Mutex<Option<Vec<u8>>>,
    one: Notify,
}

impl Pongs {
    fn ask(&self, payload: Vec<u8>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        self.one.notify_one();
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Carries messages from the client to the browser.
async fn up<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    commands: &mut dyn Commands,
    pongs: &Pongs,
    session: &ClientLease,
    metrics: &Metrics,
) -> Why {
    let mut in_parts = false;
    loop {
        let message = match reader.next().await {
            Ok(Received::Text(message)) => message,
            Ok(Received::Part(bytes)) => {
                in_parts = true;
                commands.receiving(bytes);
                continue;
            }
            Ok(Received::Ping(payload)) => {
                session.traffic.pinged(session);
                pongs.ask(payload);
                continue;
            }
            Ok(Received::Pong) => continue,
            Ok(Received::Close(code)) => return Why::Closed(code),
            Err(fault) => {
                commands.receiving(0);
                return fault.into();
            }
        };
        session.traffic.heard(session, message.len());
        metrics.message_in(message.len());
        if std::mem::take(&mut in_parts) {
            // From now on it counts as waiting for the browser.
            commands.receiving(0);
        }
        if commands.send(message).await.is_err() {
            // The other direction learns the reason, once it has delivered what came before.
            return std::future::pending().await;
        }
    }
}

/// Carries messages from the browser to the client.
async fn down<W: AsyncWrite + Unpin>(
    events: &mut dyn Events,
    writer: &mut Writer<W>,
    pongs: &Pongs,
    session: &ClientLease,
    metrics: &Metrics,
) -> LeaseEnd {
    let mut batch = Vec::new();
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let taken = tokio::select! {
            biased;
            taken = events.next(BATCH, &mut batch) => match taken {
                Ok(taken) => taken,
                Err(end) => return end,
            },
            () = pongs.one.notified() => 0,
            _ = pings.tick() => {
                // Less than `PING`, since the last tick may not have been quite punctual.
                if writer.stalled_for() < PING / 2 {
                    continue;
                }
                writer.ping();
                0
            }
        };
        if let Some(payload) = pongs.take() {
            writer.pong(&payload);
        }
        let (messages, bytes) = (batch.len() as u64, bytes_of(&batch));
        writer.begin();
        if let Err(end) = write(&mut batch, events, writer).await {
            return end;
        }
        events.taken(taken);
        if messages > 0 {
            session.traffic.told(messages, bytes);
            metrics.messages_out(messages, bytes);
        }
    }
}

fn bytes_of(batch: &[Utf8Bytes]) -> u64 {
    batch.iter().map(|message| message.len() as u64).sum()
}

/// Writes messages with as few writes as possible, for as long as the client takes them.
async fn write<W: AsyncWrite + Unpin>(
    batch: &mut Vec<Utf8Bytes>,
    events: &dyn Events,
    writer: &mut Writer<W>,
) -> Result<(), LeaseEnd> {
    for message in batch.drain(..) {
        if writer.is_full() {
            flush(events, writer).await?;
        }
        writer.text(message);
    }
    flush(events, writer).await
}

async fn flush<W: AsyncWrite + Unpin>(
    events: &dyn Events,
    writer: &mut Writer<W>,
) -> Result<(), LeaseEnd> {
    loop {
        match timeout(LOOK, writer.flush()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => return Err(LeaseEnd::ClientGone),
            Err(_) => {
                let is_cut = events.end() == Some(LeaseEnd::SlowReader);
                if is_cut || writer.stalled_for() >= STALL {
                    return Err(LeaseEnd::SlowReader);
                }
            }
        }
    }
}

/// Writes the rest of a connection that has ended.
async fn rest<W: AsyncWrite + Unpin>(
    events: &mut dyn Events,
    writer: &mut Writer<W>,
) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        writer.flush().await?;
        let taken = events.try_next(1, &mut batch);
        if taken == 0 {
            return Ok(());
        }
        batch.drain(..).for_each(|message| writer.text(message));
        events.taken(taken);
    }
}

/// Waits until the client has its close frame, and discards what it still sends: if the socket were
/// closed with unread data, the connection would be reset, and the client would never learn the
/// reason.
async fn goodbye<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut Reader<R>,
    writer: &mut Writer<W>,
    events: &dyn Events,
) {
    let heard = Mutex::new(Instant::now());
    let hear = || *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    let silent_for = || heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
    let said = async {
        let written = timeout(LINGER, writer.flush()).await;
        let said = Instant::now();
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        while silent_for().min(said.elapsed()) < CLOSING && said.elapsed() < DISCARD {
            sleep(LOOK).await;
        }
    };
    let evicted = async {
        while !events.must_leave() {
            sleep(LOOK).await;
        }
    };
    let unread = async {
        reader.discard(hear).await;
    };
    tokio::pin!(said, unread);
    tokio::select! {
        () = &mut said => {}
        () = evicted => {}
        // A client that has half closed may still be reading.
        () = &mut unread => {
            let _ = timeout(CLOSING, said).await;
        }
    }
}

/// The header of the 101 that contains the lease's id, for `/devtools/browser/{lease}`.
pub(super) const LEASE: HeaderName = HeaderName::from_static("browser-pool-lease");

/// A client's handshake that waits for its 101.
///
/// No extension is accepted: permessage-deflate would cost more time than it saves in bytes, on
/// loopback or in the data centre where a pool runs.
pub(super) struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Returns `true` if a request asks for a WebSocket.
    pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
        has_token(headers, &header::UPGRADE, "websocket")
    }

    /// Reads the client's part.
    ///
    /// # Errors
    ///
    /// If the method or a header is wrong.
    pub(super) fn read(parts: &mut Parts) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::new(Code::BadHandshake, detail);
        if parts.method != Method::GET {
            return Err(bad("a WebSocket begins with GET"));
        }
        if !has_token(&parts.headers, &header::CONNECTION, "upgrade") {
            return Err(bad("the header `Connection: Upgrade` is missing"));
        }
        if parts.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(bad("only version 13 of WebSocket is supported"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| bad("the header `Sec-WebSocket-Key` is missing"))?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .expect("base64 makes a header");
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| bad("this connection cannot be upgraded"))?;
        Ok(Self { accept, upgrade })
    }

    /// Returns the 101, and the socket that exists once it has been sent.
    pub(super) fn accept(self, lease: &str) -> (Response, Accepted) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Ok(lease) = HeaderValue::from_str(lease) {
            headers.insert(LEASE, lease);
        }
        (response, Accepted(self.upgrade))
    }
}

/// A WebSocket whose 101 is on its way.
pub(super) struct Accepted(OnUpgrade);

impl Accepted {
    /// Wraps the upgrade of a request that another node answers.
    pub(super) fn of(upgrade: OnUpgrade) -> Self {
        Self(upgrade)
    }

    /// Returns the socket; `None` if the client went away before it had its 101.
    pub(super) async fn socket(self) -> Option<Socket> {
        let upgraded = self.0.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Heads>>().ok()?;
        let (stream, unread) = parts.io.into_inner().into_parts();
        Some(Socket { stream, read: [&parts.read_buf, &*unread].concat() })
    }
}

/// Returns `true` if a header that is a list of words contains this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(wanted))
}
