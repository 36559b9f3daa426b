use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use pool_chrome::cdp::{self, CdpError, Outgoing};
use pool_chrome::mux::EndReason;
use pool_chrome::process::Engine;
use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::{Lease, Request};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use url::form_urlencoded;

use super::{Isolation, Options};
use crate::client::{Client, PATIENCE};
use crate::config::{Config, LeaseKind};
use crate::exit::Failure;
use crate::loader::{NoBrowser, Outlook};
use crate::metrics::Observer;
use crate::pool::{LeaseEnd, OpenError, Opened, RunDirectory, open_tuned};

/// Time that a pool elsewhere has to accept a connection, in addition to the wait for a browser.
const REACH: Duration = Duration::from_secs(10);

/// Number of messages of a connection that may wait to be carried.
const CARRIED: usize = 64;

/// Maximum number of leases: more than anybody has at the same time.
const LEASES: u32 = 10_000;

/// The browsers that a visit leases.
#[derive(Debug)]
pub(crate) enum Browsers {
    /// Those of its own pool.
    Own(Box<OwnPool>),
    /// Those of a running pool.
    Far(FarPool),
}

/// The pool of a visit: as configured, but of the size and kind that the visit requires, and with
/// nothing running that it has not asked for.
#[derive(Debug)]
pub(crate) struct OwnPool {
    opened: Opened,
    request: Request,
    /// The directory of this run, unless profiles need the configured one. Dropped last.
    _directory: Option<RunDirectory>,
}

/// A running pool, from which browsers are leased over its WebSocket.
#[derive(Debug)]
pub(crate) struct FarPool {
    client: Client,
    /// The query of a lease, except for its kind.
    query: String,
    kind: LeaseKind,
    /// Each connection has a permit until it is closed.
    connections: Arc<Semaphore>,
}

/// A browser to visit with; dropping it gives it back.
#[derive(Debug)]
pub(crate) enum Browser {
    /// A lease of the pool of this process.
    Own(Lease<ChromeDriver>),
    /// A lease that is a connection to a running pool.
    Far(cdp::Client),
}

impl Browsers {
    /// Opens a pool. Nothing is launched yet.
    ///
    /// # Errors
    ///
    /// The message to print: no Chromium, a state directory in use, an unknown profile or region.
    pub(crate) async fn open(config: Config, options: &Options) -> Result<Self, Failure> {
        Ok(Self::Own(Box::new(OwnPool::open(config, options).await?)))
    }

    /// Uses a running pool. Nothing is leased yet.
    pub(crate) fn of(client: Client, options: &Options) -> Self {
        Self::Far(FarPool::new(client, options))
    }

    /// Returns the number of pages to prepare while others load. From a pool that others use, no
    /// more is taken than was asked for.
    pub(crate) fn ahead(&self, options: &Options) -> usize {
        match self {
            Self::Own(_) => options.ahead(),
            Self::Far(_) => 0,
        }
    }

    /// Leases a browser; with `alone`, one that has its Chromium to itself.
    ///
    /// # Errors
    ///
    /// Whatever prevents it.
    pub(crate) async fn lease(&self, alone: bool) -> Result<Browser, NoBrowser> {
        match self {
            Self::Own(pool) => Ok(Browser::Own(pool.lease(alone).await?)),
            Self::Far(pool) => Ok(Browser::Far(pool.lease(alone).await?)),
        }
    }

    /// Closes every browser of a pool of its own.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped early, the browsers are closed all the same.
    pub(crate) async fn close(&self) {
        match self {
            Self::Own(pool) => drop(pool.opened.pool().close().await),
            // Each one goes back when its connection is closed.
            Self::Far(pool) => drop(pool.connections.acquire_many(LEASES).await),
        }
    }
}

