//! `GET /sessions` and `/kill/{id}`: the leases that clients hold, and their end.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::connect::unknown_lease;
use super::leasing::over;
use super::session_view::SessionView;
use super::sessions::Known;
use super::{Gateway, LeaseEnd, LeaseId, Problem};

pub(super) async fn sessions(State(gateway): State<Arc<Gateway>>) -> Json<Vec<SessionView>> {
    let all = gateway.sessions.all();
    Json(all.iter().map(|session| SessionView::of(session)).collect())
}

#[derive(Serialize)]
pub(super) struct Killed {
    killed: usize,
}

/// Ends a lease by its id, or the leases of a `trackingId`, or all of them.
pub(super) async fn kill(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Killed>, Problem> {
    let killed = gateway.kill(&id)?;
    Ok(Json(Killed { killed }))
}

impl Gateway {
    fn kill(&self, id: &str) -> Result<usize, Problem> {
        if let Ok(lease) = id.parse::<LeaseId>() {
            return match self.sessions.find(lease) {
                Known::Held(session) => {
                    session.end(LeaseEnd::Killed);
                    Ok(1)
                }
                Known::Over(end) => Err(over(end)),
                Known::Never => Err(unknown_lease()),
            };
        }
        let mut killed = 0;
        for session in self.sessions.all() {
            if id == "all" || session.asked.tracking_id.as_deref() == Some(id) {
                session.end(LeaseEnd::Killed);
                killed += 1;
            }
        }
        if killed == 0 && id != "all" { Err(unknown_lease()) } else { Ok(killed) }
    }
}
