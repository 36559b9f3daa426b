use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;

use super::ProxyError;
use super::exit::{Connection, Io};
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
    let mut connection = pin!(connection.with_upgrades().fuse());
    let asked = sender.send_request(request(upstream, target));
    let answer = drive(connection.as_mut(), asked).await.map_err(broken)?;
    check(upstream, answer.status())?;
    if !answer.status().is_success() {
        let (target, reason) = (target.as_str().into(), answer.status().as_str().into());
        return Err(ProxyError::Refused { proxy: upstream.name(), target, reason });
    }
    let tunnel = drive(connection, hyper::upgrade::on(answer)).await.map_err(broken)?;
    Ok(Box::new(TokioIo::new(tunnel)))
}

/// Waits for something that comes over a connection, which nobody else moves on.
async fn drive<T>(
    mut connection: Pin<&mut Fuse<impl Future<Output = hyper::Result<()>>>>,
    wanted: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    let mut wanted = pin!(wanted);
    tokio::select! {
        biased;
        wanted = &mut wanted => wanted,
        ended = &mut connection => {
            ended?;
            // It ends where the tunnel begins, which may be before the answer has been looked at.
            wanted.await
        }
    }
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
