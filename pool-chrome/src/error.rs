use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pool_core::BoxError;

use crate::cdp::CdpError;
use crate::egress::ProxyError;
use crate::process::{Engine, Exit, NoCgroup};

/// Reasons why a Chromium could not be launched, driven or cleaned.
///
/// Messages begin with a lower-case letter and end without a full stop, to be printed after
/// `error:`; if there is a remedy, they name it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChromeError {
    /// No executable of the wanted engine was found.
    #[error(
        "no {engine} was found (tried {}); install it (on Debian and Ubuntu: apt install {}) \
         or set `executable`",
        tried.join(", "),
        engine.package()
    )]
    NotFound {
        /// Engine that was looked for.
        engine: Engine,
        /// The places that were looked at, in order.
        tried: Vec<String>,
    },

    /// The executable that was named cannot be run.
    #[error("the executable {}{} cannot be used: {source}", path.display(), named_by(*by_variable))]
    BadExecutable {
        /// The path as it was named.
        path: PathBuf,
        /// Set if the environment variable `CHROME` names it, rather than the configuration.
        by_variable: bool,
        /// The reason.
        source: io::Error,
    },

    /// The named executable belongs to the other engine.
    #[error(
        "the executable {}{} is a {is}, but `engine` is \"{}\"; leave one of the two out",
        executable.display(),
        named_by(*by_variable),
        wanted.as_str()
    )]
    WrongEngine {
        /// The path as it was named.
        executable: PathBuf,
        /// Set if the environment variable `CHROME` names it, rather than the configuration.
        by_variable: bool,
        /// The engine that was asked for.
        wanted: Engine,
        /// The engine whose name the executable has.
        is: Engine,
    },

    /// An operator's extra argument would break what the pool guarantees.
    #[error("the argument {arg} is not allowed: {instead}")]
    ForbiddenArg {
        /// The argument's name, without its value.
        arg: String,
        /// Remedy.
        instead: &'static str,
    },

    /// A sandbox was required where none can work.
    #[error(
        "Chromium's sandbox cannot work here: {reason}; set `sandbox` to \"off\" or \"auto\" to run without it"
    )]
    NoSandbox {
        /// The obstacle.
        reason: String,
    },

    /// A browser with a window was requested, and only the headless shell is there.
    #[error("{} has no window; set `headless` or another `engine`", executable.display())]
    NoWindow {
        /// The headless shell.
        executable: PathBuf,
    },

    /// Extensions are to be loaded, and only the headless shell is there.
    #[error(
        "{} does not support extensions; leave out the arguments that load them, or set another \
         `engine`",
        executable.display()
    )]
    NoExtensions {
        /// The headless shell.
        executable: PathBuf,
    },

    /// A browser with a window was requested where there is no display.
    #[error(
        "a browser with a window needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; \
         leave `headless` out, or start under xvfb-run"
    )]
    NoDisplay,

    /// Limits are required that the kernel cannot enforce here.
    #[error(
        "the kernel cannot enforce the limits of browsers: {0}; run `pool-cli doctor` to see them"
    )]
    NoCgroup(#[source] NoCgroup),

    /// The operating system would not start the process.
    #[error("cannot start {}: {source}", executable.display())]
    Spawn {
        /// The executable.
        executable: PathBuf,
        /// The reason.
        source: io::Error,
    },

    /// Chromium has ended, by itself or killed by somebody else.
    #[error("Chromium has ended: {0}")]
    Exited(Exit),

    /// Chromium did not answer its first command in time.
    #[error("Chromium was not ready within {waited:?}{}", quoted(stderr))]
    LaunchTimeout {
        /// The time limit that was exceeded.
        waited: Duration,
        /// The end of what it wrote to stderr, without the usual noise.
        stderr: String,
    },

    /// A persistent profile is in use by a Chromium that is not ours.
    #[error("profile_busy: the profile {} is in use by {holder}", directory.display())]
    ProfileBusy {
        /// The profile's user data directory.
        directory: PathBuf,
        /// The user, such as `process 4711`.
        holder: String,
    },

    /// Chromium cannot open a persistent profile, although it comes up without it.
    #[error(
        "Chromium cannot open the profile, which was moved to {}; the next browser starts with an \
         empty one: {exit}",
        moved_to.display()
    )]
    CorruptProfile {
        /// Where the profile's directory is now.
        moved_to: PathBuf,
        /// The exit of the Chromium that had it.
        exit: Exit,
    },

    /// Another pool uses the same state directory.
    #[error(
        "the state directory {} is in use by another pool{}; stop that one or set another `state_dir`",
        directory.display(),
        owner.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    StateDirBusy {
        /// The state directory.
        directory: PathBuf,
        /// The process that holds it, if it left its id.
        owner: Option<u32>,
    },

    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The action that failed, such as `create`.
        action: &'static str,
        /// The path that it was about.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },

    /// Something else that the operating system refused.
    #[error("cannot {action}: {source}")]
    System {
        /// The action that failed, such as `make a pipe`.
        action: &'static str,
        /// The reason.
        source: io::Error,
    },

    /// The egress proxy of a browser does not work.
    #[error(transparent)]
    Proxy(#[from] ProxyError),

    /// Chromium did not do what it was told over the Chrome DevTools Protocol.
    #[error(transparent)]
    Cdp(#[from] CdpError),

    /// A launch that several waited for has failed.
    #[error(transparent)]
    Launch(Arc<Self>),

    /// The directory of a profile is not available.
    #[error("cannot open the profile: {0}")]
    Profile(#[source] BoxError),

    /// `chromiumoxide` could not do what it was asked for.
    #[error("chromiumoxide: {0}")]
    Client(#[source] Box<chromiumoxide::error::CdpError>),
}

impl ChromeError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Wraps an error of `chromiumoxide`.
    pub(crate) fn client(error: chromiumoxide::error::CdpError) -> Self {
        Self::Client(Box::new(error))
    }

    /// Returns `true` if every further try will fail in the same way, until the configuration or
    /// the machine is changed.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::BadExecutable { .. }
            | Self::WrongEngine { .. }
            | Self::ForbiddenArg { .. }
            | Self::NoSandbox { .. }
            | Self::NoWindow { .. }
            | Self::NoExtensions { .. }
            | Self::NoDisplay
            | Self::NoCgroup(_) => true,
            Self::File { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotFound
            ),
            Self::Launch(error) => error.is_permanent(),
            Self::Spawn { .. }
            | Self::Exited(_)
            | Self::LaunchTimeout { .. }
            | Self::ProfileBusy { .. }
            | Self::CorruptProfile { .. }
            | Self::StateDirBusy { .. }
            | Self::System { .. }
            | Self::Proxy(_)
            | Self::Cdp(_)
            | Self::Profile(_)
            | Self::Client(_) => false,
        }
    }

    #[cfg(feature = "policies")]
    pub(crate) fn profile(error: impl Into<BoxError>) -> Self {
        Self::Profile(error.into())
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

fn named_by(variable: bool) -> &'static str {
    if variable { " (from the environment variable CHROME)" } else { "" }
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it wrote: {stderr}") }
}
