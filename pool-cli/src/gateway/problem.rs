use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pool_core::GroupStats;
use serde::Serialize;

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
