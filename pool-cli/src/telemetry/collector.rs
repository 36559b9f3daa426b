use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;

/// Sends spans to the collector with the HTTP client that the commands use.
///
/// It blocks; the exporter has a thread of its own, outside of any runtime.
#[derive(Debug)]
pub(super) struct Collector(Agent);

/// Timeout of one request.
const PATIENCE: Duration = Duration::from_secs(10);

impl Collector {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder().http_status_as_error(false);
        Self(config.timeout_global(Some(PATIENCE)).build().new_agent())
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(parts, &*body))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}
