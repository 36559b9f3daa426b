//! The engine under a fake clock: no runtime, no tasks, every interleaving written down.
//!
//! `RUSTFLAGS="--cfg pool_loom" cargo test -p pool-core --lib --release loom` runs the threads of
//! [`loom`] instead, in every possible order.

#[cfg(pool_loom)]
mod loom;
#[cfg(not(pool_loom))]
mod model;
#[cfg(not(pool_loom))]
mod rig;
