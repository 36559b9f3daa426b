use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::engine::State;
use crate::policy::Policies;
use crate::shell::{Settings, Shell, Standing, upkeep};
use crate::{BuildError, Class, Config, Driver, Policy, Pool};

/// Builds a [`Pool`]; every setting has a default, see [`Config`].
#[must_use = "a builder does nothing until build is called"]
pub struct PoolBuilder<D: Driver> {
    driver: D,
    config: Config,
    policies: Vec<Box<dyn Policy<D>>>,
    runtime: Option<Handle>,
    event_capacity: usize,
}

impl<D: Driver> Pool<D> {
    /// Starts to build a pool over a driver.
    pub fn builder(driver: D) -> PoolBuilder<D> {
        PoolBuilder::new(driver)
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.config.$name = $name;
            self
        }
    )*};
}

impl<D: Driver> PoolBuilder<D> {
    pub(crate) fn new(driver: D) -> Self {
        Self {
            driver,
            config: Config::default(),
            policies: Vec::new(),
            runtime: None,
            event_capacity: 1024,
        }
    }

    /// Adds a policy; the first one added decides first.
    pub fn policy(mut self, policy: impl Policy<D>) -> Self {
        self.policies.push(Box::new(policy));
        self
    }

    /// Adds a policy that is already boxed.
    pub fn boxed_policy(mut self, policy: Box<dyn Policy<D>>) -> Self {
        self.policies.push(policy);
        self
    }

    /// Replaces all settings at once.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Runs the pool's tasks on this runtime. Default: the one around [`build`](Self::build).
    ///
    /// The pool ends with the runtime: when that shuts down, requests fail with
    /// [`AcquireError::Closed`](crate::AcquireError::Closed) and every resource is dropped. Callers
    /// need not run on it, nor on any runtime at all: whoever polls an acquire can lease.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets the number of events that a slow reader may fall behind before it misses some. Default:
    /// 1024.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }

    setters! {
        /// Sets [`Config::min_size`].
        min_size: usize,
        /// Sets [`Config::max_size`].
        max_size: usize,
        /// Sets [`Config::max_creating`].
        max_creating: usize,
        /// Sets [`Config::max_waiting`].
        max_waiting: usize,
        /// Sets [`Config::acquire_timeout`].
        acquire_timeout: Option<Duration>,
        /// Sets [`Config::create_timeout`].
        create_timeout: Duration,
        /// Sets [`Config::recycle_timeout`].
        recycle_timeout: Duration,
        /// Sets [`Config::check_timeout`].
        check_timeout: Duration,
        /// Sets [`Config::close_timeout`].
        close_timeout: Duration,
        /// Sets [`Config::max_idle_time`].
        max_idle_time: Option<Duration>,
        /// Sets [`Config::max_lifetime`].
        max_lifetime: Option<Duration>,
        /// Sets [`Config::lifetime_jitter`].
        lifetime_jitter: f64,
        /// Sets [`Config::max_use_count`].
        max_use_count: Option<u64>,
        /// Sets [`Config::hold_limit`].
        hold_limit: Option<Duration>,
        /// Sets [`Config::health_check_interval`].
        health_check_interval: Option<Duration>,
        /// Sets [`Config::check_after_idle`].
        check_after_idle: Option<Duration>,
        /// Sets [`Config::eviction_patience`].
        eviction_patience: Duration,
        /// Sets [`Config::backoff`].
        backoff: Duration,
        /// Sets [`Config::breaker_threshold`].
        breaker_threshold: u32,
        /// Sets [`Config::breaker_interval`].
        breaker_interval: Duration,
        /// Sets [`Config::tick_interval`].
        tick_interval: Duration,
        /// Sets [`Config::seed`].
        seed: Option<u64>,
    }

    /// Starts the pool; its minimum is created in the background.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] if the settings contradict each other, or if there is no runtime.
    pub fn build(self) -> Result<Pool<D>, BuildError> {
        self.config.validate()?;
        let config = self.config.bounded();
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Handle::try_current().map_err(|_| BuildError::NoRuntime)?,
        };
        let settings = Settings {
            needs_clock: State::<D::Resource>::needs_clock(&config),
            acquire_timeout: config.acquire_timeout,
            create_timeout: config.create_timeout,
            recycle_timeout: config.recycle_timeout,
            check_timeout: config.check_timeout,
            close_timeout: config.close_timeout,
            tick_interval: config.tick_interval,
        };
        let now = Instant::now();
        let mut state = State::new(config, now);
        let policies = Policies::new(self.policies);
        if policies.watch() {
            state.observe();
        }
        let shell =
            Shell::new(state, self.driver, policies, settings, runtime, self.event_capacity);
        let shell = Arc::new(shell);
        // The default class always exists, so it is never met as a new one; its limits are asked
        // for here.
        let limits = shell.policies.limit(&Class::default(), &|panic| shell.report(panic));
        shell.apply(|state, fx| {
            if let Some(limits) = limits {
                state.set_limits(&Class::default(), limits, now, fx);
            }
            state.start(now, fx);
        });
        shell.runtime.spawn(upkeep(Standing::new(&shell)));
        Ok(Pool::from_shell(shell))
    }
}

impl<D: Driver> std::fmt::Debug for PoolBuilder<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