impl OwnPool {
    async fn open(config: Config, options: &Options) -> Result<Self, Failure> {
        let mut config = config;
        let pool = &mut config.pool;
        pool.lease = options.lease;
        pool.min_size = 0;
        pool.max_size = options.concurrency + 2 * options.ahead();
        if options.isolation == Isolation::None {
            // The one that all pages share is never given back while others need one alone.
            pool.max_size += 1;
        }
        // Every worker may be waiting for one.
        pool.max_waiting = options.concurrency + options.ahead();
        // A place in a Chromium is made in milliseconds; the limit is about launches.
        let launches = pool.max_creating;
        pool.max_creating = pool.max_creating.max(options.concurrency);
        pool.lease_timeout = None;
        config.sizing.enabled = false;
        config.warming.min_idle = 0;
        // An empty page warms nothing that lasts; another page or a script may.
        config.warming.enabled &=
            config.warming.url != "about:blank" || config.warming.script.is_some();
        config.profiles.named.values_mut().for_each(|profile| profile.min_size = 0);
        config.regions.values_mut().for_each(|region| region.min_size = 0);
        let directory = match options.profile {
            // Profiles are in the configured directory, which only one pool can have at a time.
            Some(_) => None,
            None => Some(RunDirectory::choose(&config.pool.state_dir, "visits")),
        };
        if let Some(directory) = &directory {
            directory.path().clone_into(&mut config.pool.state_dir);
        }
        let observer = Observer::new(&config.pool.name);
        // Pages are made with their addresses, so an empty page made ahead is of no use.
        let tune = |chrome: ChromeConfig| chrome.warm_page(false).max_launching(launches);
        let opened = open_tuned(&config, &observer, tune).await.map_err(OpenError::failure)?;
        let mut request = Request::new();
        for (label, value) in [("profile", &options.profile), ("region", &options.region)] {
            if let Some(value) = value {
                request.set(label, value.as_str());
            }
        }
        Ok(Self { opened, request, _directory: directory })
    }

    async fn lease(&self, alone: bool) -> Result<Lease<ChromeDriver>, NoBrowser> {
        let mut request = self.request.clone();
        if alone {
            request.set("lease", LeaseKind::Exclusive.as_str());
        }
        Ok(self.opened.pool().acquire_with(request).await?)
    }
}

impl FarPool {
    fn new(client: Client, options: &Options) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("pages", "0");
        let domains = options.allow_domains.as_ref().map(|domains| {
            let domains: Vec<String> = domains.iter().map(ToString::to_string).collect();
            domains.join(",")
        });
        for (name, value) in [
            ("profile", &options.profile),
            ("region", &options.region),
            ("allow_domains", &domains),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let connections = Arc::new(Semaphore::new(LEASES as usize));
        Self { client, query: query.finish(), kind: options.lease, connections }
    }

    async fn lease(&self, alone: bool) -> Result<cdp::Client, NoBrowser> {
        let kind = if alone { LeaseKind::Exclusive } else { self.kind };
        let query = format!("{}&lease={}", self.query, kind.as_str());
        let hopeless = |why: String| NoBrowser { why, outlook: Outlook::Hopeless };
        let request = self.client.websocket(&query);
        let request = request.map_err(|failure| hopeless(failure.message().to_owned()))?;
        let unreachable = |error: &dyn std::fmt::Display| NoBrowser {
            why: format!("no pool answers at {}: {error}", self.client.address()),
            outlook: Outlook::Uncertain,
        };
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)));
        let stream = timeout(REACH, stream).await.map_err(|late| unreachable(&late))?;
        let stream = stream.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        match timeout(PATIENCE, opened).await.map_err(|late| unreachable(&late))? {
            Ok((socket, _)) => {
                let permit = Arc::clone(&self.connections).acquire_owned().await;
                Ok(carried(socket, permit.expect("the semaphore is never closed")))
            }
            Err(Error::Http(answer)) => {
                let text = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
                let status = answer.status().as_u16();
                let why = self.client.refused(status, &text).message().to_owned();
                let outlook = match status {
                    408 | 429 => Outlook::Busy,
                    503 => Outlook::Uncertain,
                    _ => Outlook::Hopeless,
                };
                Err(NoBrowser { why, outlook })
            }
            Err(error) => Err(unreachable(&error)),
        }
    }
}

impl Browser {
    /// Sets the terms of the lease.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub(crate) async fn begin(&self, options: &Options) -> Result<(), CdpError> {
        match self {
            // The terms that are set first are the ones that count.
            Self::Own(lease) => lease.begin(&options.terms()).await,
            // They are in its query.
            Self::Far(_) => Ok(()),
        }
    }

    /// Connects to it.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub(crate) async fn connect(&self) -> Result<cdp::Client, CdpError> {
        match self {
            Self::Own(lease) => Ok(cdp::Client::new(lease.connect().await?)),
            Self::Far(client) => Ok(client.clone()),
        }
    }

    /// Returns `true` if it can hold a page that is made with an address before its first request.
    pub(crate) fn holds_pages(&self) -> bool {
        match self {
            Self::Own(lease) => lease.engine() == Engine::Shell,
            // It is not known which engine it is.
            Self::Far(_) => false,
        }
    }

    /// Returns `true` if it can no longer be used.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Own(lease) => lease.end_reason().is_some(),
            Self::Far(client) => client.end_reason().is_some(),
        }
    }

    /// Gives it up: nobody needs it clean again.
    pub(crate) fn discard(self) {
        match self {
            Self::Own(lease) => lease.discard(),
            Self::Far(_) => {}
        }
    }
}

