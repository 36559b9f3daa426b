use std::time::SystemTime;

use serde::Serialize;

use super::LeaseEnd;
use super::leasing::word;
use super::session::Session;
use super::views::{ms, part};
use crate::work::WorkKind;

/// A lease of a client, as `/sessions` and the snapshot list it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView {
    id: String,
    browser_id: u64,
    tracking_id: Option<String>,
    tenant: Option<String>,
    peer: Option<String>,
    /// `work` for a lease that is for one call; else `exclusive` or `shared`.
    kind: &'static str,
    /// The route of that call.
    work: Option<&'static str>,
    class: String,
    profile: Option<String>,
    region: Option<String>,
    priority: Option<u8>,
    /// Milliseconds since 1970.
    started_on: u64,
    time_alive_ms: u64,
    waited_ms: u64,
    idle_ms: u64,
    timeout_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    /// The name under which its clients find it again.
    session: Option<String>,
    /// How the last lease of that name has ended.
    renewed: Option<&'static str>,
    /// `connected`, or `waiting` for a client.
    state: &'static str,
    /// How long it goes on without a connection; `null` until it is released.
    keep_ms: Option<u64>,
    /// How long it will if no client comes.
    kept_for_ms: Option<u64>,
    connections: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl SessionView {
    pub(super) fn of(session: &Session) -> Self {
        let connections = session.connections();
        let [messages_in, messages_out, bytes_in, bytes_out] = session.traffic.totals();
        let began_at = session.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            id: session.id.to_string(),
            browser_id: session.browser,
            tracking_id: session.asked.tracking_id.clone(),
            tenant: session.asked.tenant.clone(),
            peer: session.peer.map(|peer| peer.to_string()),
            kind: session.work.map_or(word(session.kind), |_| "work"),
            work: session.work.map(WorkKind::word),
            class: session.class.to_string(),
            profile: part(&session.class, "profile"),
            region: part(&session.class, "region"),
            priority: session.asked.priority,
            started_on: ms(began_at),
            time_alive_ms: ms(session.began.elapsed()),
            waited_ms: ms(session.waited),
            idle_ms: ms(session.silent_for()),
            timeout_ms: session.limit.map(ms),
            idle_timeout_ms: session.idle_limit.map(ms),
            session: session.asked.session.clone(),
            renewed: session.renewed.map(LeaseEnd::code),
            state: if connections == 0 { "waiting" } else { "connected" },
            keep_ms: session.keep().map(ms),
            kept_for_ms: session.kept_for().map(ms),
            connections,
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
        }
    }
}
