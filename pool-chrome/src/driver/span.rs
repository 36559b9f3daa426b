use tracing::{Instrument, Span};

use crate::ChromeError;

/// Does work within a span, which gets the error as a field if there is one.
pub(super) async fn within<T>(
    span: Span,
    work: impl Future<Output = Result<T, ChromeError>>,
) -> Result<T, ChromeError> {
    let outcome = work.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        span.record("error", tracing::field::display(error));
    }
    outcome
}

/// A span of what is done to a browser, with its number and class.
macro_rules! browser_span {
    ($name:literal, $meta:expr) => {
        tracing::info_span!(
            $name,
            browser = %$meta.id,
            class = %$meta.class,
            error = tracing::field::Empty,
        )
    };
}
pub(super) use browser_span;
