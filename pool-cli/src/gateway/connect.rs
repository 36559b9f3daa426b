//! `WS /`, `/chromium` and `/devtools/browser/{lease}`: a CDP connection is a lease.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::bridge::bridge;
use super::leasing::{Caller, not_connected, over};
use super::session::{Attached, NotConnected, Session};
use super::sessions::Known;
use super::upgrade::{Accepted, Handshake};
use super::{Gateway, LeaseEnd, LeaseId, LeaseQuery, Problem, dashboard};
use crate::pool::Wire;

/// How often another browser is taken when one dies between its hand-out and its first command.
const ATTEMPTS: usize = 3;

/// `/` and `/chromium`: takes a lease, then answers 101.
///
/// While it waits, hyper watches the connection: a client that goes away drops this future, and
/// with it the place in the queue.
pub(super) async fn lease(
    State(gateway): State<Arc<Gateway>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    if dashboard::is_wanted(&request) {
        return Ok(dashboard::page(request.headers()));
    }
    let (mut parts, _) = request.into_parts();
    if !Handshake::is_wanted(&parts.headers) {
        return Err(no_websocket());
    }
    let handshake = Handshake::read(&mut parts)?;
    let asked = LeaseQuery::parse(parts.uri.query().unwrap_or_default())?;
    let caller = Caller::new(Some(peer), &parts.headers);
    let (session, wire, attached) = connected(&gateway, &asked, &caller).await?;
    let (response, accepted) = handshake.accept(session.id);
    tokio::spawn(serve(gateway, accepted, wire, attached));
    Ok(response)
}

async fn connected(
    gateway: &Arc<Gateway>,
    asked: &LeaseQuery,
    caller: &Caller,
) -> Result<(Arc<Session>, Wire, Attached), Problem> {
    let mut attempt = 1;
    loop {
        let session = gateway.lease(asked.clone(), caller.clone(), false).await?;
        match session.connect().await {
            Ok((wire, attached)) => return Ok((session, wire, attached)),
            Err(NotConnected::Over(LeaseEnd::BrowserCrashed | LeaseEnd::BrowserHung))
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(why) => {
                session.end(LeaseEnd::Revoked);
                return Err(not_connected(&why));
            }
        }
    }
}

/// `/devtools/browser/{lease}`: one more connection to a lease that is held.
///
/// The address is a secret of 128 bits that dies with the lease, so it stands for the token here:
/// whoever was given it may use this one lease and nothing else.
pub(super) async fn reconnect(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let found = lease.parse().ok().map(|id: LeaseId| gateway.sessions.find(id));
    let Some(Known::Held(session)) = found else {
        if let Err(why) = gateway.settings().check_token(&parts.headers, &parts.uri) {
            return Err(gateway.guesses.refuse(Some(peer.ip()), why).await);
        }
        return Err(match found {
            Some(Known::Over) => over(LeaseEnd::Released),
            _ => unknown_lease(),
        });
    };
    if !Handshake::is_wanted(&parts.headers) {
        return Err(no_websocket());
    }
    let handshake = Handshake::read(&mut parts)?;
    LeaseQuery::parse(parts.uri.query().unwrap_or_default())?;
    let (wire, attached) = session.connect().await.map_err(|why| not_connected(&why))?;
    let (response, accepted) = handshake.accept(session.id);
    tokio::spawn(serve(gateway, accepted, wire, attached));
    Ok(response)
}

/// The connection, from its 101 to its end.
async fn serve(gateway: Arc<Gateway>, accepted: Accepted, wire: Wire, attached: Attached) {
    let Some(socket) = accepted.socket().await else {
        attached.detach(LeaseEnd::ClientGone);
        return;
    };
    let metrics = gateway.observer().metrics();
    metrics.connections.increment(1);
    let end = bridge(socket, wire, attached, metrics).await;
    metrics.connections.decrement(1);
    tracing::debug!(end = end.code(), "connection closed");
}

/// The answer to a plain GET.
fn no_websocket() -> Problem {
    let detail = "open a WebSocket here to lease a browser, such as with Playwright's \
                  connectOverCDP or Puppeteer's connect";
    Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_wanted", detail)
}

pub(super) fn unknown_lease() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown_lease", "there is no lease of this id")
}
