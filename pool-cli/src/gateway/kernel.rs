//! `/browser_pools` and `/browsers`, as Kernel has them: leases that are held until they are
//! released, with or without a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::acquire::{Acquire, ignored};
use super::body::Body;
use super::connect::{Reconnect, unknown_lease};
use super::leasing::{Caller, Claimed, NoLease, Start, over};
use super::pages::command;
use super::session::{Root, Session};
use super::sessions::{Known, Name};
use super::views::part;
use super::who::Who;
use super::{Gateway, LeaseEnd, LeaseId, LeaseQuery, Problem};

/// The most that is listed at once, and what is if nothing is said.
const MAX_LISTED: usize = 100;
const LISTED: usize = 20;

#[derive(Debug, Serialize)]
struct Acquired {
    #[serde(flatten)]
    browser: BrowserView,
    /// Milliseconds that the request has waited.
    waited_ms: u64,
    /// Fields of the request that have no meaning here.
    ignored: Vec<String>,
}

/// A lease as Kernel shows a browser. `null` is what there is not.
#[derive(Debug, Serialize)]
struct BrowserView {
    session_id: String,
    cdp_ws_url: String,
    webdriver_ws_url: Option<String>,
    base_url: String,
    browser_live_view_url: Option<String>,
    created_at: String,
    headless: bool,
    stealth: bool,
    /// Maximum silence of its clients.
    timeout_seconds: Option<u64>,
    pool: Named,
    profile: Option<Named>,
    name: Option<String>,
    start_url: Option<String>,
    tags: BTreeMap<String, String>,
}

