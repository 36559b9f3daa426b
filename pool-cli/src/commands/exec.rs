//! `pool-cli exec -- CMD`.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Client, PATIENCE, RunningPoolArgs};
use crate::config::{ConfigArgs, LogConfig, LogFormat};
use crate::exit::Failure;
use crate::logging;
use crate::service::Service;

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pool: RunningPoolArgs,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    config: ConfigArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Heading of the options about the browser in help texts.
const HEADING: &str = "Browser";

/// The requested browser.
#[derive(Clone, Debug, Serialize, clap::Args)]
struct Wanted {
    /// Profile of the browser.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// Region of the browser.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// Domains that the browser may reach, such as example.com,*.example.org. This requires a
    /// section [egress] in the configuration of the pool.
    #[arg(long, value_name = "DOMAINS", help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_domains: Option<String>,
    /// Priority of the request: 1 is served first, 10 last.
    #[arg(long, value_name = "1-10", help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// Number of pages that the lease begins with.
    #[arg(long, value_name = "0-1", value_parser = clap::value_parser!(u8).range(0..=1), help_heading = HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u8>,
    /// Maximum time to wait for a browser, such as 30s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = HEADING)]
    #[serde(rename = "acquire_timeout_seconds", serialize_with = "seconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_timeout: Option<Duration>,
}

fn seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.unwrap_or_default().as_secs_f64().serialize(serializer)
}

#[derive(Deserialize)]
struct Acquired {
    session_id: String,
    cdp_ws_url: String,
}

/// The one pool of a service, whatever its name is.
const POOL: &str = "/browser_pools/default";

/// Leases a browser, runs the command with `CDP_URL` set to its address, gives the browser back,
/// and ends with the command's exit code, or with 128 plus the signal's number if a signal ended
/// it.
///
/// # Errors
///
/// If there is no browser, the command cannot be started, or it fails.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let status = match args.pool.client()? {
        Some(client) => runtime.block_on(with_lease(client, args))?,
        None => {
            let config = args.config.load()?;
            logging::init(&quiet(&config.log))?;
            runtime.block_on(async {
                let service = Service::start_private(config, 0).await?;
                let outcome = match service.client() {
                    Ok(client) => with_lease(client, args).await,
                    Err(failure) => Err(failure),
                };
                service.stop(Duration::ZERO).await;
                outcome
            })?
        }
    };
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// Returns a quieter log configuration, for people: log lines come between the command's own.
fn quiet(log: &LogConfig) -> LogConfig {
    let mut log = logging::quiet(log, "warn");
    if log.format == LogFormat::Auto {
        log.format = LogFormat::Human;
    }
    log
}

async fn with_lease(client: Client, args: &Args) -> Result<ExitStatus, Failure> {
    let wanted = args.wanted.clone();
    let acquire = move || {
        let acquired = client.post::<Acquired>(&format!("{POOL}/acquire"), &wanted, PATIENCE);
        acquired.map(|acquired| (acquired, client))
    };
    let (acquired, client) = tokio::task::spawn_blocking(acquire).await??;
    let acquired = acquired.ok_or_else(|| {
        Failure::new("no browser was free in time").hint("wait longer: --acquire-timeout 2m")
    })?;
    let outcome = command(&args.command, &acquired.cdp_ws_url).await;
    let release = move || {
        let body = json!({ "session_id": acquired.session_id });
        client.post::<()>(&format!("{POOL}/release"), &body, Duration::from_secs(5))
    };
    // The pool takes a lease back by itself anyway; the command's own outcome is what counts.
    if let Err(failure) = tokio::task::spawn_blocking(release).await? {
        tracing::warn!("the browser could not be given back: {failure}");
    }
    outcome
}

async fn command(command: &[String], cdp_url: &str) -> Result<ExitStatus, Failure> {
    let (program, arguments) = command.split_first().expect("clap requires one at least");
    let mut signals = Signals::listen()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("CDP_URL", cdp_url)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot run {program}: {error}")).code(127))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            signal = signals.next() => forward(&child, signal),
        }
    }
}

/// The signals that are passed on to the command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Option<rustix::process::Signal> {
        use rustix::process::Signal;
        tokio::select! {
            // A terminal sends Ctrl-C to the command itself, so sending it again would be once too
            // often.
            _ = self.interrupt.recv() => (!std::io::stdin().is_terminal()).then_some(Signal::INT),
            _ = self.terminate.recv() => Some(Signal::TERM),
            _ = self.hangup.recv() => Some(Signal::HUP),
        }
    }
}

fn forward(child: &Child, signal: Option<rustix::process::Signal>) {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    if let (Some(pid), Some(signal)) = (pid, signal) {
        // The command may have ended just now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => (128 + signal.unwrap_or_default()) as u8,
    }
}
