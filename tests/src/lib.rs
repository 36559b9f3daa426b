//! The harness of the end-to-end, fault and security suites.
//!
//! A test is a [`case`]: it starts the real `pool-cli run` as a process of its own, with
//! directories of its own, does something to it with real clients, sockets and signals, and is
//! then judged twice: by its own assertions, and by the [oracle](oracle), which never asks the
//! pool what it could see for itself.
//!
//! ```no_run
//! use browser_pool_tests::{Setup, case};
//!
//! # async fn test() {
//! case(Setup::new().set("pool.max_size", 1), async |case| {
//!     let client = case.service.connect("/").await;
//!     let page = client.page("about:blank").await;
//!     assert_eq!(page.eval("6 * 7").await, 42);
//! })
//! .await;
//! # }
//! ```
//!
//! A test of several machines is a [`fleet`]: services that are nodes of one pool, over a real NATS
//! server, each judged by itself.
//!
//! What a test needs of the machine: Chromium, and for those that are about unmodified clients
//! Node and Python with what `scripts/install-clients` installs. `POOL_CLI` names another binary
//! to test than the one that cargo builds; `POOL_TEST_LONG=1` runs the rounds of a night instead
//! of those of a coffee.

mod binary;
mod cable;
mod canary;
mod case;
mod cdp;
mod disk;
mod far;
mod fleet;
mod holders;
mod home;
mod http;
mod lease_kind;
mod name_server;
mod nats;
pub mod oracle;
mod page;
mod patience;
pub mod process;
mod proxy;
mod script;
mod service;
mod setup;
mod site;
pub mod sockets;
mod trap;

pub use binary::{fake_chromium, pool_cli};
pub use cable::{Cable, CableState};
pub use canary::Canary;
pub use case::{Case, case, case_alone, case_in, refused};
pub use cdp::{Cdp, CdpError, Closed, Refused};
pub use disk::{Filler, SmallDisk};
pub use far::FarMachine;
pub use fleet::{Fleet, Node, fleet};
pub use holders::{Held, Holders};
pub use home::Home;
pub use http::{Response, exchange, request, request_from};
pub use lease_kind::LeaseKind;
pub use name_server::{Answers, NameServer};
pub use nats::Nats;
pub use page::Page;
pub use patience::{eventually, rounds, within};
pub use proxy::{Proxy, ProxyFault};
pub use script::{Script, ScriptOutcome, Talk};
pub use service::{Exit, Service};
pub use setup::{Engine, Setup};
pub use site::{Seen, Site};
pub use trap::Trap;
