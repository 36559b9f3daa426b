use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pool_core::BoxError;

/// Error returned when a policy cannot be built, or fails during a creation.
///
/// A failure during a creation reaches the caller as the cause of
/// [`AcquireError::Unavailable`](pool_core::AcquireError::Unavailable) or
/// [`AcquireError::Timeout`](pool_core::AcquireError::Timeout); downcast
/// [`SharedError::get`](pool_core::SharedError::get) to tell the variants apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A setting makes no sense.
    #[error("{setting} {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// The rule that it breaks, for people.
        why: &'static str,
    },
    /// A profile, region or tenant has a name that is not allowed.
    #[error("{name:?} is not a {kind} name: {why}")]
    Name {
        /// `profile`, `region` or `tenant`.
        kind: &'static str,
        /// The name, cut short if it is long.
        name: String,
        /// The rule that it breaks, for people.
        why: &'static str,
    },
    /// A request or setting names a profile, region or tenant that does not exist.
    #[error("there is no {kind} {name:?}")]
    Unknown {
        /// `profile`, `region` or `tenant`.
        kind: &'static str,
        /// The name, cut short if it is long.
        name: String,
    },
    /// `min_size` of a profile or region is larger than its `max_size`.
    #[error("{kind} {name:?}: min_size {min} is larger than max_size {max}")]
    MinAboveMax {
        /// `profile`, `region` or `tenant`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The configured minimum.
        min: usize,
        /// The configured maximum.
        max: usize,
    },
    /// Every directory of a profile is in use, here or in another process.
    #[error("profile {profile:?} is busy: all {instances} of its directories are in use")]
    ProfileBusy {
        /// The profile.
        profile: String,
        /// Maximum number of directories.
        instances: usize,
    },
    /// A directory could not be read, made, copied, moved or locked.
    #[error("could not {action} {}", path.display())]
    Disk {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A region has no proxy at all.
    #[error("region {region:?} has no proxies")]
    NoProxies {
        /// The region.
        region: String,
    },
    /// A proxy's address cannot be understood. The address is not repeated here, since it may
    /// hold a password.
    #[error("not a proxy address: {why}")]
    ProxyUrl {
        /// The rule that it breaks, for people.
        why: &'static str,
    },
    /// Every proxy of a region, and of its fallback regions, is out of service.
    #[error("every proxy of region {region:?} is down; the next try is in {retry_after:?}")]
    ProxiesDown {
        /// The region that was asked for.
        region: String,
        /// Time until the first of them is let back in.
        retry_after: Duration,
    },
    /// The driver made a resource for a region, but the resource does not go through one of its
    /// proxies.
    #[error("the resource was made without the proxy of region {region:?}")]
    ProxyNotUsed {
        /// The region that was asked for.
        region: String,
    },
    /// A proxy did not pass its probe.
    #[error("proxy {proxy} of region {region:?} failed its probe")]
    ProbeFailed {
        /// The region that the proxy belongs to.
        region: String,
        /// The proxy's address, without credentials.
        proxy: String,
        /// The reason.
        source: BoxError,
    },
    /// A resource could not be warmed.
    #[error("the warm-up failed")]
    WarmUpFailed {
        /// The reason.
        source: BoxError,
    },
    /// Something took too long.
    #[error("{what} took longer than {limit:?}")]
    TookTooLong {
        /// The limited step.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The runtime ended while something was under way on one of its threads.
    #[error("the runtime ended in the meantime")]
    RuntimeGone,
}

/// Adds to a disk error the operation that was tried.
pub(crate) trait DiskContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PolicyError>;
}

impl<T, E: Into<io::Error>> DiskContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PolicyError> {
        self.map_err(|source| PolicyError::Disk {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
