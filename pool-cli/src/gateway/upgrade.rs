//! The WebSocket handshake, the server's side of it.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::bridge::Socket;
use super::heads::Heads;
use super::{LeaseId, Problem};

/// The header of the 101 that tells the lease's id, for `/devtools/browser/{lease}`.
pub(super) const LEASE: HeaderName = HeaderName::from_static("browser-pool-lease");

/// A handshake that a client has begun and that waits for its 101.
///
/// No extension is accepted: permessage-deflate would cost more time than it saves bytes on the
/// loopback and in the data centre where a pool runs.
pub(super) struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Returns `true` if a request asks for a WebSocket.
    pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
        has_token(headers, &header::UPGRADE, "websocket")
    }

    /// Reads the client's side.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn read(parts: &mut Parts) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::bad_request("bad_handshake", detail);
        if parts.method != Method::GET {
            return Err(bad("a WebSocket begins with GET"));
        }
        if !has_token(&parts.headers, &header::CONNECTION, "upgrade") {
            return Err(bad("a WebSocket wants the header Connection: Upgrade"));
        }
        if parts.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(bad("only version 13 of WebSocket is spoken"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| bad("a WebSocket wants the header Sec-WebSocket-Key"))?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .expect("base64 makes a header");
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| bad("this connection cannot be upgraded"))?;
        Ok(Self { accept, upgrade })
    }

    /// The 101, and the socket that is there once it was sent.
    pub(super) fn accept(self, lease: LeaseId) -> (Response, Accepted) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        let lease = HeaderValue::from_str(&lease.to_string()).expect("hexadecimal digits");
        headers.insert(LEASE, lease);
        (response, Accepted(self.upgrade))
    }
}

/// A WebSocket whose 101 is on its way.
pub(super) struct Accepted(OnUpgrade);

impl Accepted {
    /// The socket; `None` if the client went away before it had its 101.
    pub(super) async fn socket(self) -> Option<Socket> {
        let upgraded = self.0.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Heads>>().ok()?;
        let (stream, unread) = parts.io.into_inner().into_parts();
        Some(Socket { stream, read: [&parts.read_buf, &*unread].concat() })
    }
}

/// Returns `true` if a header that is a list of words has this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(wanted))
}
