//! How a client gets a lease and how it ends: the one way for WebSocket and REST.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use pool_core::AcquireError;
use tracing::{Instrument, Span, debug, info};

use super::refusal::{draining, refusal};
use super::session::{NotConnected, Session, Terms};
use super::traceparent::TraceParent;
use super::{Gateway, LeaseEnd, LeaseQuery, Problem, Settings, lease_span};
use crate::config::LeaseKind;

/// Who asks, as far as can be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) peer: Option<SocketAddr>,
    pub(super) trace: Option<TraceParent>,
}

impl Caller {
    pub(super) fn new(peer: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        Self { peer, trace: TraceParent::of(headers) }
    }
}

/// Why there is no lease.
pub(super) enum NoLease {
    /// The wait was over before there was one.
    TimedOut(Problem),
    Refused(Problem),
}

impl From<NoLease> for Problem {
    fn from(no: NoLease) -> Self {
        match no {
            NoLease::TimedOut(problem) | NoLease::Refused(problem) => problem,
        }
    }
}

impl Gateway {
    /// Waits for a lease and starts its session. Dropping the future leaves the queue.
    ///
    /// `detached` leases go on without a connection until they are released.
    pub(super) async fn lease(
        self: &Arc<Self>,
        asked: LeaseQuery,
        caller: Caller,
        detached: bool,
    ) -> Result<Arc<Session>, NoLease> {
        let settings = self.settings();
        if self.is_draining() {
            return Err(NoLease::Refused(draining(settings.drain_timeout)));
        }
        let kind = settings.kind(&asked).map_err(NoLease::Refused)?;
        let limit = settings.limit(&asked).map_err(NoLease::Refused)?;
        let wait = asked.acquire_timeout.unwrap_or(settings.acquire_timeout);
        let mut request = asked.request().timeout(wait);
        if settings.lease_choice {
            request.set("lease", word(kind));
        }
        let span = lease_span::lease(&asked, kind, &caller);
        let acquire = lease_span::acquire(&span, &caller);
        let leased = self.fleet().acquire(request).instrument(acquire.clone()).await;
        acquire.record("outcome", leased.as_ref().map_or_else(outcome, |_| "granted"));
        drop(acquire);
        let leased = leased.map_err(|error| {
            let problem = refusal(&error, self.history.release_rate());
            debug!(peer = ?caller.peer, code = problem.code(), "refused: {}", problem.detail());
            match error {
                AcquireError::Timeout { .. } => NoLease::TimedOut(problem),
                _ => NoLease::Refused(problem),
            }
        })?;
        let begun = leased.browser().begin(&asked.terms()).await;
        let terms = Terms {
            asked,
            kind,
            peer: caller.peer,
            trace: caller.trace,
            limit,
            idle_limit: settings.lease_idle_timeout,
            detached,
        };
        let session = Session::new(leased, terms);
        if let Err(end) = begun {
            // Whoever connects learns it, and takes another one where that helps.
            session.end(end.into());
        }
        self.sessions.add(&session);
        lease_span::granted(&span, &session);
        tokio::spawn(keep(Arc::clone(self), Arc::clone(&session), span));
        Ok(session)
    }
}

impl Settings {
    fn kind(&self, asked: &LeaseQuery) -> Result<LeaseKind, Problem> {
        if asked.profile.is_some() {
            // The store of a profile belongs to one browser process.
            return match asked.lease {
                Some(LeaseKind::Shared) => {
                    let detail = "leases of a profile are exclusive: leave out lease=shared";
                    Err(Problem::bad_request("bad_parameter", detail))
                }
                _ => Ok(LeaseKind::Exclusive),
            };
        }
        match asked.lease {
            Some(kind) if kind != self.lease && !self.lease_choice => {
                let detail = format!(
                    "leases are {} here: set lease_choice = true in [pool] to let clients choose",
                    word(self.lease)
                );
                Err(Problem::bad_request("bad_parameter", detail))
            }
            asked => Ok(asked.unwrap_or(self.lease)),
        }
    }

    fn limit(&self, asked: &LeaseQuery) -> Result<Option<Duration>, Problem> {
        match (asked.timeout, self.lease_timeout) {
            (Some(asked), Some(most)) if asked > most => {
                let most = most.as_millis();
                let detail = format!("timeout may be {most} ms at most, the pool's lease_timeout");
                Err(Problem::bad_request("bad_parameter", detail))
            }
            (asked, most) => Ok(asked.or(most)),
        }
    }
}

/// The word for a failed acquire in spans, as the metrics have it.
fn outcome(error: &AcquireError) -> &'static str {
    match error {
        AcquireError::Timeout { .. } => "timeout",
        AcquireError::QueueFull { .. } | AcquireError::Rejected(_) => "rejected",
        _ => "error",
    }
}

/// The word for a kind of lease in queries, labels and logs.
pub(super) fn word(kind: LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Exclusive => "exclusive",
        LeaseKind::Shared => "shared",
    }
}

/// The problem of a session that cannot be connected to.
pub(super) fn not_connected(why: &NotConnected) -> Problem {
    use axum::http::StatusCode;
    match why {
        NotConnected::Over(LeaseEnd::BrowserCrashed | LeaseEnd::BrowserHung) => {
            let detail = "the browser ended before it could be used";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "browser_unavailable", detail)
                .retry_after(Duration::from_secs(1))
        }
        NotConnected::Over(end) => over(*end),
        NotConnected::TooMany => {
            let detail = "this lease has as many connections as one may have";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", detail)
        }
    }
}

/// The problem of a lease that is over.
pub(super) fn over(end: LeaseEnd) -> Problem {
    let detail = format!("this lease is over ({})", end.code());
    Problem::new(axum::http::StatusCode::GONE, "lease_over", detail)
}

/// Watches over a session until it ends, gives the browser back, and writes the audit line.
async fn keep(gateway: Arc<Gateway>, session: Arc<Session>, span: Span) {
    let end = watch(&session).instrument(span.clone()).await;
    let end = session.end(end);
    span.record("ended", end.code());
    drop(span);
    let held = session.began.elapsed();
    session.give_back();
    gateway.sessions.remove(session.id);
    gateway.observer().metrics().lease_ended(end.code());
    audit(&session, end, held);
}

/// Waits for the end of a session.
async fn watch(session: &Session) -> LeaseEnd {
    match session.leased() {
        None => LeaseEnd::Revoked,
        Some(leased) => tokio::select! {
            biased;
            end = session.ended() => end,
            end = leased.browser().ended() => end.into(),
            () = session.outlived() => LeaseEnd::LeaseLimit,
            () = session.idle() => LeaseEnd::IdleTimeout,
        },
    }
}

/// One line for each lease: who, what, how long, and how it ended.
fn audit(session: &Session, end: LeaseEnd, held: Duration) {
    let [messages_in, messages_out, bytes_in, bytes_out] = session.traffic.totals();
    info!(
        target: "pool_cli::audit",
        lease = session.id.short(),
        peer = session.peer.map(tracing::field::display),
        tenant = session.asked.tenant,
        tracking_id = session.asked.tracking_id,
        trace_id = session.trace.map(|trace| trace.trace_id()),
        kind = word(session.kind),
        class = %session.class,
        priority = session.asked.priority,
        browser = session.browser,
        waited_ms = session.waited.as_millis() as u64,
        held_ms = held.as_millis() as u64,
        messages_in, messages_out, bytes_in, bytes_out,
        ended = end.code(),
        "lease over"
    );
}
