//! Measurements for shared leases only: the memory of each additional client, and the cost of going
//! through the gateway.

use std::time::{Duration, Instant};

use super::{Cdp, Direct, Launcher, Page, Pool};
use crate::config::{Config, LeaseKind};
use crate::exit::Failure;
use crate::pool::RunDirectory;
use crate::service::Service;

/// Clients that have a page open at once.
const CLIENTS: usize = 4;

/// Time to settle, since pages keep working for a moment after they are loaded.
const SETTLE: Duration = Duration::from_secs(1);

/// Proportional set sizes in bytes, which count shared memory once. Each client has the page of the
/// benchmark open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Memory that each client after the first adds to a shared Chromium.
    pub(crate) further: f64,
    /// Memory of a Chromium of its own, next to as many others as there are clients, with which it
    /// shares the memory of the program.
    pub(crate) own: f64,
}

impl Memory {
    /// Measures both, one after the other.
    pub(crate) async fn measure(
        config: &Config,
        launcher: &Launcher,
        url: &str,
    ) -> Result<Self, Failure> {
        Ok(Self { own: own(launcher, url).await?, further: further(config, url).await? })
    }
}

async fn own(launcher: &Launcher, url: &str) -> Result<f64, Failure> {
    let mut all = Vec::new();
    for _ in 0..CLIENTS {
        all.push(launcher.session(url).await?.0);
    }
    tokio::time::sleep(SETTLE).await;
    let mut bytes = 0;
    for launched in &all {
        bytes += launched.chromium.memory().await;
    }
    for launched in all {
        launched.close().await;
    }
    Ok(bytes as f64 / CLIENTS as f64)
}

/// Measures in a pool of its own, which keeps nothing ready: a warm page would count as a client's.
async fn further(config: &Config, url: &str) -> Result<f64, Failure> {
    let mut config = config.clone();
    let directory = RunDirectory::choose(&config.pool.state_dir, "bench-memory");
    directory.path().clone_into(&mut config.pool.state_dir);
    config.pool.lease = LeaseKind::Shared;
    config.pool.max_size = CLIENTS;
    config.pool.leases_per_browser = CLIENTS;
    config.sizing.enabled = false;
    let service = Service::start_private(config, 0).await?;
    let bytes = further_in(&service, url).await;
    service.stop(Duration::ZERO).await;
    bytes
}

async fn further_in(service: &Service, url: &str) -> Result<f64, Failure> {
    let pool = Pool::new(service.client()?, None);
    let mut leases = vec![pool.session(url).await?.0];
    let first = memory(service).await?;
    while leases.len() < CLIENTS {
        leases.push(pool.session(url).await?.0);
    }
    let all = memory(service).await?;
    pool.release(leases).await?;
    Ok((all as f64 - first as f64) / (CLIENTS - 1) as f64)
}

/// Returns the memory of the one Chromium.
async fn memory(service: &Service) -> Result<u64, Failure> {
    tokio::time::sleep(SETTLE).await;
    let pool = service.opened().pool();
    pool.driver().measure(Duration::ZERO).await;
    let vitals = pool.resources().into_iter().filter_map(|info| pool.driver().vitals(info.id));
    let memory = vitals.filter_map(|vitals| vitals.memory).map(|(bytes, _)| bytes).max();
    memory.ok_or_else(|| Failure::new("the memory of a Chromium could not be measured"))
}

/// Number of pairs of pages: how the threads of one pair happen to be placed on the cores affects
/// its times too much.
const PAGES: usize = 5;

/// Round trips with each page.
const SAMPLES: usize = 400;

/// Number of uncounted round trips before them.
const WARM_UP: usize = 50;

/// Round trips of `Runtime.evaluate('1')`.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    /// Through the gateway, the multiplexer and the pipe.
    pub(crate) pool: Vec<Duration>,
    /// Over a WebSocket to the debugging port of a Chromium of the same kind.
    pub(crate) direct: Vec<Duration>,
}

impl RoundTrips {
    /// Measures both ways in turn, one round trip on each.
    pub(crate) async fn measure(pool: &Pool, launcher: &Launcher) -> Result<Self, Failure> {
        let direct = Direct::launch(launcher).await?;
        let mut trips = Self::default();
        for _ in 0..PAGES {
            trips.alternate(pool, &direct).await?;
        }
        direct.close().await;
        Ok(trips)
    }

    async fn alternate(&mut self, pool: &Pool, direct: &Direct) -> Result<(), Failure> {
        let mut leased = pool.lease().await?;
        let leased_page = leased.cdp.first_page().await?;
        let mut connected = direct.connect().await?;
        let page = connected.open_page().await?;
        for sample in 0..WARM_UP + SAMPLES {
            let through = round_trip(&mut leased.cdp, &leased_page).await?;
            let directly = round_trip(&mut connected, &page).await?;
            if sample >= WARM_UP {
                self.pool.push(through);
                self.direct.push(directly);
            }
        }
        connected.close().await?;
        pool.release(vec![leased]).await?;
        Ok(())
    }
}

async fn round_trip(cdp: &mut Cdp, page: &Page) -> Result<Duration, Failure> {
    let began = Instant::now();
    cdp.evaluate_one(page).await?;
    Ok(began.elapsed())
}
