use std::time::{Duration, Instant};

use pool_chrome::process::{Chromium, LaunchOptions, StateDir};

use super::{Cdp, Step, Steps, Transport};
use crate::config::Config;
use crate::exit::Failure;
use crate::pool::{OpenError, RunDirectory, chrome_config};

/// Time that a Chromium has to end by itself, as in the pool.
const GRACE: Duration = Duration::from_secs(2);

/// The contestant that launches a Chromium for each client: with the flags that the pool's have, a
/// user data directory of its own, and over a pipe, which is the quickest way there is.
#[derive(Debug)]
pub(crate) struct Launcher {
    options: LaunchOptions,
    state_dir: StateDir,
    /// After `state_dir`, which uses it.
    _directory: RunDirectory,
    engine: &'static str,
}

/// A Chromium that was launched for one client.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) chromium: Chromium,
    pub(crate) cdp: Cdp,
}

impl Launcher {
    /// Makes ready; nothing is launched yet.
    ///
    /// # Errors
    ///
    /// If there is no Chromium (exit code 78), or its directory cannot be used.
    pub(crate) async fn new(config: &Config) -> Result<Self, Failure> {
        let options = chrome_config(config).launch_options();
        let (_, engine) = options.check().map_err(|error| OpenError::from(error).failure())?;
        let directory = RunDirectory::choose(&config.pool.state_dir, "bench-launches");
        let path = directory.path().to_owned();
        let state_dir = tokio::task::spawn_blocking(|| StateDir::open(path)).await??;
        Ok(Self { options, state_dir, _directory: directory, engine: engine.as_str() })
    }

    /// The engine that is launched: `shell` or `chromium`.
    pub(crate) fn engine(&self) -> &'static str {
        self.engine
    }

    /// Launches a Chromium; it has not answered yet.
    pub(crate) async fn launch(&self) -> Result<Launched, Failure> {
        let (chromium, pipe) = Chromium::launch(self.options.clone(), &self.state_dir).await?;
        Ok(Launched { chromium, cdp: Cdp::new(Transport::from(pipe)) })
    }

    /// One session from its launch to a loaded page.
    pub(crate) async fn session(&self, url: &str) -> Result<(Launched, Steps), Failure> {
        let began = Instant::now();
        let mut launched = self.launch().await?;
        let mut steps = Steps::default();
        match steps.walk_launched(began, &mut launched.cdp, url).await {
            Ok(()) => Ok((launched, steps)),
            // It knows better why nothing came.
            Err(_) if launched.chromium.exit().is_some() => {
                Err(launched.chromium.not_ready().into())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Some sessions at once, each to its end.
    pub(crate) async fn round(&self, clients: usize, url: &str) -> Result<Steps, Failure> {
        let sessions = (0..clients).map(|_| self.session(url));
        let sessions = futures_util::future::try_join_all(sessions).await?;
        let mut all = Steps::default();
        let mut closing = Vec::new();
        for (launched, steps) in sessions {
            all.append(steps);
            closing.push(launched.close());
        }
        for took in futures_util::future::join_all(closing).await {
            all.add(Step::Release, took);
        }
        Ok(all)
    }
}

impl Launched {
    /// Ends it, and says how long it took until no process and no directory of it was left.
    pub(crate) async fn close(self) -> Duration {
        let began = Instant::now();
        drop(self.cdp);
        self.chromium.close(GRACE).await;
        began.elapsed()
    }
}
