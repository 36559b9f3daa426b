//! `/browser_pools` and `/browsers`, as in Kernel: leases that are held until they are released,
//! with or without a connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::chromium::command;
use crate::gateway::connect::{Reconnect, unknown_lease};
use crate::gateway::lease::{ClientLease, Label, Root};
use crate::gateway::leases::{Known, Name};
use crate::gateway::leasing::{Caller, Claimed, NoLease, Start, over, unless_outrun};
use crate::gateway::query::word;
use crate::gateway::request::Body;
use crate::gateway::snapshot::part;
use crate::gateway::who::Who;
use crate::gateway::{Code, Gateway, LeaseEnd, LeaseQuery, Problem};

/// Maximum number of entries listed at once, and the default.
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

/// A lease in the form in which Kernel shows a browser. Missing values are `null`.
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

/// An object whose id is its name.
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
pub(in crate::gateway) struct Update {
    size: Option<usize>,
    discard_all_idle: bool,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct Release {
    session_id: String,
    /// False if the browser must not be leased again.
    #[serde(default = "yes")]
    reuse: bool,
}

fn yes() -> bool {
    true
}

/// Leases a browser. It answers 204 if the wait was over before one was free, so that clients poll
/// again, but 429 if their own tenant's limit kept them waiting: no browser that others give back
/// is for them, so they are told what they hold instead.
pub(in crate::gateway) async fn acquire(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
    caller: Caller,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Body(mut body): Body<Acquire>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    let mut asked = body.query()?;
    let ignored = ignored(&body.more, &[])?;
    let label = body.label()?;
    gateway.settings().attribute(&who, &mut asked)?;
    let only = label.name.as_deref();
    let _only = only.map(|name| gateway.leases.label(who.tenant(), name)).transpose()?;
    let session = match held(&gateway, asked, &caller).await {
        Ok(session) => session,
        Err(NoLease::TimedOut(_)) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(no @ (NoLease::Refused(_) | NoLease::Elsewhere | NoLease::Outrun)) => {
            return Err(no.into());
        }
    };
    // A held lease keeps the label that it was given first.
    let label = session.label.get_or_init(|| label);
    if let Some(address) = &label.start_url {
        open(&gateway, &session, &headers, address).await;
    }
    let browser = BrowserView::of(&gateway, &session, &headers);
    let waited_ms = session.waited.as_millis() as u64;
    Ok(Json(Acquired { browser, waited_ms, ignored }).into_response())
}

/// Sends the first page of a lease to an address, without waiting for it, since it may never load.
async fn open(
    gateway: &Arc<Gateway>,
    session: &Arc<ClientLease>,
    headers: &HeaderMap,
    address: &str,
) {
    let holder = Reconnect::of(gateway, session, headers);
    // If it is already over, its holder will learn that next.
    let Ok((wire, attached)) = session.connect(&Root::FirstPage, holder).await else { return };
    let address = json!({ "url": address });
    tokio::spawn(async move {
        if let Err(problem) = command(wire, "Page.navigate", &address).await {
            tracing::debug!("start_url: {}", problem.detail());
        }
        drop(attached);
    });
}

/// Returns the held lease with the requested name, or leases one.
async fn held(
    gateway: &Arc<Gateway>,
    mut asked: LeaseQuery,
    caller: &Caller,
) -> Result<Arc<ClientLease>, NoLease> {
    let start = Start::Unattended;
    let Some(name) = Name::of(&asked) else {
        return gateway.lease(asked, caller.clone(), start, None).await;
    };
    gateway.settings().check_keep(&asked).map_err(NoLease::Refused)?;
    loop {
        match gateway.claim(&name, &mut asked, caller).await? {
            Claimed::Held { session, .. } => {
                if let Some(keep) = asked.keep {
                    session.set_keep(keep);
                }
                return Ok(session);
            }
            Claimed::Reserved(mut reservation) => {
                let last = reservation.last;
                let leasing = gateway.lease(asked.clone(), caller.clone(), start, last);
                if let Some(session) = unless_outrun(&mut reservation, leasing).await? {
                    reservation.hold(&session);
                    return Ok(session);
                }
            }
        }
    }
}

pub(in crate::gateway) async fn release(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
    caller: Caller,
    Extension(who): Extension<Who>,
    Body(body): Body<Release>,
) -> Result<StatusCode, Problem> {
    gateway.is_pool(&pool)?;
    if let Some(detour) = &caller.detour {
        detour.leave_for(&body.session_id).await?;
    }
    let session = gateway.browser(&who, &body.session_id)?;
    if !body.reuse {
        // Retired while it is leased, so that it is closed when it comes back.
        gateway.pool().retire(session.browser);
    }
    session.end(LeaseEnd::Released);
    Ok(StatusCode::NO_CONTENT)
}

/// Closes the idle browsers; new ones are launched in their place.
pub(in crate::gateway) async fn flush(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
) -> Result<StatusCode, Problem> {
    gateway.is_pool(&pool)?;
    gateway.pool().flush_idle();
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /browser_pools`: lists the only pool.
pub(in crate::gateway) async fn pools(
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
pub(in crate::gateway) async fn pool(
    State(gateway): State<Arc<Gateway>>,
    Path(pool): Path<String>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    Ok(Json(PoolView::of(&gateway, None)).into_response())
}

/// `PATCH /browser_pools/{id_or_name}`: resizes the pool.
pub(in crate::gateway) async fn update(
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
        gateway.pool().flush_idle();
    }
    Ok(Json(PoolView::of(&gateway, Some(ignored))).into_response())
}

/// `GET /browsers`: lists the held leases.
pub(in crate::gateway) async fn browsers(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let listed = Listed::parse(&query.unwrap_or_default())?;
    let mut browsers = Vec::new();
    if listed.active {
        let all = gateway.leases.all();
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
pub(in crate::gateway) async fn browser(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let session = gateway.browser(&who, &id)?;
    Ok(Json(BrowserView::of(&gateway, &session, &headers)).into_response())
}

/// `DELETE /browsers/{id_or_name}`: ends a lease.
pub(in crate::gateway) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    gateway.browser(&who, &id)?.end(LeaseEnd::Released);
    Ok(StatusCode::NO_CONTENT)
}

/// Answers requests that Kernel supports and this pool does not.
pub(in crate::gateway) async fn not_offered() -> Problem {
    let detail = "this part of Kernel is not offered, only /browser_pools with acquire, release \
                  and flush, and /browsers; profiles are set up in the configuration";
    Problem::new(Code::NotOffered, detail)
}

impl BrowserView {
    fn of(gateway: &Gateway, session: &ClientLease, headers: &HeaderMap) -> Self {
        let settings = gateway.settings();
        let cdp_ws_url = settings.lease_url(headers, &session.public_id);
        // The same place over HTTP: ws becomes http, wss becomes https.
        let base_url = cdp_ws_url.replacen("ws", "http", 1);
        let label = session.label.get().cloned().unwrap_or_default();
        Self {
            session_id: session.public_id.clone(),
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
        let (settings, load) = (gateway.settings(), gateway.pool().load());
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

/// The requested part of a list.
#[derive(Debug)]
struct Listed {
    limit: usize,
    offset: usize,
    /// Asks for held leases only; those that are over are not listed anyway.
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
                    Problem::new(Code::BadParameter, detail)
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
                        Problem::new(Code::UnknownParameter, detail)
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

    /// Returns this part of a list, with the headers that lead to the next part.
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
    /// Returns the lease with an id, or with the name that its holder gave it, if this sender may
    /// see it.
    fn browser(&self, who: &Who, id: &str) -> Result<Arc<ClientLease>, Problem> {
        if let Some(lease) = self.settings().own_id(id) {
            return match self.leases.find(lease) {
                Known::Held(session) if who.sees(&session) => Ok(session),
                Known::Over(end) => Err(over(end)),
                Known::Held(_) | Known::Never => Err(unknown_lease()),
            };
        }
        let is_it = |session: &Arc<ClientLease>| {
            let label = session.label.get();
            who.sees(session) && label.is_some_and(|label| label.name.as_deref() == Some(id))
        };
        self.leases.all().into_iter().find(is_it).ok_or_else(unknown_lease)
    }

    fn is_pool(&self, name: &str) -> Result<(), Problem> {
        let settings = self.settings();
        // There is only one pool; a client that does not know its name may say `default`.
        if settings.pool_name == name || name == "default" {
            return Ok(());
        }
        let own = &settings.pool_name;
        let detail = format!("there is no pool with this name; the one here is {own:?}");
        Err(Problem::new(Code::UnknownPool, detail))
    }
}

/// Fields of Kernel's clients that have no meaning here: a request with them is granted, and its
/// answer lists them.
const IGNORED: [&str; 13] = [
    "chrome_policy",
    "extensions",
    "fill_rate_per_minute",
    "gpu",
    "headless",
    "invocation_id",
    "kiosk_mode",
    "persistence",
    "proxy_id",
    "refresh_on_profile_update",
    "stealth",
    "telemetry",
    "viewport",
];

/// Maximum number of tags of a browser, and maximum lengths of a key, a value and an address.
const MAX_TAGS: usize = 50;
const MAX_TAG: usize = 255;
const MAX_ADDRESS: usize = 8192;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request for a lease; the parameters of the query are accepted here too.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::gateway) struct Acquire {
    acquire_timeout_seconds: Option<f64>,
    /// Maximum silence of its clients, as in Kernel.
    timeout_seconds: Option<f64>,
    profile: Option<Profile>,
    acquire_timeout: Option<u64>,
    name: Option<String>,
    start_url: Option<String>,
    tags: BTreeMap<String, String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A name, or Kernel's form of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Profile {
    Name(String),
    Kernel { id: Option<String>, name: Option<String> },
}

/// Returns the fields of a body that have no meaning here.
///
/// # Errors
///
/// If there is a field that nobody knows.
fn ignored(more: &Map<String, Value>, known: &[&str]) -> Result<Vec<String>, Problem> {
    let unknown =
        |name: &&String| !IGNORED.contains(&name.as_str()) && !known.contains(&name.as_str());
    match more.keys().find(unknown) {
        None => Ok(more.keys().cloned().collect()),
        Some(name) => {
            let shown: String = name.chars().take(64).collect();
            Err(Problem::new(Code::BadBody, format!("unknown field {shown:?}")))
        }
    }
}

impl Acquire {
    fn label(&mut self) -> Result<Label, Problem> {
        let bad = |detail: String| Err(Problem::new(Code::BadParameter, detail));
        let name = self.name.take().map(|name| word("name", &name)).transpose()?;
        let start_url = self.start_url.take().filter(|address| !address.is_empty());
        if start_url.as_ref().is_some_and(|address| address.len() > MAX_ADDRESS) {
            return bad(format!("start_url may have at most {MAX_ADDRESS} bytes"));
        }
        let tags = std::mem::take(&mut self.tags);
        let is_long = |(tag, value): (&String, &String)| tag.len().max(value.len()) > MAX_TAG;
        if tags.len() > MAX_TAGS || tags.iter().any(is_long) {
            return bad(format!(
                "there may be at most {MAX_TAGS} tags, of at most {MAX_TAG} bytes each"
            ));
        }
        Ok(Label { name, start_url, tags })
    }

    /// Takes the request for the lease out of the body.
    fn query(&mut self) -> Result<LeaseQuery, Problem> {
        let mut asked = LeaseQuery::default();
        asked.take(&mut self.more)?;
        let profile = self.profile.take().and_then(Profile::name);
        asked.profile = profile.map(|name| word("profile", &name)).transpose()?;
        let idle = seconds("timeout_seconds", self.timeout_seconds)?;
        if idle.is_some_and(|idle| idle.is_zero()) {
            let detail = "timeout_seconds must be longer than 0";
            return Err(Problem::new(Code::BadParameter, detail));
        }
        asked.idle_timeout = asked.idle_timeout.or(idle);
        let wait_seconds = seconds("acquire_timeout_seconds", self.acquire_timeout_seconds)?;
        let wait = self.acquire_timeout.map(Duration::from_millis);
        asked.acquire_timeout = wait.map(|wait| wait.min(DAY)).or(wait_seconds);
        Ok(asked)
    }
}

impl Profile {
    fn name(self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name),
            // Here they are the same; an empty one means none in Kernel.
            Self::Kernel { id, name } => name.or(id).filter(|name| !name.is_empty()),
        }
    }
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, Problem> {
    let valid = |seconds: &f64| (0.0..=DAY.as_secs_f64()).contains(seconds);
    match value {
        None => Ok(None),
        Some(seconds) if valid(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            let detail = format!("{name} must be a number of seconds, at most a day");
            Err(Problem::new(Code::BadParameter, detail))
        }
    }
}
