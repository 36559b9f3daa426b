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
    /// Shows no window. Default: true.
    pub headless: bool,
    /// Sandboxing of renderers. Default: where it can work.
    pub sandbox: Sandbox,
    /// The operator's extra arguments; never anything from a client. Default: none.
    pub args: Vec<String>,
    /// Maximum time a Chromium may take until its first answer. Default: 20 s.
    pub launch_timeout: Duration,
    /// Maximum number launched at the same time; more wait. Default: 2.
    pub max_launching: usize,
    /// A Chromium whose process tree has a larger proportional set size, in bytes, is retired when
    /// a lease on it ends. Default: 1 GiB.
    pub max_memory: Option<u64>,
    /// Limits that the kernel holds the processes of each browser to, where it lets the pool make
    /// control groups. Default: nothing.
    pub limits: KernelLimits,
    /// Directory in which the directories of the processes and our own records are. Default: below
    /// `XDG_STATE_HOME`.
    pub state_dir: Option<PathBuf>,
    /// The kind of lease where the spec does not say. Default: exclusive.
    pub lease: LeaseKind,
    /// Maximum number of shared leases in one Chromium. Default: 8.
    pub leases_per_browser: usize,
    /// A Chromium takes this many shared leases in its life. Default: 500.
    pub max_browser_leases: u64,
    /// A Chromium takes no more shared leases when it is this old. Default: 1 h.
    pub max_browser_age: Duration,
    /// Clean-up between two exclusive leases. Default: the context is disposed.
    pub reset: Reset,
    /// Keeps a page ready in each lease for its client's first `newPage`. Default: yes.
    pub warm_page: bool,
    /// Directories that shared leases may download to and upload from, besides one of their own.
    /// Default: none.
    pub directories: Vec<PathBuf>,
    /// Rules for where browsers may go. With rules, everything that a browser asks for goes through
    /// a forwarder that keeps them; they can be changed later by the driver's
    /// [`guard`](crate::ChromeDriver::guard). Default: wherever this machine can.
    pub egress: Option<Rules>,
    /// Proxies that clients may name for contexts of their own where browsers are guarded or
    /// proxied, which leads round the rules and the proxy. Default: none.
    pub client_proxies: Vec<Pattern>,
    /// A check makes a page when the last one was made this long ago; until then it asks the
    /// Chromium and the lease's warm page, which takes a millisecond. Default: 20 s.
    pub page_check_interval: Duration,
    /// A leased Chromium that does not answer is killed when it has shown no progress for this
    /// long: nothing said, nothing taken, no CPU time used or waited for; or when it has not
    /// answered for six times as long, not counting the time for which it waited for a CPU, up to
    /// twenty times as much. Default: 10 s.
    pub hang_timeout: Duration,
    /// Limits how long the answers of a check may take, judged as
    /// [`hang_timeout`](Self::hang_timeout) is. Default: 1.5 s.
    pub check_timeout: Duration,
    /// Limits the bytes that may wait for all clients together; beyond it the connection with the
    /// most is cut. See [`Budget`]. Default: 256 MiB.
    pub buffer: usize,
    /// Maximum time a Chromium may take to exit by itself before it is killed. Default: 2 s.
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

/// Makes a setter that has the name of its field.
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

    /// Returns how this configuration launches any Chromium, such as for one beside the pool that
    /// is compared with it.
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
