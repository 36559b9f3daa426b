//! Nodes over a real NATS server, which each test starts for itself.
#![cfg(all(feature = "nats", feature = "profiles"))]

mod fleet;
mod profiles;
mod support;
mod transport;
