use std::fmt;
use std::sync::OnceLock;

use tokio::sync::Notify;

/// Reasons why a connection, a lease or a whole Chromium has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client went away, or dropped its connection.
    ClientClosed,
    /// The client sent `Browser.close`.
    BrowserClosed,
    /// The page that the connection was bound to is gone; the lease continues.
    PageClosed,
    /// The lease was ended by its holder: released, or dropped.
    Released,
    /// The lease was taken back.
    Revoked,
    /// The client did not read what was sent to it.
    SlowReader,
    /// The client sent something other than text.
    Protocol,
    /// The Chromium has died.
    Crashed,
    /// The kernel has killed the Chromium, which needed more memory than it is allowed.
    OutOfMemory,
    /// The Chromium no longer answered and was killed.
    Hung,
    /// The Chromium was closed by its owner.
    Closed,
}

impl EndReason {
    /// Returns a stable word for logs, metrics and close frames, in snake case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_gone",
            Self::BrowserClosed => "browser_closed",
            Self::PageClosed => "page_closed",
            Self::Released => "released",
            Self::Revoked => "revoked",
            Self::SlowReader => "slow_reader",
            Self::Protocol => "protocol",
            Self::Crashed => "browser_crashed",
            Self::OutOfMemory => "browser_out_of_memory",
            Self::Hung => "browser_hung",
            Self::Closed => "closed",
        }
    }

    /// Returns `true` if the Chromium itself is gone.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        match self {
            Self::Crashed | Self::OutOfMemory | Self::Hung | Self::Closed => true,
            Self::ClientClosed
            | Self::BrowserClosed
            | Self::PageClosed
            | Self::Released
            | Self::Revoked
            | Self::SlowReader
            | Self::Protocol => false,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientClosed => "the client went away",
            Self::BrowserClosed => "the client closed its browser",
            Self::PageClosed => "the page was closed",
            Self::Released => "the lease was released",
            Self::Revoked => "the lease was taken back",
            Self::SlowReader => "the client did not read",
            Self::Protocol => "the client broke the protocol",
            Self::Crashed => "the browser has crashed",
            Self::OutOfMemory => "the browser needed more memory than it is allowed",
            Self::Hung => "the browser did not answer",
            Self::Closed => "the browser was closed",
        })
    }
}

impl std::error::Error for EndReason {}

/// The end of a lease, or of a whole Chromium: set once under a lock, and announced without it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    reason: OnceLock<EndReason>,
    told: Notify,
}

impl Ending {
    /// Sets the reason. Returns `true` if it is the first, which counts; [tell](Self::tell) must
    /// then be called.
    pub(crate) fn set(&self, reason: EndReason) -> bool {
        self.reason.set(reason).is_ok()
    }

    /// Returns the reason, if it is set.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// Wakes those who wait for the end.
    pub(crate) fn tell(&self) {
        self.told.notify_waiters();
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> EndReason {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // Before checking, so that an end in between is not missed.
            told.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_reaches_those_who_wait_and_those_who_come_later() {
        let ending = Ending::default();
        let end = async {
            tokio::task::yield_now().await;
            assert!(ending.set(EndReason::Revoked));
            assert!(!ending.set(EndReason::Closed));
            ending.tell();
        };
        let (reason, ()) = tokio::join!(ending.wait(), end);
        assert_eq!(reason, EndReason::Revoked);
        assert_eq!(ending.wait().await, EndReason::Revoked);
    }
}
