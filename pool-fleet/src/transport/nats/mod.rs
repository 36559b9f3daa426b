//! The transport and the store over a NATS server.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{self, UpdateErrorKind};
use async_nats::jetstream::object_store::{self, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectErrorKind, Event, PublishErrorKind, RequestErrorKind};
use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

mod options;

pub use options::{NatsAuth, NatsOptions};

use options::{Version, parse, too_old};

use crate::transport::{
    Connection, Entry, Incoming, ServerInfo, Source, Store, Subscription, Transport,
    TransportError, Upload,
};

/// Maximum time for an operation of the store, and for a message in the client's own queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks at the connection, in case its event was lost.
const LOOK: Duration = Duration::from_millis(500);

/// A connection to a NATS server or cluster.
///
/// It reconnects by itself, for ever. While it is not connected, nothing is queued: what is to be
/// published is an error.
pub struct NatsTransport {
    client: Client,
    context: Context,
    connection: Arc<watch::Sender<Connection>>,
    /// Locked only to look a bucket up in the map: asking the server for it happens outside, and
    /// only once at a time.
    buckets: Mutex<HashMap<String, Arc<OnceCell<kv::Store>>>>,
    replicas: usize,
    watcher: AbortHandle,
}

impl NatsTransport {
    /// Connects to the first server that answers.
    ///
    /// # Errors
    ///
    /// [`TransportError::Configuration`] for what [`NatsOptions::check`] refuses,
    /// [`TransportError::Refused`] for a server that is older than 2.10 or does not accept the
    /// credentials or the certificate, [`TransportError::Disconnected`] if none can be reached,
    /// unless [`start_without_server`](NatsOptions::start_without_server) is set.
    pub async fn connect(options: NatsOptions) -> Result<Arc<Self>, TransportError> {
        for warning in options.check()? {
            tracing::warn!("{warning}");
        }
        let servers = options.servers.iter().map(|server| parse(server));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let stirred = Arc::new(Notify::new());
        let configured = options.connect_options()?.event_callback({
            let stirred = Arc::clone(&stirred);
            move |event| {
                observe(&event);
                stirred.notify_one();
                async {}
            }
        });
        let client = match configured.clone().connect(servers.clone()).await {
            Ok(client) => client,
            // An unknown certificate shows up as an error of the stream.
            Err(error) => match if is_tls(&error) { ConnectErrorKind::Tls } else { error.kind() } {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    let reason = "the NATS server does not accept the credentials";
                    return Err(TransportError::Refused(reason.into()));
                }
                ConnectErrorKind::Tls => {
                    let reason =
                        format!("the NATS server could not be reached over TLS: {}", root(&error));
                    return Err(TransportError::Refused(reason.into()));
                }
                ConnectErrorKind::ServerParse => {
                    return Err(TransportError::Configuration(root(&error)));
                }
                ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => {
                    tracing::warn!(error = root(&error), "no NATS server could be reached");
                    if !options.start_without {
                        return Err(TransportError::Disconnected);
                    }
                    let later = configured.retry_on_initial_connect().connect(servers).await;
                    later.map_err(|error| TransportError::Configuration(root(&error)))?
                }
            },
        };
        if let Some(reason) = client.try_server_info().and_then(|info| too_old(&info.version)) {
            return Err(TransportError::Refused(reason));
        }
        if let Some(info) = client.try_server_info()
            && Version::parse(&info.version).is_some_and(|version| !version.is_recommended())
        {
            tracing::warn!(
                version = info.version,
                "this NATS server works; 2.14.7, or 2.15.1 and newer, are recommended"
            );
        }
        let connection = Arc::new(watch::Sender::new(state_of(&client)));
        let watcher = tokio::spawn(watch_connection(
            client.clone(),
            Arc::clone(&connection),
            Arc::clone(&stirred),
        ));
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        Ok(Arc::new(Self {
            client,
            context,
            connection,
            buckets: Mutex::default(),
            replicas: options.replicas,
            watcher: watcher.abort_handle(),
        }))
    }

    /// Returns an error unless messages go out now.
    fn connected(&self) -> Result<(), TransportError> {
        if self.client.connection_state() != State::Connected {
            return Err(TransportError::Disconnected);
        }
        match &*self.connection.borrow() {
            Connection::Refused(reason) => Err(TransportError::Refused(Arc::clone(reason))),
            Connection::Closed => Err(TransportError::Disconnected),
            // The client's own state is newer than what was last seen of it.
            Connection::Connected | Connection::Disconnected => Ok(()),
        }
    }

    /// Sends the server a message that comes back, after everything that was published before.
    async fn round_trip(&self) -> Result<Duration, TransportError> {
        self.connected()?;
        let inbox = self.client.new_inbox();
        let mut echo = self.subscribe(&inbox).await?;
        let started = Instant::now();
        self.publish(&inbox, Bytes::new()).await?;
        match timeout(PATIENCE, echo.next()).await {
            Ok(Some(_)) => Ok(started.elapsed()),
            Ok(None) => Err(TransportError::Disconnected),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    /// Returns a bucket, making it if it does not exist.
    async fn bucket(&self, name: &str) -> Result<kv::Store, TransportError> {
        self.connected()?;
        let bucket = Arc::clone(self.buckets().entry(name.to_owned()).or_default());
        let looked_up = bucket.get_or_try_init(|| async {
            match self.context.get_key_value(name).await {
                Ok(store) => Ok(store),
                Err(_) => {
                    self.make_bucket(name).await;
                    self.context.get_key_value(name).await.map_err(failed)
                }
            }
        });
        looked_up.await.cloned()
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<kv::Store>>>> {
        self.buckets.lock().expect("nothing panics while it holds the buckets")
    }

    /// Makes a bucket whose revisions differ from those of any earlier bucket with its name.
    ///
    /// Otherwise a server that comes back empty would count from one again, and an old holder could
    /// overwrite another node's entry that happens to have the revision that the holder remembers.
    async fn make_bucket(&self, name: &str) {
        let made = self.context.create_stream(stream::Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            // Reads go to the leader: a replica that lags would show an entry that no longer
            // exists.
            allow_direct: false,
            num_replicas: self.replicas,
            first_sequence: Some(fastrand::u64(1..1 << 52)),
            ..Default::default()
        });
        if let Err(error) = made.await {
            // Another node may have been quicker.
            tracing::debug!(bucket = name, error = root(&error), "the bucket could not be created");
        }
    }

    /// Forgets a bucket that caused an error: the server may have lost it.
    fn forget(&self, name: &str) {
        self.buckets().remove(name);
    }

    async fn object_store(&self, name: &str) -> Result<ObjectStore, TransportError> {
        self.connected()?;
        if let Ok(store) = self.context.get_object_store(name).await {
            return Ok(store);
        }
        let config = object_store::Config {
            bucket: name.to_owned(),
            num_replicas: self.replicas,
            ..Default::default()
        };
        match self.context.create_object_store(config).await {
            Ok(store) => Ok(store),
            Err(_) => self.context.get_object_store(name).await.map_err(failed),
        }
    }

    /// Removes the messages of an object or of an upload from the stream of a bucket.
    async fn purge_objects(&self, bucket: &str, what: &str) -> Result<(), TransportError> {
        let stream = bounded(self.context.get_stream(objects_stream(bucket))).await?;
        let purge = stream.purge().filter(format!("$O.{bucket}.{what}"));
        bounded(purge.into_future()).await.map(|_| ())
    }
}

/// Returns the name of the stream that keeps the objects of a bucket.
fn objects_stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

impl Drop for NatsTransport {
    fn drop(&mut self) {
        self.watcher.abort();
        self.connection.send_replace(Connection::Closed);
    }
}

impl fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTransport")
            .field("connection", &*self.connection.borrow())
            .finish_non_exhaustive()
    }
}

