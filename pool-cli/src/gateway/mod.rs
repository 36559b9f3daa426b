//! The gateway: the HTTP and WebSocket server that clients connect to.
//!
//! A WebSocket is a lease: it is taken before the handshake is answered, and given back when the
//! connection ends. Everything else looks at the pool or changes it.
//!
//! | file | what |
//! |---|---|
//! | `server`, `heads`, `router`, `guard`, `guesses` | connections, requests, routes, who may ask |
//! | `connect`, `upgrade`, `bridge`, `websocket` | a WebSocket from its handshake to its end |
//! | `leasing`, `session`, `sessions`, `end` | the lease behind it |
//! | `traceparent`, `lease_span` | what traces show of it |
//! | `work` | a page's HTML, picture, PDF or elements by one request |
//! | `version`, `pages`, `pressure`, `listing`, `kernel`, `acquire`, `probes` | what clients of other services know |
//! | `dashboard` and its folder | the page for people |
//! | `who`, `usage` | the tenants, and what they have used |
//! | `api`, `snapshot`, `history`, `sampler`, `watchers` | what the dashboard shows |

mod acquire;
mod api;
mod body;
mod bridge;
mod connect;
mod dashboard;
mod end;
mod guard;
mod guesses;
mod heads;
mod history;
mod kernel;
mod lease_id;
mod lease_span;
mod leasing;
mod listing;
mod machine;
mod pages;
mod pressure;
mod probes;
mod problem;
mod query;
mod refusal;
mod router;
mod sampler;
mod server;
mod session;
mod session_view;
mod sessions;
mod settings;
mod snapshot;
mod state;
mod tcp;
mod traceparent;
mod upgrade;
mod usage;
mod version;
mod views;
mod watchers;
mod websocket;
mod who;
mod work;

pub(crate) use traceparent::TraceParent;

pub use end::LeaseEnd;
pub use lease_id::{LeaseId, NotALeaseId};
pub use problem::Problem;
pub use query::LeaseQuery;
pub use server::Server;
pub use settings::{Settings, SettingsError};
pub use state::{Gateway, Phase, Reload, Reloaded};
