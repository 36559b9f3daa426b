//! The faults of `promises`, made for real, each followed by the oracle.
//!
//! A test is named after its row: `f06_pool_killed_under_load`. Those that are about leases run
//! for both kinds.

#![allow(clippy::future_not_send, reason = "each test runs on a thread of its own")]

mod clients;
mod configuration;
mod crashes;
mod fleet;
mod hangs;
mod keep;
mod launches;
mod load;
mod machine;
mod policies;
mod pool_death;
mod profiles;
mod proxies;
mod release;
mod signals;
mod state_leaks;
mod support;
mod traffic;
