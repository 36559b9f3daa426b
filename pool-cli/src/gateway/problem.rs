//! Refusals: what a client is told when it does not get what it asks for.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pool_core::{AcquireError, GroupStats, Rejection, RejectionKind};
use serde::Serialize;

use crate::exit::chain;

/// A refusal, as `application/problem+json`: a sentence for people first, then a stable code.
///
/// # Examples
///
/// ```
/// use axum::http::StatusCode;
/// use pool_cli::gateway::Problem;
///
/// let problem = Problem::new(StatusCode::NOT_FOUND, "unknown_profile", "there is no profile \"x\"");
/// assert_eq!(
///     serde_json::to_string(&problem).unwrap(),
///     r#"{"detail":"there is no profile \"x\"","code":"unknown_profile","title":"Not Found","status":404}"#,
/// );
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    detail: String,
    code: &'static str,
    title: &'static str,
    status: u16,
    /// In whole seconds, as the header `Retry-After` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<u64>,
    #[serde(flatten)]
    tenant: Option<Box<Limited>>,
}

/// Leases and limit of the tenant for whose sake a request is refused.
#[derive(Clone, Debug, Serialize)]
struct Limited {
    /// Leases that it has, and may have.
    held: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// Clients of it that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_limit: Option<usize>,
}

impl Problem {
    /// A refusal with a status, a stable word for machines and a sentence for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            code,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            retry_after: None,
            queue_position: None,
            waited_ms: None,
            tenant: None,
        }
    }

    /// A request that nobody could answer: 400.
    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Says when it is worth asking again; rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some((after.as_millis().div_ceil(1000) as u64).max(1));
        self
    }

    /// Says which place in the queue the request had, or would have had.
    #[must_use]
    pub fn queue_position(mut self, position: usize) -> Self {
        self.queue_position = Some(position);
        self
    }

    /// Says how long the request has waited.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited_ms = Some(waited.as_millis() as u64);
        self
    }

    /// Says what the tenant has and may have, and which place in its queue the request had.
    pub(super) fn of_group(mut self, group: &GroupStats) -> Self {
        let (held, limit, queue_limit) = (group.leased, group.max_leases, group.max_waiting);
        self.tenant = Some(Box::new(Limited { held, limit, queue_limit }));
        self.queue_position(group.waiting + 1)
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("it was made from a status")
    }

    /// The stable word for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
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

/// The answer to a request that got no lease; `pace` is how many leases end per second.
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
            Problem::new(StatusCode::REQUEST_TIMEOUT, "acquire_timeout", detail)
                .waited(*waited)
                .queue_position(load.waiting + 1)
                .retry_after(turn(load.waiting + 1, pace))
        }
        AcquireError::QueueFull { load } => {
            let detail = format!("the queue is full: {} clients wait already", load.waiting);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail)
                .queue_position(load.waiting + 1)
                .retry_after(turn(load.waiting + 1, pace))
        }
        AcquireError::GroupFull { waited, group } => {
            let (name, leased) = (&group.name, group.leased);
            let waited_for = waited.as_secs_f64();
            let detail = format!(
                "tenant {name:?} holds {leased} leases, as many as it may, and gave none back in \
                 {waited_for:.1} s"
            );
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "tenant_full", detail)
                .waited(*waited)
                .of_group(group)
                .retry_after(turn(group.waiting + 1, pace))
        }
        AcquireError::GroupQueueFull { group } => {
            let (name, waiting) = (&group.name, group.waiting);
            let detail =
                format!("{waiting} clients of tenant {name:?} wait already, as many as may");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "tenant_queue_full", detail)
                .of_group(group)
                .retry_after(turn(group.waiting + 1, pace))
        }
        AcquireError::Unavailable { last, retry_after } => {
            let detail = format!("no browser can be launched at present: {}", chain(last.get()));
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "browser_unavailable", detail)
                .retry_after(*retry_after)
        }
        AcquireError::Rejected(rejection) => rejected(rejection),
        AcquireError::Closed => draining(Duration::from_secs(5)),
        other => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", other.to_string())
            .retry_after(Duration::from_secs(1)),
    }
}

/// When it would be the turn of this place in the queue, if leases go on ending at this pace.
fn turn(position: usize, pace: f64) -> Duration {
    let seconds = if pace > 0.0 { position as f64 / pace } else { 1.0 };
    Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
}

/// The answer while the pool drains; whoever takes its place may be there after `retry_after`.
pub(super) fn draining(retry_after: Duration) -> Problem {
    let detail = "this pool drains and takes no new leases";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail).retry_after(retry_after)
}

fn rejected(rejection: &Rejection) -> Problem {
    let status = match rejection.kind {
        RejectionKind::Invalid => StatusCode::BAD_REQUEST,
        RejectionKind::Unknown => StatusCode::NOT_FOUND,
        RejectionKind::Forbidden => StatusCode::FORBIDDEN,
        RejectionKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        RejectionKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, rejection.code, rejection.message.clone());
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
