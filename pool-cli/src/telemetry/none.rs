use tracing::Span;
use tracing_subscriber::layer::Identity;

use super::TraceParent;
use crate::config::Config;
use crate::exit::Failure;

/// The export of traces, which this build does not have.
#[derive(Debug)]
pub struct Traces(());

impl Traces {
    /// `None`.
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
