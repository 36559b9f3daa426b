//! The commands, one file for each or for a family of them: `Args` is what clap parses, `run` does it.

pub mod bench;
pub mod config;
pub mod doctor;
pub mod exec;
pub mod operate;
pub mod run;
pub mod status;
pub mod top;
pub mod visit;
pub mod work;
