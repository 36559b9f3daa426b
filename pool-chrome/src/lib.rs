//! Real Chromium browsers for a pool: launched, supervised, multiplexed, cleaned and checked.
//!
//! [`ChromeDriver`] makes a [`pool_core::Pool`] of [`VirtualBrowser`]s. To a client (unmodified
//! Playwright, Puppeteer and chromiumoxide included), each is a browser of its own: alone in its
//! Chromium (an *exclusive* lease), or one of many that share one (*shared* leases). Everything
//! that a client makes is removed with its lease, and that is checked.
//!
//! No Chromium listens on any port. It is driven over a pipe, which the [multiplexer](mux) shares
//! among all clients, and it exits by itself when the pipe closes, however this process ends.
//!
//! # Layers
//!
//! Each is useful without those above it.
//!
//! | layer | what it does |
//! |---|---|
//! | [`process`] | launches one Chromium and supervises it until nothing of it is left |
//! | [`egress`] | a proxy with credentials for a Chromium that must not know them |
//! | [`mux`] | gives each client a browser of its own over one pipe, and filters what it may do |
//! | [`cdp`], [`loopback`] | clients of such a browser: in this process, or over a WebSocket |
//! | [`ChromeDriver`] | all of it behind [`pool_core::Driver`] |
//!
//! # What shared leases are, and what they are not
//!
//! They keep the jobs of one team apart: contexts, pages, storage, downloads, events, windows. They
//! are not a wall between hostile tenants: the leases share one browser process, and with it the
//! clipboard, the CPU and its death. Give hostile tenants exclusive leases.
//!
//! # Examples
//!
//! ```no_run
//! use pool_chrome::{ChromeConfig, ChromeDriver, mux::LeaseKind};
//! use pool_core::Pool;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let driver = ChromeDriver::start(ChromeConfig::new().lease(LeaseKind::Shared)).await?;
//! let pool = Pool::builder(driver).max_size(8).build()?;
//!
//! let browser = pool.acquire().await?;
//! let page = browser.new_page("https://example.org").await?;
//! println!("{:?}", page.get_title().await?);
//! drop(browser); // its context is disposed, and the next lease starts clean
//!
//! pool.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `policies`: the traits of `pool-policies` for [`BrowserSpec`] and [`VirtualBrowser`].

mod driver;
mod error;

pub mod cdp;
pub mod egress;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod loopback;
pub mod mux;
pub mod process;
pub mod protocol;

pub use driver::{BrowserSpec, ChromeConfig, ChromeDriver, Reset, Version, VirtualBrowser, Vitals};
pub use error::ChromeError;
