//! `POST /browser_pools/{name}/…`, as Kernel has it: a lease that is held until it is released,
//! with or without a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pool_chrome::egress::Pattern;
use serde::{Deserialize, Serialize};

use super::body::Body;
use super::leasing::{Caller, Claimed, NoLease, Start, over};
use super::query::{domains, kind, pages, some_milliseconds, word};
use super::session::Session;
use super::sessions::{Known, Name};
use super::{Gateway, LeaseEnd, LeaseId, LeaseQuery, Problem};

/// What may be asked for; the names of the query hold here too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Acquire {
    acquire_timeout_seconds: Option<f64>,
    /// Maximum time the lease may last.
    timeout_seconds: Option<f64>,
    profile: Option<String>,
    region: Option<String>,
    priority: Option<u8>,
    tenant: Option<String>,
    tracking_id: Option<String>,
    lease: Option<String>,
    /// How many pages the lease begins with: 0 or 1.
    pages: Option<u64>,
    session: Option<String>,
    keep: Option<u64>,
    idle_timeout: Option<u64>,
    /// A list, or a text with commas as in the query.
    allow_domains: Option<Domains>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Domains {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Serialize)]
pub(super) struct Acquired {
    session_id: String,
    cdp_ws_url: String,
    /// Milliseconds that the request has waited.
    waited_ms: u64,
    /// Maximum time the lease may last, in seconds.
    timeout_seconds: Option<u64>,
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
    headers: HeaderMap,
    Body(body): Body<Acquire>,
) -> Result<Response, Problem> {
    gateway.is_pool(&pool)?;
    let asked = body.into_query()?;
    let caller = Caller::new(Some(peer), &headers);
    let session = match held(&gateway, asked, &caller).await {
        Ok(session) => session,
        Err(NoLease::TimedOut(_)) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(NoLease::Refused(problem)) => return Err(problem),
    };
    Ok(Json(Acquired {
        session_id: session.id.to_string(),
        cdp_ws_url: gateway.settings().lease_url(&headers, session.id),
        waited_ms: session.waited.as_millis() as u64,
        timeout_seconds: session.limit.map(|limit| limit.as_secs()),
    })
    .into_response())
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
    Body(body): Body<Release>,
) -> Result<StatusCode, Problem> {
    gateway.is_pool(&pool)?;
    let id: LeaseId = body.session_id.parse().map_err(|_| super::connect::unknown_lease())?;
    match gateway.sessions.find(id) {
        Known::Held(session) => {
            if !body.reuse {
                // Told while it is leased: it goes when it comes back.
                gateway.fleet().retire(session.browser);
            }
            session.end(LeaseEnd::Released);
            Ok(StatusCode::NO_CONTENT)
        }
        Known::Over(end) => Err(over(end)),
        Known::Never => Err(super::connect::unknown_lease()),
    }
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

impl Gateway {
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

impl Acquire {
    fn into_query(self) -> Result<LeaseQuery, Problem> {
        let checked =
            |name, value: Option<String>| value.map(|value| word(name, &value)).transpose();
        if self.priority.is_some_and(|priority| !(1..=10).contains(&priority)) {
            return Err(Problem::bad_request("bad_parameter", "priority must be 1 to 10"));
        }
        Ok(LeaseQuery {
            profile: checked("profile", self.profile)?,
            region: checked("region", self.region)?,
            tenant: checked("tenant", self.tenant)?,
            tracking_id: checked("tracking_id", self.tracking_id)?,
            priority: self.priority,
            timeout: seconds("timeout_seconds", self.timeout_seconds)?,
            acquire_timeout: seconds("acquire_timeout_seconds", self.acquire_timeout_seconds)?,
            lease: self.lease.map(|value| kind(&value)).transpose()?,
            pages: self.pages.map(|value| pages(&value.to_string())).transpose()?,
            session: checked("session", self.session)?,
            keep: self.keep.map(Duration::from_millis),
            idle_timeout: self
                .idle_timeout
                .map(|value| some_milliseconds("idle_timeout", &value.to_string()))
                .transpose()?,
            allow_domains: self.allow_domains.map(Domains::read).transpose()?,
        })
    }
}

impl Domains {
    fn read(self) -> Result<Vec<Pattern>, Problem> {
        match self {
            Self::Text(text) => domains(&text),
            Self::List(list) => domains(&list.join(",")),
        }
    }
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, Problem> {
    let valid = |seconds: &f64| (0.0..=24.0 * 3600.0).contains(seconds);
    match value {
        None => Ok(None),
        Some(seconds) if valid(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            let detail = format!("{name} must be a number of seconds, a day's at most");
            Err(Problem::bad_request("bad_parameter", detail))
        }
    }
}
