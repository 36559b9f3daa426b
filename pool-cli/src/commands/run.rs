//! `pool-cli run`.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::ConfigArgs;
use crate::exit::Failure;
use crate::gateway::Reload;
use crate::reloader::Reloader;
use crate::service::Service;
use crate::telemetry::Traces;
use crate::{banner, logging, stdout, supervisor};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Time that browsers have to end after a second signal.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Serves until a signal ends it.
///
/// # Errors
///
/// The reason why it could not start; or that a second signal cut the drain short.
pub fn run(args: Args) -> Result<(), Failure> {
    let loaded = args.config.loader().for_this_machine().load()?;
    let traces = Traces::start(&loaded.config)?;
    logging::init_with(&loaded.config.log, traces.as_ref())?;
    if loaded.config.telemetry.otlp_endpoint.is_some() && traces.is_none() {
        warn!("no traces are exported: this pool-cli was built without the feature otlp");
    }
    raise_file_limit();
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args, loaded));
    // Blocking reads of a browser's memory may be under way; nothing waits for them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Lets the process have as many files as it may: each client, and each browser, takes some.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, current = limit.current, "the limit of open files could not be raised");
    }
}

async fn serve(args: Args, loaded: crate::config::Loaded) -> Result<(), Failure> {
    // Before anything is launched: a signal during the start is served after it, as a drain, so
    // that nothing is left behind.
    let mut signals = Signals::listen()?;
    let service = Service::start(&loaded.config).await?;
    stdout::print(&format!("{}\n", banner::url(&loaded.config, service.address())))?;
    if logging::is_human(&loaded.config.log) {
        anstream::eprint!("{}", banner::text(&loaded.config, service.address()));
    } else {
        info!(address = %service.address(), "listening");
    }
    let reloader = Arc::new(Reloader::new(
        args.config,
        loaded.config,
        service.gateway(),
        service.opened().clone(),
    ));
    service.gateway().on_reload(reloader.clone());
    supervisor::tell(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(supervisor::watch(Arc::clone(service.gateway())));
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => reload(&reloader).await,
                Told::End => break,
            },
            () = service.gateway().drain_asked() => break,
        }
    }
    supervisor::tell(&[NotifyState::Stopping]);
    let leases = service.gateway().fleet().load().leased;
    let grace = service.gateway().settings().drain_timeout();
    info!(leases, ?grace, "draining; a second signal ends it at once");
    tokio::select! {
        ended = service.stop(grace) => info!(ended, "drained"),
        () = signals.end() => {
            warn!("second signal: ending at once");
            // What is not gone by then dies with its pipe when this process does.
            let _ = timeout(AT_ONCE, service.stop(Duration::ZERO)).await;
            return Err(Failure::silent(crate::exit::FAILURE));
        }
    }
    // Only now: a drain may take longer than the watchdog waits.
    watchdog.abort();
    Ok(())
}

async fn reload(reloader: &Reloader) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        supervisor::tell(&[NotifyState::Reloading, now]);
    }
    let outcome = reloader.reload().await;
    supervisor::tell(&[NotifyState::Ready]);
    match outcome {
        Ok(reloaded) => info!(?reloaded, "configuration reloaded"),
        Err(problem) => {
            error!("the new configuration was not taken, the old one stays:\n{problem}");
        }
    }
}

/// The signals that a service is steered with.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Waits for a signal to end; a reload makes no sense meanwhile.
    async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}

/// Meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}
