//! The ways in which a lease, or one of its connections, ends.

use std::fmt;

use pool_chrome::mux::EndReason;

/// The extent of an end, if a lease has several connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The connection of the client that leaves, breaks the rules or does not read.
    Connection,
    /// The lease, with all of its connections: the browser or the pool has ended it.
    Lease,
}

use Scope::{Connection, Lease};

/// Declares [`LeaseEnd`]: each end with its word, its close code, its scope and its sentence.
macro_rules! ends {
    ($($(#[$doc:meta])+ $end:ident: $word:literal, $close:literal, $scope:ident, $sentence:literal;)+) => {
        /// The end of a client's lease.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum LeaseEnd {
            $($(#[$doc])+ $end,)+
        }

        impl LeaseEnd {
            /// Every end.
            pub const ALL: &'static [Self] = &[$(Self::$end),+];

            /// Returns the word for logs and for `leases_ended_total{reason}`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$end => $word,)+ }
            }

            /// Returns the code of the close frame that its clients get.
            #[must_use]
            pub const fn close_code(self) -> u16 {
                match self { $(Self::$end => $close,)+ }
            }

            /// Returns the sentence of the close frame.
            const fn sentence(self) -> &'static str {
                match self { $(Self::$end => $sentence,)+ }
            }

            const fn scope(self) -> Scope {
                match self { $(Self::$end => $scope,)+ }
            }
        }
    };
}

ends! {
    /// Its client closed the WebSocket or its browser, or gave it back by `/release`.
    Released: "released", 1000, Connection, "the lease is over";
    /// Its client's last connection was one to a page, which was closed.
    PageClosed: "released", 1000, Connection, "the page was closed";
    /// Its client's connection broke off.
    ClientGone: "client_gone", 1000, Connection, "the connection was lost";
    /// No client came back within the time that it was kept for.
    KeepOver: "keep_over", 1000, Lease, "no client came back in time";
    /// Its client sent nothing for too long.
    IdleTimeout: "idle_timeout", 4408, Lease, "nothing was sent for too long";
    /// It lasted as long as it may.
    LeaseLimit: "lease_limit", 4410, Lease, "the lease reached its maximum duration";
    /// An operator or its tenant ended it by `/kill`.
    Killed: "killed", 1000, Lease, "the lease was ended by an operator";
    /// The pool drained and the grace was over.
    Drained: "drained", 1001, Lease, "the pool is shutting down";
    /// The browser's process died.
    BrowserCrashed: "browser_crashed", 4500, Lease, "the browser's process died";
    /// The kernel ended the browser, which needed more memory than it may have.
    BrowserOutOfMemory: "browser_out_of_memory", 4500, Lease, "the browser needed more memory than it is allowed";
    /// The browser stopped answering.
    BrowserHung: "browser_hung", 4500, Lease, "the browser stopped answering";
    /// The node of the fleet that has the browser broke off.
    NodeLost: "node_lost", 4500, Connection, "the node that has the browser cannot be reached";
    /// The profile that it has may be another node's by now.
    ProfileLost: "profile_lost", 4500, Lease, "the profile could not be kept for this node";
    /// The client did not read what the browser sent.
    SlowReader: "slow_reader", 1008, Connection, "messages were not read fast enough";
    /// The client sent what is not text.
    NotText: "protocol_error", 1003, Connection, "only text messages are understood";
    /// The client sent a message that is too long.
    TooLong: "protocol_error", 1009, Connection, "a message was too long";
    /// The client broke the rules of WebSocket.
    BadFrame: "protocol_error", 1002, Connection, "a frame was malformed";
    /// The pool took it back.
    Revoked: "revoked", 1000, Lease, "the pool took the browser back";
}

impl LeaseEnd {
    /// Returns the first end with this word.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|end| end.code() == word)
    }

    /// Returns `true` if the whole lease is over, rather than only the connection.
    pub(crate) fn is_for_all(self) -> bool {
        self.scope() == Lease
    }

    /// Returns `true` if the browser has ended by itself.
    pub(crate) const fn is_of_the_browser(self) -> bool {
        matches!(self, Self::BrowserCrashed | Self::BrowserOutOfMemory | Self::BrowserHung)
    }
}

impl fmt::Display for LeaseEnd {
    /// Writes the reason in the close frame: the word, then a sentence. It has at most 123 bytes,
    /// as WebSocket requires.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.sentence())
    }
}

impl From<EndReason> for LeaseEnd {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::BrowserClosed => Self::Released,
            EndReason::PageClosed => Self::PageClosed,
            EndReason::SlowReader => Self::SlowReader,
            EndReason::Crashed => Self::BrowserCrashed,
            EndReason::OutOfMemory => Self::BrowserOutOfMemory,
            EndReason::Hung => Self::BrowserHung,
            EndReason::ClientClosed
            | EndReason::Released
            | EndReason::Revoked
            | EndReason::Protocol
            | EndReason::Closed => Self::Revoked,
        }
    }
}

/// Converts the end of a lease to the reason that its connections report.
impl From<LeaseEnd> for EndReason {
    fn from(end: LeaseEnd) -> Self {
        match end {
            LeaseEnd::BrowserCrashed => Self::Crashed,
            LeaseEnd::BrowserOutOfMemory => Self::OutOfMemory,
            LeaseEnd::BrowserHung => Self::Hung,
            LeaseEnd::SlowReader => Self::SlowReader,
            LeaseEnd::NotText | LeaseEnd::TooLong | LeaseEnd::BadFrame => Self::Protocol,
            LeaseEnd::Released
            | LeaseEnd::PageClosed
            | LeaseEnd::ClientGone
            | LeaseEnd::KeepOver
            | LeaseEnd::IdleTimeout
            | LeaseEnd::LeaseLimit
            | LeaseEnd::Killed
            | LeaseEnd::Drained
            | LeaseEnd::NodeLost
            | LeaseEnd::ProfileLost
            | LeaseEnd::Revoked => Self::Revoked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_fits_a_close_frame() {
        for end in LeaseEnd::ALL {
            assert!(end.to_string().len() <= 123, "{end}");
        }
    }
}
