//! Placeholder.

mod error;

pub mod cdp;
pub mod egress;
pub mod loopback;
pub mod mux;
pub mod process;

pub use error::ChromeError;
