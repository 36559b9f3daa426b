//! The pool as the service sees it: what it needs of a browser, and how a configuration becomes a
//! driver, policies and a pool.

mod browser;
mod fleet;

pub use browser::{Browser, BrowserDriver, BrowserEnd, Commands, Events, Version, Vitals, Wire};
pub use fleet::{Fleet, Leased};
