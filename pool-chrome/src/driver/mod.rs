//! Chromium as a pool's resource.

mod chrome_driver;
mod clipboard;
mod config;
#[cfg(feature = "policies")]
mod corrupt_profile;
mod fleet;
mod gate;
mod health;
mod host;
mod oxide;
#[cfg(feature = "policies")]
mod policies;
mod scratch;
mod seat;
mod span;
mod spec;
mod version;
mod virtual_browser;
mod watch;

pub use chrome_driver::{ChromeDriver, Vitals};
pub use config::{ChromeConfig, Reset};
pub use spec::BrowserSpec;
pub use version::Version;
pub use virtual_browser::VirtualBrowser;
