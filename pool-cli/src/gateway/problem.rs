//! Refusals of the gateway: one table of codes, and the answers made from them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pool_core::{AcquireError, GroupStats, Rejection, RejectionKind};
use pool_fleet::{Cannot, Reason};
use serde::Serialize;

use crate::exit::chain;
use crate::pool::LeaseEnd;

/// Declares [`Code`]: each code with its word, its status and its meaning.
macro_rules! codes {
    ($($code:ident: $word:literal, $status:ident, $meaning:literal;)+) => {
        /// A reason for a refusal of the gateway itself. Policies have reasons of their own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $code,)+
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// Returns the stable word for machines.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$code => $word,)+ }
            }

            /// Returns the status of an answer with it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)+ }
            }

            /// Returns its meaning, for the documentation.
            const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)+ }
            }
        }
    };
}

codes! {
    BadRequest: "bad_request", BAD_REQUEST, "The request is not valid HTTP/1.1; the answer says why.";
    BadHandshake: "bad_handshake", BAD_REQUEST, "The WebSocket handshake lacks a header, or has a wrong one.";
    UnknownParameter: "unknown_parameter", BAD_REQUEST, "The query has a parameter that does not exist; the answer names it.";
    BadParameter: "bad_parameter", BAD_REQUEST, "A parameter has an invalid value; the answer names it.";
    BadBody: "bad_body", BAD_REQUEST, "The body is not what the route accepts: 400, or 413 if it is too long.";
    BadSize: "bad_size", BAD_REQUEST, "The pool cannot have this size.";
    Refused: "refused", BAD_REQUEST, "The browser refused the command.";
    Unauthorized: "unauthorized", UNAUTHORIZED, "The request has no token, or a wrong one.";
    ForeignHost: "foreign_host", FORBIDDEN, "The request was sent to a host that is not the pool's; see `gateway.allowed_hosts`.";
    ForeignOrigin: "foreign_origin", FORBIDDEN, "The request comes from a web page; see `gateway.allowed_origins`.";
    CrossSite: "cross_site", FORBIDDEN, "The pool has no token, and any web page could have sent this request: add `Content-Type: application/json`.";
    OwnBrowser: "own_browser", FORBIDDEN, "A browser of the pool may not reach the pool.";
    NotAllowed: "not_allowed", FORBIDDEN, "The tenant may not use this part of the pool.";
    LeaseNotAllowed: "lease_not_allowed", FORBIDDEN, "The tenant may not have this kind of lease.";
    UnknownRoute: "unknown_route", NOT_FOUND, "There is no such route.";
    UnknownFile: "unknown_file", NOT_FOUND, "The dashboard has no such file.";
    UnknownLease: "unknown_lease", NOT_FOUND, "There is no lease with this id or name.";
    UnknownPage: "unknown_page", NOT_FOUND, "No held lease has a page with this id.";
    UnknownProfile: "unknown_profile", NOT_FOUND, "There is no profile with this name, or it has no such state.";
    UnknownBrowser: "unknown_browser", NOT_FOUND, "There is no browser with this number.";
    NoFleet: "no_fleet", NOT_FOUND, "This pool is not in a fleet.";
    NoNode: "no_node", NOT_FOUND, "No node of the fleet has what was requested.";
    UnknownPool: "unknown_pool", NOT_FOUND, "There is no pool with this name.";
    NotLeased: "not_leased", NOT_FOUND, "No client holds this browser, so it has nothing to show.";
    NotOffered: "not_offered", NOT_FOUND, "Another service has this route, and this pool does not offer it.";
    WrongMethod: "wrong_method", METHOD_NOT_ALLOWED, "The route exists for other methods.";
    AcquireTimeout: "acquire_timeout", REQUEST_TIMEOUT, "No browser was free in time.";
    SlowBody: "slow_body", REQUEST_TIMEOUT, "The body did not arrive in time.";
    WorkTimeout: "work_timeout", REQUEST_TIMEOUT, "The call did not finish within its `timeout`.";
    GotoTimeout: "goto_timeout", REQUEST_TIMEOUT, "The page did not load within `gotoOptions.timeout`.";
    WaitTimeout: "wait_timeout", REQUEST_TIMEOUT, "Something that the call waits for in the page did not appear in time.";
    NoLease: "no_lease", CONFLICT, "`/json/new` only opens pages in a held lease.";
    NameTaken: "name_taken", CONFLICT, "A held browser already has this name.";
    SessionDiffers: "session_differs", CONFLICT, "The held session has a different profile, region, kind or `allow_domains`.";
    SessionElsewhere: "session_elsewhere", CONFLICT, "Another node of the fleet has the lease of this session; `node` says which.";
    ProfileInUse: "profile_in_use", CONFLICT, "A lease has the profile; `node` says where, if that is known.";
    ProfileKept: "profile_kept", CONFLICT, "There is still a copy of the profile, which its next lease gets; the answer says where.";
    ProfileStays: "profile_stays", CONFLICT, "The profile does not travel between the nodes of the fleet.";
    OfferOver: "offer_over", CONFLICT, "The lease that was offered to another node is no longer available: that node asks again.";
    LeaseOver: "lease_over", GONE, "The lease at this address has ended; the answer says how.";
    NotJson: "not_json", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, with the header `Content-Type: application/json`.";
    BadConfiguration: "bad_configuration", UNPROCESSABLE_ENTITY, "The new configuration is wrong; the old one stays.";
    WebsocketWanted: "websocket_wanted", UPGRADE_REQUIRED, "This route only accepts WebSocket connections.";
    QueueFull: "queue_full", TOO_MANY_REQUESTS, "No more clients may wait, or other calls take up all the room for bodies and answers.";
    TenantFull: "tenant_full", TOO_MANY_REQUESTS, "The tenant already holds its maximum number of leases; `held`, `limit` and `queue_position` say how many.";
    TenantQueueFull: "tenant_queue_full", TOO_MANY_REQUESTS, "No more clients of the tenant may wait; `held`, `queue_limit` and `queue_position` say how many.";
    TooManyConnections: "too_many_connections", TOO_MANY_REQUESTS, "The lease has its maximum number of connections.";
    TooManyWrongTokens: "too_many_wrong_tokens", TOO_MANY_REQUESTS, "Somebody at this address is guessing the token; a right one is accepted all the same.";
    HeadTooLarge: "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many headers, or too many bytes of them.";
    NoUsage: "no_usage", INTERNAL_SERVER_ERROR, "The usage records cannot be read.";
    PageUnreachable: "page_unreachable", INTERNAL_SERVER_ERROR, "The page could not be reached; the answer has the network error.";
    PageCrashed: "page_crashed", INTERNAL_SERVER_ERROR, "The page crashed.";
    PageClosed: "page_closed", INTERNAL_SERVER_ERROR, "The page closed itself.";
    PageFailed: "page_failed", INTERNAL_SERVER_ERROR, "The page could not do what the call asks for; the answer says why.";
    NoReload: "no_reload", NOT_IMPLEMENTED, "This pool has no configuration to read again.";
    Draining: "draining", SERVICE_UNAVAILABLE, "The pool is shutting down.";
    BrowserUnavailable: "browser_unavailable", SERVICE_UNAVAILABLE, "No browser can be launched, or one ended before it could be used.";
    Unavailable: "unavailable", SERVICE_UNAVAILABLE, "The pool cannot give a lease; the answer says why.";
    NoScreenshot: "no_screenshot", SERVICE_UNAVAILABLE, "The page could not be drawn, or was not drawn in time.";
    FleetUnavailable: "fleet_unavailable", SERVICE_UNAVAILABLE, "This node is cut off from its fleet, and cannot answer for it.";
    NodeLost: "node_lost", SERVICE_UNAVAILABLE, "The node of the fleet that has the lease cannot be reached.";
    Elsewhere: "elsewhere", SERVICE_UNAVAILABLE, "Another node of the fleet answers in place of this one.";
    SessionsUnavailable: "sessions_unavailable", SERVICE_UNAVAILABLE, "Session names belong to the whole fleet, and its NATS server cannot be reached.";
    ProfileStoreUnavailable: "profile_store_unavailable", SERVICE_UNAVAILABLE, "The profile travels between the nodes of the fleet, and its content is not available from their NATS server.";
    NoAnswer: "no_answer", GATEWAY_TIMEOUT, "The browser did not answer in time.";
}

