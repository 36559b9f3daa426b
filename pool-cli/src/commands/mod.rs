//! The commands, one file each: `Args` is what clap parses, `run` does it.

pub mod check;
pub mod completions;
pub mod config;
pub mod config_schema;
pub mod config_show;
pub mod doctor;
pub mod exec;
pub mod init;
pub mod man;
pub mod run;
