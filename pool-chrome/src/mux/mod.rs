//! The multiplexer: many clients over the one pipe of a Chromium, each with a browser of its own.
//!
//! A [`Multiplexer`] owns the pipe. A [`MuxLease`] is a virtual browser: a default context and
//! whatever its clients make, all of which goes with it. A [`Connection`] is what one client has
//! instead of a WebSocket to a browser's debugging port. What a client may do stands in one table,
//! in `rules.rs`.
//!
//! # Examples
//!
//! ```no_run
//! use pool_chrome::mux::{LeaseOptions, Multiplexer};
//!
//! # async fn example(
//! #     reader: tokio::io::DuplexStream,
//! #     writer: tokio::io::DuplexStream,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let mux = Multiplexer::start(reader, writer).await?;
//! let lease = mux.open_lease(LeaseOptions::default()).await?;
//! let mut client = lease.connect().await?;
//! client.send(r#"{"id":1,"method":"Browser.getVersion"}"#).await?;
//! let reply = client.recv().await;
//! drop(client);
//! lease.end().await?;
//! # Ok(())
//! # }
//! ```

mod address;
mod assumptions;
mod budget;
mod client_proxies;
mod connection;
mod departures;
#[cfg(test)]
mod differential;
mod end;
mod envelope;
mod filter;
mod framing;
mod gate;
mod holder;
#[cfg(test)]
mod judged;
mod lease;
mod lease_options;
mod multiplexer;
mod outbox;
mod parameters;
mod paths;
mod pipe;
mod rules;
mod session_id;
mod state;
mod suffix;
mod target;

pub use budget::Budget;
pub use client_proxies::ClientProxies;
pub use connection::{Connection, ConnectionReceiver, ConnectionSender};
pub use end::EndReason;
pub use holder::{FileUse, HolderCommands};
pub use lease::{LeaseTarget, MuxLease};
pub use lease_options::{DefaultContext, LeaseKind, LeaseOptions, LeaseTerms};
pub use multiplexer::{Census, Multiplexer};
pub use session_id::SessionId;

/// The parts that are fuzzed.
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub(crate) use super::envelope::{parse, write};
    pub(crate) use super::state::stage::Stage;
    pub(crate) use super::suffix::{session_of, with_session_last, without_session};
}
