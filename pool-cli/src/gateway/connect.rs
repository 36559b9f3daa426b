//! `WS /`, `/chromium`, `/devtools/browser/{lease}` and `/devtools/page/{page}`: a CDP connection
//! is a lease.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::Response;
use pool_chrome::mux::{FileUse, HolderCommands};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::address::NEW_PAGE;
use super::bridge::{Accepted, Handshake, bridge};
use super::lease::{Attached, ClientLease, NotConnected, Root};
use super::leases::{Known, Name};
use super::leasing::{
    Caller, Claimed, KEEP, NoLease, Start, at_most, not_connected, over, unless_outrun,
};
use super::who::Who;
use super::{Code, Gateway, LeaseEnd, LeaseQuery, Problem, dashboard};
use crate::api::Severity;
use crate::pool::Wire;

/// Number of browsers that are tried if one dies between its grant and its first command.
pub(super) const ATTEMPTS: usize = 3;

/// `/`, `/chromium` and [`NEW_PAGE`]: takes a lease, then answers 101.
///
/// While it waits, hyper watches the connection: when a client goes away, this future is dropped,
/// and its place in the queue with it.
pub(super) async fn lease(
    State(gateway): State<Arc<Gateway>>,
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
    let mut asked = LeaseQuery::parse(parts.uri.query().unwrap_or_default())?;
    // Only the page for people is served without it.
    let who = parts.extensions.get::<Who>().ok_or_else(no_websocket)?;
    gateway.settings().attribute(who, &mut asked)?;
    let caller = Caller::of(&parts);
    let root = if parts.uri.path() == NEW_PAGE { Root::FirstPage } else { Root::Browser };
    let entered = enter(&gateway, asked, &caller, &parts.headers, &root).await?;
    Ok(welcome(&gateway, handshake, &parts.headers, entered))
}

/// A client's place in a lease, before its 101.
struct Entered {
    session: Arc<ClientLease>,
    wire: Wire,
    attached: Attached,
    /// The end of the previous lease with its name, if the client may not know of that end yet.
    renewed: Option<LeaseEnd>,
}

/// Joins the lease with the requested name, or leases one.
async fn enter(
    gateway: &Arc<Gateway>,
    mut asked: LeaseQuery,
    caller: &Caller,
    headers: &HeaderMap,
    root: &Root,
) -> Result<Entered, Problem> {
    let Some(name) = Name::of(&asked) else {
        return Ok(connected(gateway, &asked, caller, headers, root, None).await?);
    };
    gateway.settings().check_keep(&asked)?;
    loop {
        match gateway.claim(&name, &mut asked, caller).await? {
            Claimed::Held { session, waited } => {
                match session.connect(root, Reconnect::of(gateway, &session, headers)).await {
                    Ok((wire, attached)) => {
                        if let Some(keep) = asked.keep {
                            session.set_keep(keep);
                        }
                        let renewed = session.renewed.filter(|_| waited);
                        return Ok(Entered { session, wire, attached, renewed });
                    }
                    // It has just ended: now the name is free.
                    Err(NotConnected::Over(_)) => {}
                    Err(why) => return Err(not_connected(&why)),
                }
            }
            Claimed::Reserved(mut reservation) => {
                let last = reservation.last;
                let connected = connected(gateway, &asked, caller, headers, root, last);
                if let Some(entered) = unless_outrun(&mut reservation, connected).await? {
                    reservation.hold(&entered.session);
                    return Ok(entered);
                }
            }
        }
    }
}

async fn connected(
    gateway: &Arc<Gateway>,
    asked: &LeaseQuery,
    caller: &Caller,
    headers: &HeaderMap,
    root: &Root,
    renewed: Option<LeaseEnd>,
) -> Result<Entered, NoLease> {
    let mut attempt = 1;
    loop {
        let start = Start::Connected;
        let session = gateway.lease(asked.clone(), caller.clone(), start, renewed).await?;
        let unmet = Unmet::new(&session);
        let connected = session.connect(root, Reconnect::of(gateway, &session, headers)).await;
        unmet.met();
        match connected {
            Ok((wire, attached)) => return Ok(Entered { session, wire, attached, renewed }),
            Err(NotConnected::Over(end)) if end.is_of_the_browser() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(why) => {
                session.end(LeaseEnd::Revoked);
                return Err(NoLease::Refused(not_connected(&why)));
            }
        }
    }
}

/// Ends a new lease whose client has gone before it was connected, however long it was to be kept,
/// since nobody else knows of it.
pub(super) struct Unmet<'a>(Option<&'a ClientLease>);

impl<'a> Unmet<'a> {
    pub(super) fn new(session: &'a ClientLease) -> Self {
        Self(Some(session))
    }

    pub(super) fn met(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmet<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.end(LeaseEnd::ClientGone);
        }
    }
}

