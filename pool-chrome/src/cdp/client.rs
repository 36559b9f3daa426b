use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::CdpError;
use crate::mux::{Connection, ConnectionReceiver, ConnectionSender, EndReason, SessionId};

/// Number of events that a slow subscriber may fall behind before it loses the oldest.
const EVENTS: usize = 1024;

/// Carries a [`Client`]'s messages to a browser outside of this process, such as over a WebSocket.
#[async_trait]
pub trait Outgoing: std::fmt::Debug + Send + Sync + 'static {
    /// Hands over one message.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// An implementation that is dropped before it is ready must not have sent anything.
    async fn send(&self, message: &str) -> Result<(), EndReason>;

    /// Returns why the connection has ended, if it has.
    fn end_reason(&self) -> Option<EndReason>;
}

#[async_trait]
impl Outgoing for ConnectionSender {
    async fn send(&self, message: &str) -> Result<(), EndReason> {
        Self::send(self, message).await
    }

    fn end_reason(&self) -> Option<EndReason> {
        Self::end_reason(self)
    }
}

/// A small client of the raw protocol over one connection. Clones share the connection, which
/// closes with the last of them.
///
/// For more than a handful of commands, `chromiumoxide` has types for all of them.
///
/// # Examples
///
/// ```no_run
/// use pool_chrome::cdp::Client;
/// use serde_json::json;
///
/// # async fn example(browser: &pool_chrome::VirtualBrowser) -> Result<(), pool_chrome::cdp::CdpError> {
/// let client = Client::new(browser.connect().await?);
/// let page = client.new_page("about:blank").await?;
/// let answer = page.call("Runtime.evaluate", json!({ "expression": "6 * 7" })).await?;
/// assert_eq!(answer["result"]["value"], json!(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sender: Box<dyn Outgoing>,
    next_id: AtomicI32,
    pending: Arc<Mutex<Waiting>>,
    events: broadcast::Sender<Event>,
    task: JoinHandle<()>,
}

/// The source of the browser's messages.
enum Source {
    Connection(ConnectionReceiver),
    Carried(mpsc::Receiver<Bytes>),
}

impl Source {
    async fn recv(&mut self) -> Option<Bytes> {
        match self {
            Self::Connection(receiver) => receiver.recv().await,
            Self::Carried(incoming) => incoming.recv().await,
        }
    }
}

/// Callers, by the id of the answer that they wait for; `None` when the connection has ended.
type Waiting = Option<HashMap<i32, oneshot::Sender<Answer>>>;
type Answer = Result<Box<RawValue>, ErrorBody>;

/// An event of the protocol.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Session that it came on; `None` for the browser's own.
    pub session: Option<SessionId>,
    /// Its name, such as `Page.loadEventFired`.
    pub method: Arc<str>,
    /// Its params.
    pub params: Arc<Value>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    id: Option<i32>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<ErrorBody>,
    method: Option<&'a str>,
    params: Option<Value>,
    #[serde(rename = "sessionId")]
    session: Option<&'a str>,
}

impl Client {
    /// Takes over a connection.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        let (sender, receiver) = connection.split();
        Self::start(Box::new(sender), Source::Connection(receiver))
    }

    /// Creates a client over a connection that the caller operates: the caller puts the browser's
    /// messages into `incoming`, whose end is the end of the connection.
    #[must_use]
    pub fn over(outgoing: impl Outgoing, incoming: mpsc::Receiver<Bytes>) -> Self {
        Self::start(Box::new(outgoing), Source::Carried(incoming))
    }

    fn start(sender: Box<dyn Outgoing>, source: Source) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        let pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let task = tokio::spawn(receive(source, Arc::clone(&pending), events.clone()));
        let shared = Shared { sender, next_id: AtomicI32::new(1), pending, events, task };
        Self { shared: Arc::new(shared) }
    }

    /// Returns why the connection has ended, if it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared.sender.end_reason()
    }

    /// Returns the session of the browser itself.
    #[must_use]
    pub fn browser(&self) -> Session {
        Session { client: self.clone(), id: None }
    }

    /// Returns all events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Opens a page and attaches to it.
    ///
    /// # Errors
    ///
    /// As [`Session::call`].
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the page may have been made. It then stays, as any other page of its
    /// browser does.
    pub async fn new_page(&self, url: &str) -> Result<Session, CdpError> {
        const METHOD: &str = "Target.createTarget";
        let made = self.browser().call(METHOD, json!({ "url": url })).await?;
        let target = made["targetId"].as_str();
        self.attach(target.ok_or_else(|| CdpError::unexpected(METHOD, "no targetId"))?).await
    }

    /// Attaches to a target.
    ///
    /// # Errors
    ///
    /// As [`Session::call`].
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the session may have been made. It then stays until the connection
    /// ends or its target is gone.
    pub async fn attach(&self, target: &str) -> Result<Session, CdpError> {
        const METHOD: &str = "Target.attachToTarget";
        let params = json!({ "targetId": target, "flatten": true });
        let attached = self.browser().call(METHOD, params).await?;
        let id = attached["sessionId"].as_str().and_then(SessionId::parse);
        let id = id.ok_or_else(|| CdpError::unexpected(METHOD, "no sessionId"))?;
        Ok(Session { client: self.clone(), id: Some(id) })
    }

    /// Returns a session that this connection was attached to automatically, as announced by
    /// `Target.attachedToTarget`.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Session {
        Session { client: self.clone(), id: Some(id) }
    }

    fn ended(&self) -> CdpError {
        CdpError::Ended(self.shared.sender.end_reason().unwrap_or(EndReason::ClientClosed))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A session of a [`Client`]: the browser's own, or one on a target.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    id: Option<SessionId>,
}