/// Returns `docs/refusals.md`: every refusal, and every end of a lease.
#[must_use]
pub fn reference() -> String {
    let refusals: String = Code::ALL
        .iter()
        .map(|code| {
            let (status, word, meaning) = (code.status().as_u16(), code.word(), code.meaning());
            format!("| {status} | <a id=\"{word}\"></a>`{word}` | {meaning} |\n")
        })
        .collect();
    let ends: String = LeaseEnd::ALL
        .iter()
        .map(|end| {
            let reason = end.to_string();
            let (word, sentence) = reason.split_once(": ").unwrap_or_default();
            format!("| {} | `{word}` | {sentence} |\n", end.close_code())
        })
        .collect();
    format!(
        "\
<!-- Generated from pool-cli/src/gateway/problem.rs and pool-cli/src/pool/end.rs: edit the tables there. -->

# Refusals and ends

## Refusals

The answer to a request that is refused has the type `application/problem+json`: `detail` is a sentence for people, `code`
is one of these words. Retry on 408, 429 and 503, after `Retry-After`; the others will fail again in the same way. Policies
refuse with codes of their own: 404 `unknown_profile` and `unknown_region`, 403 `profile_not_allowed` and
`region_not_allowed`. A call for a page's content, screenshot, PDF or elements whose browser ends is answered with 503 and
the reason why it ended.

| status | code | |
|---|---|---|
{refusals}
## Ends of a lease

A WebSocket is closed with a code and a reason: the word, which is also the label of `browserpool_leases_ended_total` and
appears in the log as `ended`, and a sentence.

| close code | reason | |
|---|---|---|
{ends}"
    )
}