/// Keeps the state of the connection up to date, for those who wait on it.
async fn watch_connection(
    client: Client,
    connection: Arc<watch::Sender<Connection>>,
    stirred: Arc<Notify>,
) {
    loop {
        let state = state_of(&client);
        connection.send_if_modified(|held| {
            let changed = *held != state;
            if let (true, Connection::Refused(reason)) = (changed, &state) {
                tracing::error!("{reason}");
            }
            held.clone_from(&state);
            changed
        });
        timeout(LOOK, stirred.notified()).await.ok();
    }
}

fn state_of(client: &Client) -> Connection {
    match client.connection_state() {
        State::Pending | State::Disconnected => Connection::Disconnected,
        State::Connected => {
            let reason = client.try_server_info().and_then(|info| too_old(&info.version));
            reason.map_or(Connection::Connected, Connection::Refused)
        }
    }
}

fn observe(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to the NATS server"),
        Event::Disconnected => tracing::warn!("lost the connection to the NATS server"),
        Event::SlowConsumer(_) => tracing::warn!("messages from the NATS server were dropped"),
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server reported an error"),
        // A failed attempt to reconnect; there may be one every second.
        Event::ClientError(error) => tracing::debug!(%error, "no connection to a NATS server"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::info!(%event, "the NATS server or its connection is closing");
        }
    }
}

