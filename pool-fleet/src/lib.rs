//! One pool on many machines.
//!
//! A resource never leaves its node, and the node is the only authority over its resources: there
//! is nothing to lock, to elect or to share. A request that its own node cannot serve at once waits
//! in the queues of several nodes at the same time. The node that grants it first offers; the
//! request accepts one offer, and the others are called off. Each node orders its queue by age, and
//! an ask brings its age along, so the order of the fleet is the order of the node.
//!
//! The crate knows no browser and no HTTP. It has:
//!
//! - [`Message`], what nodes send each other, and its JSON;
//! - [`engine`], a node as a pure state machine without clock, I/O or tasks;
//! - [`Profiles`] that travel and names of [`Sessions`];
//! - [`Transport`] and [`Store`], over NATS and in memory.

pub mod engine;
mod message;
#[cfg(feature = "profiles")]
mod profiles;
mod sessions;
pub mod subject;
mod transport;

pub use message::{
    Answer, Ask, Asks, Beat, Cancel, Cannot, ClassLoad, DecodeError, Incarnation, Load, Message,
    NodeName, Offer, OfferReply, Outcome, Phase, Reason, VERSION, Wanted, Who, WhoReply,
};
#[cfg(feature = "profiles")]
pub use profiles::{
    ClaimTimes, ClaimedProfile, Holder, Members, Packing, ProfileError, ProfileId, ProfileSettings,
    Profiles, Record, unpack,
};
pub use sessions::{Named, Session, SessionEntry, SessionError, Sessions, Shape};
pub use transport::memory::{Faults, MemoryNetwork, MemoryTransport};
#[cfg(feature = "nats")]
pub use transport::nats::{NatsAuth, NatsOptions, NatsTransport};
pub use transport::{
    Connection, Entry, Incoming, ServerInfo, Source, Store, Subscription, Transport, TransportError,
};
