//! The sections about Chromium, and where it may go.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use pool_chrome::egress::{Pattern, Rules};
use pool_chrome::process::KernelLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use super::units::{AsCountOrOff, AsCpusOrOff, AsDuration, AsPath, AsSizeOrOff};

pub use pool_chrome::egress::Private as PrivateAddresses;
pub use pool_chrome::process::{Engine, Sandbox};

/// `[chrome]`: the Chromium that is launched, and its flags, timeouts and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChromeConfig {
    /// Which of the two builds of Chromium to use.
    pub engine: Engine,
    /// The executable to launch.
    ///
    /// By default the one that `CHROME` names, else the usual names on `PATH`.
    #[serde(with = "AsPath")]
    #[schemars(example = "/usr/bin/chromium")]
    pub executable: Option<PathBuf>,
    /// Run the browsers without windows.
    pub headless: bool,
    /// Use of Chromium's own sandbox.
    pub sandbox: Sandbox,
    /// Extra flags for Chromium. They never come from a client.
    #[schemars(example = ["--lang=de"])]
    #[schemars(extend("items" = { "type": "string", "x-kind": "flag" }))]
    pub args: Vec<String>,
    /// Maximum time a browser may take from its launch to its first answer.
    #[serde(with = "AsDuration")]
    pub launch_timeout: Duration,
    /// A leased browser that does not answer is killed when it has made no progress for this long.
    ///
    /// Progress is any message that it sends, any bytes that it reads, and CPU time that its
    /// processes use or wait for: on a busy machine it is slow rather than hung. One that works but
    /// answers nothing is killed after six times as long; time spent waiting for a CPU counts only
    /// a twentieth.
    #[serde(with = "AsDuration")]
    pub hang_timeout: Duration,
    /// Maximum time an idle browser may take to answer a check, judged in the same way.
    #[serde(with = "AsDuration")]
    pub check_timeout: Duration,
    /// A browser whose processes together hold more than this is replaced at release, or "off".
    ///
    /// Counted as proportional set size, so that shared pages are not counted twice.
    #[serde(with = "AsSizeOrOff")]
    pub max_memory: Option<ByteSize>,
    /// The kernel ends a browser that needs more memory than this, or "off".
    ///
    /// Its clients get `browser_out_of_memory`. Above nine tenths it is slowed down. Unlike
    /// `max_memory`, this applies during a lease, so a limit that is too small ends browsers on
    /// sites that would otherwise work. It requires a control group (cgroup v2) that is delegated
    /// to the pool: `pool-cli doctor` says whether there is one.
    #[serde(with = "AsSizeOrOff")]
    pub memory_max: Option<ByteSize>,
    /// The kernel gives a browser no more than this many CPUs, such as 1.5, or "off".
    #[serde(with = "AsCpusOrOff")]
    pub cpu_max: Option<f64>,
    /// The kernel lets a browser have no more than this many processes and threads, or "off".
    ///
    /// A browser with a page or two has about 120.
    #[serde(with = "AsCountOrOff")]
    pub pids_max: Option<u64>,
    /// Action to take where the kernel cannot enforce `memory_max`, `cpu_max` and `pids_max`.
    pub limits: Limits,
    /// Directories that shared leases may upload from and download to.
    ///
    /// A download to anywhere else ends as canceled, and an upload from there is refused. In
    /// addition, each lease has its own directory, which is deleted with it. An exclusive lease may
    /// name any file that the pool's user can reach.
    #[schemars(example = ["/srv/uploads"])]
    #[schemars(extend("items" = { "type": "string", "x-kind": "path" }))]
    pub directories: Vec<PathBuf>,
}

/// Choice of what to do where the kernel cannot hold the limits of its browsers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Limits {
    /// Start, and log which limits are not enforced.
    #[default]
    Auto,
    /// Refuse to start.
    Required,
}

