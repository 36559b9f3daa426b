//! Persistent profiles that Chromium cannot open.

use std::sync::Arc;

use super::fleet::Fleet;
use super::host::Host;
use super::spec::BrowserSpec;
use crate::ChromeError;

impl Fleet {
    /// Launches once more where the first Chromium has ended before it was ready, and moves the
    /// profile aside if it is to blame.
    ///
    /// A Chromium may end for many reasons, and a profile holds somebody's logins. So it is to
    /// blame only if two Chromiums in a row end with it and one without it comes up.
    pub(super) async fn launch_again(&self, spec: &BrowserSpec) -> Result<Arc<Host>, ChromeError> {
        let exit = match self.start(spec.clone()).await {
            Err(ChromeError::Exited(exit)) => exit,
            other => return other,
        };
        let Ok(other) = self.start(spec.without_profile()).await else {
            return Err(ChromeError::Exited(exit));
        };
        other.close_if_unused().await;
        drop(other);
        let moved_to = spec.quarantine().await?;
        Err(ChromeError::CorruptProfile { moved_to, exit })
    }
}
