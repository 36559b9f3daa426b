//! Traces for an OpenTelemetry collector: the export of the spans of acquire, lease, launch, reset
//! and check.
//!
//! Only with the feature `otlp`; without it, everything here does nothing.

#[cfg(feature = "otlp")]
mod otlp;

use std::fmt;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};

#[cfg(not(feature = "otlp"))]
pub use none::Traces;
#[cfg(not(feature = "otlp"))]
pub(crate) use none::{context, follow};
#[cfg(feature = "otlp")]
pub use otlp::Traces;
#[cfg(feature = "otlp")]
pub(crate) use otlp::{context, follow};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The place of a request in its client's trace: the `traceparent` header of W3C Trace Context,
/// version 00.
///
/// # Examples
///
/// ```text
/// traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
///                 trace id                         span id          flags
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// Never 0.
    pub(crate) trace_id: u128,
    /// The client's span; never 0.
    pub(crate) span_id: u64,
    /// Bit 0: the client records this trace.
    pub(crate) flags: u8,
}

impl TraceParent {
    /// Reads the header. If it is malformed or appears twice, it counts as absent, as the
    /// specification requires: a client's broken tracing is no reason to refuse it a browser.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let parent = Self {
            trace_id: hex(trace_id, 32)?,
            span_id: hex(span_id, 16)? as u64,
            flags: hex(flags, 2)? as u8,
        };
        (parent.trace_id != 0 && parent.span_id != 0).then_some(parent)
    }

    /// Puts it into the headers of a request, replacing the client's.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        let value = HeaderValue::try_from(self.to_string());
        headers.insert(TRACEPARENT, value.expect("digits make a header"));
    }

    /// Returns the id of the trace as text, for logs.
    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, flags } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// Reads exactly this many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(not(feature = "otlp"))]
mod none {
    use tracing::Span;
    use tracing_subscriber::layer::Identity;

    use super::TraceParent;
    use crate::config::Config;
    use crate::exit::Failure;

    /// The export of traces, which this build does not have.
    #[derive(Debug)]
    pub struct Traces(());

    impl Traces {
        /// Returns `None`.
        ///
        /// # Errors
        ///
        /// None.
        pub fn start(_: &Config) -> Result<Option<Self>, Failure> {
            Ok(None)
        }

        pub(crate) fn layer(&self) -> Identity {
            Identity::new()
        }
    }

    /// Makes a span a child of the client's.
    pub(crate) fn follow(_: &Span, _: &TraceParent) {}

    /// `None`.
    pub(crate) fn context(_: &Span) -> Option<TraceParent> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_ids_and_the_flags_are_read() {
        let parent = TraceParent::parse(GOOD).expect("it is the specification's own example");
        assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parent.span_id, parent.flags), (0x00f0_67aa_0ba9_02b7, 1));
        assert_eq!(parent.to_string(), GOOD);
    }

    #[test]
    fn what_is_malformed_counts_as_none() {
        for bad in [
            "",
            "00",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            // Another version, which may mean something else by it.
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // No ids.
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            // Upper case, a sign, too short, too long, a part too many.
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-00",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().expect("a header"));
        assert!(TraceParent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().expect("a header"));
        assert!(TraceParent::of(&headers).is_none());
    }
}
