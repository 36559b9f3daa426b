//! The way out of a proxied Chromium.
mod error;
pub use error::ProxyError;
