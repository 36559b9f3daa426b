//! Messages on stderr while a pool runs.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogConfig, LogFormat};
use crate::exit::{self, Failure};
use crate::telemetry::Traces;

/// Noise of libraries below a level that matters: chromiumoxide warns of every event that it does
/// not know, and there are many. The WebSocket's would log what clients send, passwords and
/// cookies among it, where the operator asks for `trace` of everything.
///
/// NATS's client logs every attempt to connect; pool-fleet logs once that the connection is lost, and once that it is
/// back.
const QUIET: [&str; 8] = [
    "async_nats=off",
    "chromiumoxide=error",
    "hyper=warn",
    "rustls=warn",
    "ureq=warn",
    "async_tungstenite=warn",
    "tokio_tungstenite=warn",
    "tungstenite=warn",
];

/// Starts to log as configured; once in a process.
///
/// # Errors
///
/// Exit code 78 for a filter that means nothing.
pub fn init(config: &LogConfig) -> Result<(), Failure> {
    init_with(config, None)
}

/// The same, with an export of traces, which does not depend on the log's filter.
///
/// # Errors
///
/// As [`init`].
pub fn init_with(config: &LogConfig, traces: Option<&Traces>) -> Result<(), Failure> {
    // Ours first, so that the operator's filter, which comes later, wins.
    let directives = format!("{},{}", QUIET.join(","), config.filter);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::new(format!("log.filter: {error}"))
            .hint("write a level such as \"info\", or levels by target: \"info,pool_chrome=debug\"")
            .code(exit::CONFIG)
    })?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if is_human(config) {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        lines.with_target(false).with_ansi(colours).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    };
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.map(Traces::layer));
    // A process that logs already, as a test may, goes on with what it has.
    subscriber.try_init().or(Ok(()))
}

/// The same with this filter where the operator asked for none: what a command prints itself
/// should not stand between lines of the log.
pub(crate) fn quiet(config: &LogConfig, filter: &str) -> LogConfig {
    let mut config = config.clone();
    if config.filter == LogConfig::default().filter {
        filter.clone_into(&mut config.filter);
    }
    config
}

/// Returns `true` if lines are for people rather than for programs.
#[must_use]
pub fn is_human(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    }
}
