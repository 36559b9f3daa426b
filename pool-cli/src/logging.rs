//! Messages on stderr while a pool runs.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogConfig, LogFormat};
use crate::exit::{self, Failure};
use crate::telemetry::Traces;

/// Limits the noise of libraries: chromiumoxide warns of every event that it does not know, and
/// there are many. The WebSocket library would log what clients send, including passwords and
/// cookies, if the operator asks for `trace` of everything.
///
/// NATS's client logs every attempt to connect; pool-fleet only logs once that the connection is
/// lost, and once that it is back.
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

/// Starts logging as configured; once per process.
///
/// # Errors
///
/// Exit code 78 for a filter that cannot be understood.
pub fn init(config: &LogConfig) -> Result<(), Failure> {
    init_with(config, None)
}

/// Does the same with an export of traces, which does not depend on the log's filter.
///
/// # Errors
///
/// As [`init`].
pub fn init_with(config: &LogConfig, traces: Option<&Traces>) -> Result<(), Failure> {
    // Ours come first, so that the operator's filter, which comes later, takes precedence.
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
    // A process that already logs, as a test may, continues as it is.
    subscriber.try_init().or(Ok(()))
}

/// Returns the same configuration, with this filter if the operator set none: lines of the log
/// should not come between what a command prints itself.
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
