//! `/json/…`, as in Chromium: how clients that are given `http://` find the WebSocket, and the
//! pages behind it.
//!
//! Without a lease there is one page, which is leased when its socket is opened. The pages of a
//! lease are listed below its address, and with `?session=`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::gateway::address::{NEW_PAGE, lease_path, split_address};
use crate::gateway::connect::Reconnect;
use crate::gateway::lease::{ClientLease, NotConnected, Root};
use crate::gateway::leases::Name;
use crate::gateway::leasing::{Caller, NoLease, not_connected, over};
use crate::gateway::problem::refusal;
use crate::gateway::who::Who;
use crate::gateway::{Code, Gateway, LeaseEnd, LeaseQuery, Problem};
use crate::pool::{OpenPage, Version, Wire};

/// Maximum time of one command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Number of bytes of a browser's messages that are taken at once.
const BATCH: usize = 64 * 1024;

/// A page as Chromium lists it.
#[derive(Debug, Serialize)]
pub(in crate::gateway) struct Entry {
    description: &'static str,
    id: String,
    title: String,
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    #[serde(rename = "webSocketDebuggerUrl")]
    socket: String,
}

/// A request about the pages of a lease, with everything that its answer needs.
struct Asked<'a> {
    gateway: &'a Arc<Gateway>,
    headers: &'a HeaderMap,
    query: &'a str,
}

