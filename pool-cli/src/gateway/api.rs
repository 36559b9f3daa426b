//! `/api/…`: what the dashboard and the commands `status`, `top`, `resize`, `drain` and the like
//! are made of.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::body::Body;
use super::history::Point;
use super::session::Session;
use super::snapshot::Snapshot;
use super::state::Reloaded;
use super::views::PageView;
use super::who::Who;
use super::{Gateway, Problem};
use crate::config::MOST_BROWSERS;
use crate::error::chain;
use crate::pool::Leased;

/// Maximum time a page may take to be drawn for the live view.
const SCREENSHOT: Duration = Duration::from_secs(5);

/// `GET /api/state`.
pub(super) async fn state(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
) -> Json<Snapshot> {
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
    let first = text(&gateway, &who);
    let watcher = gateway.watchers.join();
    // Holds no handle to the gateway: a dashboard that stays open must not keep it alive.
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
                    // What the others see is not for it.
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

/// `GET /api/browsers/{id}/page`: which page a leased browser shows; `null` for none.
pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Option<PageView>>, Problem> {
    let (_, leased) = gateway.leased(&who, &id)?;
    Ok(Json(leased.browser().pages().await.pop().map(PageView::of)))
}

/// `GET /api/browsers/{id}/screenshot`: what a leased browser shows, as a PNG.
pub(super) async fn screenshot(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (session, leased) = gateway.leased(&who, &id)?;
    let unavailable = |detail: String| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_screenshot", detail)
            .retry_after(Duration::from_secs(1))
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

/// `POST /api/browsers/{id}/retire`: closes a browser, when it comes back if it is leased.
pub(super) async fn retire(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if gateway.fleet().retire(number(&id)?) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

impl Gateway {
    /// The lease of a browser, for those that look at what its client does.
    fn leased(&self, who: &Who, id: &str) -> Result<(Arc<Session>, Arc<dyn Leased>), Problem> {
        let id = number(id)?;
        let session = self
            .sessions
            .all()
            .into_iter()
            .find(|session| session.browser == id && who.sees(session));
        let held = session.and_then(|session| session.leased().map(|leased| (session, leased)));
        held.ok_or_else(|| {
            let detail = "only a browser that a client has leased has something to show";
            Problem::new(StatusCode::NOT_FOUND, "not_leased", detail)
        })
    }
}

/// The number of a browser; what is none names no browser.
fn number(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_| unknown())
}

fn unknown() -> Problem {
    let detail = "there is no browser of this number";
    Problem::new(StatusCode::NOT_FOUND, "unknown_browser", detail)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    min_size: Option<usize>,
    max_size: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Resized {
    min_size: usize,
    max_size: usize,
}

/// `POST /api/resize`: what is left out stays as it is.
pub(super) async fn resize(
    State(gateway): State<Arc<Gateway>>,
    Body(body): Body<Resize>,
) -> Result<Json<Resized>, Problem> {
    let (min_size, max_size) = gateway.resize(body.min_size, body.max_size)?;
    Ok(Json(Resized { min_size, max_size }))
}

impl Gateway {
    /// Changes the size of the pool and returns it; what is left out stays as it is.
    pub(super) fn resize(
        &self,
        min_size: Option<usize>,
        max_size: Option<usize>,
    ) -> Result<(usize, usize), Problem> {
        let min_size = min_size.unwrap_or_else(|| self.min_size());
        let max_size = max_size.unwrap_or_else(|| self.fleet().load().max_size);
        if !(1..=MOST_BROWSERS).contains(&max_size) || min_size > MOST_BROWSERS {
            let detail = format!("a pool has 1 to {MOST_BROWSERS} browsers");
            return Err(Problem::bad_request("bad_size", detail));
        }
        self.fleet()
            .resize(min_size, max_size)
            .map_err(|error| Problem::bad_request("bad_size", error.to_string()))?;
        Ok((min_size, max_size))
    }

    /// Returns the minimum number of browsers without a profile or region.
    pub(super) fn min_size(&self) -> usize {
        let classes = self.fleet().stats().classes;
        classes.iter().find(|class| class.class.is_default()).map_or(0, |class| class.min)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Flushed {
    closed: usize,
}

/// `POST /api/flush`: closes the idle browsers; the minimum is launched anew.
pub(super) async fn flush(State(gateway): State<Arc<Gateway>>) -> Json<Flushed> {
    Json(Flushed { closed: gateway.fleet().flush_idle() })
}

/// `POST /api/drain`: as SIGTERM.
pub(super) async fn drain(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    gateway.ask_drain();
    StatusCode::ACCEPTED
}

/// `POST /api/reload`: as SIGHUP, with what came of it.
pub(super) async fn reload(State(gateway): State<Arc<Gateway>>) -> Result<Json<Reloaded>, Problem> {
    let Some(reload) = gateway.reloader() else {
        let detail = "this pool has no configuration to read again";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "no_reload", detail));
    };
    let invalid =
        |detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_configuration", detail);
    reload.reload().await.map(Json).map_err(invalid)
}