impl Default for ChromeConfig {
    /// Returns the defaults, taken from the driver where it has them.
    fn default() -> Self {
        let driver = pool_chrome::ChromeConfig::default();
        Self {
            engine: driver.engine,
            executable: driver.executable,
            headless: driver.headless,
            sandbox: driver.sandbox,
            args: driver.args,
            launch_timeout: driver.launch_timeout,
            hang_timeout: driver.hang_timeout,
            check_timeout: driver.check_timeout,
            max_memory: driver.max_memory.map(ByteSize::b),
            memory_max: None,
            cpu_max: None,
            pids_max: None,
            limits: Limits::Auto,
            directories: driver.directories,
        }
    }
}

impl Config {
    /// Returns the settings of the driver.
    pub(crate) fn driver(&self) -> pool_chrome::ChromeConfig {
        let Self { chrome, pool, .. } = self;
        let driver = pool_chrome::ChromeConfig::new()
            .engine(chrome.engine)
            .executable(chrome.executable.clone())
            .headless(chrome.headless)
            .sandbox(chrome.sandbox)
            .args(chrome.args.iter().cloned())
            .launch_timeout(chrome.launch_timeout)
            .hang_timeout(chrome.hang_timeout)
            .check_timeout(chrome.check_timeout)
            .max_launching(pool.max_creating)
            .buffer(self.buffer())
            .max_memory(chrome.max_memory.map(|size| size.as_u64()))
            .limits(chrome.kernel_limits())
            .state_dir(&pool.state_dir)
            .lease(pool.lease)
            .leases_per_browser(pool.leases_per_browser)
            .max_browser_age(pool.max_lifetime.unwrap_or(Duration::MAX))
            .reset(pool.reset);
        let driver = chrome.directories.iter().fold(driver, pool_chrome::ChromeConfig::directory);
        match &self.egress {
            None => driver,
            Some(egress) => {
                driver.egress(egress.rules()).client_proxies(egress.client_proxies.clone())
            }
        }
    }

    /// Returns the bytes that may wait for all clients together.
    pub(crate) fn buffer(&self) -> usize {
        usize::try_from(self.gateway.buffer.as_u64()).unwrap_or(usize::MAX)
    }
}

impl ChromeConfig {
    /// Returns the limits that the kernel must enforce on each browser.
    pub(crate) fn kernel_limits(&self) -> KernelLimits {
        KernelLimits::new()
            .memory(self.memory_max.map(|size| size.as_u64()))
            .cpus(self.cpu_max)
            .pids(self.pids_max)
            .required(match self.limits {
                Limits::Auto => false,
                Limits::Required => true,
            })
    }
}

/// `[egress]`: where browsers may go.
///
/// With this section, an empty one too, everything that a browser asks for goes through the pool,
/// which resolves each name once, judges all its addresses, and connects to one that it has judged.
/// No browser reaches the pool itself then. Without it browsers go out by themselves.
///
/// A pattern is a name (`intranet.example`), all names below one (`*.ads.example`), an address or a
/// network (`10.1.2.0/24`), each with `:port` behind it or not; `*:25` is one port of every host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-optional" = true))]
pub struct EgressConfig {
    /// Treatment of addresses outside the public Internet.
    pub private: PrivateAddresses,
    /// Patterns of what may be visited, whatever `private` and `deny` say.
    #[schemars(example = ["10.1.2.0/24", "intranet.example:443"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    pub allow: Vec<Pattern>,
    /// Patterns of what may not be visited.
    #[schemars(example = ["*.ads.example", "*:25"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    pub deny: Vec<Pattern>,
    /// Patterns of proxies that clients may name for contexts of their own.
    ///
    /// The requests of such a context go to that proxy, and bypass these rules and the proxy of a
    /// region. Other proxies are refused.
    #[schemars(example = ["proxy.example:*"])]
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "x-kind": "host pattern" }))]
    #[schemars(extend("x-reload" = false))]
    pub client_proxies: Vec<Pattern>,
}

impl EgressConfig {
    /// Returns the rules that a guard must enforce.
    pub(crate) fn rules(&self) -> Rules {
        let rules = Rules::new().private(self.private);
        rules.allow(self.allow.iter().cloned()).deny(self.deny.iter().cloned())
    }
}
