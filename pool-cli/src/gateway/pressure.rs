//! `GET /pressure`, in browserless' shape: whether a balancer should send more clients here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Gateway;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pressure {
    /// Milliseconds since 1970.
    date: u64,
    is_available: bool,
    /// Empty, or why it is not available.
    reason: &'static str,
    message: &'static str,
    /// What `running` and `maxConcurrent` are numbers of.
    counts: &'static str,
    /// How many of them one Chromium may have: leases are browsers only where it is 1.
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

pub(super) async fn pressure(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let load = gateway.fleet().load();
    let settings = gateway.settings();
    let max_queued = settings.max_waiting;
    let reason = if gateway.is_draining() {
        "draining"
    } else if load.waiting >= max_queued {
        "full"
    } else {
        ""
    };
    let is_available = reason.is_empty();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.starts_with("text/plain")) {
        let status = if is_available { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return status.into_response();
    }
    let machine = gateway.history.machine();
    let pressure = Pressure {
        date: super::views::unix_ms(),
        is_available,
        reason,
        message: match reason {
            "" => "ready for new clients",
            "draining" => "the pool shuts down",
            _ => "the queue is full",
        },
        counts: "leases",
        leases_per_browser: settings.leases_per_browser,
        running: load.leased,
        queued: load.waiting,
        max_concurrent: load.max_size,
        max_queued,
        recently_rejected: gateway.history.rejected_last_minute(),
        cpu: machine.cpu,
        memory: machine.memory,
    };
    Json(serde_json::json!({ "pressure": pressure })).into_response()
}
