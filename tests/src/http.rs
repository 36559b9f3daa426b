use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// An HTTP answer, read to its end.
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header, if there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.text())
    }
}

/// Sends one request on a connection of its own: `address` is `host:port`, `headers` come after
/// `Host`, which they may replace.
///
/// # Errors
///
/// If no whole answer comes within half a minute.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response, String> {
    answered(async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        send_on(stream, address, method, path, headers, body).await
    })
    .await
}

/// Sends one request from an address of loopback, such as `127.0.0.9`.
///
/// # Errors
///
/// As [`request`].
pub async fn request_from(
    source: [u8; 4],
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response, String> {
    answered(async {
        let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
        socket.bind((source, 0).into()).map_err(|error| error.to_string())?;
        let to = address.parse().expect("a test has an address");
        let stream = socket.connect(to).await.map_err(|error| error.to_string())?;
        send_on(stream, address, method, path, headers, "").await
    })
    .await
}

/// Sends bytes as they are, and returns all that comes back until the other side closes.
///
/// # Errors
///
/// If it has not closed within five seconds.
pub async fn exchange(address: &str, bytes: &[u8]) -> Result<String, String> {
    let exchanged = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.write_all(bytes).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let exchanged = timeout(Duration::from_secs(5), exchanged).await;
    exchanged.map_err(|_| "it was not closed within 5 s".to_owned())?
}

async fn answered(
    asked: impl Future<Output = Result<Response, String>>,
) -> Result<Response, String> {
    timeout(Duration::from_secs(30), asked).await.map_err(|_| "no answer within 30 s".to_owned())?
}

async fn send_on(
    stream: TcpStream,
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .uri(path)
        .method(Method::from_bytes(method.as_bytes()).expect("a test writes a method"));
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(HOST, address);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}
