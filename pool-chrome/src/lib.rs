//! Placeholder.

mod error;

pub mod egress;
pub mod process;

pub use error::ChromeError;
