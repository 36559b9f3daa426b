//! The pool as the service sees it: what it needs of a browser, and how a configuration becomes a
//! driver, policies and a pool.

mod browser;
mod changes;
mod chrome;
mod fleet;
mod kind;
mod open;
mod policies;
mod slot;

pub use browser::{Browser, BrowserDriver, BrowserEnd, Commands, Events, Version, Vitals, Wire};
pub(crate) use changes::changes;
pub use fleet::{Fleet, Leased};
pub use kind::{KindSpec, Kinds};
pub(crate) use open::HELD_FROM_START;
pub use open::{OpenError, Opened, open, open_tuned};