/// Returns `true` if TLS is among the causes of an error.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| match cause.downcast_ref() {
        // It does not report the error that it wraps as its source.
        Some(stream) => std::io::Error::get_ref(stream).map(|wrapped| wrapped as _),
        None => cause.source(),
    });
    causes.any(|cause| cause.is::<async_nats::rustls::Error>())
}

/// Returns the message of the innermost error, which says what happened.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn failed(error: impl std::error::Error + 'static) -> TransportError {
    TransportError::Store { reason: root(&error) }
}

/// Sets a time limit for an operation of the store that has none of its own.
async fn bounded<T, E: std::error::Error + 'static>(
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, TransportError> {
    match timeout(PATIENCE * 2, operation).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(TransportError::TimedOut),
    }
}

#[async_trait]
impl Transport for NatsTransport {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), TransportError> {
        self.connected()?;
        let size = payload.len();
        match timeout(PATIENCE, self.client.publish(subject.to_owned(), payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => {
                    TransportError::TooLarge { size, limit: self.client.max_payload() }
                }
                PublishErrorKind::InvalidSubject => {
                    TransportError::Name { name: subject.to_owned() }
                }
                PublishErrorKind::Send => TransportError::Disconnected,
            }),
            Err(_) => Err(TransportError::Disconnected),
        }
    }

    async fn flush(&self) -> Result<(), TransportError> {
        // If a program ends with unread data, the kernel resets its connection and may drop bytes
        // that it had accepted. Once the server has sent the message back, it has everything before
        // it.
        self.round_trip().await.map(|_| ())
    }

    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Bytes, TransportError> {
        self.connected()?;
        let size = payload.len();
        // The client's own timeout starts only when the request has left its queue.
        let request = async_nats::Request::new().payload(payload).timeout(None);
        let sent = self.client.send_request(subject.to_owned(), request);
        match timeout(patience, sent).await {
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => TransportError::TimedOut,
                RequestErrorKind::NoResponders => {
                    TransportError::NoResponders { subject: subject.to_owned() }
                }
                RequestErrorKind::InvalidSubject => {
                    TransportError::Name { name: subject.to_owned() }
                }
                RequestErrorKind::MaxPayloadExceeded => {
                    TransportError::TooLarge { size, limit: self.client.max_payload() }
                }
                RequestErrorKind::Other => TransportError::Disconnected,
            }),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn subscribe(&self, subject: &str) -> Result<Subscription, TransportError> {
        let subscribed = self.client.subscribe(subject.to_owned()).await;
        let messages = subscribed.map_err(|_| TransportError::Disconnected)?;
        Ok(Subscription::new(messages.map(|message| {
            let reply = message.reply.map(|reply| reply.to_string());
            Incoming::new(message.subject.to_string(), message.payload, reply)
        })))
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    async fn server(&self) -> Result<ServerInfo, TransportError> {
        let round_trip = self.round_trip().await?;
        let info = self.client.server_info();
        Ok(ServerInfo {
            name: info.server_name,
            version: info.version,
            round_trip,
            stores: info.jetstream,
        })
    }
}

