//! `/api/…`: the data for the dashboard and for the commands `status`, `top`, `resize`, `drain` and
//! the like.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded;

use super::lease::ClientLease;
use super::request::Body;
use super::usage::{HOUR, HOURS, Used, hour_now, hour_of, time_of};
use super::who::Who;
use super::{Code, Gateway, Problem};
use crate::api::{Flushed, Page, Point, Reloaded, Resize, Resized, State as PoolState};
use crate::config::MOST_BROWSERS;
use crate::exit::chain;
use crate::pool::{Leased, OpenPage};

/// Maximum time for drawing a page for the live view.
const SCREENSHOT: Duration = Duration::from_secs(5);

/// `GET /api/state`.
pub(super) async fn state(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
) -> Json<PoolState> {
    gateway.see_fleet().await;
    Json(gateway.snapshot(&who))
}

/// `GET /api/history`: the last hour, second by second.
pub(super) async fn history(State(gateway): State<Arc<Gateway>>) -> Json<Vec<Point>> {
    Json(gateway.history.last(3600))
}

/// `GET /api/stream`: the state once a second, as server-sent events.
pub(super) async fn stream(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    gateway.see_fleet().await;
    let first = text(&gateway, &who);
    let watcher = gateway.watchers.join();
    // It holds no handle to the gateway: a dashboard that stays open must not keep it alive.
    let gateway = Arc::downgrade(&gateway);
    let begin = (Some(first), watcher, gateway, who);
    let events = stream::unfold(begin, |(first, mut watcher, gateway, who)| async move {
        let text = match first {
            Some(first) => first,
            None => {
                watcher.changed().await.ok()?;
                let for_all = watcher.borrow_and_update().to_string();
                match who {
                    Who::Operator => for_all,
                    // A tenant must not see what others see.
                    Who::Tenant(_) => text(&*gateway.upgrade()?, &who),
                }
            }
        };
        Some((Ok(Event::default().data(text)), (None, watcher, gateway, who)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn text(gateway: &Gateway, who: &Who) -> String {
    serde_json::to_string(&gateway.snapshot(who)).expect("a snapshot is plain data")
}

/// `GET /api/browsers/{id}/page`: the page that a leased browser shows; `null` for none.
pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Option<Page>>, Problem> {
    let (_, leased) = gateway.leased(&who, &id)?;
    Ok(Json(leased.browser().pages().await.pop().map(shown)))
}

/// Number of characters of a title or an address that are shown: a `data:` URL may have millions.
const LETTERS: usize = 2048;

fn shown(page: OpenPage) -> Page {
    let cut = |text: String| text.chars().take(LETTERS).collect();
    Page { title: cut(page.title), url: cut(page.url) }
}

/// `GET /api/browsers/{id}/screenshot`: the picture of a leased browser, as a PNG.
pub(super) async fn screenshot(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (session, leased) = gateway.leased(&who, &id)?;
    let unavailable = |detail: String| {
        Problem::new(Code::NoScreenshot, detail).retry_after(Duration::from_secs(1))
    };
    let drawn = tokio::select! {
        drawn = timeout(SCREENSHOT, leased.browser().screenshot()) => drawn,
        _ = session.ended() => return Err(unavailable("the lease is over".to_owned())),
    };
    match drawn {
        Ok(Ok(png)) => {
            let headers =
                [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
            Ok((headers, png).into_response())
        }
        Ok(Err(error)) => Err(unavailable(chain(&*error))),
        Err(_) => Err(unavailable("the page was not drawn in time".to_owned())),
    }
}

/// `POST /api/browsers/{id}/retire`: closes a browser; if it is leased, when it comes back.
pub(super) async fn retire(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if gateway.pool().retire(number(&id)?) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

impl Gateway {
    /// Returns the lease of a browser, for those who may look at what its client does.
    fn leased(&self, who: &Who, id: &str) -> Result<(Arc<ClientLease>, Arc<dyn Leased>), Problem> {
        let id = number(id)?;
        let session = self
            .leases
            .all()
            .into_iter()
            .find(|session| session.browser == id && who.sees(session));
        let held = session.and_then(|session| session.leased().map(|leased| (session, leased)));
        held.ok_or_else(|| {
            let detail = "only a browser that a client has leased can be shown";
            Problem::new(Code::NotLeased, detail)
        })
    }
}

/// Reads the number of a browser; anything that is not a number names no browser.
fn number(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_| unknown())
}

fn unknown() -> Problem {
    let detail = "there is no browser with this number";
    Problem::new(Code::UnknownBrowser, detail)
}

/// `POST /api/resize`: values that are left out stay as they are.
pub(super) async fn resize(
    State(gateway): State<Arc<Gateway>>,
    Body(body): Body<Resize>,
) -> Result<Json<Resized>, Problem> {
    let (min_size, max_size) = gateway.resize(body.min_size, body.max_size)?;
    Ok(Json(Resized { min_size, max_size }))
}

impl Gateway {
    /// Changes the size of the pool and returns it; values that are left out stay as they are.
    pub(super) fn resize(
        &self,
        min_size: Option<usize>,
        max_size: Option<usize>,
    ) -> Result<(usize, usize), Problem> {
        let min_size = min_size.unwrap_or_else(|| self.min_size());
        let max_size = max_size.unwrap_or_else(|| self.pool().load().max_size);
        if !(1..=MOST_BROWSERS).contains(&max_size) || min_size > MOST_BROWSERS {
            let detail = format!("a pool has 1 to {MOST_BROWSERS} browsers");
            return Err(Problem::new(Code::BadSize, detail));
        }
        if self.pool().load().max_size == 0 {
            let detail =
                "this node was started without browsers: set [pool] max_size and restart it";
            return Err(Problem::new(Code::BadSize, detail));
        }
        self.pool()
            .resize(min_size, max_size)
            .map_err(|error| Problem::new(Code::BadSize, error.to_string()))?;
        Ok((min_size, max_size))
    }

    /// Returns the minimum number of browsers without a profile or region.
    pub(super) fn min_size(&self) -> usize {
        let classes = self.pool().stats().classes;
        classes.iter().find(|class| class.class.is_default()).map_or(0, |class| class.min)
    }
}

/// `POST /api/flush`: closes the idle browsers; the minimum is launched anew.
pub(super) async fn flush(State(gateway): State<Arc<Gateway>>) -> Json<Flushed> {
    Json(Flushed { closed: gateway.pool().flush_idle() })
}

/// `POST /api/drain`: as SIGTERM.
pub(super) async fn drain(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    gateway.ask_drain();
    StatusCode::ACCEPTED
}

/// `POST /api/reload`: as SIGHUP, and returns the outcome.
pub(super) async fn reload(State(gateway): State<Arc<Gateway>>) -> Result<Json<Reloaded>, Problem> {
    let Some(reload) = gateway.reloader() else {
        let detail = "this pool has no configuration to reload";
        return Err(Problem::new(Code::NoReload, detail));
    };
    let invalid = |detail| Problem::new(Code::BadConfiguration, detail);
    reload.reload().await.map(Json).map_err(invalid)
}

/// Query of a request for usage.
#[derive(Debug, PartialEq, Eq)]
struct UsageQuery {
    from: u64,
    to: u64,
    csv: bool,
}

impl UsageQuery {
    /// Reads the query: by default from the beginning of today until now.
    fn parse(query: &str, accepts_csv: bool) -> Result<Self, Problem> {
        let now = hour_now();
        let mut asked = Self { from: now / HOURS * HOURS, to: now + 1, csv: accepts_csv };
        let bad = |what: String| Err(Problem::new(Code::BadParameter, what));
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("from", value) => asked.from = hour_of(moment(&name, value)?),
                ("to", value) => {
                    let to = moment(&name, value)?;
                    // An hour that has begun counts.
                    asked.to = hour_of(to + HOUR - Duration::from_secs(1));
                }
                ("by", "tenant") | ("token", _) => {}
                ("by", _) => return bad("by must be tenant".to_owned()),
                ("format", "csv") => asked.csv = true,
                ("format", "json") => asked.csv = false,
                ("format", _) => return bad("format must be json or csv".to_owned()),
                (name, _) => {
                    let shown: String = name.chars().take(64).collect();
                    let detail = format!(
                        "unknown parameter {shown:?}: there are from, to, by, format, token"
                    );
                    return Err(Problem::new(Code::UnknownParameter, detail));
                }
            }
        }
        if asked.from >= asked.to {
            return bad("from must be before to".to_owned());
        }
        Ok(asked)
    }
}

/// Reads a day, `2026-11-29`, or a moment, `2026-11-29T12:00:00Z`.
fn moment(name: &str, value: &str) -> Result<SystemTime, Problem> {
    let text = if value.len() == 10 { format!("{value}T00:00:00Z") } else { value.to_owned() };
    humantime::parse_rfc3339_weak(&text).map_err(|_| {
        let detail = format!("{name} must be a day such as 2026-11-29, or 2026-11-29T12:00:00Z");
        Problem::new(Code::BadParameter, detail)
    })
}

#[derive(Debug, Serialize)]
struct UsageReport {
    from: String,
    to: String,
    tenants: Vec<UsageRow>,
}

#[derive(Debug, Serialize)]
struct UsageRow {
    /// `null` for leases without a tenant.
    tenant: Option<String>,
    leases: u64,
    browser_seconds: f64,
    waiting_seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    failures: u64,
}

impl UsageRow {
    fn new(tenant: String, used: Used) -> Self {
        Self {
            tenant: Some(tenant).filter(|name| !name.is_empty()),
            leases: used.leases,
            browser_seconds: used.browser_ms as f64 / 1000.0,
            waiting_seconds: used.waiting_ms as f64 / 1000.0,
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
            failures: used.failures,
        }
    }
}

impl UsageReport {
    /// Returns a table. Names are those of the configuration, so nothing in it needs quoting.
    fn csv(&self) -> String {
        let mut text = String::from(
            "tenant,leases,browser_seconds,waiting_seconds,bytes_in,bytes_out,failures\n",
        );
        for row in &self.tenants {
            let UsageRow {
                leases,
                browser_seconds,
                waiting_seconds,
                bytes_in,
                bytes_out,
                failures,
                ..
            } = row;
            let tenant = row.tenant.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "{tenant},{leases},{browser_seconds:.3},{waiting_seconds:.3},{bytes_in},\
                 {bytes_out},{failures}\n"
            ));
        }
        text
    }
}

/// `GET /api/usage?from=&to=&by=tenant`: tenants see only their own.
pub(super) async fn usage(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept =
        headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let asked = UsageQuery::parse(&query.unwrap_or_default(), accept.starts_with("text/csv"))?;
    gateway.book_all();
    let (from, to) = (asked.from, asked.to);
    let looked = tokio::task::spawn_blocking(move || gateway.usage.between(from, to)).await;
    let used = looked.map_err(io::Error::other).and_then(|used| used).map_err(|error| {
        let detail = format!("the records could not be read: {error}");
        Problem::new(Code::NoUsage, detail)
    })?;
    let shown =
        |tenant: &String| who.sees_tenant(Some(tenant.as_str()).filter(|name| !name.is_empty()));
    let rows = used.into_iter().filter(|(tenant, _)| shown(tenant));
    let text = |hour| humantime::format_rfc3339_seconds(time_of(hour)).to_string();
    let report = UsageReport {
        from: text(asked.from),
        to: text(asked.to),
        tenants: rows.map(|(tenant, used)| UsageRow::new(tenant, used)).collect(),
    };
    if asked.csv {
        return Ok(
            ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], report.csv()).into_response()
        );
    }
    Ok(Json(report).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_hours_from_days_and_moments() {
        let asked = UsageQuery::parse("from=2026-11-28&to=2026-11-29T01:30:00Z&by=tenant", false);
        let asked = asked.expect("it is right");
        let text = |hour| humantime::format_rfc3339_seconds(time_of(hour)).to_string();
        assert_eq!(text(asked.from), "2026-11-28T00:00:00Z");
        assert_eq!(text(asked.to), "2026-11-29T02:00:00Z");
        for query in ["from=yesterday", "from=2026-11-29&to=2026-11-28", "by=browser", "format=xml"]
        {
            let problem = UsageQuery::parse(query, false).expect_err(query);
            assert_eq!(problem.code(), "bad_parameter", "{query}");
        }
        assert_eq!(UsageQuery::parse("form=1", false).expect_err("no").code(), "unknown_parameter");
        assert!(UsageQuery::parse("", true).expect("it is right").csv);
    }
}
