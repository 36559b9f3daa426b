//! A small client of the Chrome DevTools Protocol, for our own use of a browser.

mod error;

pub use error::CdpError;
