//! `pool-cli run`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, timeout};
use tracing::{error, info, warn};

use crate::config::{Config, ConfigArgs};
use crate::exit::Failure;
use crate::gateway::{Gateway, Reload};
use crate::reloader::Reloader;
use crate::service::Service;
use crate::telemetry::Traces;
use crate::{logging, stdout};

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
/// The reason why it could not start, or that a second signal cut the drain short.
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
    // Blocking reads of browsers' memory may be under way; nothing waits for them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Raises the process's limit of open files as far as allowed: each client and each browser takes
/// some.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, current = limit.current, "the limit of open files could not be raised");
    }
}

async fn serve(args: Args, loaded: crate::config::Loaded) -> Result<(), Failure> {
    // Before anything is launched: a signal during the start is handled after it, as a drain, so
    // that nothing is left behind.
    let mut signals = Signals::listen()?;
    let service = Service::start(&loaded.config).await?;
    stdout::print(&format!("{}\n", ws_url(&loaded.config, service.address())))?;
    if logging::is_human(&loaded.config.log) {
        anstream::eprint!("{}", banner(&loaded.config, service.address()));
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
    tell(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(watch(Arc::clone(service.gateway())));
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => reload(&reloader).await,
                Told::End => break,
            },
            () = service.gateway().drain_asked() => break,
        }
    }
    tell(&[NotifyState::Stopping]);
    let leases = service.gateway().pool().load().leased;
    let grace = service.gateway().settings().drain_timeout();
    info!(leases, ?grace, "draining; a second signal ends the pool at once");
    tokio::select! {
        ended = service.stop(grace) => info!(ended, "drained"),
        () = signals.end() => {
            warn!("second signal: ending at once");
            // Whatever is not gone by then dies with its pipe when this process does.
            let _ = timeout(AT_ONCE, service.stop(Duration::ZERO)).await;
            return Err(Failure::silent(crate::exit::FAILURE));
        }
    }
    // Not earlier: a drain may take longer than the watchdog waits.
    watchdog.abort();
    Ok(())
}

async fn reload(reloader: &Reloader) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    let outcome = reloader.reload().await;
    tell(&[NotifyState::Ready]);
    match outcome {
        Ok(reloaded) => info!(?reloaded, "configuration reloaded"),
        Err(problem) => {
            error!("the new configuration was not applied, the old one stays:\n{problem}");
        }
    }
}

/// The signals that control a service.
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

    /// Waits for a signal to end; during a drain, a reload makes no sense.
    async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

/// Returns the address that clients connect to, in one line for scripts.
pub(crate) fn ws_url(config: &Config, address: SocketAddr) -> String {
    match &config.gateway.external_url {
        Some(url) => url.replacen("http", "ws", 1),
        None => format!("ws://{}", reachable(address)),
    }
}

/// Returns the banner: where the pool listens and how each client connects, in lines to copy.
pub(crate) fn banner(config: &Config, address: SocketAddr) -> String {
    let pool = &config.pool;
    let kind = pool.lease.as_str();
    // The token itself is never printed.
    let query = if config.gateway.token.is_some() { "/?token=YOUR_TOKEN" } else { "" };
    let url = format!("{}{query}", ws_url(config, address));
    let mut text = String::new();
    let _ = write!(
        text,
        "\
browser pool {version} listens on http://{at} ({min} to {max} browsers, {kind} leases)

  Playwright  const browser = await chromium.connectOverCDP('{url}');
  Puppeteer   const browser = await puppeteer.connect({{ browserWSEndpoint: '{url}' }});
  Python      browser = playwright.chromium.connect_over_cdp(\"{url}\")

Ctrl-C lets leases finish for {grace}, then ends the pool; dashboard: http://{at}
",
        version = env!("CARGO_PKG_VERSION"),
        at = reachable(address),
        min = pool.min_size,
        max = pool.max_size,
        grace = humantime::format_duration(config.gateway.drain_timeout),
    );
    text
}

/// Returns an address that can be connected to, if the one listened on stands for all.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Tells the supervisor the state of the service.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor could not be notified");
    }
}

/// Notifies the supervisor, as often as `WatchdogSec=` requires, that the pool still answers.
pub(crate) async fn watch(gateway: Arc<Gateway>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(patience / 2);
    loop {
        ticks.tick().await;
        // This takes the pool's lock: if that is never released again, nothing is sent, and systemd
        // acts.
        let _ = gateway.pool().load();
        tell(&[NotifyState::Watchdog]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_token_is_not_printed_and_every_client_has_a_line() {
        let mut config = Config::default();
        config.gateway.token = Some(Secret::new("s3cret"));
        let text = banner(&config, SocketAddr::from(([0, 0, 0, 0], 3000)));
        assert!(!text.contains("s3cret"));
        for part in
            ["connectOverCDP('ws://127.0.0.1:3000/?token=", "browserWSEndpoint", "connect_over_cdp"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
