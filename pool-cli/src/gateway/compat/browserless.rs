//! `/sessions`, `/kill/{id}`, `/pressure`, `/meta` and `/active`, as browserless has them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use crate::api::{Autoscale, Killed, Lease, unix_ms};
use crate::gateway::connect::unknown_lease;
use crate::gateway::fleet::{Scope, kill_elsewhere, with_others};
use crate::gateway::leases::Known;
use crate::gateway::leasing::over;
use crate::gateway::relay::Detour;
use crate::gateway::snapshot::lease;
use crate::gateway::who::Who;
use crate::gateway::{Gateway, LeaseEnd, Problem};

pub(in crate::gateway) async fn sessions(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    detour: Option<Extension<Arc<Detour>>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let all = gateway.leases.all();
    let seen = all.iter().filter(|session| who.sees(session));
    let leases: Vec<Lease> = seen.map(|session| lease(session)).collect();
    Ok(match Scope::of(&uri)? {
        Scope::Node => Json(leases).into_response(),
        Scope::Fleet => {
            with_others(&gateway, detour.as_deref().map(|it| &**it), &uri, leases).await
        }
    })
}

/// Ends a lease by its id, the leases with a `trackingId`, or all of them; a tenant only its own.
pub(in crate::gateway) async fn kill(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    detour: Option<Extension<Arc<Detour>>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Killed>, Problem> {
    let own = gateway.kill(&who, &id);
    let others = match detour {
        // A lease with this id would be here, or the request would have gone to its node.
        Some(Extension(detour)) if gateway.settings().own_id(&id).is_none() => {
            kill_elsewhere(&gateway, &detour, &uri).await
        }
        _ => 0,
    };
    match own {
        Ok(killed) => Ok(Json(Killed { killed: killed + others })),
        Err(_) if others > 0 => Ok(Json(Killed { killed: others })),
        Err(problem) => Err(problem),
    }
}

impl Gateway {
    fn kill(&self, who: &Who, id: &str) -> Result<usize, Problem> {
        if let Some(lease) = self.settings().own_id(id) {
            return match self.leases.find(lease) {
                Known::Held(session) if who.sees(&session) => {
                    session.end(LeaseEnd::Killed);
                    Ok(1)
                }
                Known::Over(end) => Err(over(end)),
                Known::Held(_) | Known::Never => Err(unknown_lease()),
            };
        }
        let mut killed = 0;
        for session in self.leases.all() {
            let is_meant = id == "all" || session.asked.tracking_id.as_deref() == Some(id);
            if is_meant && who.sees(&session) {
                session.end(LeaseEnd::Killed);
                killed += 1;
            }
        }
        if killed == 0 && id != "all" { Err(unknown_lease()) } else { Ok(killed) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pressure {
    /// Milliseconds since 1970.
    date: u64,
    is_available: bool,
    /// Empty, or the reason why it is not available.
    reason: &'static str,
    message: &'static str,
    /// The unit of `running` and `maxConcurrent`.
    counts: &'static str,
    /// Leases that one Chromium may have: only if this is 1 does a lease mean a browser.
    leases_per_browser: usize,
    running: usize,
    queued: usize,
    max_concurrent: usize,
    max_queued: usize,
    /// In the last minute.
    recently_rejected: u64,
    /// Percent of all cores, over the last second.
    cpu: Option<u8>,
    /// Percent of the machine's memory.
    memory: Option<u8>,
}

pub(in crate::gateway) async fn pressure(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let fleet = match Scope::of(&uri)? {
        Scope::Node => None,
        Scope::Fleet => gateway.see_fleet().await,
    };
    let load = gateway.pool().load();
    let (running, queued, max_concurrent) = match &fleet {
        Some(fleet) => {
            let figures = Autoscale::of(&fleet.nodes);
            (figures.leased, figures.waiting, figures.places)
        }
        None => (load.leased, gateway.stats().load.waiting, load.max_size),
    };
    let settings = gateway.settings();
    let max_queued = settings.max_waiting;
    let reason = if gateway.is_draining() {
        "draining"
    } else if load.waiting >= max_queued {
        // Those who wait for a profile keep nobody out of the queue of the pool.
        "full"
    } else {
        ""
    };
    let is_available = reason.is_empty();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.starts_with("text/plain")) {
        let status = if is_available { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Ok(status.into_response());
    }
    let machine = gateway.history.machine();
    let pressure = Pressure {
        date: unix_ms(),
        is_available,
        reason,
        message: match reason {
            "" => "ready for new clients",
            "draining" => "the pool is shutting down",
            _ => "the queue is full",
        },
        counts: "leases",
        leases_per_browser: settings.leases_per_browser,
        running,
        queued,
        max_concurrent,
        max_queued,
        recently_rejected: gateway.history.rejected_last_minute(),
        cpu: machine.cpu,
        memory: machine.memory,
    };
    Ok(Json(serde_json::json!({ "pressure": pressure })).into_response())
}

/// `GET /meta`, in browserless' shape: the versions of the browsers.
pub(in crate::gateway) async fn meta(
    State(gateway): State<Arc<Gateway>>,
) -> Json<serde_json::Value> {
    let version = gateway.pool().version();
    let chromium = version.as_ref().and_then(|version| version.browser.split_once('/'));
    Json(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "chromium": chromium.map(|(_, number)| number),
        "chrome": null,
        "edge": null,
        "firefox": null,
        "webkit": null,
        "playwright": [],
        "puppeteer": null,
    }))
}

/// `GET /active`, as in browserless: the pool answers.
pub(in crate::gateway) async fn active() -> StatusCode {
    StatusCode::NO_CONTENT
}
