//! Placeholder.

mod driver;
mod error;

pub mod cdp;
pub mod egress;
pub mod loopback;
pub mod mux;
pub mod process;

pub use driver::{BrowserSpec, ChromeConfig, ChromeDriver, Reset, Version, VirtualBrowser, Vitals};
pub use error::ChromeError;
