use std::path::PathBuf;
use std::time::Duration;

use crate::egress::{Pattern, Rules};
use crate::mux::{Budget, LeaseKind};
use crate::process::{Engine, KernelLimits, LaunchOptions, Sandbox};

/// Clean-up between two exclusive leases of one Chromium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum Reset {
    /// Its context is disposed, and what outlives a context is wiped and checked.
    #[default]
    Context,
    /// The Chromium is replaced by a new one, in the background.
    Relaunch,
}

/// Settings with which a [`ChromeDriver`](crate::ChromeDriver) launches and leases Chromium.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChromeConfig {
    /// Engine to launch. Default: the headless shell when headless and installed.
    pub engine: Engine,
    /// The executable. Default: the environment variable `CHROME`, then the usual names on `PATH`.
    pub executable: Option<PathBuf>,
    /// Runs without a window. Default: true.
    pub headless: bool,
    /// Sandboxing of renderers. Default: where it can work.
    pub sandbox: Sandbox,
    /// The operator's extra arguments; never anything from a client. Default: none.
    pub args: Vec<String>,
    /// Maximum time that a Chromium may take until its first answer. Default: 20 s.
    pub launch_timeout: Duration,
    /// Maximum number of launches at the same time; more wait. Default: 2.
    pub max_launching: usize,
    /// A Chromium whose process tree has a larger proportional set size, in bytes, is retired when
    /// a lease on it ends. Default: 1 GiB.
    pub max_memory: Option<u64>,
    /// Limits that the kernel enforces on the processes of each browser, if the pool may make
    /// control groups. Default: none.
    pub limits: KernelLimits,
    /// Directory for the directories of the processes and for our own records. Default: below
    /// `XDG_STATE_HOME`.
    pub state_dir: Option<PathBuf>,
    /// The kind of lease if the spec names none. Default: exclusive.
    pub lease: LeaseKind,
    /// Maximum number of shared leases in one Chromium. Default: 8.
    pub leases_per_browser: usize,
    /// Maximum number of shared leases that a Chromium takes in its life. Default: 500.
    pub max_browser_leases: u64,
    /// Age from which a Chromium takes no more shared leases. Default: 1 h.
    pub max_browser_age: Duration,
    /// Clean-up between two exclusive leases. Default: the context is disposed.
    pub reset: Reset,
    /// Keeps a page ready in each lease for its client's first `newPage`. Default: true.
    pub warm_page: bool,
    /// Directories that shared leases may download to and upload from, besides one of their own.
    /// Default: none.
    pub directories: Vec<PathBuf>,
    /// Rules for where browsers may go. With rules, all requests of a browser go through a
    /// forwarder that enforces them; they can be changed later by the driver's
    /// [`guard`](crate::ChromeDriver::guard). Default: wherever this machine can go.
    pub egress: Option<Rules>,
    /// Proxies that clients of guarded or proxied browsers may name for contexts of their own,
    /// which bypasses the rules and the proxy. Default: none.
    pub client_proxies: Vec<Pattern>,
    /// Time since a check last made a page after which a check makes one again. Until then it only
    /// asks the Chromium and the lease's warm page, which takes a millisecond. Default: 20 s.
    pub page_check_interval: Duration,
    /// Time without progress after which a leased Chromium that does not answer is killed. Progress
    /// is anything that it says or takes, and any CPU time that it uses or waits for. Even with
    /// progress, it is killed if it has not answered for six times as long, not counting the time
    /// for which it waited for a CPU, up to twenty times as long. Default: 10 s.
    pub hang_timeout: Duration,
    /// Maximum time for the answers of a check, judged in the same way as
    /// [`hang_timeout`](Self::hang_timeout). Default: 1.5 s.
    pub check_timeout: Duration,
    /// Maximum number of bytes that may wait for all clients together; beyond it, the connection
    /// with the most waiting is cut. See [`Budget`]. Default: 256 MiB.
    pub buffer: usize,
    /// Maximum time that a Chromium may take to exit by itself before it is killed. Default: 2 s.
    pub close_grace: Duration,
}

impl Default for ChromeConfig {
    fn default() -> Self {
        Self {
            engine: Engine::Auto,
            executable: None,
            headless: true,
            sandbox: Sandbox::Auto,
            args: Vec::new(),
            launch_timeout: LaunchOptions::DEFAULT_TIMEOUT,
            max_launching: 2,
            max_memory: Some(1 << 30),
            limits: KernelLimits::new(),
            state_dir: None,
            lease: LeaseKind::Exclusive,
            leases_per_browser: 8,
            max_browser_leases: 500,
            max_browser_age: Duration::from_secs(60 * 60),
            reset: Reset::Context,
            warm_page: true,
            directories: Vec::new(),
            egress: None,
            client_proxies: Vec::new(),
            page_check_interval: Duration::from_secs(20),
            hang_timeout: Duration::from_secs(10),
            check_timeout: Duration::from_millis(1500),
            buffer: Budget::DEFAULT,
            close_grace: Duration::from_secs(2),
        }
    }
}

/// Defines a setter with the same name as its field.
macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*
    };
}

impl ChromeConfig {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        engine: Engine,
        executable: Option<PathBuf>,
        headless: bool,
        sandbox: Sandbox,
        launch_timeout: Duration,
        max_launching: usize,
        max_memory: Option<u64>,
        limits: KernelLimits,
        lease: LeaseKind,
        leases_per_browser: usize,
        max_browser_leases: u64,
        max_browser_age: Duration,
        reset: Reset,
        warm_page: bool,
        egress: Option<Rules>,
        client_proxies: Vec<Pattern>,
        page_check_interval: Duration,
        hang_timeout: Duration,
        check_timeout: Duration,
        buffer: usize,
        close_grace: Duration,
    }

    /// Sets [`state_dir`](Self::state_dir).
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    /// Adds to [`args`](Self::args).
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds to [`directories`](Self::directories).
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }

    /// Returns the options with which this configuration launches Chromiums, for example to launch
    /// one outside of the pool for comparison.
    #[must_use]
    pub fn launch_options(&self) -> LaunchOptions {
        let mut options = LaunchOptions::new()
            .engine(self.engine)
            .headless(self.headless)
            .sandbox(self.sandbox)
            .args(self.args.iter().cloned())
            .launch_timeout(self.launch_timeout);
        options.executable.clone_from(&self.executable);
        options
    }
}
