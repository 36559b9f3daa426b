use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::Cgroups;

/// Sandboxing of renderers.
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

/// The location of a profile.
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
    /// Engine to launch. Default: [`Engine::Auto`].
    pub engine: Engine,
    /// The executable. Default: the environment variable `CHROME`, then the usual names on `PATH`.
    pub executable: Option<PathBuf>,
    /// Runs without a window. Default: true.
    pub headless: bool,
    /// Sandboxing of renderers. Default: [`Sandbox::Auto`].
    pub sandbox: Sandbox,
    /// The operator's extra arguments, after ours; never anything from a client. Default: none.
    ///
    /// Lists of `--enable-features` and `--disable-features` are merged with ours, because
    /// Chromium takes only the last of each. Arguments that would break what the pool guarantees
    /// are refused with [`ChromeError::ForbiddenArg`](crate::ChromeError::ForbiddenArg).
    pub args: Vec<String>,
    /// Location of the profile. Default: [`UserData::Private`].
    pub user_data: UserData,
    /// The proxy for everything including loopback, such as `http://127.0.0.1:41234`; without
    /// credentials, which belong in a [`Forwarder`](crate::egress::Forwarder). WebRTC is confined
    /// to it. Default: direct connections.
    pub proxy_server: Option<String>,
    /// Lets Chromium resolve names by itself although it has a proxy, which a context with another
    /// proxy needs. Otherwise no name can lead it elsewhere. Default: false.
    pub resolves_names: bool,
    /// Names of environment variables that Chromium gets in addition to the usual ones for paths,
    /// locale, time zone, fonts and display. Default: none.
    pub env: Vec<String>,
    /// Maximum time for the first answer over the pipe. The process is started and supervised here,
    /// but its first command is sent by the multiplexer, which applies this limit. Default: 20 s.
    pub launch_timeout: Duration,
    /// The control group in which each browser gets its own. Default: none.
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

    /// Returns the defaults: headless, a private profile, direct connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

/// Declares [`Engine`]: each engine with its word in the configuration, its Debian package, the
/// names of its executable, and what messages call it.
macro_rules! engines {
    ($($(#[$meta:meta])+ $engine:ident: $word:literal, $package:literal, $names:expr, $title:literal;)+) => {
        /// Kind of Chromium: the small headless shell, or the whole browser.
        ///
        /// The shell is what Playwright launches when headless: it starts in a third of the time
        /// and opens a page in a fresh context four times as fast. The whole browser is needed for
        /// a window and for extensions.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[cfg_attr(
            feature = "config",
            derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
            serde(rename_all = "lowercase")
        )]
        pub enum Engine {
            $($(#[$meta])+ $engine,)+
        }

        impl Engine {
            const ALL: &'static [Self] = &[$(Self::$engine),+];

            /// Returns the name used in configuration: `auto`, `shell` or `chromium`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$engine => $word,)+ }
            }

            pub(crate) const fn package(self) -> &'static str {
                match self { $(Self::$engine => $package,)+ }
            }

            pub(super) const fn names(self) -> &'static [&'static str] {
                match self { $(Self::$engine => &$names,)+ }
            }

            const fn title(self) -> &'static str {
                match self { $(Self::$engine => $title,)+ }
            }
        }
    };
}

engines! {
    /// The shell when headless and where it is installed, else Chromium.
    #[default]
    Auto: "auto", "chromium", [], "Chromium";
    /// `chromium-headless-shell`: starts fastest and takes the least memory; headless only.
    Shell: "shell", "chromium-headless-shell",
        ["chromium-headless-shell", "chrome-headless-shell", "headless_shell"],
        "headless shell of Chromium";
    /// `chromium`: the whole browser, with extensions and windows.
    Chromium: "chromium", "chromium",
        ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"],
        "Chromium browser";
}

impl Engine {
    /// Returns `true` if it has neither windows nor extensions.
    #[must_use]
    pub const fn is_headless_only(self) -> bool {
        match self {
            Self::Shell => true,
            Self::Auto | Self::Chromium => false,
        }
    }

    fn words() -> String {
        Self::ALL.iter().map(|engine| engine.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn of(executable: &Path) -> Self {
        if let Some(known) = Self::ALL.iter().find(|engine| engine.is_name(executable)) {
            return *known;
        }
        let name = executable.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("headless-shell") || name.contains("headless_shell") {
            Self::Shell
        } else {
            Self::Chromium
        }
    }

    /// Returns `true` if an executable has one of the usual names of this engine.
    pub(super) fn is_name(self, executable: &Path) -> bool {
        self.names().iter().any(|name| executable.file_name() == Some(name.as_ref()))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = Self::ALL.iter().find(|engine| engine.as_str() == name);
        found.copied().ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// The name of an engine that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine {0:?}: expected one of {words}", words = Engine::words())]
pub struct UnknownEngine(String);
