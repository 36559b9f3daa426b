//! Traces for a collector of OpenTelemetry: what the spans of acquire, lease, launch, reset and
//! check are exported with.
//!
//! Only with the feature `otlp`; without it, everything here does nothing.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
mod none;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use none::Traces;
#[cfg(not(feature = "otlp"))]
pub(crate) use none::follow;
#[cfg(feature = "otlp")]
pub use otlp::Traces;
#[cfg(feature = "otlp")]
pub(crate) use otlp::follow;
