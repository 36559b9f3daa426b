//! The pool as the service sees it: what it needs from a browser, and how a configuration becomes a
//! driver, policies and a pool.

mod browser;
mod browser_pool;
mod chrome;
mod end;
mod open;
mod policies;

pub use browser::{
    Browser, BrowserDriver, Commands, Events, NoConnection, OpenPage, Version, Vitals, Wire,
};
pub use browser_pool::{BrowserPool, Leased};
pub use end::LeaseEnd;
pub(crate) use open::RunDirectory;
pub use open::{OpenError, Opened, open, open_tuned};
pub use policies::{KindSpec, Kinds, tenants};
