//! One pool on many machines.
//!
//! A resource never leaves its node, and the node is the only authority over its resources: there
//! is nothing to lock, to elect or to share. A request that its own node cannot serve at once waits
//! in the queues of several nodes at the same time. The first node to grant it makes an offer; the
//! request accepts one offer, and the others are called off. Each node orders its queue by age, and
//! an ask brings its age along, so each node's order is the order of the whole fleet.
//!
//! The crate knows no browser and no HTTP. It has:
//!
//! - [`Fleet`], a running node: it joins, acquires here and elsewhere, and lets others take what
//!   they were offered, over a [`Transport`] and a [`LocalPool`], which every [`pool_core::Pool`]
//!   is;
//! - [`NatsTransport`] and, for tests, [`MemoryNetwork`];
//! - [`Profiles`], directories that travel between the nodes and are never in use twice at a time,
//!   and [`Sessions`], names that belong to one lease of the fleet;
//! - [`Message`], which nodes send each other, and its JSON;
//! - [`engine`], a node as a pure state machine without clock, I/O or tasks.
//!
//! # A pool of anything over NATS
//!
//! A program that has a [`pool_core::Pool`] and a way to reach it from another machine needs four
//! things: connect, join, acquire, and take.
//!
//! ```no_run
//! use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
//! use pool_fleet::engine::Waiting;
//! use pool_fleet::{Acquired, Fleet, Member, NatsOptions, NatsTransport, Wanted};
//! use std::time::Duration;
//! # struct Machines;
//! # #[async_trait]
//! # impl Driver for Machines {
//! #     type Spec = ();
//! #     type Resource = u64;
//! #     type Error = std::io::Error;
//! #     async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<u64, Self::Error> {
//! #         Ok(meta.id.get())
//! #     }
//! # }
//! # async fn dial(_: &str, _: &str) -> std::io::Result<tokio::net::TcpStream> { unimplemented!() }
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let nats = NatsTransport::connect(NatsOptions::new(["nats://127.0.0.1:4222"])).await?;
//! let pool = Pool::builder(Machines).max_size(4).build()?;
//! let fleet = Fleet::join(Member::new("demo", "node-1", "10.0.0.1:7000"), pool, nats).await?;
//!
//! // A client: the lease is here or at another node, whichever has one first.
//! let wanted = Wanted { class: "default".into(), ..Wanted::default() };
//! let waiting = Waiting::new(wanted.into(), Duration::from_secs(30));
//! match fleet.acquire_with(waiting, async |there| dial(&there.address, &there.id).await).await? {
//!     Acquired::Here { lease, .. } => println!("machine {} of this node", *lease),
//!     Acquired::There { remote, connection } => println!("at {}: {connection:?}", remote.node),
//!     _ => unreachable!("there is no third place"),
//! }
//!
//! // The server that the others dial: the first thing it reads is the id of the lease.
//! # let id = "";
//! match fleet.take(id).await {
//!     Some(lease) => println!("machine {} is used from elsewhere", *lease),
//!     None => println!("too late, or never offered: refuse"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run -p pool-fleet --example fleet` runs this as a program of three processes.
//!
//! # What it does not do
//!
//! Nothing is kept for a client that is gone, a lease is not moved, and only its own node can end
//! it. Without the server, each node goes on with what it has. Whoever can read `offer.>` can take
//! leases: use TLS and credentials, as [`NatsOptions::check`] demands beyond loopback.

pub mod engine;
mod local;
mod message;
mod node;
#[cfg(feature = "profiles")]
mod profiles;
mod sessions;
pub mod subject;
mod transport;

pub use local::LocalPool;
pub use message::{
    Answer, Ask, Asks, Beat, Cancel, Cannot, ClassLoad, DecodeError, Incarnation, Load, Message,
    NodeName, Offer, OfferReply, Outcome, Phase, Reason, VERSION, Wanted, Who, WhoReply,
};
pub use node::{
    Acquired, Counters, Fleet, Grant, JoinError, Member, RemoteLease, Snapshot, Waiter,
};
#[cfg(feature = "profiles")]
pub use profiles::{
    ClaimTimes, ClaimedProfile, Holder, Members, Packing, ProfileError, ProfileId, ProfileSettings,
    Profiles, Record, Transfer, TransferDirection, TransferOutcome, unpack,
};
pub use sessions::{Named, Session, SessionEntry, SessionError, Sessions, Shape};
pub use transport::memory::{Faults, MemoryNetwork, MemoryTransport};
#[cfg(feature = "nats")]
pub use transport::nats::{NatsAuth, NatsOptions, NatsTransport};
pub use transport::{
    Connection, Entry, Incoming, ServerInfo, Source, Store, Subscription, Transport,
    TransportError, Upload,
};
