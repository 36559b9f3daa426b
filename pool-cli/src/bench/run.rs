use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::shared::{Memory, RoundTrips};
use super::{Cdp, Launcher, Page, Pool, Report};
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
    /// The pool of the benchmark's own, if it is that.
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
    /// Finds the pool that is measured, or starts one.
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
    /// The first thing that does not work: figures with gaps would say nothing.
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
            // Of a pool elsewhere, what else is in its Chromiums is not known.
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

    /// Runs a session of each that is not counted: the first of anything takes longer. Returns the
    /// kind of lease that the pool gives.
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

    /// Closes every browser of the benchmark's.
    pub(crate) async fn close(self) {
        if let Some(own) = &self.own {
            own.service.stop(Duration::ZERO).await;
        }
    }
}

impl Own {
    /// Starts a pool as it is configured, but beside others, and with a browser ready for each
    /// client: a queue or a launch is not what a warm lease is measured by.
    async fn start(config: &Config, clients: usize) -> Result<Self, Failure> {
        let mut config = config.clone();
        let directory = RunDirectory::choose(&config.pool.state_dir, "bench-pools");
        directory.path().clone_into(&mut config.pool.state_dir);
        config.pool.max_size = config.pool.max_size.max(clients);
        config.sizing.enabled = false;
        let service = Service::start_private(config, clients).await?;
        Ok(Self { service, _directory: directory })
    }

    /// Waits until so many browsers are idle.
    async fn ready(&self, clients: usize, launch_timeout: Duration) -> Result<(), Failure> {
        // Two are launched at once.
        let patience = launch_timeout * u32::try_from(clients.div_ceil(2)).unwrap_or(u32::MAX);
        let began = Instant::now();
        while self.service.opened().pool().load().idle < clients {
            if began.elapsed() > patience {
                return Err(Failure::new(format!(
                    "the pool has not got {clients} browsers ready within {} s",
                    patience.as_secs()
                ))
                .hint("see all that it needs: pool-cli doctor"));
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

/// A page with something of everything that makes a page, and of a size that costs little.
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

    /// The address of the page.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The steps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From nothing to the first answer of the browser.
    Connect,
    /// From nothing to the first answer of the page that the browser begins with: connecting is
    /// part of it. A Chromium that is launched is launched without one, which is quicker.
    FirstPage,
    /// From nothing to the first answer of a page that the client opens without a look at the
    /// first one: connecting is part of it.
    NewPage,
    /// From there until another page is loaded.
    Goto,
    /// From closing the connection until the next client could have what this one had: until the
    /// pool has the browser back, clean and idle, or until nothing is left of the one that was
    /// launched.
    Release,
}

impl Step {
    pub(crate) const ALL: [Self; 5] =
        [Self::Connect, Self::FirstPage, Self::NewPage, Self::Goto, Self::Release];

    /// Its name in figures.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstPage => "first_page",
            Self::NewPage => "new_page",
            Self::Goto => "goto",
            Self::Release => "release",
        }
    }
}

/// Durations of each step, session by session.
#[derive(Debug, Default)]
pub(crate) struct Steps([Vec<Duration>; 5]);

impl Steps {
    pub(crate) fn add(&mut self, step: Step, took: Duration) {
        self.0[step as usize].push(took);
    }

    pub(crate) fn of(&self, step: Step) -> &[Duration] {
        &self.0[step as usize]
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (all, more) in self.0.iter_mut().zip(other.0) {
            all.extend(more);
        }
    }

    /// Takes a client that has just connected to a lease through the steps up to the last one but
    /// release.
    pub(crate) async fn walk_leased(
        &mut self,
        began: Instant,
        cdp: &mut Cdp,
        url: &str,
    ) -> Result<(), Failure> {
        self.connected(began, cdp).await?;
        let page = cdp.first_page().await?;
        self.add(Step::FirstPage, began.elapsed());
        self.go(cdp, &page, url).await
    }

    /// The same with a Chromium that was launched, where the first page is a new one.
    pub(crate) async fn walk_launched(
        &mut self,
        began: Instant,
        cdp: &mut Cdp,
        url: &str,
    ) -> Result<(), Failure> {
        self.connected(began, cdp).await?;
        let page = cdp.open_page().await?;
        self.add(Step::FirstPage, began.elapsed());
        self.add(Step::NewPage, began.elapsed());
        self.go(cdp, &page, url).await
    }

    async fn connected(&mut self, began: Instant, cdp: &mut Cdp) -> Result<(), Failure> {
        cdp.product().await?;
        self.add(Step::Connect, began.elapsed());
        Ok(())
    }

    async fn go(&mut self, cdp: &mut Cdp, page: &Page, url: &str) -> Result<(), Failure> {
        let left = Instant::now();
        cdp.goto(page, url).await?;
        self.add(Step::Goto, left.elapsed());
        Ok(())
    }
}
