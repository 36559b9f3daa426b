use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;

use super::ProxyError;
use super::tunnel::{Connection, Io};
use super::upstream::Upstream;

/// Asks an HTTP proxy to connect to `target`.
pub(super) async fn connect(
    upstream: &Upstream,
    connection: Connection,
    target: &Authority,
) -> Result<Box<dyn Io>, ProxyError> {
    let broken = |error| broken(upstream, error);
    let (mut sender, connection) = http1::Builder::new()
        .handshake::<_, Empty<Bytes>>(TokioIo::new(connection))
        .await
        .map_err(broken)?;
    let connection = connection.with_upgrades();
    tokio::pin!(connection);
    let answer = sender.send_request(request(upstream, target));
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // The connection ends where the tunnel begins, so its end is not yet the answer.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(broken)?;
    check(upstream, answer.status())?;
    if !answer.status().is_success() {
        let (target, reason) = (target.as_str().into(), answer.status().as_str().into());
        return Err(ProxyError::Refused { proxy: upstream.name(), target, reason });
    }
    let upgraded = hyper::upgrade::on(answer);
    tokio::pin!(upgraded);
    let tunnel = tokio::select! {
        tunnel = &mut upgraded => tunnel,
        ended = &mut connection => match ended {
            Ok(()) => upgraded.await,
            Err(error) => Err(error),
        },
    };
    Ok(Box::new(TokioIo::new(tunnel.map_err(broken)?)))
}

/// A 407 is an error of its own wherever it comes from.
pub(super) fn check(upstream: &Upstream, status: StatusCode) -> Result<(), ProxyError> {
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