/// A thing whose id is its name.
#[derive(Debug, Serialize)]
struct Named {
    id: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct PoolView {
    #[serde(flatten)]
    pool: Named,
    acquired_count: usize,
    available_count: usize,
    created_at: String,
    extension_ids: [String; 0],
    browser_pool_config: PoolConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct PoolConfig {
    name: String,
    size: usize,
    headless: bool,
    stealth: bool,
    timeout_seconds: Option<u64>,
}

/// A change of the pool.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Update {
    size: Option<usize>,
    discard_all_idle: bool,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    session_id: String,
    /// Whether the browser may be leased again.
    #[serde(default = "yes")]
    reuse: bool,
}

fn yes() -> bool {
    true
}

/// 204 when the wait was over before there was a browser, so that clients poll again.
pub(super) async fn acquire(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Body(mut body): Body<Acquire>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    let ignored = ignored(&body.more, &[])?;
    let label = body.label()?;
    let mut asked = body.into_query()?;
    gateway.settings().attribute(&who, &mut asked)?;
    let caller = Caller::new(Some(peer), &headers);
    let only = label.name.as_deref();
    let _only = only.map(|name| gateway.sessions.label(who.tenant(), name)).transpose()?;
    let session = match held(&gateway, asked, &caller).await {
        Ok(session) => session,
        Err(NoLease::TimedOut(_)) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(NoLease::Refused(problem)) => return Err(problem),
    };
    // One that was held keeps what it was given first.
    let label = session.label.get_or_init(|| label);
    if let Some(address) = &label.start_url {
        open(&gateway, &session, &headers, address).await;
    }
    let browser = BrowserView::of(&gateway, &session, &headers);
    let waited_ms = session.waited.as_millis() as u64;
    Ok(Json(Acquired { browser, waited_ms, ignored }).into_response())
}

/// Sends the first page of a lease to an address, without waiting for it: it may never load.
async fn open(gateway: &Arc<Gateway>, session: &Arc<Session>, headers: &HeaderMap, address: &str) {
    let holder = Reconnect::of(gateway, session, headers);
    // One that is over already is what its holder learns next.
    let Ok((wire, attached)) = session.connect(&Root::FirstPage, holder).await else { return };
    let address = json!({ "url": address });
    tokio::spawn(async move {
        if let Err(problem) = command(wire, "Page.navigate", &address).await {
            tracing::debug!("start_url: {}", problem.detail());
        }
        drop(attached);
    });
}

/// Returns the lease of the name that is asked for, or leases one.
async fn held(
    gateway: &Arc<Gateway>,
    mut asked: LeaseQuery,
    caller: &Caller,
) -> Result<Arc<Session>, NoLease> {
    let start = Start::Unattended;
    let Some(name) = Name::of(&asked) else {
        return gateway.lease(asked, caller.clone(), start, None).await;
    };
    gateway.settings().check_keep(&asked).map_err(NoLease::Refused)?;
    match gateway.claim(&name, &mut asked).await? {
        Claimed::Held { session, .. } => {
            if let Some(keep) = asked.keep {
                session.set_keep(keep);
            }
            Ok(session)
        }
        Claimed::Reserved(reservation) => {
            let last = reservation.last;
            let session = gateway.lease(asked, caller.clone(), start, last).await?;
            reservation.hold(&session);
            Ok(session)
        }
    }
}

pub(super) async fn release(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
    Extension(who): Extension<Who>,
    Body(body): Body<Release>,
) -> Result<StatusCode, Problem> {
    gateway.is_pool(&pool)?;
    let session = gateway.browser(&who, &body.session_id)?;
    if !body.reuse {
        // Told while it is leased: it goes when it comes back.
        gateway.fleet().retire(session.browser);
    }
    session.end(LeaseEnd::Released);
    Ok(StatusCode::NO_CONTENT)
}

/// Closes the idle browsers; new ones are launched in their place.
pub(super) async fn flush(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
) -> Result<StatusCode, Problem> {
    gateway.is_pool(&pool)?;
    gateway.fleet().flush_idle();
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /browser_pools`: the one that there is.
pub(super) async fn pools(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let listed = Listed::parse(&query.unwrap_or_default())?;
    let pool = PoolView::of(&gateway, None);
    let named = |wanted: &str| wanted.eq_ignore_ascii_case(&pool.pool.name);
    let is_it = listed.name.as_deref().is_none_or(named)
        && listed.query.as_deref().is_none_or(|text| holds(&pool.pool.name, text));
    Ok(listed.page(is_it.then_some(pool).into_iter().collect()))
}

/// `GET /browser_pools/{id_or_name}`.
pub(super) async fn pool(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    Ok(Json(PoolView::of(&gateway, None)).into_response())
}

/// `PATCH /browser_pools/{id_or_name}`: resizes the pool.
pub(super) async fn update(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
    Body(body): Body<Update>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    let ignored = ignored(&body.more, &["name", "profile", "start_url", "timeout_seconds"])?;
    if let Some(size) = body.size {
        let min = gateway.min_size().min(size);
        gateway.resize(Some(min), Some(size))?;
    }
    if body.discard_all_idle {
        gateway.fleet().flush_idle();
    }
    Ok(Json(PoolView::of(&gateway, Some(ignored))).into_response())
}

/// `GET /browsers`: the leases that are held.
pub(super) async fn browsers(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let listed = Listed::parse(&query.unwrap_or_default())?;
    let mut browsers = Vec::new();
    if listed.active {
        let all = gateway.sessions.all();
        for session in all.iter().filter(|session| who.sees(session)) {
            let browser = BrowserView::of(&gateway, session, &headers);
            if listed.suits(&browser) {
                browsers.push(browser);
            }
        }
    }
    Ok(listed.page(browsers))
}

/// `GET /browsers/{id_or_name}`.
pub(super) async fn browser(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let session = gateway.browser(&who, &id)?;
    Ok(Json(BrowserView::of(&gateway, &session, &headers)).into_response())
}

/// `DELETE /browsers/{id_or_name}`: ends a lease.
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    gateway.browser(&who, &id)?.end(LeaseEnd::Released);
    Ok(StatusCode::NO_CONTENT)
}

/// Answers what Kernel has and this pool has not.
pub(super) async fn not_offered() -> Problem {
    let detail = "this part of Kernel is not offered: there are /browser_pools with acquire, \
                  release and flush, and /browsers; profiles are set up in the configuration";
    Problem::new(StatusCode::NOT_FOUND, "not_offered", detail)
}

impl BrowserView {
    fn of(gateway: &Gateway, session: &Session, headers: &HeaderMap) -> Self {
        let settings = gateway.settings();
        let cdp_ws_url = settings.lease_url(headers, session.id);
        // The same place by HTTP: ws for http, wss for https.
        let base_url = cdp_ws_url.replacen("ws", "http", 1);
        let label = session.label.get().cloned().unwrap_or_default();
        Self {
            session_id: session.id.to_string(),
            cdp_ws_url,
            webdriver_ws_url: None,
            base_url,
            browser_live_view_url: None,
            created_at: rfc3339(session.began_at),
            headless: settings.headless,
            stealth: false,
            timeout_seconds: session.idle_limit.map(|limit| limit.as_secs()),
            pool: Named::of(&settings.pool_name),
            profile: part(&session.class, "profile").as_deref().map(Named::of),
            name: label.name.or_else(|| session.asked.session.clone()),
            start_url: label.start_url,
            tags: label.tags,
        }
    }
}

impl Named {
    fn of(name: &str) -> Self {
        Self { id: name.to_owned(), name: name.to_owned() }
    }
}

impl PoolView {
    fn of(gateway: &Gateway, ignored: Option<Vec<String>>) -> Self {
        let (settings, load) = (gateway.settings(), gateway.fleet().load());
        let began = SystemTime::now().checked_sub(gateway.started.elapsed());
        Self {
            pool: Named::of(&settings.pool_name),
            acquired_count: load.leased,
            available_count: load.idle,
            created_at: rfc3339(began.unwrap_or(SystemTime::UNIX_EPOCH)),
            extension_ids: [],
            browser_pool_config: PoolConfig {
                name: settings.pool_name.clone(),
                size: load.max_size,
                headless: settings.headless,
                stealth: false,
                timeout_seconds: settings.lease_idle_timeout.map(|limit| limit.as_secs()),
            },
            ignored,
        }
    }
}

/// The part of a list that is asked for.
#[derive(Debug)]
struct Listed {
    limit: usize,
    offset: usize,
    /// Asks for leases that are held; those that are over are not listed.
    active: bool,
    name: Option<String>,
    query: Option<String>,
    tags: Vec<(String, String)>,
}

impl Listed {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut listed = Self {
            limit: LISTED,
            offset: 0,
            active: true,
            name: None,
            query: None,
            tags: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || {
                value.parse::<usize>().map_err(|_| {
                    let detail = format!("the parameter {name:?} must be a number");
                    Problem::bad_request("bad_parameter", detail)
                })
            };
            match &*name {
                "limit" => listed.limit = number()?.clamp(1, MAX_LISTED),
                "offset" => listed.offset = number()?,
                "name" => listed.name = Some(value.into_owned()),
                "query" => listed.query = Some(value.into_owned()),
                "status" => listed.active = value != "deleted",
                "include_deleted" | "token" => {}
                _ => {
                    let tag = name.strip_prefix("tags[").and_then(|tag| tag.strip_suffix(']'));
                    let tag = tag.ok_or_else(|| {
                        let shown: String = name.chars().take(64).collect();
                        let detail = format!("unknown parameter {shown:?}");
                        Problem::bad_request("unknown_parameter", detail)
                    })?;
                    listed.tags.push((tag.to_owned(), value.into_owned()));
                }
            }
        }
        Ok(listed)
    }

    fn suits(&self, browser: &BrowserView) -> bool {
        let profile = browser.profile.as_ref().map(|profile| &profile.name);
        let texts = [Some(&browser.session_id), Some(&browser.pool.name), profile];
        let is_told = |text: &str| {
            texts.into_iter().chain([browser.name.as_ref()]).flatten().any(|own| holds(own, text))
        };
        self.query.as_deref().is_none_or(is_told)
            && self.name.as_ref().is_none_or(|name| browser.name.as_ref() == Some(name))
            && self.tags.iter().all(|(tag, value)| browser.tags.get(tag) == Some(value))
    }

    /// Returns this part of a list, with the headers that lead to the next one.
    fn page<T: Serialize>(&self, all: Vec<T>) -> Response {
        let (count, end) = (all.len(), self.offset.saturating_add(self.limit));
        let part: Vec<T> = all.into_iter().skip(self.offset).take(self.limit).collect();
        let mut response = Json(part).into_response();
        let next = if end < count { end } else { 0 };
        let more = HeaderValue::from_static(if next > 0 { "true" } else { "false" });
        response.headers_mut().insert(HeaderName::from_static("x-has-more"), more);
        response.headers_mut().insert(HeaderName::from_static("x-next-offset"), next.into());
        response
    }
}

fn holds(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

impl Gateway {
    /// Returns the lease of an id, or of the name that its holder gave it, to who may see it.
    fn browser(&self, who: &Who, id: &str) -> Result<Arc<Session>, Problem> {
        if let Ok(lease) = id.parse::<LeaseId>() {
            return match self.sessions.find(lease) {
                Known::Held(session) if who.sees(&session) => Ok(session),
                Known::Over(end) => Err(over(end)),
                Known::Held(_) | Known::Never => Err(unknown_lease()),
            };
        }
        let is_it = |session: &Arc<Session>| {
            let label = session.label.get();
            who.sees(session) && label.is_some_and(|label| label.name.as_deref() == Some(id))
        };
        self.sessions.all().into_iter().find(is_it).ok_or_else(unknown_lease)
    }

    fn is_pool(&self, name: &str) -> Result<(), Problem> {
        let settings = self.settings();
        // There is one pool; a client that does not know its name may say `default`.
        if settings.pool_name == name || name == "default" {
            return Ok(());
        }
        let own = &settings.pool_name;
        let detail = format!("there is no pool of this name; the one here is {own:?}");
        Err(Problem::new(StatusCode::NOT_FOUND, "unknown_pool", detail))
    }
}