/// Answers 101, with headers by which the lease can be found again, and serves the connection.
fn welcome(
    gateway: &Arc<Gateway>,
    handshake: Handshake,
    headers: &HeaderMap,
    entered: Entered,
) -> Response {
    let Entered { session, wire, attached, renewed } = entered;
    let (mut response, accepted) = handshake.accept(&session.public_id);
    let told = [
        ("lease-id", Some(session.public_id.clone())),
        ("lease-url", Some(gateway.settings().lease_url(headers, &session.public_id))),
        ("lease-renewed", renewed.map(|last| last.code().to_owned())),
    ];
    for (name, value) in told {
        // A Host that cannot be part of a header cannot be part of an address either.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    tokio::spawn(serve(Arc::clone(gateway), accepted, wire, attached));
    response
}

/// Answers browserless' commands about the lease, such as `Browserless.reconnect`, and records the
/// files that a client was not allowed to name.
pub(super) struct Reconnect {
    /// Weak, since the gateway holds the session.
    gateway: Weak<Gateway>,
    /// Weak, since the session holds the connection, which holds this.
    session: Weak<ClientLease>,
    url: String,
    limit: Duration,
}

impl Reconnect {
    pub(super) fn of(
        gateway: &Arc<Gateway>,
        session: &Arc<ClientLease>,
        headers: &HeaderMap,
    ) -> Arc<Self> {
        let settings = gateway.settings();
        let url = settings.lease_url(headers, &session.public_id);
        Arc::new(Self {
            gateway: Arc::downgrade(gateway),
            session: Arc::downgrade(session),
            url,
            limit: settings.keep_limit,
        })
    }

    fn reconnect(&self, params: &Map<String, Value>) -> Result<Value, String> {
        let keep = match params.get("timeout") {
            None => KEEP.min(self.limit),
            Some(timeout) => {
                let wrong = || "timeout must be a number of milliseconds".to_owned();
                timeout.as_u64().map(Duration::from_millis).ok_or_else(wrong)?
            }
        };
        at_most("timeout", keep, "keep_limit", self.limit)?;
        let session = self.session.upgrade().ok_or("the lease is over")?;
        session.set_keep(keep);
        Ok(json!({ "browserWSEndpoint": self.url }))
    }
}

impl HolderCommands for Reconnect {
    fn call(&self, method: &str, params: &Map<String, Value>) -> Option<Result<Value, String>> {
        (method == "Browserless.reconnect").then(|| self.reconnect(params))
    }

    fn file_refused(&self, file: FileUse, path: &str) {
        let (Some(gateway), Some(session)) = (self.gateway.upgrade(), self.session.upgrade())
        else {
            return;
        };
        let (event, what) = match file {
            FileUse::Upload => ("upload_refused", "the file was not given to the page"),
            FileUse::Download => ("download_canceled", "the download was canceled"),
        };
        let lease = session.id.short();
        let why = "shared leases may name files in `[chrome] directories` only";
        warn!(lease, path, "{what}: {why}");
        let reason = format!("lease {lease}: {path:?}: {what}: {why}");
        gateway.observer().journal().note(event, Severity::Warning, reason);
    }
}

/// Shown without the address, which is a secret.
impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").finish_non_exhaustive()
    }
}

/// `/devtools/browser/{lease}`: opens one more connection to a held lease.
///
/// The address is a secret of 128 bits that expires with the lease, so it replaces the token here:
/// whoever was given it may use this one lease and nothing else.
pub(super) async fn reconnect(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let session = gateway.held(&lease, peer, &parts.headers, &parts.uri).await?;
    join(&gateway, parts, session, &Root::Browser).await
}

/// `/devtools/page/{page}`: opens a connection to a page of a held lease.
///
/// Like that of a lease, its address is a secret that expires with the page and that only the
/// clients of its lease receive.
pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    Path(page): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let Some(session) = gateway.leases.with_page(&page) else {
        if let Some(detour) = Caller::of(&parts).detour
            && detour.find_page().await
        {
            return Err(NoLease::Elsewhere.into());
        }
        gateway.authorize(peer, &parts.headers, &parts.uri).await?;
        return Err(not_connected(&NotConnected::NoPage));
    };
    join(&gateway, parts, session, &Root::Page(page)).await
}

/// Opens one more connection to a held lease.
async fn join(
    gateway: &Arc<Gateway>,
    mut parts: Parts,
    session: Arc<ClientLease>,
    root: &Root,
) -> Result<Response, Problem> {
    if !Handshake::is_wanted(&parts.headers) {
        return Err(no_websocket());
    }
    let handshake = Handshake::read(&mut parts)?;
    LeaseQuery::parse(parts.uri.query().unwrap_or_default())?;
    let connected = session.connect(root, Reconnect::of(gateway, &session, &parts.headers)).await;
    let (wire, attached) = connected.map_err(|why| not_connected(&why))?;
    let entered = Entered { session, wire, attached, renewed: None };
    Ok(welcome(gateway, handshake, &parts.headers, entered))
}

impl Gateway {
    /// Returns the lease of an address, which replaces the token.
    ///
    /// # Errors
    ///
    /// If it is not held; a sender without a token does not learn whether it ever was.
    pub(super) async fn held(
        &self,
        lease: &str,
        peer: SocketAddr,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Arc<ClientLease>, Problem> {
        let found = self.settings().own_id(lease).map(|id| self.leases.find(id));
        if let Some(Known::Held(session)) = found {
            return Ok(session);
        }
        self.authorize(peer, headers, uri).await?;
        Err(match found {
            Some(Known::Over(end)) => over(end),
            Some(Known::Held(_) | Known::Never) | None => unknown_lease(),
        })
    }

    /// Refuses a request without the right token, if there is one.
    pub(super) async fn authorize(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<(), Problem> {
        match self.settings().check_token(headers, uri) {
            Ok(_) => Ok(()),
            Err(why) => Err(self.guesses.refuse(Some(peer.ip()), why).await),
        }
    }
}

/// Serves the connection, from its 101 to its end.
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

/// Returns the answer to a plain GET.
fn no_websocket() -> Problem {
    let detail = "open a WebSocket here to lease a browser, such as with Playwright's \
                  connectOverCDP or Puppeteer's connect";
    Problem::new(Code::WebsocketWanted, detail)
}

pub(super) fn unknown_lease() -> Problem {
    Problem::new(Code::UnknownLease, "there is no lease with this id")
}
