//! A small client of the Chrome DevTools Protocol, for one's own use of a browser.

mod client;
mod error;

pub use client::{Client, Event, Session};
pub use error::CdpError;