/// `/json/list`: the pages of the named session, or else the one page that leases.
pub(in crate::gateway) async fn list(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Vec<Entry>>, Problem> {
    let query = query.unwrap_or_default();
    let asked = Asked { gateway: &gateway, headers: &headers, query: &query };
    Ok(Json(match asked.session(&who, &caller).await? {
        Some(session) => asked.entries(&session).await,
        None => {
            let (id, url) = ("new".to_owned(), "about:blank".to_owned());
            let page = OpenPage { id, title: String::new(), url };
            vec![asked.entry(page, NEW_PAGE)]
        }
    }))
}

/// `/devtools/browser/{lease}/json/list`: the pages of a held lease.
pub(in crate::gateway) async fn list_of_lease(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Vec<Entry>>, Problem> {
    let query = uri.query().unwrap_or_default();
    let session = gateway.held(&lease, peer, &headers, &uri).await?;
    LeaseQuery::parse(query)?;
    Ok(Json(Asked { gateway: &gateway, headers: &headers, query }.entries(&session).await))
}

/// `PUT /json/new?session=NAME&ADDRESS`: opens a page in a held session.
pub(in crate::gateway) async fn new(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Entry>, Problem> {
    let query = query.unwrap_or_default();
    let (query, address) = split_address(&query);
    let asked = Asked { gateway: &gateway, headers: &headers, query };
    let session = asked.session(&who, &caller).await?.ok_or_else(no_lease)?;
    asked.open(&session, &address).await.map(Json)
}

/// `PUT /devtools/browser/{lease}/json/new?ADDRESS`: opens a page in a held lease.
pub(in crate::gateway) async fn new_in_lease(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Entry>, Problem> {
    let (query, address) = split_address(uri.query().unwrap_or_default());
    let session = gateway.held(&lease, peer, &headers, &uri).await?;
    LeaseQuery::parse(query)?;
    Asked { gateway: &gateway, headers: &headers, query }.open(&session, &address).await.map(Json)
}

/// `PUT /json/activate/{page}` and `PUT /json/close/{page}`.
pub(in crate::gateway) async fn change(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Extension(change): Extension<Change>,
    Extension(who): Extension<Who>,
    Path(page): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<&'static str, Problem> {
    let query = query.unwrap_or_default();
    let asked = Asked { gateway: &gateway, headers: &headers, query: &query };
    let holder = asked.holder(&who, &caller, &page).await?;
    asked.change(&holder, &page, change).await
}

/// The same, below the address of a lease: `/devtools/browser/{lease}`.
pub(in crate::gateway) async fn change_in_lease(
    State(gateway): State<Arc<Gateway>>,
    Extension(change): Extension<Change>,
    Path((lease, page)): Path<(String, String)>,
    Extension(peer): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<&'static str, Problem> {
    let session = gateway.held(&lease, peer, &headers, &uri).await?;
    let asked = Asked { gateway: &gateway, headers: &headers, query: "" };
    asked.change(&session, &page, change).await
}

/// A command about a page.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Change {
    method: &'static str,
    /// The text with which Chromium's HTTP server confirms it.
    done: &'static str,
}

impl Change {
    /// Brings a page to the front.
    pub(in crate::gateway) const ACTIVATE: Self =
        Self { method: "Target.activateTarget", done: "Target activated" };
    pub(in crate::gateway) const CLOSE: Self =
        Self { method: "Target.closeTarget", done: "Target is closing" };
}

impl Asked<'_> {
    /// Returns the lease that the query names, if it is held.
    async fn session(
        &self,
        who: &Who,
        caller: &Caller,
    ) -> Result<Option<Arc<ClientLease>>, Problem> {
        let asked = self.parse(who)?;
        match Name::of(&asked) {
            Some(name) => {
                self.gateway.find_elsewhere(&name, &asked, caller).await?;
                self.gateway.leases.named(&name, &asked)
            }
            None => Ok(None),
        }
    }

    /// Returns the lease that the query names, or else the one that has this page.
    async fn holder(
        &self,
        who: &Who,
        caller: &Caller,
        page: &str,
    ) -> Result<Arc<ClientLease>, Problem> {
        let held = match self.session(who, caller).await? {
            Some(session) => Some(session),
            None if Name::of(&self.parse(who)?).is_some() => None,
            None => {
                let session = self.gateway.leases.with_page(page);
                session.filter(|session| who.sees(session))
            }
        };
        match (held, &caller.detour) {
            (Some(session), _) => Ok(session),
            (None, Some(detour)) if detour.find_page().await => Err(NoLease::Elsewhere.into()),
            (None, _) => Err(not_connected(&NotConnected::NoPage)),
        }
    }

    fn parse(&self, who: &Who) -> Result<LeaseQuery, Problem> {
        let mut asked = LeaseQuery::parse(self.query)?;
        self.gateway.settings().attribute(who, &mut asked)?;
        Ok(asked)
    }

    async fn entries(&self, session: &ClientLease) -> Vec<Entry> {
        let entry = |page: OpenPage| {
            let path = format!("/devtools/page/{}", page.id);
            self.entry(page, &path)
        };
        session.pages().await.into_iter().map(entry).collect()
    }

    fn entry(&self, page: OpenPage, path: &str) -> Entry {
        let OpenPage { id, title, url } = page;
        let socket = self.gateway.settings().websocket_url(self.headers, path, self.query);
        Entry { description: "", id, title, kind: "page", url, socket }
    }

    /// Opens a page, in the lease's default context.
    async fn open(&self, session: &Arc<ClientLease>, address: &str) -> Result<Entry, Problem> {
        let address = if address.is_empty() { "about:blank" } else { address };
        let params = json!({ "url": address });
        let made = self.command(session, "Target.createTarget", &params).await?;
        let id = made["targetId"].as_str().unwrap_or_default();
        let page = session.pages().await.into_iter().find(|page| page.id == id);
        let page = page.unwrap_or_else(|| OpenPage {
            id: id.to_owned(),
            title: String::new(),
            url: address.to_owned(),
        });
        let path = format!("/devtools/page/{id}");
        Ok(self.entry(page, &path))
    }

    /// Sends a command about a page of this lease.
    async fn change(
        &self,
        session: &Arc<ClientLease>,
        page: &str,
        change: Change,
    ) -> Result<&'static str, Problem> {
        if !session.has_page(page) {
            return Err(not_connected(&NotConnected::NoPage));
        }
        self.command(session, change.method, &json!({ "targetId": page })).await?;
        Ok(change.done)
    }

    /// Sends one command on a connection of its own, which is judged like a client's.
    async fn command(
        &self,
        session: &Arc<ClientLease>,
        method: &str,
        params: &Value,
    ) -> Result<Value, Problem> {
        let holder = Reconnect::of(self.gateway, session, self.headers);
        let connected = session.connect(&Root::Browser, holder).await;
        // Dropped at the end, since the lease lives as long as any of its connections.
        let (wire, _attached) = connected.map_err(|why| not_connected(&why))?;
        command(wire, method, params).await
    }
}

/// Sends the only command of a connection and returns its result.
pub(in crate::gateway) async fn command(
    wire: Wire,
    method: &str,
    params: &Value,
) -> Result<Value, Problem> {
    let command = json!({ "id": 1, "method": method, "params": params }).to_string();
    let Ok(answered) = timeout(PATIENCE, answer(wire, command.into())).await else {
        let detail = "the browser did not answer in time";
        return Err(Problem::new(Code::NoAnswer, detail));
    };
    let mut answered = answered.map_err(over)?;
    match answered["error"]["message"].as_str() {
        Some(refused) => Err(Problem::new(Code::Refused, refused)),
        None => Ok(answered["result"].take()),
    }
}

/// Sends the only command of a connection and returns its answer.
async fn answer(wire: Wire, command: Utf8Bytes) -> Result<Value, LeaseEnd> {
    let Wire { mut commands, mut events } = wire;
    commands.send(command).await?;
    let mut batch = Vec::new();
    loop {
        let taken = events.next(BATCH, &mut batch).await?;
        events.taken(taken);
        let messages = batch.drain(..).filter_map(|text| serde_json::from_str(&text).ok());
        if let Some(answer) = messages.into_iter().find(|it: &Value| it["id"] == 1) {
            return Ok(answer);
        }
    }
}

fn no_lease() -> Problem {
    let detail = "a page can only be opened in a held lease: add ?session= with its name, or use \
                  the route below its address, /devtools/browser/<lease>/json/new; a lease begins \
                  when a WebSocket is opened";
    Problem::new(Code::NoLease, detail)
}

/// `GET /json/protocol`: the protocol as Chromium describes it.
pub(in crate::gateway) async fn protocol() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], pool_chrome::protocol::JSON)
}

