use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::Page;
use crate::patience::GENEROUS;

type Socket = WebSocketStream<TcpStream>;

/// A CDP client without manners: what no library would send can be sent with it.
///
/// Its drop cuts the connection without a close frame.
#[derive(Debug)]
pub struct Cdp {
    sink: AsyncMutex<SplitSink<Socket, Message>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    reading: watch::Sender<bool>,
    /// The id of the lease that the pool told in its answer, if it did.
    pub lease: Option<String>,
    /// The address of the lease that it told, if it did.
    pub lease_url: Option<String>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: broadcast::Sender<Arc<Value>>,
    strays: Mutex<Vec<Value>>,
    closed: watch::Sender<Option<Closed>>,
}

/// How a connection has ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The code of the close frame; 1006 where none came.
    pub code: u16,
    /// The reason in it.
    pub reason: String,
    /// When.
    pub at: Instant,
}

/// An upgrade that was not made.
#[derive(Debug)]
pub struct Refused {
    /// The status; 0 where there was no HTTP answer at all.
    pub status: u16,
    /// What was answered, as JSON if it was that.
    pub body: Value,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl Refused {
    /// The stable code of the problem.
    #[must_use]
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The sentence for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

/// Why a command has no result.
#[derive(Clone, Debug)]
pub enum CdpError {
    /// The browser said no.
    Answer {
        /// The JSON-RPC code.
        code: i64,
        /// What it said.
        message: String,
    },
    /// The connection has ended.
    Ended,
    /// Nothing came within half a minute.
    Timeout,
}

impl Cdp {
    /// Connects to `address` (`host:port`) and asks for an upgrade of `path` with its query.
    ///
    /// # Errors
    ///
    /// The answer that is no upgrade.
    pub async fn open(
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let stream = TcpStream::connect(address).await.map_err(|error| nothing(&error))?;
        Self::upgrade(stream, address, path, headers).await
    }

    /// Like [`open`](Self::open), with a receive buffer so small that the other side notices at
    /// once when nothing is read.
    ///
    /// # Errors
    ///
    /// The answer that is no upgrade.
    pub async fn open_narrow(address: &str, path: &str) -> Result<Self, Refused> {
        let socket = TcpSocket::new_v4().map_err(|error| nothing(&error))?;
        socket.set_recv_buffer_size(4096).map_err(|error| nothing(&error))?;
        let to = address.parse().expect("a test has an address");
        let stream = socket.connect(to).await.map_err(|error| nothing(&error))?;
        Self::upgrade(stream, address, path, &[]).await
    }

    async fn upgrade(
        stream: TcpStream,
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let mut request =
            format!("ws://{address}{path}").into_client_request().expect("a test writes a path");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a test writes a header");
            let value: HeaderValue = value.parse().expect("a test writes a header");
            request.headers_mut().insert(name, value);
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, answer) = match client_async_with_config(request, stream, Some(config)).await {
            Ok(upgraded) => upgraded,
            Err(Error::Http(answer)) => {
                let header = |name| answer.headers().get(name)?.to_str().ok()?.parse().ok();
                let body = answer.body().as_deref().unwrap_or_default();
                let text = || Value::from(String::from_utf8_lossy(body));
                return Err(Refused {
                    status: answer.status().as_u16(),
                    body: serde_json::from_slice(body).unwrap_or_else(|_| text()),
                    retry_after: header("retry-after"),
                });
            }
            Err(error) => return Err(nothing(&error)),
        };
        let told = |name| answer.headers().get(name)?.to_str().ok().map(ToOwned::to_owned);
        let (lease, lease_url) = (told("browser-pool-lease"), told("lease-url"));
        let (sink, stream) = socket.split();
        let shared = Arc::new(Shared {
            next: AtomicU64::new(1),
            answers: Mutex::default(),
            events: broadcast::channel(16 * 1024).0,
            strays: Mutex::default(),
            closed: watch::Sender::new(None),
        });
        let (reading, may_read) = watch::channel(true);
        let reader = tokio::spawn(read(stream, Arc::clone(&shared), may_read));
        Ok(Self { sink: AsyncMutex::new(sink), shared, reader, reading, lease, lease_url })
    }

    /// Sends a command of the browser session and awaits its result.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CdpError> {
        self.call_in(None, method, params).await
    }

