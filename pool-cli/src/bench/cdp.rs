use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pool_chrome::process::{Pipe, PipeReader, PipeWriter};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::exit::Failure;

/// Time after which something counts as never done: nothing that is measured takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of the raw protocol that does one thing at a time, the same for both contestants.
///
/// It is not [`cdp::Client`](pool_chrome::cdp::Client), whose task and channels would add their own
/// wake-ups to each measured round trip, and make the overhead of the gateway look smaller.
#[derive(Debug)]
pub(crate) struct Cdp {
    transport: Transport,
    next_id: u64,
    /// Events that came while waiting for an answer.
    events: Vec<Value>,
}

/// The session of a [`Cdp`] on a page.
#[derive(Clone, Debug)]
pub(crate) struct Page(String);

impl Cdp {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, next_id: 1, events: Vec::new() }
    }

    /// Asks the browser for its product name: the first answer of any kind.
    pub(crate) async fn product(&mut self) -> Result<String, Failure> {
        let version = self.call(None, "Browser.getVersion", json!({})).await?;
        text(&version, "product")
    }

    /// Takes the page that the browser began with and waits for an answer from it; opens one if
    /// there is none.
    pub(crate) async fn first_page(&mut self) -> Result<Page, Failure> {
        let targets = self.call(None, "Target.getTargets", json!({})).await?;
        let targets = targets["targetInfos"].as_array().map_or(&[][..], Vec::as_slice);
        match targets.iter().find(|target| target["type"] == "page") {
            Some(first) => self.attach_to(&text(first, "targetId")?).await,
            None => self.open_page().await,
        }
    }

    /// Opens a page, attaches to it, and waits for an answer from it.
    pub(crate) async fn open_page(&mut self) -> Result<Page, Failure> {
        let made = self.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await?;
        self.attach_to(&text(&made, "targetId")?).await
    }

    async fn attach_to(&mut self, target: &str) -> Result<Page, Failure> {
        let params = json!({ "targetId": target, "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", params).await?;
        let page = Page(text(&attached, "sessionId")?);
        self.evaluate_one(&page).await?;
        Ok(page)
    }

    /// Evaluates `1`: the shortest round trip to a page's renderer.
    pub(crate) async fn evaluate_one(&mut self, page: &Page) -> Result<(), Failure> {
        const METHOD: &str = "Runtime.evaluate";
        let answer = self.call(Some(page), METHOD, json!({ "expression": "1" })).await?;
        if answer["result"]["value"] == json!(1) { Ok(()) } else { Err(odd(METHOD, &answer)) }
    }

    /// Navigates the page to an address and waits until it is loaded.
    pub(crate) async fn goto(&mut self, page: &Page, url: &str) -> Result<(), Failure> {
        self.call(Some(page), "Page.enable", json!({})).await?;
        let on = json!({ "enabled": true });
        self.call(Some(page), "Page.setLifecycleEventsEnabled", on).await?;
        let went = self.call(Some(page), "Page.navigate", json!({ "url": url })).await?;
        if let Some(error) = went["errorText"].as_str() {
            return Err(Failure::new(format!("{url} cannot be loaded: {error}"))
                .hint("the page is served on loopback: measure a pool on its own machine"));
        }
        // By its id, since the empty page before it also loads, and may report that only now.
        let loader = &went["loaderId"];
        let is_loaded = |event: &Value| {
            event["method"] == "Page.lifecycleEvent"
                && event["params"]["name"] == "load"
                && &event["params"]["loaderId"] == loader
        };
        in_time("Page.lifecycleEvent", self.wait_for(is_loaded)).await
    }

    /// Closes the connection.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        Ok(self.transport.close().await?)
    }

    async fn wait_for(
        &mut self,
        is_wanted: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<(), Failure> {
        if std::mem::take(&mut self.events).iter().any(&is_wanted) {
            return Ok(());
        }
        while !is_wanted(&self.next().await?) {}
        Ok(())
    }

    async fn call(
        &mut self,
        page: Option<&Page>,
        method: &str,
        params: Value,
    ) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(Page(session)) = page {
            command["sessionId"] = json!(session);
        }
        let exchange = async {
            self.transport.send(command.to_string()).await?;
            loop {
                let mut message = self.next().await?;
                if message["id"] != json!(id) {
                    self.events.push(message);
                } else if message["error"].is_null() {
                    return Ok(message["result"].take());
                } else {
                    return Err(odd(method, &message["error"]));
                }
            }
        };
        in_time(method, exchange).await
    }

    async fn next(&mut self) -> Result<Value, Failure> {
        let message = self.transport.recv().await;
        let message = message
            .map_err(|error| Failure::new(format!("the connection to a browser ended: {error}")))?;
        Ok(serde_json::from_slice(&message)?)
    }
}

async fn in_time<T>(
    what: &str,
    answer: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("{what}: nothing came within {} s", PATIENCE.as_secs())))
    })
}

fn text(answer: &Value, key: &str) -> Result<String, Failure> {
    answer[key].as_str().map(str::to_owned).ok_or_else(|| odd(key, answer))
}

fn odd(what: &str, answer: &Value) -> Failure {
    Failure::new(format!("{what}: unexpected answer: {answer}"))
}

/// A transport for messages to a browser and from it.
#[derive(Debug)]
pub(crate) enum Transport {
    /// A WebSocket: to a lease, or to a debugging port.
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// The pipe of a Chromium that was launched.
    Pipe(BufReader<PipeReader>, PipeWriter),
}

impl Transport {
    /// Opens a WebSocket.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with the answer, if it was refused.
    pub(crate) async fn open(request: Request) -> Result<(Self, Response), Error> {
        let uri = request.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, response) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok((Self::WebSocket(Box::new(socket)), response))
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, mut message: String) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => {
                socket.send(Message::text(message)).await.map_err(io::Error::other)
            }
            Self::Pipe(_, writer) => {
                message.push('\0');
                writer.write_all(message.as_bytes()).await
            }
        }
    }

    /// Returns the next message; an error if no more will come.
    pub(crate) async fn recv(&mut self) -> io::Result<Vec<u8>> {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await.ok_or_else(ended)?.map_err(io::Error::other)? {
                    Message::Text(text) => return Ok(text.as_bytes().to_vec()),
                    Message::Close(Some(frame)) => return Err(io::Error::other(frame.to_string())),
                    Message::Close(None) => return Err(ended()),
                    _ => {}
                }
            },
            Self::Pipe(reader, _) => {
                let mut message = Vec::new();
                reader.read_until(0, &mut message).await?;
                message.pop().map(|_| message).ok_or_else(ended)
            }
        }
    }

    /// Closes the connection properly, as clients do.
    pub(crate) async fn close(self) -> io::Result<()> {
        match self {
            Self::WebSocket(mut socket) => {
                socket.as_mut().close(None).await.map_err(io::Error::other)
            }
            Self::Pipe(_, mut writer) => writer.shutdown().await,
        }
    }
}

impl From<Pipe> for Transport {
    fn from(pipe: Pipe) -> Self {
        Self::Pipe(BufReader::new(pipe.reader), pipe.writer)
    }
}
