//! WebSockets on loopback for clients in this process or next to it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::mux::{Connection, EndReason, MuxLease};

/// Maximum time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Largest message of a client: what Chromium accepts over a WebSocket of its own.
const LARGEST: usize = 100 * 1024 * 1024;

type Routes = Arc<Mutex<HashMap<String, Weak<MuxLease>>>>;

/// A WebSocket server on 127.0.0.1 that connects clients to the leases published on it.
///
/// Each lease has a path with 128 random bits, which is all that is needed to use it, and which
/// becomes invalid when the result of [`publish`](Self::publish) is dropped. Pages in browsers are
/// turned away: they send an `Origin`.
#[derive(Debug)]
pub struct LoopbackServer {
    address: SocketAddr,
    routes: Routes,
    task: JoinHandle<()>,
}

impl LoopbackServer {
    /// Listens on a port that the system picks.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing listens.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let routes = Routes::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&routes)));
        Ok(Self { address, routes, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a lease an address of its own until the result is dropped.
    #[must_use]
    pub fn publish(&self, lease: &Arc<MuxLease>) -> Published {
        let path = format!("/{:032x}", secret());
        let url = format!("ws://{}{path}", self.address);
        lock(&self.routes).insert(path.clone(), Arc::downgrade(lease));
        Published { url, path, routes: Arc::clone(&self.routes) }
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The address of a lease, valid while this lives.
pub struct Published {
    url: String,
    path: String,
    routes: Routes,
}

impl Published {
    /// Returns the address, which is a secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Shown without the secret.
impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        lock(&self.routes).remove(&self.path);
    }
}

fn lock(
    routes: &Mutex<HashMap<String, Weak<MuxLease>>>,
) -> std::sync::MutexGuard<'_, HashMap<String, Weak<MuxLease>>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, routes: Routes) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = Arc::clone(&routes);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &routes).await {
                        tracing::debug!(%error, "a loopback client has gone");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors: the next try would fail at once, again and again.
                tracing::warn!(%error, "cannot accept a loopback client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    routes: &Routes,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    stream.set_nodelay(true)?;
    let mut lease = None;
    #[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
    let find = |request: &Request, response: Response| {
        let found = lock(routes).get(request.uri().path()).and_then(Weak::upgrade);
        lease = found.filter(|_| !request.headers().contains_key("origin"));
        if lease.is_some() { Ok(response) } else { Err(not_found()) }
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let handshake = tokio_tungstenite::accept_hdr_async_with_config(stream, find, Some(config));
    let Ok(socket) = tokio::time::timeout(HANDSHAKE, handshake).await else { return Ok(()) };
    let socket = socket?;
    let Some(lease) = lease else { return Ok(()) };
    match lease.connect().await {
        Ok(connection) => {
            drop(lease);
            bridge(socket, connection).await
        }
        Err(error) => close(socket, &error.to_string()).await,
    }
}

fn not_found() -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Carries messages both ways until either side ends.
async fn bridge(
    socket: WebSocketStream<TcpStream>,
    connection: Connection,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let (mut sink, mut stream) = socket.split();
    let (sender, mut receiver) = connection.split();
    let incoming = async {
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    if sender.send(text.as_str()).await.is_err() {
                        break;
                    }
                }
                Ok(Message::Binary(_)) => sender.close(EndReason::Protocol),
                Ok(Message::Close(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    let outgoing = async {
        while let Some(message) = receiver.recv().await {
            sink.feed(text(message)).await?;
            // One flush for everything that is ready: events rarely come alone.
            while let Some(message) = receiver.try_recv() {
                sink.feed(text(message)).await?;
            }
            sink.flush().await?;
        }
        let reason = receiver.end_reason().unwrap_or(EndReason::Released);
        let frame = CloseFrame { code: CloseCode::Normal, reason: reason.code().into() };
        sink.send(Message::Close(Some(frame))).await
    };
    tokio::select! {
        () = incoming => Ok(()),
        sent = outgoing => sent,
    }
}

fn text(message: Bytes) -> Message {
    // Chromium escapes everything that is not ASCII, so this only checks and does not copy.
    Message::Text(Utf8Bytes::try_from(message).unwrap_or_else(|_| Utf8Bytes::from_static("{}")))
}

async fn close(
    mut socket: WebSocketStream<TcpStream>,
    reason: &str,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let frame = CloseFrame { code: CloseCode::Normal, reason: reason.to_owned().into() };
    socket.close(Some(frame)).await
}

/// 128 bits that nobody can guess.
fn secret() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    u128::from_ne_bytes(bytes)
}
