//! The pool as the service sees it: what it needs of a browser, and how a configuration becomes a
//! driver, policies and a pool.

mod browser;
mod browser_pool;
mod chrome;
mod open;
mod policies;

pub use browser::{
    Browser, BrowserDriver, BrowserEnd, Commands, Events, NoConnection, OpenPage, Version, Vitals,
    Wire,
};
pub use browser_pool::{BrowserPool, Leased};
pub(crate) use chrome::{config as chrome_config, limits as kernel_limits};
pub(crate) use open::{HELD_FROM_START, RunDirectory};
pub use open::{OpenError, Opened, open, open_tuned};
pub use policies::{KindSpec, Kinds, tenants};
