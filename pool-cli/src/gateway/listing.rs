//! `GET /sessions` and `/kill/{id}`: the leases that clients hold, and their end.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Serialize;

use super::connect::unknown_lease;
use super::leasing::over;
use super::session_view::SessionView;
use super::sessions::Known;
use super::who::Who;
use super::{Gateway, LeaseEnd, LeaseId, Problem};

pub(super) async fn sessions(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<SessionView>> {
    let all = gateway.sessions.all();
    let seen = all.iter().filter(|session| who.sees(session));
    Json(seen.map(|session| SessionView::of(session)).collect())
}

#[derive(Serialize)]
pub(super) struct Killed {
    killed: usize,
}

/// Ends a lease by its id, or the leases of a `trackingId`, or all of them: a tenant's own.
pub(super) async fn kill(
    State(gateway): State<Arc<Gateway>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Killed>, Problem> {
    let killed = gateway.kill(&who, &id)?;
    Ok(Json(Killed { killed }))
}

impl Gateway {
    fn kill(&self, who: &Who, id: &str) -> Result<usize, Problem> {
        if let Ok(lease) = id.parse::<LeaseId>() {
            return match self.sessions.find(lease) {
                Known::Held(session) if who.sees(&session) => {
                    session.end(LeaseEnd::Killed);
                    Ok(1)
                }
                Known::Over(end) => Err(over(end)),
                Known::Held(_) | Known::Never => Err(unknown_lease()),
            };
        }
        let mut killed = 0;
        for session in self.sessions.all() {
            let is_meant = id == "all" || session.asked.tracking_id.as_deref() == Some(id);
            if is_meant && who.sees(&session) {
                session.end(LeaseEnd::Killed);
                killed += 1;
            }
        }
        if killed == 0 && id != "all" { Err(unknown_lease()) } else { Ok(killed) }
    }
}
