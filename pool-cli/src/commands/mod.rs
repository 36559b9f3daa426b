//! The commands, one file each: `Args` is what clap parses, `run` does it.

pub mod check;
pub mod completions;
