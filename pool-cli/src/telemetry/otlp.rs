use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber, info, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use ureq::Agent;

use super::TraceParent;
use crate::config::Config;
use crate::exit::Failure;

/// The export of traces; dropping it sends what is left.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Timeout for sending the last spans.
const LAST: Duration = Duration::from_secs(5);

impl Traces {
    /// Starts to export to `telemetry.otlp_endpoint`; `None` if that is not set.
    ///
    /// Sampling, headers and batches are controlled by the variables that every program with
    /// OpenTelemetry has: `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_…`.
    ///
    /// # Errors
    ///
    /// If the exporter cannot be made; it is not an error if the collector does not answer.
    pub fn start(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = &config.telemetry.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new())
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("browserpool.pool", config.pool.name.clone()));
        if env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("browser-pool");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self(provider)))
    }

    /// Returns the layer that receives our spans, whatever the log's filter is.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours = ["pool_cli", "pool_core", "pool_chrome", "pool_policies"];
        let ours = ours.map(|target| (target, LevelFilter::INFO));
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("browser-pool"))
            // Our files, lines and threads mean nothing to those who look at a trace.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_targets(ours))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Makes a span a child of the client's.
pub(crate) fn follow(span: &Span, parent: &TraceParent) {
    let parent = SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        TraceFlags::new(parent.flags),
        true,
        TraceState::default(),
    );
    // Fails only if nothing is exported.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Returns the place of a span in its trace, for requests that belong to it.
pub(crate) fn context(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let own = context.span().span_context().clone();
    own.is_valid().then(|| TraceParent {
        trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(own.span_id().to_bytes()),
        flags: own.trace_flags().to_u8(),
    })
}

/// Sends spans to the collector with the HTTP client that the commands use.
///
/// It blocks; the exporter has a thread of its own, outside of any runtime.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    /// Set while the last request has failed.
    is_failing: AtomicBool,
}

/// Timeout of one request.
const PATIENCE: Duration = Duration::from_secs(10);

impl Collector {
    fn new() -> Self {
        let config = Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(PATIENCE)).build().new_agent();
        Self { agent, is_failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &*body))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }

    /// Logs the beginning and the end of an outage. The exporter tries again for a while, drops
    /// what it could not send, and reports neither, not even at the end of the process.
    fn report(&self, failure: Option<String>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => warn!(error, "the collector does not accept traces"),
            None if was_failing => info!("the collector accepts traces again"),
            Some(_) | None => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        self.report(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        Ok(answer?)
    }
}
