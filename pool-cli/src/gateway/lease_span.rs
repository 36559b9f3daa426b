//! The spans of a lease: what a trace shows of it.

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::LeaseQuery;
use super::leasing::{Caller, word};
use super::session::Session;
use crate::config::LeaseKind;
use crate::telemetry;

/// The span of a lease, from its request to its end; a child of the client's own span.
pub(super) fn lease(asked: &LeaseQuery, kind: LeaseKind, caller: &Caller) -> Span {
    let span = info_span!(
        "lease",
        trace_id = caller.trace.map(|trace| trace.trace_id()),
        kind = word(kind),
        profile = asked.profile,
        region = asked.region,
        priority = asked.priority,
        tenant = asked.tenant,
        tracking_id = asked.tracking_id,
        lease = Empty,
        browser = Empty,
        ended = Empty,
    );
    if let Some(trace) = &caller.trace {
        telemetry::follow(&span, trace);
    }
    span
}

/// The span of the wait for a browser, within that of the lease.
pub(super) fn acquire(lease: &Span, caller: &Caller) -> Span {
    let trace_id = caller.trace.map(|trace| trace.trace_id());
    info_span!(parent: lease, "acquire", trace_id, outcome = Empty)
}

/// Adds what is known once there is a browser.
pub(super) fn granted(lease: &Span, session: &Session) {
    // The whole id of a lease is a secret for as long as it is held.
    lease.record("lease", session.id.short());
    lease.record("browser", session.browser);
}
