use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::request::{self, Heads, MAX_HEAD, Refusal};
use super::router::router;
use super::{Gateway, address, snapshot, tcp};

/// Maximum time for a request's headers, and for an idle connection.
const HEADERS: Duration = Duration::from_secs(10);

/// Maximum number of connections that are not WebSockets: those that send requests, wait in the
/// queue, or do nothing.
const MAX_CONNECTIONS: usize = 16 * 1024;

/// Pause after a socket could not be accepted, rather than trying again at once, for ever.
const BREATH: Duration = Duration::from_millis(50);

/// Listens for the clients of a [`Gateway`]; dropping it closes the listener and every
/// connection that is not a WebSocket.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    /// Binds the address and starts to serve.
    ///
    /// # Errors
    ///
    /// If the address is not available, such as a port in use.
    pub async fn start(gateway: &Arc<Gateway>, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Self::start_on(gateway, listener)
    }

    /// Starts to serve on a listener that is already bound.
    ///
    /// # Errors
    ///
    /// If the system does not know its address.
    pub fn start_on(gateway: &Arc<Gateway>, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, router(gateway)));
        let sampling = tokio::spawn(snapshot::run(Arc::downgrade(gateway)));
        Ok(Self { address, tasks: [accepting, sampling] })
    }

    /// Returns the address that it listens on; if port 0 was requested, it has the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(stream, peer, router.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, or the client was gone before it was accepted.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router) {
    tcp::prepare(&stream);
    let ends = tcp::Ends::of(&stream).ok();
    let heads = Heads::new(stream);
    let refusal = heads.refusal();
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, refusal) = (router.clone(), refusal.clone());
        async move { Ok::<_, Infallible>(answer(router, peer, &refusal, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(2 * MAX_HEAD)
        .serve_connection(TokioIo::new(heads), service)
        .with_upgrades();
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::trace!(%error, %peer, "connection ended");
            }
        }
        // Its place in the queue goes with it.
        () = tcp::half_open(ends) => {}
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    refusal: &Refusal,
    mut request: Request<Incoming>,
) -> Response {
    if let Some(problem) = refusal.of(request.method()) {
        return problem.into_response();
    }
    if let Some(uri) = address::find(request.uri()) {
        *request.uri_mut() = uri;
    }
    let is_last = request::is_last(request.method(), request.headers());
    request.extensions_mut().insert(peer);
    let routed = router.oneshot(request.map(Body::new)).await;
    let mut response = routed.unwrap_or_else(|never| match never {});
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