/// Returns how many leases a running pool can have at the same time.
///
/// # Errors
///
/// If no pool answers.
pub(crate) fn size_of(pool: &Client) -> Result<usize, Failure> {
    let answer: Value = pool.get("/pressure")?;
    let most = answer["pressure"]["maxConcurrent"].as_u64().unwrap_or(1);
    Ok(usize::try_from(most).unwrap_or(usize::MAX).clamp(1, 1000))
}

/// The sending half of a WebSocket.
#[derive(Debug)]
struct Carrier {
    outgoing: mpsc::Sender<String>,
    end: Arc<OnceLock<EndReason>>,
}

#[async_trait]
impl Outgoing for Carrier {
    async fn send(&self, message: &str) -> Result<(), EndReason> {
        let ended = || self.end_reason().unwrap_or(EndReason::ClientClosed);
        self.outgoing.send(message.to_owned()).await.map_err(|_| ended())
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.end.get().copied()
    }
}

/// Returns a client of the protocol over a WebSocket, which closes with the client.
fn carried(socket: WebSocketStream<TcpStream>, permit: OwnedSemaphorePermit) -> cdp::Client {
    let (outgoing, mut to_send) = mpsc::channel::<String>(CARRIED);
    let (received, incoming) = mpsc::channel(CARRIED);
    let end = Arc::new(OnceLock::new());
    let carrier = Carrier { outgoing, end: Arc::clone(&end) };
    tokio::spawn(async move {
        let (mut sink, mut source) = socket.split();
        let send = async {
            while let Some(message) = to_send.recv().await {
                if sink.send(Message::text(message)).await.is_err() {
                    return;
                }
            }
            // Its client is gone, so the lease is over.
            let _ = sink.close().await;
        };
        let receive = async {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Text(text) => {
                        if received.send(text.into()).await.is_err() {
                            return;
                        }
                    }
                    Message::Close(frame) => {
                        let _ = end.set(end_of(frame.as_ref()));
                        return;
                    }
                    Message::Binary(_)
                    | Message::Ping(_)
                    | Message::Pong(_)
                    | Message::Frame(_) => {}
                }
            }
            let _ = end.set(EndReason::Revoked);
        };
        tokio::select! { () = send => {}, () = receive => {} }
        // Whatever ended it.
        let _ = end.set(EndReason::Revoked);
        drop(permit);
    });
    cdp::Client::over(carrier, incoming)
}

/// Reads why a pool has closed a lease: a word, a colon, and a sentence for people.
fn end_of(frame: Option<&CloseFrame>) -> EndReason {
    let reason = frame.map(|frame| frame.reason.as_str()).unwrap_or_default();
    let word = reason.split(':').next().unwrap_or_default();
    // A later version may have ends that are not known here.
    LeaseEnd::named(word).map_or(EndReason::Revoked, EndReason::from)
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    #[test]
    fn the_end_that_a_pool_tells_is_understood() {
        let frame = |reason: &str| {
            let code = CloseCode::from(LeaseEnd::Revoked.close_code());
            end_of(Some(&CloseFrame { code, reason: reason.into() }))
        };
        for (end, reason) in [
            (LeaseEnd::BrowserCrashed, EndReason::Crashed),
            (LeaseEnd::BrowserOutOfMemory, EndReason::OutOfMemory),
            (LeaseEnd::BrowserHung, EndReason::Hung),
            (LeaseEnd::SlowReader, EndReason::SlowReader),
            (LeaseEnd::BadFrame, EndReason::Protocol),
            (LeaseEnd::LeaseLimit, EndReason::Revoked),
        ] {
            assert_eq!(frame(&end.to_string()), reason, "{end}");
        }
        assert_eq!(frame("of_tomorrow: nobody knows"), EndReason::Revoked);
        assert_eq!(end_of(None), EndReason::Revoked);
    }
}
