use std::borrow::Cow;
use std::time::Duration;

use pool_chrome::cdp::CdpError;
use pool_chrome::mux::EndReason;
use pool_core::AcquireError;

use crate::exit::chain;

/// The longest side of a picture in device pixels: beyond it Chromium repeats what it has drawn.
pub(super) const SIDE: f64 = 16_384.0;

/// The largest area of a picture, 4,096 by 16,384: the limit of a shared lease.
pub(super) const AREA: f64 = 67_108_864.0;

/// A reason why a page could not be loaded, or gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The page did not get there in time.
    #[error("the page was not loaded within {waited:?}")]
    Timeout {
        /// Time that it had.
        waited: Duration,
    },
    /// Something on the page did not come in time.
    #[error("{what} within {waited:?}")]
    Wait {
        /// A sentence without its end, such as "nothing matched the selector".
        what: String,
        /// Time that it had.
        waited: Duration,
    },
    /// The page cannot do what was requested.
    #[error("the member {member:?} {why}")]
    Unfit {
        /// The member of the request at fault.
        member: &'static str,
        /// The reason, as the rest of a sentence.
        why: String,
    },
    /// The requested picture is larger than Chromium can draw.
    #[error(
        "a picture of {width} by {height} pixels is too large: Chromium draws no more than {SIDE} \
         a side and {AREA} in all; take parts of the page, or a PDF"
    )]
    TooLarge {
        /// The member of the request at fault.
        member: &'static str,
        width: f64,
        height: f64,
    },
    /// A given script threw an error.
    #[error("a script failed in the page: {error}")]
    Script {
        /// The error, as the page's engine words it.
        error: String,
    },
    /// The page did more at once than could be followed, so that its requests were not filtered.
    #[error("the page sent more requests at once than could be filtered")]
    Flooded,
    /// Chromium could not get the page.
    #[error("{}", because(error))]
    Net {
        /// Chromium's own word, such as `net::ERR_CONNECTION_REFUSED`.
        error: String,
    },
    /// The page's renderer died.
    #[error("the page crashed its renderer")]
    PageCrashed,
    /// The page closed itself.
    #[error("the page closed itself")]
    PageClosed,
    /// The browser is gone.
    #[error("{0}")]
    Browser(EndReason),
    /// There was no browser for it.
    #[error("{0}")]
    NoBrowser(NoBrowser),
    /// The browser would not do what it was told.
    #[error("{0}")]
    Protocol(CdpError),
    /// A screenshot, a PDF or the HTML of the page could not be made.
    #[error("the {what} could not be made: {why}")]
    Capture {
        /// Name of the product.
        what: &'static str,
        /// The reason.
        why: String,
    },
}

/// The reason why there is no browser.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct NoBrowser {
    pub(crate) why: String,
    pub(crate) outlook: Outlook,
}

/// The chance of a browser for the next one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Others have them all: it is worth waiting, however long it takes.
    Busy,
    /// Another attempt may go better.
    Uncertain,
    /// None.
    Hopeless,
}

impl From<AcquireError> for NoBrowser {
    fn from(error: AcquireError) -> Self {
        let outlook = match error {
            AcquireError::Timeout { .. } | AcquireError::QueueFull { .. } => Outlook::Uncertain,
            _ => Outlook::Hopeless,
        };
        Self { why: chain(&error), outlook }
    }
}

/// The consequence of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Another attempt may go better.
    Retry,
    /// Another attempt would go the same way.
    Permanent,
    /// The browser died, and it is not known which of the pages in it was at fault.
    Unknown,
}

/// Chromium's errors for addresses that will fail next time as well.
const PERMANENT: [&str; 14] = [
    "net::ERR_ABORTED",
    "net::ERR_BLOCKED_BY_ADMINISTRATOR",
    "net::ERR_BLOCKED_BY_CLIENT",
    "net::ERR_BLOCKED_BY_RESPONSE",
    "net::ERR_DISALLOWED_URL_SCHEME",
    "net::ERR_INVALID_REDIRECT",
    "net::ERR_INVALID_RESPONSE",
    "net::ERR_INVALID_URL",
    "net::ERR_TOO_MANY_REDIRECTS",
    "net::ERR_UNKNOWN_URL_SCHEME",
    "net::ERR_UNSAFE_PORT",
    "net::ERR_UNSAFE_REDIRECT",
    "net::ERR_HTTP_RESPONSE_CODE_FAILURE",
    "net::ERR_ADDRESS_INVALID",
];