/// A refusal, as `application/problem+json`: first a sentence for people, then a stable code.
///
/// # Examples
///
/// ```
/// use pool_cli::gateway::{Code, Problem};
///
/// let problem = Problem::new(Code::UnknownLease, "there is no lease with this id");
/// assert_eq!(
///     serde_json::to_string(&problem).unwrap(),
///     r#"{"detail":"there is no lease with this id","code":"unknown_lease","title":"Not Found","status":404}"#,
/// );
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    detail: String,
    code: &'static str,
    title: &'static str,
    status: u16,
    /// In whole seconds, as in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<u64>,
    #[serde(flatten)]
    more: Option<Box<More>>,
}

/// Facts that only a few refusals have.
#[derive(Clone, Debug, Default, Serialize)]
struct More {
    /// Leases that the tenant holds because of which a request is refused, and its maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// Maximum number of its waiting clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_limit: Option<usize>,
    /// The node of the fleet that has the requested object.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Problem {
    /// Refuses with a code, and a sentence for people.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::with(code.status(), code.word(), detail)
    }

    /// Stands in for the answer of another node until that replaces it.
    pub(super) fn elsewhere() -> Self {
        Self::new(Code::Elsewhere, "another node of the fleet answers")
    }

    /// Refuses a call whose browser has ended during it.
    pub(super) fn browser_ended(end: LeaseEnd) -> Self {
        let detail = format!("the browser ended while it was processing the page ({})", end.code());
        let problem = Self::with(StatusCode::SERVICE_UNAVAILABLE, end.code(), detail);
        problem.retry_after(Duration::from_secs(1))
    }

    fn with(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            code,
            title: title(status),
            status: status.as_u16(),
            retry_after: None,
            queue_position: None,
            waited_ms: None,
            more: None,
        }
    }

    /// Adds the node of the fleet that has the requested object.
    pub(super) fn at_node(mut self, node: &str) -> Self {
        self.more.get_or_insert_default().node = Some(node.to_owned());
        self
    }

    /// Changes the status to 413: the body is too long, rather than wrong.
    pub(super) fn too_long(mut self) -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        (self.title, self.status) = (title(status), status.as_u16());
        self
    }

    /// Adds the time after which it is worth asking again, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some((after.as_millis().div_ceil(1000) as u64).max(1));
        self
    }

    /// Adds the place in the queue that the request had, or would have had.
    #[must_use]
    pub fn queue_position(mut self, position: usize) -> Self {
        self.queue_position = Some(position);
        self
    }

    /// Adds the time that the request has waited.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited_ms = Some(waited.as_millis() as u64);
        self
    }

    /// Adds the leases and limits of the tenant, and the request's place in its queue.
    pub(super) fn of_group(mut self, group: &GroupStats) -> Self {
        let more = self.more.get_or_insert_default();
        more.held = Some(group.leased);
        (more.limit, more.queue_limit) = (group.max_leases, group.max_waiting);
        self.queue_position(group.waiting + 1)
    }

    /// Returns the status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("it was made from a status")
    }

    /// Returns the stable word for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the sentence for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Returns the answer to a request that got no lease; `pace` is the number of leases that end per
