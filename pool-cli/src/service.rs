//! A pool with its gateway, made from a configuration, as `run` and `exec` start it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::config::{AlertsConfig, Config, Secret, TelemetryConfig};
use crate::exit::{self, Failure};
use crate::fleet::{self, Entry, Fleet};
use crate::gateway::{Gateway, LeaseId, Server, Settings};
use crate::metrics::Observer;
use crate::pool::{OpenError, Opened, open};

/// A pool and the gateway to it, both running.
#[derive(Debug)]
pub struct Service {
    gateway: Arc<Gateway>,
    server: Server,
    opened: Arc<Opened>,
    token: Option<Secret>,
    /// Calls the webhooks for as long as it lives.
    _alerts: JoinSet<()>,
}

impl Service {
    /// Starts the configured pool and gateway. The port is taken first, so that a second `run`
    /// fails before it launches anything.
    ///
    /// # Errors
    ///
    /// The message to print: a port in use, no Chromium (exit code 78), a state directory in use.
    pub async fn start(config: &Config) -> Result<Self, Failure> {
        let settings = Settings::new(config).map_err(|error| {
            Failure::new(error.to_string())
                .hint("set a token: [gateway] token = { env = \"POOL_TOKEN\" }")
                .code(exit::CONFIG)
        })?;
        let listener = bind(config.gateway.listen).await?;
        let entry = match config.fleet.as_ref().filter(|fleet| fleet.is_on()) {
            Some(fleet) => Some(Entry::of(fleet).await?),
            None => None,
        };
        let observer = Observer::new(&config.pool.name);
        let opened = open(config, &observer).await.map_err(OpenError::failure)?;
        opened.protect(listener.local_addr()?, config);
        observer.alerts().configure(&config.alerts);
        observer.alerts().set_tenants(config.tenants.keys());
        let alerts = observer.alerts().run();
        let gateway = Gateway::new(settings, opened.browser_pool(), observer);
        keep_usage(&gateway, config)?;
        if let Some(entry) = entry {
            let fleet = entry.join(config, &opened).await?;
            tokio::spawn(report_namesake(Arc::downgrade(&fleet)));
            gateway.join(fleet);
        }
        let opened = Arc::new(opened);
        if let (Some(fleet), Some(settings)) = (gateway.fleet(), &config.fleet) {
            let servers = settings.nats.clone();
            tokio::spawn(fleet::follow(Arc::downgrade(fleet), Arc::downgrade(&opened), servers));
        }
        let server = Server::start_on(&gateway, listener)?;
        Ok(Self { gateway, server, opened, token: config.gateway.token.clone(), _alerts: alerts })
    }

    /// Starts a pool for one command: on a port of its own, behind a token of its own, with `kept`
    /// browsers kept ready and no others except those that are asked for.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_private(mut config: Config, kept: usize) -> Result<Self, Failure> {
        config.gateway.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.gateway.token = Some(Secret::new(LeaseId::random().to_string()));
        config.gateway.external_url = None;
        config.fleet = None;
        config.alerts = AlertsConfig::default();
        config.telemetry = TelemetryConfig::default();
        config.pool.name = "default".to_owned();
        // It has only one client, to which no tenant's limits apply.
        config.tenants.clear();
        config.pool.min_size = kept;
        config.warming.min_idle = 0;
        for profile in config.profiles.named.values_mut() {
            profile.min_size = 0;
        }
        for region in config.regions.values_mut() {
            region.min_size = 0;
        }
        Self::start(&config).await
    }

    /// Returns the gateway.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Returns the opened pool, for changes at a reload.
    #[must_use]
    pub fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns a client for it.
    ///
    /// # Errors
    ///
    /// None in practice, since the address is valid.
    pub fn client(&self) -> Result<Client, Failure> {
        let token = self.token.as_ref().map(Secret::expose);
        Client::new(&format!("http://{}", self.address()), token)
    }

    /// Lets leases finish for `grace`, ends the others, and closes every browser. Returns how many
    /// leases had to be ended. A second call, while the first is under way, may shorten the grace.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.gateway.drain(grace).await
    }
}

/// Logs that another node has the name of this one, which then gives no more leases to others.
async fn report_namesake(fleet: Weak<Fleet>) {
    let Some(namesake) = fleet.upgrade().map(|fleet| fleet.namesake()) else { return };
    let address = namesake.await;
    tracing::error!(
        %address,
        "an older node of the fleet has this name, so this one is draining; give it another name"
    );
}

/// Records the usage of tenants, if there are any.
pub(crate) fn keep_usage(gateway: &Gateway, config: &Config) -> std::io::Result<()> {
    if config.tenants.is_empty() {
        return Ok(());
    }
    gateway.keep_usage_in(&config.pool.state_dir.join("usage"))
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|error| {
        let failure = Failure::new(format!("cannot listen on {listen}: {error}"));
        match error.kind() {
            ErrorKind::AddrInUse => failure
                .hint("another program uses this port; choose another: --listen 127.0.0.1:3001"),
            ErrorKind::PermissionDenied => {
                failure.hint("ports below 1024 require root: use another").code(exit::CONFIG)
            }
            ErrorKind::AddrNotAvailable => {
                failure.hint("this machine has no such address").code(exit::CONFIG)
            }
            _ => failure,
        }
    })
}
