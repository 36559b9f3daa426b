//! `pool-cli`: a warm pool of real Chromium browsers as a service.
//!
//! The library target exists so that the binary, its tests and its benchmarks share one code; its
//! items are not a stable interface.

pub mod alerts;
pub mod api;
mod bench;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod exit;
pub mod fleet;
pub mod gateway;
mod loader;
pub mod logging;
pub mod metrics;
pub mod pool;
pub mod reloader;
pub mod service;
pub mod stdout;
pub mod telemetry;
mod visit;
mod work;
