use axum::body::{Body as HttpBody, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use std::time::Duration;

use super::Problem;
use super::guard::is_json;

/// Longer than any body that means something here.
const LIMIT: usize = 64 * 1024;

/// Maximum time a body may take to arrive.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A JSON body, with refusals as problems; an empty one stands for `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let declared = is_json(request.headers());
        let bytes = collect(request.into_body(), LIMIT).await?;
        if bytes.is_empty() {
            return parse(&Bytes::from_static(b"{}"));
        }
        if !declared {
            let detail = "the body must be JSON: Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
        }
        parse(&bytes)
    }
}

/// Reads a body of so many bytes at most.
pub(super) async fn collect(body: HttpBody, limit: usize) -> Result<Bytes, Problem> {
    match timeout(PATIENCE, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let detail = format!("the body is incomplete or longer than {limit} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_body", detail))
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", detail))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<Body<T>, Problem> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map(Body).map_err(|error| Problem::bad_request("bad_body", error.to_string()))
}