    /// Sends a command of a session and awaits its result.
    ///
    /// # Errors
    ///
    /// A [`CdpError`].
    pub async fn call_in(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, CdpError> {
        let answer = self.begin(session, method, params).await?;
        match timeout(GENEROUS, answer).await {
            Ok(Ok(answer)) => result(answer),
            Ok(Err(_)) => Err(CdpError::Ended),
            Err(_) => Err(CdpError::Timeout),
        }
    }

    /// Sends a command without awaiting its answer.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`].
    pub async fn begin(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<oneshot::Receiver<Value>, CdpError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        self.shared.answers().insert(id, tell);
        if self.shared.closed.borrow().is_some() {
            self.shared.answers().remove(&id);
            return Err(CdpError::Ended);
        }
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        self.write(&command.to_string()).await?;
        Ok(answer)
    }

    /// Sends a text as it is.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`].
    pub async fn write(&self, text: &str) -> Result<(), CdpError> {
        self.write_message(Message::text(text)).await
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`].
    pub async fn write_message(&self, message: Message) -> Result<(), CdpError> {
        self.sink.lock().await.send(message).await.map_err(|_| CdpError::Ended)
    }

    /// Opens a page and waits until it has loaded.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn page(&self, url: &str) -> Page<'_> {
        Page::open(self, url).await.unwrap_or_else(|error| panic!("a page of {url}: {error:?}"))
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<Value>> {
        self.shared.events.subscribe()
    }

    /// Answers to what was [written](Self::write) as it is, and errors without an id.
    #[must_use]
    pub fn strays(&self) -> Vec<Value> {
        self.shared.strays.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops reading, so that messages pile up on the other side; or goes on.
    pub fn read_on(&self, reading: bool) {
        self.reading.send_replace(reading);
    }

    /// How it has ended, if it has.
    #[must_use]
    pub fn has_closed(&self) -> Option<Closed> {
        self.shared.closed.borrow().clone()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not end within `limit`.
    pub async fn closed(&self, limit: Duration) -> Closed {
        let mut closed = self.shared.closed.subscribe();
        let waited = timeout(limit, closed.wait_for(Option::is_some)).await;
        let ended = waited.unwrap_or_else(|_| panic!("the connection is open after {limit:?}"));
        ended.expect("we hold the sender").clone().expect("it was waited for")
    }

    /// Closes with a close frame, and waits for the answer to it.
    pub async fn close(self) {
        if self.write_message(Message::Close(None)).await.is_ok() {
            self.closed(GENEROUS).await;
        }
    }
}

impl Drop for Cdp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Value>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, text: &Utf8Bytes) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into());
        if message["method"].is_string() {
            // Whether anybody listens is theirs to know.
            let _ = self.events.send(Arc::new(message));
            return;
        }
        let waiting = message["id"].as_u64().and_then(|id| self.answers().remove(&id));
        match waiting {
            Some(waiting) => drop(waiting.send(message)),
            None => self.strays.lock().unwrap_or_else(PoisonError::into_inner).push(message),
        }
    }
}

async fn read(
    mut stream: SplitStream<Socket>,
    shared: Arc<Shared>,
    mut may_read: watch::Receiver<bool>,
) {
    let mut closed = Closed { code: 1006, reason: String::new(), at: Instant::now() };
    loop {
        if may_read.wait_for(|&may| may).await.is_err() {
            return;
        }
        match stream.next().await {
            Some(Ok(Message::Text(text))) => shared.receive(&text),
            Some(Ok(Message::Close(Some(frame)))) => {
                closed.code = frame.code.into();
                closed.reason = frame.reason.to_string();
                closed.at = Instant::now();
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    if closed.code == 1006 {
        closed.at = Instant::now();
    }
    shared.closed.send_replace(Some(closed));
    shared.answers().clear();
}

fn result(mut answer: Value) -> Result<Value, CdpError> {
    match answer.get("error") {
        None => Ok(answer["result"].take()),
        Some(error) => Err(CdpError::Answer {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        }),
    }
}

fn nothing(error: &dyn std::error::Error) -> Refused {
    Refused { status: 0, body: error.to_string().into(), retry_after: None }
}
