//! A fair, cancel-safe, self-healing pool of anything that is slow to make.
//!
//! You bring a [`Driver`], which makes, checks, cleans and ends a resource, and any number of
//! [policies](Policy), which decide who gets what and when it goes. The pool does the rest:
//!
//! - **Hand-off is atomic.** A resource that comes back is granted under the lock to the best
//!   waiter that it fits. Nobody is notified to race for it.
//! - **Cancel safe.** A dropped [`acquire`](Pool::acquire) leaves the queue, and a resource it had
//!   just been granted goes to the next waiter. Creation belongs to the pool, not to the caller.
//! - **Exact.** Everything that exists, even if it is being closed, counts towards `max_size`.
//! - **Fair.** One key gives priority, ageing and first come, first served; no [`Class`] of
//!   resources starves another, and no [`Group`] of requests does either.
//! - **Bounded.** Waiting, creating, cleaning, checking and closing have timeouts, the queue has a
//!   maximum length, and failing creations have a breaker.
//!
//! # Examples
//!
//! ```
//! use pool_core::{Driver, Meta, Pool, Reporter, async_trait};
//!
//! struct Greeters;
//!
//! #[async_trait]
//! impl Driver for Greeters {
//!     type Spec = ();
//!     type Resource = String;
//!     type Error = std::io::Error;
//!
//!     async fn create(&self, _: &(), meta: &Meta, _: Reporter) -> Result<String, Self::Error> {
//!         Ok(format!("hello from {}", meta.id))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::builder(Greeters).max_size(2).build()?;
//! let first = pool.acquire().await?;
//! let second = pool.acquire().await?;
//! assert_eq!((first.as_str(), second.as_str()), ("hello from 1", "hello from 2"));
//!
//! drop(first);
//! assert_eq!(*pool.acquire().await?, "hello from 1");
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//!
//! The pool is a pure state machine (`engine`) behind one mutex, in a thin async shell. The engine
//! has no clock, no I/O and no tasks; it is told the time and answers with what must be done. No
//! hook, waker or `Drop` of a user ever runs under the lock.

mod acquire;
mod builder;
mod config;
mod driver;
mod engine;
mod error;
mod event;
mod lease;
mod policy;
mod pool;
mod request;
mod resource;
mod shell;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;

pub use acquire::Acquire;
pub use async_trait::async_trait;
pub use builder::PoolBuilder;
pub use config::Config;
pub use driver::{Driver, Reporter};
pub use error::{
    Aborted, AcquireError, BoxError, BuildError, Rejection, RejectionKind, SharedError, TimedOut,
};
pub use event::{CloseReason, Event, EventStream, Refusal};
pub use lease::Lease;
pub use policy::{Adjustment, Limits, Policy, Verdict};
pub use pool::{DrainReport, Pool};
pub use request::{Group, Labels, Request};
pub use resource::{Class, Meta, ResourceId, ResourceInfo, ResourceState};
pub use stats::{ClassStats, Counters, GroupStats, Load, Stats, WaiterInfo};
