//! A scripted driver, and a suite that any driver can be put through.
//!
//! [`FakeDriver`] stands in for the real thing in tests of policies, gateways and the pool
//! itself. Its [`FakeControl`] decides what becomes of each create, check, recycle, close and
//! revoke, and remembers what happened. [`conformance`] shows that a driver of your own keeps
//! the contract of [`Driver`](crate::Driver).
//!
//! # Examples
//!
//! ```
//! use pool_core::Pool;
//! use pool_core::testing::{Behaviour, FakeDriver, Step, until};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let driver = FakeDriver::new();
//! let control = driver.control();
//! control.set(Step::Create, Behaviour::Hold);
//! let pool = Pool::builder(driver).max_size(1).build()?;
//!
//! let acquire = tokio::spawn({
//!     let pool = pool.clone();
//!     async move { pool.acquire().await }
//! });
//! until("the creation has begun", || control.held(Step::Create) == 1).await;
//! assert_eq!(pool.load().creating, 1);
//!
//! control.release(Step::Create);
//! let lease = acquire.await??;
//! assert_eq!(lease.id(), lease.meta().id);
//! control.assert_sound();
//! # Ok(())
//! # }
//! ```

mod behaviour;
mod bench;
mod conformance;
mod control;
mod fake_driver;
mod fake_resource;
mod ledger;

pub use behaviour::{Behaviour, Step};
pub use bench::{Reports, meta, reporter, settle, until};
pub use conformance::{Conformance, conformance};
pub use control::FakeControl;
pub use fake_driver::FakeDriver;
pub use fake_resource::{FakeError, FakeResource, FakeSpec, Touch};
pub use ledger::{Call, Outcome};