/// `GET /openapi.json`: the routes, described.
pub(in crate::gateway) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../../openapi.json"))
}

#[derive(Serialize)]
pub(in crate::gateway) struct Discovery {
    #[serde(flatten)]
    version: Version,
    #[serde(rename = "webSocketDebuggerUrl")]
    url: String,
}

/// Returns the version. It takes no lease: a client that only looks must not keep a browser from
/// others.
pub(in crate::gateway) async fn version(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    Extension(who): Extension<Who>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Discovery>, Problem> {
    let query = uri.query().unwrap_or_default();
    // Mistakes are reported here, where the client still shows the answer.
    let mut asked = LeaseQuery::parse(query)?;
    let settings = gateway.settings();
    settings.attribute(&who, &mut asked)?;
    let version = match gateway.pool().version() {
        Some(version) => version,
        None => {
            if let Some(detour) = caller.detour.filter(|_| gateway.pool().load().max_size == 0) {
                return Err(detour.anywhere().await);
            }
            // No browser has been launched yet: one is launched into the pool, so that it can be
            // asked.
            let wait = asked.acquire_timeout.unwrap_or(settings.acquire_timeout);
            let request = asked.request().timeout(wait);
            let leased = gateway
                .pool()
                .acquire(request)
                .await
                .map_err(|error| refusal(&error, gateway.history.release_rate()))?;
            drop(leased);
            gateway.pool().version().ok_or_else(no_version)?
        }
    };
    Ok(Json(Discovery { version, url: settings.websocket_url(&headers, "/", query) }))
}

/// `GET /devtools/browser/{lease}/json/version`: the address of a held lease.
pub(in crate::gateway) async fn version_of_lease(
    State(gateway): State<Arc<Gateway>>,
    Path(lease): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Discovery>, Problem> {
    let query = uri.query().unwrap_or_default();
    let session = gateway.held(&lease, peer, &headers, &uri).await?;
    LeaseQuery::parse(query)?;
    let version = gateway.pool().version().ok_or_else(no_version)?;
    let path = lease_path(&session.public_id);
    Ok(Json(Discovery { version, url: gateway.settings().websocket_url(&headers, &path, query) }))
}

fn no_version() -> Problem {
    Problem::new(Code::BrowserUnavailable, "no browser has reported its version yet")
}
