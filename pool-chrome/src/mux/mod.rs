//! The multiplexer: many clients over the one pipe of a Chromium, each with a browser of its own.
//!
//! A [`Multiplexer`] owns the pipe. A [`MuxLease`] is a virtual browser: a default context and
//! everything that its clients make, all of which ends with it. A [`Connection`] is what a client
//! has instead of a WebSocket to a browser's debugging port. One table, in `rules.rs`, says what a
//! client may do.
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
mod budget;
mod connection;
mod end;
mod envelope;
mod framing;
mod hub;
mod lease;
mod lease_options;
mod link;
mod multiplexer;
mod parameters;
mod rules;
mod state;
mod target;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use connection::{Connection, ConnectionReceiver, ConnectionSender};
pub use end::EndReason;
pub use framing::into_frame;
pub use lease::{LeaseTarget, MuxLease};
pub use lease_options::{
    ClientProxies, DefaultContext, FileUse, HolderCommands, LeaseKind, LeaseOptions, LeaseTerms,
};
pub use multiplexer::Multiplexer;
pub use state::Census;
pub use target::SessionId;

/// The parts that are fuzzed.
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub(crate) use super::envelope::{parse, write};
    pub(crate) use super::framing::{session_of, with_session_last, without_session};
    pub(crate) use super::state::stage::Stage;
}