#[async_trait]
impl Store for NatsTransport {
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Entry>, TransportError> {
        let store = self.bucket(bucket).await?;
        let entry = match bounded(store.entry(key)).await {
            Ok(entry) => entry,
            Err(first) => {
                tracing::debug!(bucket, %first, "the bucket is looked up again");
                self.forget(bucket);
                let store = self.bucket(bucket).await?;
                bounded(store.entry(key)).await?
            }
        };
        let entry = entry.filter(|entry| entry.operation == kv::Operation::Put);
        Ok(entry.map(|entry| Entry { value: entry.value, revision: entry.revision }))
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, TransportError> {
        let store = self.bucket(bucket).await?;
        let written = timeout(PATIENCE * 2, store.update(key, value, expected.unwrap_or(0))).await;
        match written {
            Ok(Ok(revision)) => Ok(revision),
            Ok(Err(error)) => Err(match error.kind() {
                UpdateErrorKind::InvalidKey => TransportError::Name { name: key.to_owned() },
                UpdateErrorKind::WrongLastRevision => {
                    TransportError::Conflict { key: key.to_owned() }
                }
                UpdateErrorKind::TimedOut => TransportError::TimedOut,
                UpdateErrorKind::Other => {
                    self.forget(bucket);
                    failed(error)
                }
            }),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn delete(&self, bucket: &str, key: &str, expected: u64) -> Result<(), TransportError> {
        let store = self.bucket(bucket).await?;
        // A purge up to this revision removes this entry and no later one, and leaves no marker;
        // otherwise there would be a marker for every name that was ever used.
        let subject = format!("{}{key}", store.prefix);
        let purge = store.stream.purge().filter(subject).sequence(expected + 1);
        match bounded(purge.into_future()).await {
            Ok(purged) if purged.purged == 0 => {
                Err(TransportError::Conflict { key: key.to_owned() })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.forget(bucket);
                Err(error)
            }
        }
    }

    async fn keys(&self, bucket: &str) -> Result<Vec<String>, TransportError> {
        let store = self.bucket(bucket).await?;
        let listed =
            async { store.keys().await.map_err(failed)?.try_collect().await.map_err(failed) };
        match timeout(PATIENCE * 5, listed).await {
            Ok(Ok(keys)) => Ok(keys),
            Ok(Err(error)) => {
                self.forget(bucket);
                Err(error)
            }
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn put_object(
        &self,
        bucket: &str,
        name: &str,
        mut source: Source,
    ) -> Result<u64, TransportError> {
        let store = self.object_store(bucket).await?;
        let metadata = ObjectMetadata { name: name.to_owned(), ..Default::default() };
        let info = store.put(metadata, &mut source).await.map_err(failed)?;
        Ok(info.size as u64)
    }

    async fn object(&self, bucket: &str, name: &str) -> Result<Option<Source>, TransportError> {
        let store = self.object_store(bucket).await?;
        match store.get(name).await {
            Ok(object) => Ok(Some(Box::pin(object))),
            Err(error) => match error.kind() {
                object_store::GetErrorKind::NotFound => Ok(None),
                object_store::GetErrorKind::InvalidName => {
                    Err(TransportError::Name { name: name.to_owned() })
                }
                object_store::GetErrorKind::TimedOut => Err(TransportError::TimedOut),
                _ => Err(failed(error)),
            },
        }
    }

    async fn objects(&self, bucket: &str) -> Result<Vec<String>, TransportError> {
        let store = self.object_store(bucket).await?;
        let listed = async {
            let objects = store.list().await.map_err(failed)?;
            objects.map_ok(|object| object.name).try_collect().await.map_err(failed)
        };
        match timeout(PATIENCE * 5, listed).await {
            Ok(names) => names,
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn delete_object(&self, bucket: &str, name: &str) -> Result<(), TransportError> {
        let store = self.object_store(bucket).await?;
        match timeout(PATIENCE * 5, store.delete(name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => match error.kind() {
                object_store::DeleteErrorKind::NotFound => {}
                _ => return Err(failed(error)),
            },
            Err(_) => return Err(TransportError::TimedOut),
        }
        // The client would leave a marker, so there would be one for every save.
        self.purge_objects(bucket, &format!("M.{}", BASE64_URL_SAFE.encode(name))).await
    }

    async fn uploads(&self, bucket: &str) -> Result<Vec<Upload>, TransportError> {
        let store = self.object_store(bucket).await?;
        let prefix = format!("$O.{bucket}.C.");
        let listed = async {
            // In this order, so that an upload that ends in the meantime is seen as an object.
            let stream = self.context.get_stream(objects_stream(bucket)).await.map_err(failed)?;
            let chunks = stream.info_with_subjects(format!("{prefix}>")).await.map_err(failed)?;
            let chunks: Vec<(String, usize)> = chunks.try_collect().await.map_err(failed)?;
            let objects = store.list().await.map_err(failed)?;
            let objects: HashSet<String> =
                objects.map_ok(|object| object.nuid).try_collect().await.map_err(failed)?;
            let uploads = chunks.into_iter().filter_map(|(subject, parts)| {
                let id = subject.strip_prefix(&prefix)?;
                (!objects.contains(id)).then(|| Upload::new(id.to_owned(), parts as u64))
            });
            Ok(uploads.collect())
        };
        match timeout(PATIENCE * 5, listed).await {
            Ok(uploads) => uploads,
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    async fn delete_upload(&self, bucket: &str, id: &str) -> Result<(), TransportError> {
        self.connected()?;
        self.purge_objects(bucket, &format!("C.{id}")).await
    }
}
