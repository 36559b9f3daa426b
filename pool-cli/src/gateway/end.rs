use std::fmt;

use crate::pool::BrowserEnd;

/// End of a client's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseEnd {
    /// Its client closed the WebSocket or its browser, or gave it back by `/release`.
    Released,
    /// Its client's last connection was one to a page, which was closed.
    PageClosed,
    /// Its client's connection broke off.
    ClientGone,
    /// No client came back within the time that it was kept for.
    KeepOver,
    /// Its client sent nothing for too long.
    IdleTimeout,
    /// It lasted as long as it may.
    LeaseLimit,
    /// Somebody ended it by `/kill`.
    Killed,
    /// The pool drained and the grace was over.
    Drained,
    /// The browser's process died.
    BrowserCrashed,
    /// The kernel ended the browser, which needed more memory than it may have.
    BrowserOutOfMemory,
    /// The browser stopped answering.
    BrowserHung,
    /// The client did not read what the browser sent.
    SlowReader,
    /// The client sent what is not text.
    NotText,
    /// The client sent a message that is too long.
    TooLong,
    /// The client broke the rules of WebSocket.
    BadFrame,
    /// The pool took it back.
    Revoked,
}

impl LeaseEnd {
    /// The word for logs and for `leases_ended_total{reason}`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Released | Self::PageClosed => "released",
            Self::ClientGone => "client_gone",
            Self::KeepOver => "keep_over",
            Self::IdleTimeout => "idle_timeout",
            Self::LeaseLimit => "lease_limit",
            Self::Killed => "killed",
            Self::Drained => "drained",
            Self::BrowserCrashed => "browser_crashed",
            Self::BrowserOutOfMemory => "browser_out_of_memory",
            Self::BrowserHung => "browser_hung",
            Self::SlowReader => "slow_reader",
            Self::NotText | Self::TooLong | Self::BadFrame => "protocol_error",
            Self::Revoked => "revoked",
        }
    }

    /// The code of the close frame that its clients get.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Released
            | Self::PageClosed
            | Self::ClientGone
            | Self::KeepOver
            | Self::Killed
            | Self::Revoked => 1000,
            Self::Drained => 1001,
            Self::BadFrame => 1002,
            Self::NotText => 1003,
            Self::SlowReader => 1008,
            Self::TooLong => 1009,
            Self::IdleTimeout => 4408,
            Self::LeaseLimit => 4410,
            Self::BrowserCrashed | Self::BrowserOutOfMemory | Self::BrowserHung => 4500,
        }
    }
}

impl LeaseEnd {
    /// Returns `true` if the browser has ended by itself.
    pub(crate) const fn is_of_the_browser(self) -> bool {
        matches!(self, Self::BrowserCrashed | Self::BrowserOutOfMemory | Self::BrowserHung)
    }
}

impl fmt::Display for LeaseEnd {
    /// The reason in the close frame: the code, then a sentence. At most 123 bytes, as WebSocket
    /// has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Released => "the lease is over",
            Self::PageClosed => "the page was closed",
            Self::ClientGone => "the connection broke off",
            Self::KeepOver => "no client came back in time",
            Self::IdleTimeout => "nothing was sent for too long",
            Self::LeaseLimit => "the lease lasted as long as it may",
            Self::Killed => "the lease was ended by an operator",
            Self::Drained => "the pool shuts down",
            Self::BrowserCrashed => "the browser's process died",
            Self::BrowserOutOfMemory => "the browser needed more memory than it may have",
            Self::BrowserHung => "the browser stopped answering",
            Self::SlowReader => "messages were not read fast enough",
            Self::NotText => "only text messages are understood",
            Self::TooLong => "a message was too long",
            Self::BadFrame => "a frame was malformed",
            Self::Revoked => "the pool took the browser back",
        };
        write!(f, "{}: {sentence}", self.code())
    }
}

impl From<BrowserEnd> for LeaseEnd {
    fn from(end: BrowserEnd) -> Self {
        match end {
            BrowserEnd::Closed => Self::Released,
            BrowserEnd::PageClosed => Self::PageClosed,
            BrowserEnd::Crashed => Self::BrowserCrashed,
            BrowserEnd::OutOfMemory => Self::BrowserOutOfMemory,
            BrowserEnd::Hung => Self::BrowserHung,
            BrowserEnd::SlowReader => Self::SlowReader,
            BrowserEnd::Revoked => Self::Revoked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LEASE_ENDS;

    const ALL: [LeaseEnd; 16] = [
        LeaseEnd::Released,
        LeaseEnd::PageClosed,
        LeaseEnd::ClientGone,
        LeaseEnd::KeepOver,
        LeaseEnd::IdleTimeout,
        LeaseEnd::LeaseLimit,
        LeaseEnd::Killed,
        LeaseEnd::Drained,
        LeaseEnd::BrowserCrashed,
        LeaseEnd::BrowserOutOfMemory,
        LeaseEnd::BrowserHung,
        LeaseEnd::SlowReader,
        LeaseEnd::NotText,
        LeaseEnd::TooLong,
        LeaseEnd::BadFrame,
        LeaseEnd::Revoked,
    ];

    #[test]
    fn every_end_has_a_series_and_fits_a_close_frame() {
        for end in ALL {
            assert!(LEASE_ENDS.contains(&end.code()), "{end}");
            assert!(end.to_string().len() <= 123, "{end}");
        }
    }
}
