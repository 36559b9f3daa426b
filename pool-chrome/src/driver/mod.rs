//! Chromium as a pool's resource.

mod chrome_driver;
mod config;
mod health;
mod host;
mod hosts;
mod scratch_page;
mod spec;
mod virtual_browser;
mod watch;

pub use chrome_driver::{ChromeDriver, Vitals};
pub use config::{ChromeConfig, Reset};
pub use host::Version;
pub use spec::BrowserSpec;
pub use virtual_browser::VirtualBrowser;
