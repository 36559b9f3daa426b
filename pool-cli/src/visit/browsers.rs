use pool_chrome::{ChromeConfig, ChromeDriver};
use pool_core::{AcquireError, Lease, Pool, Request};

use super::Options;
use crate::config::{Config, LeaseKind};
use crate::exit::Failure;
use crate::metrics::Observer;
use crate::pool::{OpenError, Opened, RunDirectory, open_tuned};

/// The pool of a visit: as it is configured, but of the size and kind that the visit wants, and
/// with nothing running that it has not asked for.
#[derive(Debug)]
pub(crate) struct Browsers {
    opened: Opened,
    request: Request,
    /// The directory of this run, unless profiles want the configured one. Dropped last.
    _directory: Option<RunDirectory>,
}

impl Browsers {
    /// Opens the pool. Nothing is launched yet.
    ///
    /// # Errors
    ///
    /// The message to print: no Chromium, a state directory in use, an unknown profile or region.
    pub(crate) async fn open(config: Config, options: &Options) -> Result<Self, Failure> {
        let mut config = config;
        let pool = &mut config.pool;
        pool.lease = options.lease;
        pool.min_size = 0;
        pool.max_size = options.concurrency + 2 * options.ahead();
        // Every worker may wait for one.
        pool.max_waiting = options.workers();
        // A place in a Chromium is made in milliseconds; the limit is about launches.
        let launches = pool.max_creating;
        pool.max_creating = pool.max_creating.max(options.concurrency);
        pool.lease_timeout = None;
        config.sizing.enabled = false;
        config.warming.min_idle = 0;
        // An empty page warms nothing that lasts; a page or a script may.
        config.warming.enabled &=
            config.warming.url != "about:blank" || config.warming.script.is_some();
        config.profiles.named.values_mut().for_each(|profile| profile.min_size = 0);
        config.regions.values_mut().for_each(|region| region.min_size = 0);
        let directory = match options.profile {
            // Profiles are in the configured directory, which one pool has at a time.
            Some(_) => None,
            None => Some(RunDirectory::choose(&config.pool.state_dir, "visits")),
        };
        if let Some(directory) = &directory {
            directory.path().clone_into(&mut config.pool.state_dir);
        }
        let observer = Observer::new(&config.pool.name);
        // Pages are made with their addresses: a page that was made ahead is empty.
        let tune = |chrome: ChromeConfig| chrome.warm_page(false).max_launching(launches);
        let opened = open_tuned(&config, &observer, tune).await.map_err(OpenError::failure)?;
        Ok(Self { opened, request: request(options), _directory: directory })
    }

    /// Leases a browser; `alone` for one that has its Chromium to itself.
    ///
    /// # Errors
    ///
    /// As [`Pool::acquire_with`].
    pub(crate) async fn lease(&self, alone: bool) -> Result<Lease<ChromeDriver>, AcquireError> {
        let mut request = self.request.clone();
        if alone {
            request.set("lease", "exclusive");
        }
        self.pool().acquire_with(request).await
    }

    /// Closes every browser.
    ///
    /// # Cancel safety
    ///
    /// Browsers go all the same.
    pub(crate) async fn close(&self) {
        self.pool().close().await;
    }

    fn pool(&self) -> &Pool<ChromeDriver> {
        self.opened.pool()
    }
}

fn request(options: &Options) -> Request {
    let mut request = Request::new();
    for (label, value) in [("profile", &options.profile), ("region", &options.region)] {
        if let Some(value) = value {
            request.set(label, value.as_str());
        }
    }
    request
}

impl Options {
    /// Returns `true` if a lease with these options has its Chromium to itself.
    pub(crate) fn is_alone(&self, asked_alone: bool) -> bool {
        asked_alone || self.lease == LeaseKind::Exclusive || self.profile.is_some()
    }
}