impl Session {
    /// Returns its id; `None` for the browser's own.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Returns the client that it belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a command and waits for its result without a time limit; use a timeout if a page may
    /// hang.
    ///
    /// # Errors
    ///
    /// [`CdpError::Refused`] with Chromium's error, [`CdpError::Ended`] if the connection has
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the command may have been carried out.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CdpError> {
        let shared = &self.client.shared;
        let id = shared.next_id.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        match lock(&shared.pending).as_mut() {
            Some(pending) => drop(pending.insert(id, reply)),
            None => return Err(self.client.ended()),
        }
        let _call = Call { pending: &shared.pending, id };
        self.write(id, method, &params).await?;
        let result = match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(ErrorBody { code, message })) => {
                return Err(CdpError::Refused { method: method.to_owned(), code, message });
            }
            Err(_) => return Err(self.client.ended()),
        };
        serde_json::from_str(result.get())
            .map_err(|error| CdpError::unexpected(method, error.to_string()))
    }

    /// Sends a command without waiting for its answer, which is discarded. A paused page answers
    /// most commands only when it is resumed.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`] if the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, nothing was sent.
    pub async fn send(&self, method: &str, params: Value) -> Result<(), CdpError> {
        let id = self.client.shared.next_id.fetch_add(1, Relaxed);
        self.write(id, method, &params).await
    }

    async fn write(&self, id: i32, method: &str, params: &Value) -> Result<(), CdpError> {
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = self.id {
            message["sessionId"] = json!(session.as_str());
        }
        self.client.shared.sender.send(&message.to_string()).await.map_err(CdpError::Ended)
    }

    /// Waits for an event of this session that was sent after `events` was made.
    ///
    /// # Errors
    ///
    /// [`CdpError::Ended`] if the connection has ended, [`CdpError::Unexpected`] if events were
    /// lost because nobody read them.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, only the events that it has already skipped are lost: the next call
    /// continues after them.
    pub async fn wait_for(
        &self,
        events: &mut broadcast::Receiver<Event>,
        method: &str,
    ) -> Result<Arc<Value>, CdpError> {
        loop {
            match events.recv().await {
                Ok(event) if event.session == self.id && &*event.method == method => {
                    return Ok(event.params);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(self.client.ended()),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    return Err(CdpError::unexpected(method, format!("{lost} events were lost")));
                }
            }
        }
    }
}

/// Hands answers and events to those who wait for them, until the connection ends.
async fn receive(
    mut source: Source,
    pending: Arc<Mutex<Waiting>>,
    events: broadcast::Sender<Event>,
) {
    while let Some(message) = source.recv().await {
        let Ok(incoming) = serde_json::from_slice::<Incoming<'_>>(&message) else { continue };
        if let Some(id) = incoming.id {
            let answer = match (incoming.result, incoming.error) {
                (_, Some(error)) => Err(error),
                (Some(result), None) => Ok(result.to_owned()),
                (None, None) => continue,
            };
            // Woken outside of the lock.
            let reply = lock(&pending).as_mut().and_then(|pending| pending.remove(&id));
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        } else if let Some(method) = incoming.method {
            // Nobody may be subscribed.
            let _ = events.send(Event {
                session: incoming.session.and_then(SessionId::parse),
                method: method.into(),
                params: Arc::new(incoming.params.unwrap_or_default()),
            });
        }
    }
    // Dropping the callers fails their calls, and `None` makes later calls fail at once.
    let waiting = lock(&pending).take();
    drop(waiting);
}

fn lock(pending: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that waits for its answer. When it is dropped it no longer waits, so calls that are given
/// up leave nothing behind.
struct Call<'a> {
    pending: &'a Mutex<Waiting>,
    id: i32,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let reply = lock(self.pending).as_mut().and_then(|pending| pending.remove(&self.id));
        drop(reply);
    }
}