/// second.
pub(super) fn refusal(error: &AcquireError, pace: f64) -> Problem {
    match error {
        AcquireError::Timeout { waited, load, last } => {
            let because = last
                .as_ref()
                .map(|error| {
                    format!("; the last browser could not be launched: {}", chain(error.get()))
                })
                .unwrap_or_default();
            let waited_for = waited.as_secs_f64();
            let detail = format!("no browser was free within {waited_for:.1} s{because}");
            Problem::new(Code::AcquireTimeout, detail)
                .waited(*waited)
                .queue_position(load.waiting + 1)
                .retry_after(turn(load.waiting + 1, pace))
        }
        AcquireError::QueueFull { load } => {
            let detail = format!("the queue is full: {} clients are already waiting", load.waiting);
            Problem::new(Code::QueueFull, detail)
                .queue_position(load.waiting + 1)
                .retry_after(turn(load.waiting + 1, pace))
        }
        AcquireError::GroupFull { waited, group } => {
            let (name, leased) = (&group.name, group.leased);
            let waited_for = waited.as_secs_f64();
            let detail = format!(
                "tenant {name:?} holds {leased} leases, its maximum, and gave none back in \
                 {waited_for:.1} s"
            );
            Problem::new(Code::TenantFull, detail)
                .waited(*waited)
                .of_group(group)
                .retry_after(turn(group.waiting + 1, pace))
        }
        AcquireError::GroupQueueFull { group } => {
            let (name, waiting) = (&group.name, group.waiting);
            let detail =
                format!("{waiting} clients of tenant {name:?} are already waiting, its maximum");
            Problem::new(Code::TenantQueueFull, detail)
                .of_group(group)
                .retry_after(turn(group.waiting + 1, pace))
        }
        AcquireError::Unavailable { last, retry_after } => {
            let detail = format!("no browser can be launched at present: {}", chain(last.get()));
            Problem::new(Code::BrowserUnavailable, detail).retry_after(*retry_after)
        }
        AcquireError::Rejected(rejection) => rejected(rejection),
        AcquireError::Closed => draining(Duration::from_secs(5)),
        other => {
            Problem::new(Code::Unavailable, other.to_string()).retry_after(Duration::from_secs(1))
        }
    }
}

/// Returns the answer to a request that no node of the fleet can serve.
pub(super) fn cannot(cannot: &Cannot, waited: Duration) -> Problem {
    if *cannot.code == *Code::OfferOver.word() {
        return Problem::new(Code::OfferOver, &*cannot.message);
    }
    if *cannot.code == *Code::ProfileStoreUnavailable.word() {
        let problem = Problem::new(Code::ProfileStoreUnavailable, &*cannot.message);
        return problem.retry_after(Duration::from_secs(2));
    }
    let after = cannot.retry_after_ms.map_or(Duration::from_secs(1), Duration::from_millis);
    let code = match cannot.reason {
        Reason::Timeout => {
            let detail =
                format!("no browser of the fleet was free within {:.1} s", waited.as_secs_f64());
            return Problem::new(Code::AcquireTimeout, detail).waited(waited).retry_after(after);
        }
        Reason::Draining => Code::Draining,
        Reason::Full => Code::QueueFull,
        Reason::Exhausted => Code::TenantFull,
        Reason::Unknown => Code::NoNode,
        Reason::Unavailable => Code::BrowserUnavailable,
        Reason::Refused => Code::Unavailable,
    };
    Problem::new(code, &*cannot.message).retry_after(after)
}

/// Returns when it will be the turn of this place in the queue, if leases go on ending at this
/// pace.
fn turn(position: usize, pace: f64) -> Duration {
    let seconds = if pace > 0.0 { position as f64 / pace } else { 1.0 };
    Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
}

/// Returns the answer while the pool drains; a successor may be there after `retry_after`.
pub(super) fn draining(retry_after: Duration) -> Problem {
    let detail = "this pool is draining and gives no new leases";
    Problem::new(Code::Draining, detail).retry_after(retry_after)
}

fn rejected(rejection: &Rejection) -> Problem {
    let status = match rejection.kind {
        RejectionKind::Invalid => StatusCode::BAD_REQUEST,
        RejectionKind::Unknown => StatusCode::NOT_FOUND,
        RejectionKind::Forbidden => StatusCode::FORBIDDEN,
        RejectionKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        RejectionKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::with(status, rejection.code, rejection.message.clone());
    match rejection.retry_after {
        Some(after) => problem.retry_after(after),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_from_the_kind_whatever_the_code_is_called() {
        for (kind, status) in [
            (RejectionKind::Invalid, 400),
            (RejectionKind::Unknown, 404),
            (RejectionKind::Forbidden, 403),
            (RejectionKind::Exhausted, 429),
            (RejectionKind::Unavailable, 503),
        ] {
            let problem = refusal(&Rejection::new(kind, "quota_exceeded", "no").into(), 0.0);
            assert_eq!((problem.status().as_u16(), problem.code()), (status, "quota_exceeded"));
        }
    }

    #[test]
    fn a_full_queue_is_worth_another_try_when_it_could_be_ones_turn() {
        for (position, pace, seconds) in [(30, 10.0, 3), (30, 0.0, 1), (1000, 0.1, 60), (1, 9.0, 1)]
        {
            assert_eq!(turn(position, pace), Duration::from_secs(seconds), "{position} at {pace}");
        }
    }

    #[test]
    fn retry_after_is_never_less_than_a_second() {
        let rejection = Rejection::new(RejectionKind::Exhausted, "later", "no")
            .retry_after(Duration::from_millis(3));
        let problem =
            serde_json::to_value(refusal(&rejection.into(), 0.0)).expect("it is plain data");
        assert_eq!(problem["retry_after"], 1);
    }
}
