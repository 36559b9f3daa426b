//! The locks of the standard library, or loom's where that runs the threads.

#[cfg(pool_loom)]
pub(crate) use ::loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(pool_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
