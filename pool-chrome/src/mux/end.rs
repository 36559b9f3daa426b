use std::fmt;

/// Reasons why a connection, a lease or a whole Chromium has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client went away, or dropped its connection.
    ClientClosed,
    /// The client sent `Browser.close`.
    BrowserClosed,
    /// The page that the connection was one to is gone; the lease goes on.
    PageClosed,
    /// The lease was ended by its holder: released, or dropped.
    Released,
    /// The lease was taken back.
    Revoked,
    /// The client did not read what was sent to it.
    SlowReader,
    /// The client sent what is not text.
    Protocol,
    /// The Chromium has died.
    Crashed,
    /// The kernel has ended the Chromium, which needed more memory than it may have.
    OutOfMemory,
    /// The Chromium did not answer any more and was killed.
    Hung,
    /// The Chromium was closed by its owner.
    Closed,
}

impl EndReason {
    /// A stable word for logs, metrics and close frames, in snake case.
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
        matches!(self, Self::Crashed | Self::OutOfMemory | Self::Hung | Self::Closed)
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
            Self::OutOfMemory => "the browser needed more memory than it may have",
            Self::Hung => "the browser did not answer",
            Self::Closed => "the browser was closed",
        })
    }
}

impl std::error::Error for EndReason {}
