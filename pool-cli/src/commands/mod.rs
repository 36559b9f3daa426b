//! The commands, one file each: `Args` is what clap parses, `run` does it.

pub mod bench;
pub mod check;
pub mod completions;
pub mod config;
pub mod config_schema;
pub mod config_show;
pub mod doctor;
pub mod drain;
pub mod exec;
pub mod init;
pub mod lease;
pub mod man;
pub mod reload;
pub mod resize;
pub mod run;
pub mod status;
pub mod top;
pub mod visit;
pub mod work;
