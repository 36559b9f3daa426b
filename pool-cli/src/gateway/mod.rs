//! The gateway: the HTTP and WebSocket server that clients connect to.
//!
//! A WebSocket is a lease: it is taken before the handshake is answered, and given back when the
//! connection ends. Everything else looks at the pool or changes it.
//!
//! | file | what |
//! |---|---|
//! | `server`, `tcp`, `request`, `address`, `router`, `guard`, `who` | connections, requests, routes, and who may ask |
//! | `connect`, `bridge`, `websocket` | a WebSocket from its handshake to its end |
//! | `relay`, `fleet` | requests that go between the nodes of a fleet, and what it shows of itself |
//! | `query`, `leasing`, `lease`, `leases`, `problem` | the lease behind it, or the refusal |
//! | `work` | a page's HTML, picture, PDF or elements by one request |
//! | `compat` | what clients of Chromium, browserless and Kernel know |
//! | `api`, `snapshot`, `history`, `usage` | what the dashboard and the commands show |
//! | `dashboard` and its folder | the page for people |
//! | `state`, `settings` | what every route works with |

mod address;
mod api;
mod bridge;
mod compat {
    //! Routes in the shape of other services, for the clients that know them.

    pub(super) mod browserless;
    pub(super) mod chromium;
    pub(super) mod kernel;
}
mod connect;
mod dashboard;
mod fleet;
mod guard;
mod history;
mod lease;
mod leases;
mod leasing;
mod problem;
mod query;
mod relay;
mod request;
mod router;
mod server;
mod settings;
mod snapshot;
mod state;
pub(crate) mod tcp;
mod usage;
mod websocket;
mod who;
mod work;

pub use lease::{LeaseId, NotALeaseId};
pub use problem::{Code, Problem, reference};
pub use query::LeaseQuery;
pub use server::Server;
pub use settings::{Settings, SettingsError};
pub use state::{Gateway, Phase, Reload};

pub use crate::pool::LeaseEnd;
