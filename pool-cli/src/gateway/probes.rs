//! `GET /livez` and `/readyz`: for supervisors; no token, no secrets.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Gateway;

/// The process answers. Nothing else is looked at: to restart a pool because its proxy is down
/// would end the leases that work.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// New leases are given.
pub(super) async fn readyz(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    if gateway.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    let stats = gateway.fleet().stats();
    let usable = stats.load.total() - stats.load.closing - stats.load.creating;
    let failing = stats.classes.iter().any(|class| class.class.is_default() && class.failing);
    if failing && usable == 0 {
        return (StatusCode::SERVICE_UNAVAILABLE, "no browser can be launched\n");
    }
    (StatusCode::OK, "ok\n")
}
