use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::shared::{Memory, RoundTrips};
use super::{Launcher, Pool, Report, Steps};
use crate::client::Client;
use crate::config::Config;
use crate::exit::Failure;
use crate::pool::RunDirectory;
use crate::service::Service;

/// Interval at which the pool is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// The two contestants, and what they are measured with.
#[derive(Debug)]
pub(crate) struct Run {
    config: Config,
    options: Options,
    pool: Pool,
    /// The benchmark's own pool, if it uses one.
    own: Option<Own>,
    launcher: Launcher,
    site: Site,
}

/// A pool that runs for the benchmark.
#[derive(Debug)]
struct Own {
    service: Service,
    /// After `service`, which uses it.
    _directory: RunDirectory,
}

impl Run {
    /// Finds the pool to measure, or starts one.
    ///
    /// # Errors
    ///
    /// The message to print: no pool answers, or it refuses the token; no Chromium (exit code 78).
    pub(crate) async fn open(config: Config, mut options: Options) -> Result<Self, Failure> {
        let launcher = Launcher::new(&config).await?;
        let site = Site::start().await?;
        let (pool, own) = match options.pool.take() {
            Some(client) => {
                let pool = Pool::new(client, options.lease.as_deref());
                pool.greet().await?;
                (pool, None)
            }
            None => {
                let own = Own::start(&config, options.concurrency).await?;
                (Pool::new(own.service.client()?, None), Some(own))
            }
        };
        Ok(Self { config, options, pool, own, launcher, site })
    }

    /// Lets the contestants work in turn.
    ///
    /// # Errors
    ///
    /// The first failed step: figures with gaps would mean nothing.
    pub(crate) async fn measure(&self) -> Result<Report, Failure> {
        if let Some(own) = &self.own {
            own.ready(self.options.concurrency, self.config.chrome.launch_timeout).await?;
        }
        let url = self.site.url();
        let lease = self.warm_up(&url).await?;
        let (mut pool, mut launch) = (Steps::default(), Steps::default());
        let mut left = self.options.sessions;
        while left > 0 {
            let clients = left.min(self.options.concurrency);
            pool.append(self.pool.round(clients, &url).await?);
            launch.append(self.launcher.round(clients, &url).await?);
            left -= clients;
        }
        let (mut memory, mut round_trips) = (None, None);
        if lease == "shared" {
            round_trips = Some(RoundTrips::measure(&self.pool, &self.launcher).await?);
            // For a pool elsewhere, it is not known what else is in its Chromiums.
            if self.own.is_some() {
                memory = Some(Memory::measure(&self.config, &self.launcher, &url).await?);
            }
        }
        Ok(Report {
            engine: self.launcher.engine(),
            lease,
            concurrency: self.options.concurrency,
            pool,
            launch,
            memory,
            round_trips,
        })
    }

    /// Runs an uncounted session on each side, since the first of anything takes longer. Returns
    /// the kind of lease that the pool gives.
    async fn warm_up(&self, url: &str) -> Result<String, Failure> {
        let (mut leased, _) = self.pool.session(url).await?;
        let (mut launched, _) = self.launcher.session(url).await?;
        let [pools, own] = [leased.cdp.product().await?, launched.cdp.product().await?];
        launched.close().await;
        if pools != own {
            anstream::eprintln!(
                "warning: the pool has {pools}, but {own} is launched: set --engine to compare like \
                 with like"
            );
        }
        let kind = self.pool.kind(&leased).await?;
        self.pool.release(vec![leased]).await?;
        Ok(kind)
    }

    /// Closes every browser of the benchmark.
    pub(crate) async fn close(self) {
        if let Some(own) = &self.own {
            own.service.stop(Duration::ZERO).await;
        }
    }
}

impl Own {
    /// Starts a pool as configured, but next to others, and with a browser ready for each client: a
    /// warm lease must not be measured with a queue or a launch in it.
    async fn start(config: &Config, clients: usize) -> Result<Self, Failure> {
        let mut config = config.clone();
        let directory = RunDirectory::choose(&config.pool.state_dir, "bench-pools");
        directory.path().clone_into(&mut config.pool.state_dir);
        config.pool.max_size = config.pool.max_size.max(clients);
        config.sizing.enabled = false;
        let service = Service::start_private(config, clients).await?;
        Ok(Self { service, _directory: directory })
    }

    /// Waits until this many browsers are idle.
    async fn ready(&self, clients: usize, launch_timeout: Duration) -> Result<(), Failure> {
        // Two are launched at once.
        let patience = launch_timeout * u32::try_from(clients.div_ceil(2)).unwrap_or(u32::MAX);
        let began = Instant::now();
        while self.service.opened().pool().load().idle < clients {
            if began.elapsed() > patience {
                return Err(Failure::new(format!(
                    "the pool did not have {clients} browsers ready within {} s",
                    patience.as_secs()
                ))
                .hint("check all requirements: pool-cli doctor"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Options of a measurement.
#[derive(Debug)]
pub(crate) struct Options {
    /// Sessions of each contestant.
    pub(crate) sessions: usize,
    /// Sessions at the same time.
    pub(crate) concurrency: usize,
    /// The pool that is measured; `None` for one of its own.
    pub(crate) pool: Option<Client>,
    /// The kind of lease to ask that pool for; `None` for what it gives.
    pub(crate) lease: Option<String>,
}

/// A page with a bit of everything that pages have, and of a size that costs little.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>bench</title>
<style>body { font: 16px/1.5 sans-serif; margin: 2em }</style>
<h1>A page</h1><p>It has a style, a script and some text.</p><ol id=list></ol>
<script>
  for (let i = 0; i < 100; i++) {
    const item = document.createElement('li');
    item.textContent = `item ${i}`;
    list.append(item);
  }
</script>";

/// Serves the page of the benchmark on loopback until it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    /// Begins to serve on a free port.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/", get(|| async { Html(PAGE) }));
        let task = tokio::spawn(async move {
            // It serves until the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, task })
    }

    /// Returns the address of the page.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}