impl Trouble {
    /// Returns a stable word for machines: ours, or Chromium's in lower case
    /// (`connection_refused`).
    pub(crate) fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Timeout { .. } | Self::Wait { .. } => "timeout",
            Self::Unfit { .. } => "bad_body",
            Self::TooLarge { .. } => "picture_too_large",
            Self::Script { .. } => "script_failed",
            Self::Flooded => "flooded",
            Self::Net { error } if error == "net::ERR_ABORTED" => "no_page",
            Self::Net { error } => {
                let word = error.strip_prefix("net::ERR_").unwrap_or(error);
                return Cow::Owned(word.to_ascii_lowercase());
            }
            Self::PageCrashed => "page_crashed",
            Self::PageClosed => "page_closed",
            Self::Browser(reason) => reason.code(),
            Self::NoBrowser(_) => "no_browser",
            Self::Protocol(_) => "protocol",
            Self::Capture { .. } => "capture_failed",
        })
    }

    /// Returns the consequence of this trouble.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Net { error } if error.starts_with("net::ERR_CERT_") => Blame::Permanent,
            Self::Net { error } if PERMANENT.contains(&error.as_str()) => Blame::Permanent,
            Self::PageClosed | Self::Unfit { .. } | Self::TooLarge { .. } | Self::Script { .. } => {
                Blame::Permanent
            }
            Self::Browser(reason) if reason.is_fatal() => Blame::Unknown,
            Self::Timeout { .. }
            | Self::Wait { .. }
            | Self::Flooded
            | Self::Net { .. }
            | Self::PageCrashed
            | Self::Browser(_)
            | Self::NoBrowser(_)
            | Self::Protocol(_)
            | Self::Capture { .. } => Blame::Retry,
        }
    }
}

impl From<CdpError> for Trouble {
    fn from(error: CdpError) -> Self {
        match error {
            CdpError::Ended(reason) => Self::Browser(reason),
            error => Self::Protocol(error),
        }
    }
}

fn because(error: &str) -> String {
    let known = match error {
        "net::ERR_ABORTED" => "the address gave no page: a download, or an answer without content",
        "net::ERR_CONNECTION_REFUSED" => "nobody answers at that host and port",
        "net::ERR_NAME_NOT_RESOLVED" => "there is no host of that name",
        "net::ERR_INTERNET_DISCONNECTED" => "there is no network",
        "net::ERR_PROXY_CONNECTION_FAILED" => "the proxy cannot be reached",
        "net::ERR_TOO_MANY_REDIRECTS" => "the address redirects without end",
        "net::ERR_EMPTY_RESPONSE" => "the server closed the connection without an answer",
        _ => return format!("Chromium could not get the page: {error}"),
    };
    format!("{known} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(error: &str) -> Trouble {
        Trouble::Net { error: error.to_owned() }
    }

    #[test]
    fn codes_are_words_of_ours_or_of_chromium_in_small_letters() {
        assert_eq!(net("net::ERR_CONNECTION_REFUSED").code(), "connection_refused");
        assert_eq!(net("net::ERR_ABORTED").code(), "no_page");
        assert_eq!(Trouble::Browser(EndReason::Crashed).code(), "browser_crashed");
    }

    #[test]
    fn what_cannot_go_better_is_not_tried_again() {
        assert_eq!(net("net::ERR_CERT_DATE_INVALID").blame(), Blame::Permanent);
        assert_eq!(net("net::ERR_CONNECTION_RESET").blame(), Blame::Retry);
        assert_eq!(Trouble::Browser(EndReason::Hung).blame(), Blame::Unknown);
        assert_eq!(Trouble::Browser(EndReason::SlowReader).blame(), Blame::Retry);
    }
}
