//! The pool as the service sees it: what it needs of a browser, and how a configuration becomes a
//! driver, policies and a pool.

mod browser;
mod changes;
mod chrome;
mod fleet;
mod kind;
mod open;
mod policies;
mod run_directory;
mod slot;

pub use browser::{
    Browser, BrowserDriver, BrowserEnd, Commands, Events, NoConnection, OpenPage, Version, Vitals,
    Wire,
};
pub(crate) use changes::changes;
pub(crate) use chrome::{config as chrome_config, limits as kernel_limits};
pub use fleet::{Fleet, Leased};
pub use kind::{KindSpec, Kinds};
pub(crate) use open::HELD_FROM_START;
pub use open::{OpenError, Opened, open, open_tuned};
pub use policies::tenants;
pub(crate) use run_directory::RunDirectory;
