use std::path::PathBuf;
use std::time::Duration;

use super::launch::Prepared;
use super::{Cgroups, Engine};
use crate::ChromeError;

/// Whether Chromium sandboxes its renderers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "config",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum Sandbox {
    /// On wherever it can work; off with a warning where it cannot, as for root.
    #[default]
    Auto,
    /// Always: a browser that cannot have it does not start.
    On,
    /// Never: a page that breaks out of its renderer has the rights of the pool.
    Off,
}

/// Where a Chromium keeps its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserData {
    /// In a fresh directory, removed with the browser. The default.
    #[default]
    Private,
    /// In this directory, which is made if it does not exist and is never removed.
    Persistent(PathBuf),
}

/// Options for launching a Chromium.
///
/// # Examples
///
/// ```
/// use pool_chrome::process::{Engine, LaunchOptions};
/// use std::time::Duration;
///
/// let options = LaunchOptions::new()
///     .engine(Engine::Shell)
///     .args(["--lang=de"])
///     .launch_timeout(Duration::from_secs(5));
/// assert!(options.headless);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaunchOptions {
    /// Which Chromium. Default: [`Engine::Auto`].
    pub engine: Engine,
    /// The executable. Default: the environment variable `CHROME`, then the usual names on `PATH`.
    pub executable: Option<PathBuf>,
    /// Without a window. Default: true.
    pub headless: bool,
    /// Whether renderers are sandboxed. Default: [`Sandbox::Auto`].
    pub sandbox: Sandbox,
    /// The operator's extra arguments, after ours; never anything from a client. Default: none.
    ///
    /// Lists of `--enable-features` and `--disable-features` are merged with ours, because
    /// Chromium takes only the last of each. Arguments that would break what the pool guarantees
    /// are refused with [`ChromeError::ForbiddenArg`](crate::ChromeError::ForbiddenArg).
    pub args: Vec<String>,
    /// Where the profile lives. Default: [`UserData::Private`].
    pub user_data: UserData,
    /// The proxy for everything, loopback too, such as `http://127.0.0.1:41234`; without
    /// credentials, which belong into a [`Forwarder`](crate::egress::Forwarder). WebRTC is confined
    /// to it. Default: direct connections.
    pub proxy_server: Option<String>,
    /// Whether Chromium resolves names by itself where it has a proxy, as it must for another proxy
    /// of a context's own. If it does not, nothing of it can go elsewhere by a name. Default: no.
    pub resolves_names: bool,
    /// Names of environment variables that Chromium gets besides the usual ones for paths, locale,
    /// time zone, fonts and display. Default: none.
    pub env: Vec<String>,
    /// Maximum time the first answer over the pipe may take; the process is started and supervised
    /// here, its first command is sent by the multiplexer, which applies this. Default: 20 s.
    pub launch_timeout: Duration,
    /// Where each browser gets a control group of its own. Default: none does.
    pub(crate) cgroups: Option<Cgroups>,
}

impl Default for LaunchOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Auto,
            executable: None,
            headless: true,
            sandbox: Sandbox::Auto,
            args: Vec::new(),
            user_data: UserData::Private,
            proxy_server: None,
            resolves_names: false,
            env: Vec::new(),
            launch_timeout: Self::DEFAULT_TIMEOUT,
            cgroups: None,
        }
    }
}

impl LaunchOptions {
    /// Default of [`launch_timeout`](Self::launch_timeout).
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

    /// The defaults: headless, a private profile, direct connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks everything that can be known before a launch, and returns the executable with its
    /// engine.
    ///
    /// Every launch with these options fails where this does, now and later. It starts no browser
    /// and makes no file; where the sandbox is wanted it may run `unshare` once.
    ///
    /// # Errors
    ///
    /// The [`ChromeError`] that the launch would end with.
    pub fn check(&self) -> Result<(PathBuf, Engine), ChromeError> {
        Prepared::new(self).map(|prepared| (prepared.executable, prepared.engine))
    }

    /// Sets [`engine`](Self::engine).
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets [`executable`](Self::executable).
    #[must_use]
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Sets [`headless`](Self::headless).
    #[must_use]
    pub fn headless(mut self, headless: bool) -> Self {
        self.headless = headless;
        self
    }

    /// Sets [`sandbox`](Self::sandbox).
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Adds to [`args`](Self::args).
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets [`user_data`](Self::user_data).
    #[must_use]
    pub fn user_data(mut self, user_data: UserData) -> Self {
        self.user_data = user_data;
        self
    }

    /// Sets [`proxy_server`](Self::proxy_server).
    #[must_use]
    pub fn proxy_server(mut self, proxy: impl Into<String>) -> Self {
        self.proxy_server = Some(proxy.into());
        self
    }

    /// Adds to [`env`](Self::env).
    #[must_use]
    pub fn env(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.env.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets [`launch_timeout`](Self::launch_timeout).
    #[must_use]
    pub fn launch_timeout(mut self, timeout: Duration) -> Self {
        self.launch_timeout = timeout;
        self
    }
}
